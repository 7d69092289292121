"""ONNX with FP8: every layer's input and weight as float8, around operators that stay float32.

QuantizeLinear and DequantizeLinear have float8 since opset 19 (https://onnx.ai/onnx/technical/float8.html). ONNX
Runtime's CPU kernels execute both, and multiply in float32: the file is a quarter of the size and the numbers are those
of FP8, the time is not. Runtimes with FP8 kernels read the same file.

It must be run without graph optimizations: ONNX Runtime 1.31 makes integer operators of float8 and refuses its own
graph, and with `session.disable_quant_qdq` it loads it and computes something else.

Ranges are the largest magnitudes, as in edgeav/quant/fake_quant.py: ONNX Runtime's own quantizer takes float8 scales
from the spread of the values instead, and cuts what is beyond.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import ml_dtypes
import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto, helper, numpy_helper

from edgeav.errors import EdgeavError
from edgeav.exporters.onnx_weights import CONSTANT, layers_of, module_of_name
from edgeav.quant.plan import FP8, Ends, Format, Plan

OPSET = 19  # the first with float8
TYPES: dict[Format, tuple[int, type]] = {
    "fp8-e4m3": (onnx.TensorProto.FLOAT8E4M3FN, ml_dtypes.float8_e4m3fn),
    "fp8-e5m2": (onnx.TensorProto.FLOAT8E5M2, ml_dtypes.float8_e5m2),
}


def fp8_inputs(proto: onnx.ModelProto, plan: Plan) -> list[str]:
    """Names of the activations that are rounded to FP8."""
    return list(dict.fromkeys(node.input[0] for node in _layers(proto, plan)))


def round_to_fp8(proto: onnx.ModelProto, plan: Plan, ranges: Mapping[str, Ends]) -> None:
    """Changes `proto`: pairs of QuantizeLinear and DequantizeLinear before every layer that the plan has in FP8.

    `ranges`: the smallest and largest number of each activation. EdgeavError for an opset without float8.
    """
    opset = next(entry.version for entry in proto.opset_import if entry.domain in ("", "ai.onnx"))
    if opset < OPSET:
        raise EdgeavError(f"the file has ONNX opset {opset}; float8 needs {OPSET}. Set options.opset to 20")
    _Rounding(proto, {name: max(-low, high) for name, (low, high) in ranges.items()}).apply(plan)
    onnx.checker.check_model(proto)


def _layers(proto: onnx.ModelProto, plan: Plan) -> list[NodeProto]:
    return [node for format in FP8 for node in layers_of(proto, plan, format, CONSTANT)]


class _Rounding:
    """Works on `proto` in place."""

    def __init__(self, proto: onnx.ModelProto, peaks: Mapping[str, float]) -> None:
        self.proto, self.graph, self.peaks = proto, proto.graph, peaks
        self.constants = {item.name: item for item in proto.graph.initializer}
        self.pairs: dict[tuple[str, Format], str] = {}  # tensor and format -> its rounded form

    def apply(self, plan: Plan) -> None:
        rounded, nodes = {node.name for node in _layers(self.proto, plan)}, list[NodeProto]()
        for node in self.graph.node:
            format = plan.format_of(module_of_name(node.name)) if node.name in rounded else None
            if format is not None:
                nodes += [*self._activation(node, format), *self._weight(node, format)]
            nodes.append(node)
        used = {name for node in nodes for name in node.input}
        kept = [item for item in self.graph.initializer if item.name in used]
        del self.graph.node[:], self.graph.initializer[:]
        self.graph.node.extend(nodes)
        self.graph.initializer.extend(kept)

    def _activation(self, node: NodeProto, format: Format) -> Iterable[NodeProto]:
        """One scale for the whole tensor; layers that read the same one share the pair."""
        (kind, numbers), name = TYPES[format], node.input[0]
        made: list[NodeProto] = []
        if (name, format) not in self.pairs:
            stem = f"{name}/{format}"
            constants = [self._add(f"{stem}/scale", _scale(self.peaks[name], numbers)), self._zero(stem, kind, ())]
            made = [
                helper.make_node("QuantizeLinear", [name, *constants], [f"{stem}/q"], f"{node.name}/quantize"),
                helper.make_node("DequantizeLinear", [f"{stem}/q", *constants], [f"{stem}/dq"], f"{node.name}/back"),
            ]
            self.pairs[name, format] = f"{stem}/dq"
        node.input[0] = self.pairs[name, format]
        return made

    def _weight(self, node: NodeProto, format: Format) -> Iterable[NodeProto]:
        """One scale for each output channel, which is the last axis of a MatMul and the first of the others."""
        (kind, numbers), name = TYPES[format], node.input[1]
        weight = numpy_helper.to_array(self.constants[name])
        axis = weight.ndim - 1 if node.op_type == "MatMul" or not _transposed(node) else 0
        others = tuple(place for place in range(weight.ndim) if place != axis)
        scales = _scale(np.abs(weight).max(axis=others, keepdims=True), numbers)
        stored = (weight / scales).astype(numbers)
        raw = helper.make_tensor(f"{name}/{format}", kind, weight.shape, stored.tobytes(), raw=True)
        self.graph.initializer.append(raw)
        constants = [self._add(f"{name}/scale", scales.ravel()), self._zero(name, kind, (scales.size,))]
        node.input[1] = f"{name}/dq"
        named = f"{node.name}/weight"
        return [helper.make_node("DequantizeLinear", [raw.name, *constants], [node.input[1]], named, axis=axis)]

    def _add(self, name: str, value: NDArray) -> str:
        self.graph.initializer.append(numpy_helper.from_array(value.astype(np.float32), name))
        return name

    def _zero(self, stem: str, kind: int, shape: tuple[int, ...]) -> str:
        name, count = f"{stem}/zero", int(np.prod(shape, dtype=np.int64))
        self.graph.initializer.append(helper.make_tensor(name, kind, shape, bytes(count), raw=True))
        return name


def _scale(peak: NDArray | float, numbers: type) -> NDArray:
    """What to divide by, so that `peak` becomes the largest number of the format."""
    largest = float(ml_dtypes.finfo(numbers).max)
    return np.maximum(np.asarray(peak, np.float32) / np.float32(largest), np.finfo(np.float32).tiny)


def _transposed(node: NodeProto) -> bool:
    """Whether the output channels come first: always in a Conv, in a Gemm if it says so."""
    return node.op_type == "Conv" or any(entry.name == "transB" and entry.i for entry in node.attribute)
