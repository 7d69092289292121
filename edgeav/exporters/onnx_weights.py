"""ONNX formats that no calibration needs: dynamic int8, and weights that are small in the file.

- `int8-dynamic`: ONNX Runtime's own quantizer, for linear layers alone (its default makes ConvInteger of convolutions,
  3 times slower than float).
- `int8-weights`, `fp16`: the weight is stored small, and Cast (and Mul) bring it back. ONNX Runtime computes those once
  when it loads the file, so that it runs exactly as fast as float32: MatMulNBits with 8 bits took 1.26 times as long;
  the float16 converter rounds activations too, for twice the drift.
- `int4-weights`: MatMulNBits; the weights stay small in memory too.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto, helper, numpy_helper

from edgeav.errors import needs
from edgeav.exporters.graph import quiet
from edgeav.quant.plan import Format, Plan

MATRICES = ("MatMul", "Gemm")
CONSTANT = ("MatMul", "Conv", "Gemm")
BY_MATMUL = ("int8-dynamic", "int8-weights", "int4-weights")
INT4_BLOCK = 32  # weights with one scale
IN_FLOAT32 = 1  # MatMulNBits' accuracy_level: 4 would round the activations to int8 as well
S8_MAX = 127


def module_of_name(name: str) -> str:
    """The path of a module in the name of its node: video.convs.2/conv2d_7 -> video.convs.2."""
    return name.partition("/")[0]


def plain_matrices(proto: onnx.ModelProto, plan: Plan) -> None:
    """Gemm -> MatMul + Add where the plan wants a format that only MatMul has. Changes `proto`."""
    nodes: list[NodeProto] = []
    for node in proto.graph.node:
        wanted = node.op_type == "Gemm" and plan.has(module_of_name(node.name), *BY_MATMUL)
        nodes += _matmul_and_add(proto, node) if wanted else [node]
    del proto.graph.node[:]
    proto.graph.node.extend(nodes)


def compress_weights(path: Path, plan: Plan) -> None:
    """Bring every layer of the ONNX file `path` that is still float32 to its format, in place."""
    proto = onnx.load(path)
    _store_small(proto, plan, "fp16", CONSTANT, _half)
    _store_small(proto, plan, "int8-weights", MATRICES, _int8)
    proto = _four_bits(proto, plan)
    onnx.save(proto, path)
    _dynamic(path, [node.name for node in layers_of(proto, plan, "int8-dynamic", MATRICES)])


def _dynamic(path: Path, names: list[str]) -> None:
    if not names:
        return
    from onnxruntime.quantization import QuantType, quantize_dynamic

    with tempfile.TemporaryDirectory() as place, quiet():
        result = Path(place) / path.name
        quantize_dynamic(
            path,
            result,
            op_types_to_quantize=["MatMul"],
            nodes_to_quantize=names,
            per_channel=True,
            weight_type=QuantType.QInt8,
            extra_options={"MatMulConstBOnly": True},
        )
        path.write_bytes(result.read_bytes())


def _four_bits(proto: onnx.ModelProto, plan: Plan) -> onnx.ModelProto:
    wanted = {node.name for node in layers_of(proto, plan, "int4-weights", MATRICES)}
    if not wanted:
        return proto
    with quiet():
        quantizer = _nbits()(
            proto,
            bits=4,
            block_size=INT4_BLOCK,
            is_symmetric=True,
            accuracy_level=IN_FLOAT32,
            nodes_to_exclude=[node.name for node in proto.graph.node if node.name not in wanted],
        )
        quantizer.process()
    return quantizer.model.model


def layers_of(proto: onnx.ModelProto, plan: Plan, format: Format, operators: Sequence[str]) -> list[NodeProto]:
    """The nodes of this format whose weight is a float32 constant of the file."""
    constants = {c.name for c in proto.graph.initializer if c.data_type == onnx.TensorProto.FLOAT}
    nodes = [node for node in proto.graph.node if node.op_type in operators and node.input[1] in constants]
    return [node for node in nodes if plan.has(module_of_name(node.name), format)]


Store = Callable[[str, NDArray], tuple[list[NDArray], list[NodeProto]]]


def _store_small(proto: onnx.ModelProto, plan: Plan, format: Format, operators: tuple[str, ...], store: Store) -> None:
    """Replace weights by what `store` makes: arrays called NAME_0, NAME_1, and nodes that make NAME of those."""
    constants = {c.name: c for c in proto.graph.initializer}
    nodes: list[NodeProto] = []
    for name in dict.fromkeys(node.input[1] for node in layers_of(proto, plan, format, operators)):
        arrays, made = store(name, numpy_helper.to_array(constants[name]))
        proto.graph.initializer.remove(constants[name])
        proto.graph.initializer.extend(numpy_helper.from_array(a, f"{name}_{i}") for i, a in enumerate(arrays))
        nodes += made
    old = list(proto.graph.node)
    del proto.graph.node[:]
    proto.graph.node.extend([*nodes, *old])


def _half(name: str, weight: NDArray) -> tuple[list[NDArray], list[NodeProto]]:
    return [weight.astype(np.float16)], [_cast(f"{name}_0", name)]


def _int8(name: str, weight: NDArray) -> tuple[list[NDArray], list[NodeProto]]:
    """(in, out) -> s8 and one scale for each output; a column of zeros keeps the scale 1."""
    largest = np.abs(weight).max(axis=0, keepdims=True)
    scale = np.where(largest > 0, largest / S8_MAX, 1).astype(np.float32)
    rounded = np.round(weight / scale).astype(np.int8)
    scaled = helper.make_node("Mul", [f"{name}_float", f"{name}_1"], [name], name=f"{name}_scaled")
    return [rounded, scale], [_cast(f"{name}_0", f"{name}_float"), scaled]


def _cast(source: str, result: str) -> NodeProto:
    return helper.make_node("Cast", [source], [result], name=f"{result}_cast", to=onnx.TensorProto.FLOAT)


def _matmul_and_add(proto: onnx.ModelProto, node: NodeProto) -> list[NodeProto]:
    """x W^T + b, as torch exports a linear layer on vectors; the weight is turned around once."""
    constants = {c.name: c for c in proto.graph.initializer}
    settings = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    plain = settings.get("alpha", 1.0) == settings.get("beta", 1.0) == 1.0 and not settings.get("transA")
    if not plain or node.input[1] not in constants:
        raise ValueError(f"{node.name}: expected a linear layer, not {settings}")
    weight = numpy_helper.to_array(constants[node.input[1]])
    turned = f"{node.input[1]}_in_out"
    proto.graph.initializer.append(
        numpy_helper.from_array(weight.T.copy() if settings.get("transB") else weight, turned)
    )
    proto.graph.initializer.remove(constants[node.input[1]])
    if len(node.input) < 3:
        return [helper.make_node("MatMul", [node.input[0], turned], list(node.output), name=node.name)]
    product = f"{node.output[0]}_product"
    bias = helper.make_node("Add", [product, node.input[2]], list(node.output), name=f"{node.name}_bias")
    return [helper.make_node("MatMul", [node.input[0], turned], [product], name=node.name), bias]


def _nbits() -> Any:
    """The quantizer's class. Its module sets up logging for the whole process, which is undone here."""
    before, level = list(logging.root.handlers), logging.root.level
    try:
        from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer
    except ImportError as error:
        raise needs("onnxruntime", error.name or "onnxruntime") from error
    logging.root.handlers[:] = before
    logging.root.setLevel(level)
    return MatMulNBitsQuantizer
