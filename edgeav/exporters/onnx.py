"""ONNX for ONNX Runtime: one file; int8 as QDQ (quantize and dequantize around every operator), unsigned activations,
signed weights, one scale per output channel. The formats without calibration are in onnx_weights.py.

Nodes are named after their modules ("video.convs.2/conv2d_7"): the plan, profiles and people then know which is which.
https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html
"""

from __future__ import annotations

import ast
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import torch

from edgeav.errors import needs
from edgeav.exporters.graph import module_path, quiet, trace
from edgeav.exporters.onnx_bytes import keep_bytes
from edgeav.exporters.onnx_fp8 import fp8_inputs, round_to_fp8
from edgeav.exporters.onnx_learned import tensor_ranges
from edgeav.exporters.onnx_weights import compress_weights, module_of_name, plain_matrices
from edgeav.exporters.rewrites import by_blocks, onnxruntime_form
from edgeav.models import AVModel
from edgeav.quant.plan import FP8, Ends, Plan
from edgeav.quant.ranges import choose, histograms
from edgeav.runtime.bundle_check import OUTPUTS
from edgeav.runtime.features import Inputs
from edgeav.runtime.onnxruntime_session import open_session

if TYPE_CHECKING:
    from onnxruntime.quantization import CalibrationDataReader

MODEL = "model.onnx"
MULTIPLIES = ["Conv", "MatMul", "Gemm"]
# What only moves bytes between two integer convolutions moves a quarter of them when it is quantized too; between
# float operators it would only add rounding, so the trunk's stay as they are, and so do those of a role kept in float.
MOVES = ["Relu", "Reshape", "Transpose", "Concat", "Slice", "Unsqueeze", "Pad"]
MOVES_FOR = {"audio": "audio.linear", "video": "video.linear"}  # where a front end itself reshapes: whom it does it for
INTEGER_KERNELS = (
    "QLinearConv",
    "QGemm",
    "MatMulIntegerToFloat",
    "DynamicQuantizeMatMul",
    "QLinearMatMul",
    "MatMulInteger",
    "ConvInteger",
)


def write_onnx(model: AVModel, path: Path, opset: int) -> None:
    """Export a deployable model as one self-contained float32 file with dynamic N."""
    with quiet():
        program = torch.onnx.export(
            trace(model, model.config.max_steps),
            input_names=list(model.config.inputs.names),
            output_names=list(OUTPUTS),
            opset_version=opset,
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    proto = program.model_proto
    for node in proto.graph.node:
        node.name = f"{_module_of(node)}/{node.name.removeprefix('node_')}"
        del node.metadata_props[:]  # stack traces, with the paths of the machine that exported
        node.doc_string = ""
    for value in (*proto.graph.input, *proto.graph.output, *proto.graph.value_info, *proto.graph.initializer):
        del value.metadata_props[:]
    onnx.save(proto, path)


def integer_form(model: AVModel, plan: Plan) -> AVModel:
    """A deployable model as `quantize_onnx` shall get it: as in float, but an integer stem goes over blocks."""
    return onnxruntime_form(by_blocks(model) if plan.quantizes("video.stem.conv") else model)


def quantize_onnx(
    source: Path,
    path: Path,
    plan: Plan,
    calibration: Sequence[Inputs],
    cache: Path | None = None,
) -> None:
    """The float32 file `source` in the plan's formats. `cache`: a file of ranges, to be used, or made if it is absent.

    Ranges come first: they are those of the float model, or those that training learned.
    """
    with tempfile.TemporaryDirectory() as place, quiet():
        ready = Path(place) / "ready.onnx"
        proto = onnx.load(source)
        plain_matrices(proto, plan)
        if any(f in plan.formats for f in FP8):
            found = _ranges(proto, fp8_inputs(proto, plan), calibration, plan)
            round_to_fp8(proto, plan, found)
        onnx.save(proto, ready)
        if "int8" in plan.formats:
            kept = cache or Path(place) / "ranges.json"
            _quantize_static(ready, path, plan, calibration, kept)
        else:
            onnx.save(proto, path)
    compress_weights(path, plan)


def _quantize_static(source: Path, path: Path, plan: Plan, calibration: Sequence[Inputs], cache: Path) -> None:
    quantization = _quantization()
    from onnxruntime.quantization.shape_inference import quant_pre_process

    prepared = source.with_name("prepared.onnx")
    quant_pre_process(source, prepared, skip_symbolic_shape=True)  # symbolic inference fails on this graph
    proto = onnx.load(prepared)
    integer = integer_nodes(proto, plan)
    if plan.learned:
        _save_ranges(tensor_ranges(plan, integer, MOVES), cache)
    elif plan.ranges != "minmax" and not cache.exists():
        _save_ranges(_moved(proto, _ranges(proto, _observed(proto), calibration, plan)), cache)
    quantization.quantize_static(
        prepared,
        path,
        _reader(calibration, [value.name for value in proto.graph.input]),
        quant_format=quantization.QuantFormat.QDQ,
        op_types_to_quantize=MULTIPLIES + MOVES,
        nodes_to_exclude=_float_nodes(proto, integer),
        per_channel=True,
        activation_type=quantization.QuantType.QUInt8,
        weight_type=quantization.QuantType.QInt8,
        calibrate_method=quantization.CalibrationMethod.MinMax,
        calibration_cache_path=cache,
        # Without CalibMaxIntermediateOutputs, which should bound the memory: ONNX Runtime 1.31 forgets all that it saw
        # whenever that many clips are full. What it keeps is two numbers of each activation and clip.
        extra_options={
            # Their sums go on to float operators: rounding them to 8 bits costs accuracy and saves nothing.
            "OpTypesToExcludeOutputQuantization": ["MatMul", "Gemm"],
        },
    )
    keep_bytes(path)


def integer_modules(path: Path) -> set[str]:
    """The modules that ONNX Runtime computes in integer kernels, read from the graph as it optimizes it here."""
    with tempfile.TemporaryDirectory() as place:
        optimized = Path(place) / "optimized.onnx"
        open_session(path, save=optimized)
        graph = onnx.load(optimized).graph
    return {module_of_name(node.name) for node in graph.node if node.op_type in INTEGER_KERNELS}


def _ranges(
    proto: onnx.ModelProto, wanted: Sequence[str], calibration: Sequence[Inputs], plan: Plan
) -> dict[str, Ends]:
    """Of the `wanted` values by name; one clip's activations are in memory at a time, and a histogram of each."""
    found = histograms(_activations(proto, wanted, calibration))
    return {name: choose(histogram, plan.ranges) for name, histogram in found.items()}


def _activations(
    proto: onnx.ModelProto, wanted: Sequence[str], calibration: Sequence[Inputs]
) -> Iterator[dict[str, np.ndarray]]:
    """The `wanted` values of each clip."""
    watched = onnx.ModelProto()
    watched.CopyFrom(proto)
    names = [value.name for value in proto.graph.input]
    there = {value.name for value in proto.graph.output}
    watched.graph.output.extend(onnx.ValueInfoProto(name=name) for name in wanted if name not in there | set(names))
    session = open_session(watched.SerializeToString(), threads=0, optimized=False)  # else values would vanish
    outputs = [name for name in wanted if name not in names]
    for inputs in calibration:
        feed = inputs.named(names)
        answers = [np.asarray(value) for value in session.run(outputs, feed)]
        yield {name: feed[name] for name in wanted if name in feed} | dict(zip(outputs, answers, strict=True))


def _observed(proto: onnx.ModelProto) -> list[str]:
    """Names of the float values around the operators that may be quantized, without constants."""
    inferred = onnx.shape_inference.infer_shapes(proto).graph
    values = [*inferred.value_info, *inferred.input, *inferred.output]
    floats = {v.name for v in values if v.type.tensor_type.elem_type == onnx.TensorProto.FLOAT}
    floats -= {constant.name for constant in proto.graph.initializer}
    nodes = [node for node in proto.graph.node if node.op_type in MULTIPLIES + MOVES]
    return [name for name in dict.fromkeys(n for node in nodes for n in (*node.input, *node.output)) if name in floats]


def _moved(proto: onnx.ModelProto, ranges: dict[str, Ends]) -> dict[str, Ends]:
    """What is only moved keeps its range: zeros beside it, or a part of it alone, would have another one."""
    found = dict(ranges)
    for node in proto.graph.node:
        if node.op_type in MOVES and node.op_type != "Relu" and node.output[0] in found:
            data = node.input if node.op_type == "Concat" else node.input[:1]
            known = {found[name] for name in data if name in found}
            if len(known) == 1:
                found[node.output[0]] = known.pop()
    return found


def _save_ranges(ranges: dict[str, Ends], path: Path) -> None:
    """In the form in which ONNX Runtime keeps its own."""
    from onnxruntime.quantization.calibrate import TensorData, TensorsData, save_tensors_data

    data: dict[str, Any] = {
        name: TensorData(lowest=np.array(low, np.float32), highest=np.array(high, np.float32))
        for name, (low, high) in ranges.items()
    }
    save_tensors_data(TensorsData(_quantization().CalibrationMethod.MinMax, data), path)


def _float_nodes(proto: onnx.ModelProto, integer: Sequence[onnx.NodeProto]) -> list[str]:
    """Names of the nodes that stay float: by the plan, and everything in the trunk that only moves bytes."""
    rounded = {node.name for node in integer}
    names = [node.name for node in proto.graph.node if node.op_type in MULTIPLIES + MOVES]
    return [name for name in names if name not in rounded]


def integer_nodes(proto: onnx.ModelProto, plan: Plan) -> list[onnx.NodeProto]:
    """What the plan has in integers: layers, and what moves numbers between them.

    ONNX Runtime's integer convolution copies every patch, which one channel in (a log-mel) does not repay: the first
    layer of a Fast Conformer takes 0.32 ms for 4 s in integers and 0.08 in float, so it stays float there.
    """
    nodes = [node for node in proto.graph.node if node.op_type in MULTIPLIES + MOVES]
    shapes = {constant.name: list(constant.dims) for constant in proto.graph.initializer}
    planned = [node for node in nodes if _integer(module_of_name(node.name), node.op_type, plan)]
    return [node for node in planned if not _of_one_channel(node, shapes)]


def _of_one_channel(node: onnx.NodeProto, shapes: Mapping[str, Sequence[int]]) -> bool:
    """A convolution from one channel to several; not a depthwise one."""
    if node.op_type != "Conv" or node.input[1] not in shapes:
        return False
    groups = next((a.i for a in node.attribute if a.name == "group"), 1)
    return shapes[node.input[1]][1] == groups == 1


def _integer(path: str, operator: str, plan: Plan) -> bool:
    moves_in_trunk = operator in MOVES and path.split(".")[0] not in MOVES_FOR
    return not moves_in_trunk and plan.quantizes(MOVES_FOR.get(path, path))


def _module_of(node: onnx.NodeProto) -> str:
    """The path of the module that made `node`; "" for the model itself."""
    scopes = next((p.value for p in node.metadata_props if p.key == "pkg.torch.onnx.name_scopes"), "['']")
    path = [scope for scope in ast.literal_eval(scopes)[:-1] if scope]  # the last scope is the operator
    return module_path(path[-1] if path else "")


def _reader(calibration: Sequence[Inputs], names: Sequence[str]) -> CalibrationDataReader:
    class Reader(_quantization().CalibrationDataReader):
        def __init__(self) -> None:
            self.rest = iter(calibration)

        def get_next(self) -> dict | None:
            inputs = next(self.rest, None)
            return None if inputs is None else inputs.named(names)

    return Reader()


def _quantization():
    try:
        import onnxruntime.quantization as quantization
    except ImportError as error:
        raise needs("onnxruntime", "onnxruntime") from error
    return quantization
