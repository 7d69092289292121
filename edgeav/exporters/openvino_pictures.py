"""An int8 stem's pictures as bytes, before its neighbouring frames are stacked.

NNCF quantizes behind each of the five slices that make the stack, so that floats are cut out and rounded five times.
OpenVINO does not move those quantizers before the slices (its pass does, for one, but the convolution is float then).
Here pictures are rounded once and become integers in the graph itself: pad, slices and concatenation move bytes, and
the convolution finds the conversion that it looks for.

    FakeQuantize -> Convert to u8 -> Pad -> Slice x 5 -> Concat -> Convert to f32 -> Subtract -> Multiply -> Convolution
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from openvino import Model, Node, Output, opset13

LEVELS = 256
PLACE = "video.stem/"
ROUNDED, PADDED, READ = f"{PLACE}rounded", f"{PLACE}padded", f"{PLACE}read"


def pictures_as_bytes(model: Model) -> None:
    """Changes `model`, if it has an int8 stem by frames with one range for all of them."""
    quantizers = [op for op in model.get_ordered_ops() if op.get_type_name() == "FakeQuantize" and _cut(_source(op))]
    if len(quantizers) < 2 or len({_ends(quantizer) for quantizer in quantizers}) > 1:
        return
    low, high = _ends(quantizers[0])
    step, zero = grid(low, high)
    pad = _source(_source(quantizers[0]))
    rounded = _round(pad.input_value(0), step, zero)
    padded = opset13.pad(
        rounded, pad.input_value(1), pad.input_value(2), "constant", opset13.constant(np.array(zero, np.uint8))
    )
    padded.set_friendly_name(PADDED)
    stack = _reader(quantizers[0])
    for quantizer in quantizers:
        _source(quantizer).input(0).replace_source_output(padded.output(0))
        quantizer.output(0).replace(quantizer.input_value(0))
    readers = list(stack.output(0).get_target_inputs())  # before there is one more
    read = _read(stack.output(0), step, zero)
    for reader in readers:
        reader.replace_source_output(read.output(0))
    model.validate_nodes_and_infer_types()


def pictures_as_floats(model: Model) -> None:
    """The opposite, for who compares numbers: one FakeQuantize before the Pad, read with the numbers of the file.

    Changes `model`, if it has pictures as bytes. What was padded with shows as another number than zero if it is wrong.
    """
    nodes = {op.get_friendly_name(): op for op in model.get_ordered_ops()}
    if READ not in nodes:
        return
    rounded, padded, read = nodes[ROUNDED], nodes[PADDED], nodes[READ]
    zero, step = (np.float32(_number(node, 1)) for node in (_source(read), read))
    levels = _source(rounded)
    ends = [levels.input_value(side) for side in (1, 2)]
    again = [opset13.constant(end) for end in borders(step, zero)]
    quantizer = opset13.fake_quantize(levels.input_value(0), *ends, *again, LEVELS)
    beside = np.float32((_number(padded, 3) - zero) * step)
    floats = opset13.pad(
        quantizer, padded.input_value(1), padded.input_value(2), "constant", opset13.constant(np.array(beside))
    )
    stack = _source(_source(read)).input_value(0)
    padded.output(0).replace(floats.output(0))
    read.output(0).replace(stack)
    model.validate_nodes_and_infer_types()


def _round(pictures: Output, step: np.float32, zero: np.float32) -> Node:
    low, high = (opset13.constant(end) for end in borders(step, zero))
    first, last = (opset13.constant(np.array(end, np.float32)) for end in (0, LEVELS - 1))
    rounded = opset13.convert(opset13.fake_quantize(pictures, low, high, first, last, LEVELS), "u8")
    rounded.set_friendly_name(ROUNDED)
    return rounded


def _read(stack: Output, step: np.float32, zero: np.float32) -> Node:
    numbers = opset13.subtract(opset13.convert(stack, "f32"), opset13.constant(np.array(zero)))
    read = opset13.multiply(numbers, opset13.constant(np.array(step)))
    read.set_friendly_name(READ)
    return read


def grid(low: float, high: float) -> tuple[np.float32, np.float32]:
    """The step between two levels, and which level is zero, counted from the lowest."""
    step = np.float32((high - low) / (LEVELS - 1))
    return step, np.float32(np.round(-low / step))


def borders(step: np.float32, zero: np.float32) -> Sequence[np.ndarray]:
    """The numbers that the first and the last level stand for."""
    return [np.array(np.float32((level - zero) * step)) for level in (np.float32(0), np.float32(LEVELS - 1))]


def _cut(node: Node) -> bool:
    """Whether it is one of the slices of the padded pictures."""
    name, kind = node.get_friendly_name(), node.get_type_name()
    return name.startswith(PLACE) and kind == "Slice" and _source(node).get_type_name() == "Pad"


def _reader(node: Node) -> Node:
    return next(iter(node.output(0).get_target_inputs())).get_node()


def _source(node: Node) -> Node:
    return node.input_value(0).get_node()


def _ends(quantizer: Node) -> tuple[float, float]:
    return _number(quantizer, 1), _number(quantizer, 2)


def _number(node: Node, side: int) -> float:
    return float(node.input_value(side).get_node().get_data().reshape(-1)[0])
