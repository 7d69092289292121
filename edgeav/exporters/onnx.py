"""ONNX for ONNX Runtime: one file; int8 as QDQ (quantize and dequantize around every operator), unsigned activations,
signed weights, one scale per output channel.

Nodes are named after their modules ("video.convs.2/conv2d_7"): the plan, profiles and people then know which is which.
https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html
"""

from __future__ import annotations

import ast
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import onnx
import torch

from edgeav.errors import needs
from edgeav.exporters.graph import module_path, quiet, trace
from edgeav.models import AVModel
from edgeav.quant.plan import Plan
from edgeav.runtime.bundle_check import OUTPUTS
from edgeav.runtime.features import Inputs

if TYPE_CHECKING:
    from onnxruntime.quantization import CalibrationDataReader

MODEL = "model.onnx"
MULTIPLIES = ["Conv", "MatMul", "Gemm"]
# What only moves bytes between two integer convolutions moves a quarter of them when it is quantized too; between
# float operators it would only add rounding, so the trunk's stay as they are, and so do those of a role kept in float.
MOVES = ["Relu", "Reshape", "Transpose", "Concat", "Slice", "Unsqueeze"]
MOVES_FOR = {"audio": "audio.linear", "video": "video.linear"}  # where a front end itself reshapes: whom it does it for
INTEGER_KERNELS = ("QLinearConv", "QGemm", "MatMulIntegerToFloat", "QLinearMatMul", "MatMulInteger", "ConvInteger")


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


def quantize_onnx(source: Path, path: Path, plan: Plan, calibration: Sequence[Inputs]) -> None:
    """Static int8 of the float32 file `source`, with ONNX Runtime's own quantizer."""
    quantization = _quantization()
    from onnxruntime.quantization.shape_inference import quant_pre_process

    with tempfile.TemporaryDirectory() as place, quiet():
        prepared = Path(place) / "prepared.onnx"
        quant_pre_process(source, prepared, skip_symbolic_shape=True)  # symbolic inference fails on this graph
        quantization.quantize_static(
            prepared,
            path,
            _reader(calibration, [value.name for value in onnx.load(prepared).graph.input]),
            quant_format=quantization.QuantFormat.QDQ,
            op_types_to_quantize=MULTIPLIES + MOVES,
            nodes_to_exclude=_float_nodes(onnx.load(prepared), plan),
            per_channel=True,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
            calibrate_method=quantization.CalibrationMethod.MinMax,
            # Without CalibMaxIntermediateOutputs, which should bound the memory: ONNX Runtime 1.31 forgets all that it
            # saw whenever that many clips are full, and the ranges are those of the last few. Minima are small anyway.
            extra_options={
                # A MatMul's sums go on to float operators: rounding them to 8 bits costs accuracy and saves nothing.
                "OpTypesToExcludeOutputQuantization": ["MatMul"],
            },
        )


def integer_modules(path: Path) -> set[str]:
    """The modules that ONNX Runtime computes in integer kernels, read from the graph as it optimizes it here."""
    import onnxruntime

    with tempfile.TemporaryDirectory() as place:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.optimized_model_filepath = str(Path(place) / "optimized.onnx")
        onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        graph = onnx.load(options.optimized_model_filepath).graph
    return {module_of_name(node.name) for node in graph.node if node.op_type in INTEGER_KERNELS}


def module_of_name(name: str) -> str:
    """The path of a module in the name of its node: video.convs.2/conv2d_7 -> video.convs.2."""
    return name.partition("/")[0]


def _float_nodes(proto: onnx.ModelProto, plan: Plan) -> list[str]:
    """Names of the nodes that stay float: by the plan, and everything in the trunk that only moves bytes."""
    nodes = [node for node in proto.graph.node if node.op_type in MULTIPLIES + MOVES]
    return [node.name for node in nodes if not _integer(module_of_name(node.name), node.op_type, plan)]


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
