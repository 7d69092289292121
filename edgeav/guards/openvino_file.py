"""An int8 OpenVINO file (NNCF) against the float file of the same model.

Operators that multiply keep their names through NNCF. Around them stand FakeQuantize nodes for activations; weights are
integers behind a conversion and a multiplication. Two things NNCF changes on purpose, and both are followed here:
SmoothQuant (Xiao et al. 2022, https://arxiv.org/abs/2211.10438) divides an activation by channel and multiplies the
weight, and bias correction (Nagel et al. 2019, https://arxiv.org/abs/1906.04721) moves a bias by the mean error. With
learned ranges it does neither.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import openvino
from numpy.typing import NDArray
from openvino import Model, Node, opset13

from edgeav.exporters.onnx import module_of_name
from edgeav.exporters.openvino import integer_modules
from edgeav.exporters.openvino_learned import MOVES, MULTIPLIES, learned_ends, quantizers
from edgeav.exporters.openvino_pictures import pictures_as_floats
from edgeav.guards.numbers import (
    STEPS,
    WIRING_TOLERANCE,
    Inspection,
    Range,
    Stored,
    measure_wiring,
    range_findings,
    take_learned,
    weight_findings,
    wiring_findings,
)
from edgeav.quant.plan import Ends, Plan
from edgeav.runtime.features import Inputs
from edgeav.runtime.openvino_core import core

SMOOTH = "nncf_smooth_quant"
BORDERS = 0.1  # of an activation's range: by how much zeros at the ends of a short clip may move its mean
# Its input is the table of positions, a constant, and NNCF quantizes activations alone; its thin layers too.
NEVER_INTEGER = "attention.position"
SETTINGS = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}


@dataclass(frozen=True)
class Layer:
    """An operator that multiplies by a constant."""

    operator: Node
    weight: Node
    """What the operator reads: a constant, or the multiplication behind integers."""
    smoothing: NDArray | None
    """(C,) by which its activation was multiplied before it was quantized."""
    step: float
    """Of its quantized activation; 0: it is not quantized."""
    bias: Node | None

    @property
    def name(self) -> str:
        return self.operator.get_friendly_name()

    def smoothed(self, weight: NDArray) -> NDArray:
        """(out, in), or (…, in, out) of a product that does not turn it, with what SmoothQuant moved into it."""
        if self.smoothing is None:
            return weight
        turned = self.operator.get_attributes().get("transpose_b", True)
        return weight / (self.smoothing if turned else self.smoothing[:, None])

    def stored(self) -> Stored | None:
        """The integers of the weight; None for a float one."""
        if self.weight.get_type_name() != "Multiply":
            return None
        source, scale, zero = self.weight.input_value(0).get_node(), _data(self.weight.input_value(1).get_node()), 0
        if source.get_type_name() == "Subtract":
            zero = _data(_converted(source.input_value(1).get_node())).astype(np.int64)
            source = source.input_value(0).get_node()
        return Stored(_data(_converted(source)), scale, zero)


def inspect_openvino(path: Path, float_path: Path, plan: Plan, clips: Sequence[Inputs]) -> Inspection:
    """Numbers, wiring and kernels of the int8 file at `path`."""
    model, reference = core().read_model(path), core().read_model(float_path)
    pictures_as_floats(model)
    found_quantizers = quantizers(model)
    ranges = [_range(quantizer) for quantizer in found_quantizers]
    learned = _learned(found_quantizers, plan)  # while they stand where they are
    wrong = [*_pair_findings(found_quantizers)]
    found, expected = layers(model), layers(reference)
    wrong += [f"{name}: not in the file" for name in expected if name not in found]
    weights = 0
    for name, layer in found.items():
        if name not in expected:
            wrong.append(f"{name}: not in the float file")
            continue
        wrong += [*_layer_findings(layer, expected[name], corrected=not plan.learned)]
        weights += 1 + (expected[name].bias is not None)
        _restore(layer, expected[name])
    _unquantize(model, found_quantizers)
    wiring = _measure(model, reference, ranges, clips)
    if plan.learned:
        wrong += take_learned(ranges, learned)
    wrong += range_findings(ranges, tuned=not plan.learned)
    wrong += wiring_findings(wiring)
    integer = integer_modules(path, plan)
    planned = {module_of_name(name) for name in expected if plan.quantizes(module_of_name(name))}
    not_integer = tuple(sorted(path for path in planned - integer if NEVER_INTEGER not in path))
    return Inspection(weights, len(ranges), wiring, WIRING_TOLERANCE, not_integer, tuple(wrong))


def _learned(found: Sequence[Node], plan: Plan) -> dict[str, Ends]:
    """What training found, by the name of the range that must hold it."""
    ends = {_range(quantizer).name: learned_ends(quantizer, plan) for quantizer in found} if plan.learned else {}
    return {name: pair for name, pair in ends.items() if pair is not None}


def layers(model: Model) -> dict[str, Layer]:
    """By name: what multiplies an activation by a constant."""
    found = {}
    for operator in model.get_ordered_ops():
        if operator.get_type_name() in MULTIPLIES:
            weight = operator.input_value(1).get_node()
            if _is_constant(weight):
                quantizer = _upstream(operator.input_value(0).get_node(), "FakeQuantize")
                step = 0.0 if quantizer is None else _range(quantizer).step
                smoothing = _smoothing((quantizer or operator).input_value(0).get_node())
                layer = Layer(operator, weight, smoothing, step, _bias(operator))
                found[layer.name] = layer
    return found


def _layer_findings(layer: Layer, expected: Layer, corrected: bool) -> Iterator[str]:
    weight, stored = layer.smoothed(_data(expected.weight).astype(np.float64)), layer.stored()
    if stored is not None:
        yield from weight_findings(f"{layer.name} weight", stored, weight)
    elif not np.allclose(_data(layer.weight), weight, rtol=1e-5, atol=1e-7):
        yield f"{layer.name}: a float weight differs from the float model's"
    yield from _bias_findings(layer, expected, corrected)


def _bias_findings(layer: Layer, expected: Layer, corrected: bool) -> Iterator[str]:
    """Bias correction moves a bias by no more than rounding can have moved the sum that it is added to, and with a
    convolution by what the zeros beside a clip do to a mean, too: NNCF takes it over clips of another length."""
    if expected.bias is None:
        return
    right = _data(expected.bias).ravel()
    found = np.zeros(0) if layer.bias is None else _data(layer.bias).ravel()
    if not found.any() and right.any():
        yield f"{layer.name}: its bias is gone"
        return
    weight = layer.smoothed(np.abs(_data(expected.weight)))
    off = layer.step / 2 if layer.operator.get_type_name() == "MatMul" else BORDERS * STEPS * layer.step
    largest = corrected * off * weight.reshape(right.size, -1).sum(axis=1)  # outputs come first in every layout
    if found.shape != right.shape or np.any(np.abs(found - right) > largest + 1e-5):
        yield f"{layer.name}: its bias is further from the float model's than rounding explains"


def _restore(layer: Layer, expected: Layer) -> None:
    """Put the float numbers into the layer. Changes its model."""
    weight = layer.smoothed(_data(expected.weight))
    layer.operator.input(1).replace_source_output(opset13.constant(weight.astype(np.float32)).output(0))
    if layer.bias is not None and expected.bias is not None:
        shape = _data(layer.bias).shape
        if layer.bias.get_output_size() and np.prod(shape) == _data(expected.bias).size:
            bias = opset13.constant(_data(expected.bias).reshape(shape).astype(np.float32))
            for user in list(layer.bias.output(0).get_target_inputs()):
                user.replace_source_output(bias.output(0))


def _unquantize(model: Model, quantizers: Sequence[Node]) -> None:
    """Take the quantizers out, and give the model the extremes at each as further outputs. Changes it."""
    results = []
    for quantizer in quantizers:
        source = quantizer.input_value(0)
        for user in list(quantizer.output(0).get_target_inputs()):
            user.replace_source_output(source)
        axes = opset13.constant(np.arange(source.get_partial_shape().rank.get_length(), dtype=np.int64))
        results += [opset13.result(opset13.reduce_min(source, axes)), opset13.result(opset13.reduce_max(source, axes))]
    model.add_results(results)
    model.validate_nodes_and_infer_types()


def _measure(model: Model, reference: Model, ranges: list[Range], clips: Sequence[Inputs]) -> float:
    """Fill in what each range saw; the largest difference from the float file."""
    bare, right = (core().compile_model(m, "CPU", SETTINGS) for m in (model, reference))
    names = [value.any_name for value in reference.inputs]
    return measure_wiring(
        ranges,
        clips,
        lambda inputs: bare(inputs.named(names)).to_tuple(),
        lambda inputs: right(inputs.named(names)).to_tuple()[0],
    )


def _range(quantizer: Node) -> Range:
    """Quantizers with the very same ends are one that NNCF unified, such as those of what is concatenated."""
    low, high = (float(_data(quantizer.input_value(side).get_node()).min()) for side in (1, 2))
    return Range(quantizer.input_value(0).get_node().get_friendly_name(), low, high, group=f"{low} {high}")


def _pair_findings(quantizers: Sequence[Node]) -> Iterator[str]:
    """What is dequantized with other numbers than it was quantized with."""
    for quantizer in quantizers:
        ends = [_data(quantizer.input_value(side).get_node()) for side in range(1, 5)]
        if not (np.array_equal(ends[0], ends[2]) and np.array_equal(ends[1], ends[3])):
            name = quantizer.input_value(0).get_node().get_friendly_name()
            low, high, read_low, read_high = (float(end.ravel()[0]) for end in ends)
            yield f"{name}: quantized to {low:g} … {high:g}, read as {read_low:g} … {read_high:g}"


def _smoothing(node: Node) -> NDArray | None:
    """(C,) of SmoothQuant's multiplication, if `node` is one."""
    return _data(node.input_value(1).get_node()).ravel() if SMOOTH in node.get_friendly_name() else None


def _bias(operator: Node) -> Node | None:
    """The constant added to what `operator` computes, maybe behind a constant factor; None: none is."""
    node = operator
    for _ in range(3):
        users = list(node.output(0).get_target_inputs())
        node = users[0].get_node() if len(users) == 1 else None
        if node is None or node.get_type_name() not in ("Add", "Multiply"):
            return None
        constants = [side.get_source_output().get_node() for side in node.inputs()]
        constant = next((c for c in constants if c.get_type_name() == "Constant"), None)
        if constant is None or node.get_type_name() == "Add":
            return constant
    return None


def _upstream(node: Node, kind: str) -> Node | None:
    """The first `kind` before `node`, through what only moves values."""
    while node.get_type_name() in MOVES:
        node = node.input_value(0).get_node()
    return node if node.get_type_name() == kind else None


def _is_constant(node: Node) -> bool:
    while node.get_type_name() in ("Multiply", "Convert", "Subtract"):
        node = node.input_value(0).get_node()
    return node.get_type_name() == "Constant"


def _converted(node: Node) -> Node:
    return node.input_value(0).get_node() if node.get_type_name() == "Convert" else node


def _data(node: Node) -> NDArray:
    assert isinstance(node, openvino.op.Constant), node
    return node.get_data()
