"""An int8 ONNX file (quantize and dequantize around every operator) against the float file that it was made from.

Tensors keep their names through ONNX Runtime's quantizer: the float `head.weight` is `head.weight_quantized`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, helper, numpy_helper

from edgeav.exporters.onnx import (
    MODEL,
    MOVES,
    MULTIPLIES,
    integer_form,
    integer_modules,
    integer_nodes,
    module_of_name,
    write_onnx,
)
from edgeav.exporters.onnx_learned import tensor_ranges
from edgeav.exporters.rewrites import deployable
from edgeav.guards.numbers import (
    WIRING_TOLERANCE,
    Inspection,
    Range,
    Stored,
    constant_findings,
    measure_wiring,
    range_findings,
    take_learned,
    weight_findings,
    wiring_findings,
)
from edgeav.models import AVModel
from edgeav.quant.plan import Ends, Plan
from edgeav.runtime.features import Inputs
from edgeav.runtime.onnxruntime_session import open_session

QUANTIZED = "_quantized"
STAND_INS = ("Identity", "Max")  # of quantizers


@dataclass(frozen=True)
class File:
    """An ONNX graph with its constants as arrays."""

    proto: ModelProto
    constants: dict[str, NDArray]

    @classmethod
    def load(cls, path: Path) -> File:
        proto = onnx.load(path)
        return cls(proto, {item.name: numpy_helper.to_array(item) for item in proto.graph.initializer})

    @property
    def nodes(self) -> list[NodeProto]:
        return list(self.proto.graph.node)

    def weights(self) -> list[NodeProto]:
        """What dequantizes constants."""
        return [n for n in self.nodes if n.op_type == "DequantizeLinear" and n.input[0] in self.constants]


@contextmanager
def made_from(model: AVModel, plan: Plan, opset: int) -> Iterator[Path]:
    """A float file as the int8 one was made from: not the fp32 bundle's, whose stem has another form."""
    with TemporaryDirectory() as place:
        path = Path(place) / MODEL
        write_onnx(integer_form(deployable(model), plan), path, opset)
        yield path


def inspect_onnx(path: Path, float_path: Path, plan: Plan, clips: Sequence[Inputs]) -> Inspection:
    """Numbers, wiring and kernels of the int8 file at `path`."""
    file, reference = File.load(path), File.load(float_path)
    wrong = [*_weight_findings(file, reference), *_pair_findings(file), *_constant_findings(file, reference)]
    bare, ranges = unquantized(file, reference)
    wiring = _measure(bare, ranges, float_path, clips)
    if plan.learned:
        wrong += take_learned(ranges, _learned(bare, plan))
    wrong += range_findings(ranges)
    wrong += wiring_findings(wiring)
    integer = integer_modules(path)
    planned = {module_of_name(n.name) for n in integer_nodes(reference.proto, plan) if n.op_type in MULTIPLIES}
    not_integer = tuple(sorted(planned - integer))
    return Inspection(len(file.weights()), len(ranges), wiring, WIRING_TOLERANCE, not_integer, tuple(wrong))


def unquantized(file: File, reference: File) -> tuple[ModelProto, list[Range]]:
    """The graph without its quantizers and with the float numbers, and the range of each quantizer that was in it.

    Behind log_probs it has further outputs: the smallest and the largest value at each of them. A quantizer whose
    lowest level is zero also is the ReLU that stood there, so it leaves one behind.
    """
    proto = ModelProto()
    proto.CopyFrom(file.proto)
    graph, known = proto.graph, {item.name for item in proto.graph.initializer}
    nodes, outputs, ranges = [], [], []
    graph.initializer.append(numpy_helper.from_array(np.zeros((), np.float32), "guards/zero"))
    for node in file.nodes:
        if node.op_type == "DequantizeLinear":
            name = _float_name(node, reference)
            if name is not None and name not in known:
                graph.initializer.append(numpy_helper.from_array(reference.constants[name], name))
                known.add(name)
            nodes += _without(node, name, file)
        elif node.op_type == "QuantizeLinear":
            ranges.append(_range(node, file))
            rectifies = ranges[-1].low == 0
            sources = [node.input[0], "guards/zero"] if rectifies else [node.input[0]]
            nodes.append(helper.make_node("Max" if rectifies else "Identity", sources, list(node.output)))
            for kind in ("ReduceMin", "ReduceMax"):
                outputs.append(f"{node.output[0]}/{kind}")
                nodes.append(helper.make_node(kind, [node.output[0]], [outputs[-1]], keepdims=0))
        elif node.op_type == "Pad" and (value := _pad_value(node, file)) is not None:
            graph.initializer.append(numpy_helper.from_array(value, f"{node.output[0]}/value"))
            nodes.append(_with_input(node, 2, f"{node.output[0]}/value"))
        else:
            nodes.append(node)
    del graph.node[:], graph.value_info[:]
    graph.node.extend(nodes)
    graph.output.extend(helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ()) for name in outputs)
    return proto, ranges


def _pad_value(node: NodeProto, file: File) -> NDArray | None:
    """What a Pad of bytes puts beside them, as the number that it stands for; None for a Pad of floats."""
    rounding = next((n for n in file.nodes if n.op_type == "QuantizeLinear" and n.output[0] == node.input[0]), None)
    if rounding is None:
        return None
    scale, zero = _parameters(rounding, file)
    return np.asarray(scale * (int(file.constants[node.input[2]]) - zero), np.float32)


def _with_input(node: NodeProto, place: int, name: str) -> NodeProto:
    changed = NodeProto()
    changed.CopyFrom(node)
    changed.input[place] = name
    return changed


def _learned(bare: ModelProto, plan: Plan) -> dict[str, Ends]:
    """The range of every tensor that the plan rounds: what it was before a quantizer it is behind it."""
    stand_ins = [node for node in bare.graph.node if node.op_type in STAND_INS]
    return tensor_ranges(plan, [*integer_nodes(bare, plan), *stand_ins], (*MOVES, *STAND_INS))


def _without(node: NodeProto, name: str | None, file: File) -> list[NodeProto]:
    """What stands for a DequantizeLinear: the float tensor `name`, or what was to be dequantized."""
    if name is None and node.input[0] in file.constants:
        return [node]  # stands for nothing in the float file, which is a finding of its own
    source = name or node.input[0]
    return [] if source == node.output[0] else [helper.make_node("Identity", [source], list(node.output))]


def _measure(bare: ModelProto, ranges: list[Range], float_path: Path, clips: Sequence[Inputs]) -> float:
    """Fill in what each range saw; the largest difference from the float file."""
    session, reference = open_session(bare.SerializeToString()), open_session(float_path)
    names = [value.name for value in session.get_inputs()]
    return measure_wiring(
        ranges,
        clips,
        lambda inputs: [np.asarray(value) for value in session.run(None, inputs.named(names))],
        lambda inputs: np.asarray(reference.run(["log_probs"], inputs.named(names))[0]),
    )


def _weight_findings(file: File, reference: File) -> Iterator[str]:
    for node in file.weights():
        name = _float_name(node, reference)
        stored = _stored(node, file)
        if name is not None:
            yield from weight_findings(name, stored, reference.constants[name])
        elif stored.values.any():  # zeros are what pads a clip, folded by the quantizer
            yield f"{node.input[0]}: stands for nothing in the float file"


def _pair_findings(file: File) -> Iterator[str]:
    """What is dequantized with other numbers than it was quantized with."""
    made = {node.output[0]: node for node in file.nodes if node.op_type == "QuantizeLinear"}
    for node in file.nodes:
        source = made.get(node.input[0]) if node.op_type == "DequantizeLinear" else None
        if source is not None and _parameters(node, file) != _parameters(source, file):
            ways = _parameters(source, file), _parameters(node, file)
            yield f"{source.input[0]}: quantized by {ways[0]}, dequantized by {ways[1]}"


def _constant_findings(file: File, reference: File) -> Iterator[str]:
    for name, array in file.constants.items():
        if name in reference.constants and array.dtype == np.float32:
            yield from constant_findings(name, array, reference.constants[name])


def _float_name(node: NodeProto, reference: File) -> str | None:
    """The float tensor that a dequantized constant stands for."""
    name = node.input[0].removesuffix(QUANTIZED)
    return name if name != node.input[0] and name in reference.constants else None


def _stored(node: NodeProto, file: File) -> Stored:
    integers, scale, zero = (file.constants[name] for name in node.input)
    axis = next((a.i for a in node.attribute if a.name == "axis"), 1)
    if scale.size > 1:
        sides = [-1 if side == axis % integers.ndim else 1 for side in range(integers.ndim)]
        scale, zero = scale.reshape(sides), zero.reshape(sides)
    return Stored(integers, scale, zero.astype(np.int64))


def _parameters(node: NodeProto, file: File) -> tuple[float, int]:
    return float(file.constants[node.input[1]]), int(file.constants[node.input[2]])


def _range(node: NodeProto, file: File) -> Range:
    scale, zero = _parameters(node, file)
    lowest = int(np.iinfo(file.constants[node.input[2]].dtype).min)
    low = scale * (lowest - zero)
    return Range(node.input[0], low, low + 255 * scale, group=node.input[1])
