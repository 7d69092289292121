"""Mistakes put into exported int8 files on purpose, each one into a copy of a healthy file."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

Fault = Callable[[Path], None]  # spoils the file at a path


# ------------------------------------------------------------------------------------------------------- ONNX Runtime
def onnx_constant(name: str, change: Callable[[np.ndarray], np.ndarray]) -> Fault:
    def spoil(path: Path) -> None:
        proto = onnx.load(path)
        tensor = next(item for item in proto.graph.initializer if item.name == name)
        array = change(numpy_helper.to_array(tensor).copy())
        tensor.CopyFrom(numpy_helper.from_array(array, name))
        onnx.save(proto, path)

    return spoil


def onnx_node(name: str, change: Callable[[onnx.NodeProto], None]) -> Fault:
    def spoil(path: Path) -> None:
        proto = onnx.load(path)
        change(next(node for node in proto.graph.node if node.name == name))
        onnx.save(proto, path)

    return spoil


def onnx_only_dequantize(name: str) -> Fault:
    """Zero point + 1 where a tensor is dequantized, not where it is quantized."""

    def spoil(path: Path) -> None:
        proto = onnx.load(path)
        node = next(node for node in proto.graph.node if node.name == name)
        zero = next(item for item in proto.graph.initializer if item.name == node.input[2])
        proto.graph.initializer.append(numpy_helper.from_array(numpy_helper.to_array(zero) + np.uint8(1), "other_zero"))
        node.input[2] = "other_zero"
        onnx.save(proto, path)

    return spoil


def onnx_float_layer(name: str) -> Fault:
    """The layer's weight as float: no integer kernel can take it."""

    def spoil(path: Path) -> None:
        proto = onnx.load(path)
        constants = {item.name: numpy_helper.to_array(item) for item in proto.graph.initializer}
        weight = next(n for n in proto.graph.node if n.op_type == "DequantizeLinear" and n.input[0] == name)
        sides = [-1] + [1] * (constants[name].ndim - 1)
        values = constants[name].astype(np.float32) * constants[weight.input[1]].reshape(sides)
        proto.graph.initializer.append(numpy_helper.from_array(values.astype(np.float32), weight.output[0]))
        proto.graph.node.remove(weight)
        onnx.save(proto, path)

    return spoil


def without_input(index: int) -> Callable[[onnx.NodeProto], None]:
    def change(node: onnx.NodeProto) -> None:
        del node.input[index]

    return change


def as_identity(node: onnx.NodeProto) -> None:
    kept = node.input[0]
    node.op_type = "Identity"
    del node.input[:]
    node.input.append(kept)


def swap_first_two(node: onnx.NodeProto) -> None:
    node.input[0], node.input[1] = node.input[1], node.input[0]


def one_channel(array: np.ndarray) -> np.ndarray:
    array[len(array) // 2] *= 1.1
    return array


# ------------------------------------------------------------------------------------------------------------ OpenVINO
def openvino_edit(kind: str, operator: str, change: Callable) -> Fault:
    """Change the operator of that kind whose name begins like that."""

    def spoil(path: Path) -> None:
        import openvino

        model = openvino.Core().read_model(path)
        found = [op for op in model.get_ordered_ops() if op.get_type_name() == kind]
        change(next(op for op in found if op.get_friendly_name().startswith(operator)))
        model.validate_nodes_and_infer_types()
        spoiled = path.with_name("spoiled.xml")
        openvino.save_model(model, spoiled, compress_to_fp16=False)
        del model, found  # they map the file that is overwritten now
        spoiled.replace(path)
        spoiled.with_suffix(".bin").replace(path.with_suffix(".bin"))

    return spoil


def move_levels(node) -> None:
    """Zero point + 1 of a FakeQuantize, in both of its ranges."""
    low, high = (float(node.input_value(end).get_node().get_data().min()) for end in (1, 2))
    for side in range(1, 5):
        replace_constant(node, side, lambda array: array - (high - low) / 255)


def stretch_levels(node) -> None:
    for side in range(1, 5):
        replace_constant(node, side, lambda array: array * 1.1)


def bypass(node) -> None:
    """What reads `node` reads its first input instead."""
    for user in list(node.output(0).get_target_inputs()):
        user.replace_source_output(node.input_value(0))


def swap_sources(node) -> None:
    first, second = node.input_value(0), node.input_value(1)
    node.input(0).replace_source_output(second)
    node.input(1).replace_source_output(first)


def scale_weight(node) -> None:
    """The multiplication behind the integers of a weight: x1.1."""
    replace_constant(node.input_value(1).get_node(), 1, lambda array: array * np.float32(1.1))


def drop_bias(node) -> None:
    bypass(user_of(node))


def zero_bias(node) -> None:
    replace_constant(user_of(node), 1, np.zeros_like)


def user_of(node):
    return next(iter(node.output(0).get_target_inputs())).get_node()


def replace_constant(node, side: int, change: Callable[[np.ndarray], np.ndarray]) -> None:
    from openvino import opset13

    array = node.input_value(side).get_node().get_data()
    constant = opset13.constant(change(array.copy()).astype(array.dtype))
    node.input(side).replace_source_output(constant.output(0))


# ---------------------------------------------------------------------------------------------------------- ExecuTorch
def bytes_for_bytes(before: bytes, after: bytes) -> Fault:
    def spoil(path: Path) -> None:
        data = path.read_bytes()
        assert len(before) == len(after) and data.count(before) == 1
        path.write_bytes(data.replace(before, after))

    return spoil


def levels_of(scale: float, zero_point: int, factor: float, shift: int) -> Fault:
    """Every value on one grid: its scale times `factor`, its zero point plus `shift`. Two numbers side by side."""

    def spoil(path: Path) -> None:
        data, found = bytearray(path.read_bytes()), 0
        for place in range(0, len(data) - 8, 4):
            for first, second in ((place, place + 4), (place + 4, place)):
                number, zero = struct.unpack_from("<f", data, first)[0], struct.unpack_from("<i", data, second)[0]
                if zero == zero_point and abs(number - scale) < 6e-7:
                    struct.pack_into("<f", data, first, number * factor)
                    struct.pack_into("<i", data, second, zero + shift)
                    found += 1
        assert found
        path.write_bytes(data)

    return spoil
