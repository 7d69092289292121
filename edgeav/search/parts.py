"""What the layers of a model cost by the number format they are in: what predictions are made of.

Times come from the table of operator shapes (edgeav/shrink/latency.py), one float layer after the other; what another
format makes of them, edgeav/search/prediction.py finds out. A table of quantized layers was tried and dropped: alone, a
layer pays for quantizing its input and output, which in a graph its neighbours share, so int8 looked hardly faster than
float. ExecuTorch has no table of its own and borrows ONNX Runtime's.
"""

from __future__ import annotations

from collections.abc import Iterable

from torch import nn

from edgeav.models import AVModel
from edgeav.quant.plan import Format, Plan
from edgeav.quant.support import LINEAR_ONLY
from edgeav.shrink.geometry import shapes_of
from edgeav.shrink.latency import LatencyTable
from edgeav.target import EngineName

BYTES: dict[Format, float] = {"int8": 1, "int8-dynamic": 1, "int8-weights": 1, "int4-weights": 0.5, "fp16": 2}


def table_of(engine: EngineName) -> LatencyTable:
    """The table that predictions for `engine` are made with."""
    return LatencyTable("openvino" if engine == "openvino" else "onnxruntime")


def time_parts(model: AVModel, plan: Plan | None, table: LatencyTable) -> dict[str, float]:
    """Format -> milliseconds of all layers in it, as if they were float, for 4 s of input."""
    shapes = shapes_of(model).items()
    return _sum((format_of(path, shape.kind == "linear", plan), table[shape]) for path, shape in shapes)


def size_parts(model: AVModel, plan: Plan | None) -> dict[str, float]:
    """Format -> 10^6 bytes of all numbers in it; a decoder for training is not exported and does not count."""
    found = []
    for name, tensor in model.named_parameters():
        if not name.startswith("decoder."):
            path = name.rpartition(".")[0]
            linear = isinstance(model.get_submodule(path), nn.Linear)
            format = format_of(path, linear, plan) if tensor.ndim > 1 else "fp32"  # biases and norms stay float
            found.append((format, tensor.numel() * BYTES.get(format, 4) / 1e6))
    return _sum(found)


def format_of(path: str, linear: bool, plan: Plan | None) -> Format:
    """What the module at `path` is in: a convolution stays float in formats for linear layers."""
    format = plan.format_of(path) if plan else None
    return "fp32" if format is None or (format in LINEAR_ONLY and not linear) else format


def _sum(found: Iterable[tuple[str, float]]) -> dict[str, float]:
    total: dict[str, float] = {}
    for name, value in found:
        total[name] = total.get(name, 0.0) + value
    return total
