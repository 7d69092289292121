"""What an ExecuTorch file (.pte) really holds: the quantized layers inside of its XNNPACK delegates.

The file is a flatbuffer, each delegate another one with a header; constants lie beside them by the hash of their bytes.
Read with the schemas and the compiler that come with ExecuTorch: nothing of the exporter's own memory is trusted.
https://github.com/pytorch/executorch/blob/main/backends/xnnpack/serialization/schema.fbs
"""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from executorch.backends.xnnpack.serialization.xnnpack_graph_serialize import XNNHeader, _get_schema_bytes
from executorch.exir._serialize._flatbuffer import _flatc_decompile
from executorch.exir._serialize._program import PTEFile, deserialize_pte_binary
from numpy.typing import NDArray

from edgeav.guards.numbers import Stored

NONE = 2**32 - 1  # XNNPACK's id for "no value"
TYPES = {
    "xnn_datatype_qcint8": np.int8,
    "xnn_datatype_qint8": np.int8,
    "xnn_datatype_qcint32": np.int32,
    "xnn_datatype_qint32": np.int32,
    "xnn_datatype_fp32": np.float32,
}
FILTERS = ("XNNFullyConnected", "XNNConv2d", "XNNDepthwiseConv2d")


@dataclass(frozen=True)
class Grid:
    """The 256 levels of a quantized activation, from -128."""

    scale: float
    zero_point: int


@dataclass(frozen=True)
class PteLayer:
    """One operator with a filter, its weight in PyTorch's layout (outputs, inputs, taps)."""

    weight: Stored | NDArray
    """An array where it is float."""
    bias: Stored | NDArray | None
    input: Grid | None
    """None: a float activation."""
    output: Grid | None


@dataclass(frozen=True)
class Delegate:
    """One XNNPACK graph of the file: its values by id."""

    values: dict[int, dict[str, Any]]
    constants: list[dict[str, Any]]
    file: PTEFile

    def array(self, value: dict[str, Any]) -> NDArray | Stored:
        """The constant behind a value, with its scales where it is quantized."""
        tensor = value.get("tensor_value", value)
        numbers = self._buffer(tensor["constant_buffer_idx"], TYPES[tensor["datatype"]]).reshape(tensor["dims"])
        if "quant_params" not in value:
            return numbers
        parameters = value["quant_params"]
        if "scale_buffer_idx" not in parameters:
            scale = np.full((1,) * numbers.ndim, parameters["scale"], np.float32)
            return Stored(numbers, scale, parameters["zero_point"])
        scale = self._buffer(parameters["scale_buffer_idx"], np.float32)
        sides = [-1 if side == parameters["channel_dim"] else 1 for side in range(numbers.ndim)]
        return Stored(numbers, scale.reshape(sides))

    def grid(self, identity: int) -> Grid | None:
        parameters = self.values[identity].get("quant_params")
        return None if parameters is None else Grid(parameters["scale"], parameters["zero_point"])

    def _buffer(self, index: int, kind: type) -> NDArray:
        named = self.file.named_data
        assert named is not None
        entry = named.pte_data[self.constants[index]["named_key"]]
        buffer: Any = named.buffers[entry.buffer_index]
        return np.frombuffer(bytes(buffer), kind)


def read_layers(path: Path) -> list[PteLayer]:
    """Every layer with a filter that XNNPACK runs, in the order of the file."""
    return [layer for graph, delegate in read_graphs(path) for layer in _layers(graph, delegate)]


def read_graphs(path: Path) -> Iterator[tuple[dict[str, Any], Delegate]]:
    """Every XNNPACK graph of the file, as its schema has it, with what its values are."""
    file = deserialize_pte_binary(path.read_bytes())
    for reference in file.program.execution_plan[0].delegates:
        graph = _graph(bytes(file.program.backend_delegate_data[reference.processed.index].data))
        values = {_id(value): value["xvalue_union"] for value in graph["xvalues"]}
        yield graph, Delegate(values, graph["constant_data"], file)


def _layers(graph: dict[str, Any], delegate: Delegate) -> Iterator[PteLayer]:
    for node in graph["xnodes"]:
        kind, union = node["xnode_union_type"], node["xnode_union"]
        if kind in FILTERS:
            weight = _torch_layout(delegate.array(delegate.values[union["filter_id"]]), kind)
            has_bias = union["bias_id"] in delegate.values
            bias = delegate.array(delegate.values[union["bias_id"]]) if has_bias else None
            yield PteLayer(weight, bias, delegate.grid(union["input1_id"]), delegate.grid(union["output_id"]))


def _torch_layout(weight: Stored | NDArray, kind: str) -> Stored | NDArray:
    """(O, I), (O, h, w, I) or, depthwise, (1, h, w, C) -> (O, I, taps)."""
    if isinstance(weight, Stored):
        return Stored(_moved(weight.integers, kind), weight.scale.reshape(-1, 1, 1), weight.zero_point)
    return _moved(weight, kind)


def _moved(array: NDArray, kind: str) -> NDArray:
    if kind == "XNNFullyConnected":
        return array[:, :, None]
    channels_first = np.moveaxis(array, -1, 0 if kind == "XNNDepthwiseConv2d" else 1)
    return channels_first.reshape(*channels_first.shape[:2], -1)


def _graph(blob: bytes) -> dict[str, Any]:
    header = XNNHeader.from_bytes(blob[: XNNHeader.EXPECTED_LENGTH])
    body = blob[header.flatbuffer_offset : header.flatbuffer_offset + header.flatbuffer_size]
    with tempfile.TemporaryDirectory() as place:
        schema, binary = Path(place) / "schema.fbs", Path(place) / "graph.bin"
        schema.write_bytes(_get_schema_bytes())
        binary.write_bytes(body)
        _flatc_decompile(place, str(schema), str(binary), ["--raw-binary"])
        text = binary.with_suffix(".json").read_text()
    return json.loads(re.sub(r": (-?)inf", r": \1Infinity", text))


def _id(value: dict[str, Any]) -> int:
    union = value["xvalue_union"]
    return union.get("tensor_value", union)["id_out"]
