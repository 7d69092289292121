"""Learned ranges -> the tensors of an ONNX graph, in the place of what calibration would have measured.

ONNX Runtime's quantizer takes ranges from a file as well as from clips, and does everything else as it always does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from onnx import NodeProto

from edgeav.errors import EdgeavError
from edgeav.exporters.onnx_weights import module_of_name
from edgeav.quant.plan import Ends, LayerRanges, Plan


def tensor_ranges(plan: Plan, nodes: Sequence[NodeProto], moves: Sequence[str]) -> dict[str, Ends]:
    """Tensor -> its smallest and largest number, around the `nodes` that are quantized: layers, and what only moves
    numbers between them (operators called one of `moves`).

    What a layer is given counts before what the one before put out: it is the same tensor, and the range that rounds.
    EdgeavError for a layer that the plan has no range for.
    """
    found = dict[str, Ends]()
    layers = [(node, ranges_of(plan, module_of_name(node.name))) for node in nodes if node.op_type not in moves]
    moving = [node for node in nodes if node.op_type in moves]
    found |= {node.input[0]: layer.given for node, layer in layers}
    _spread(moving, found)
    for node, layer in layers:
        found.setdefault(node.output[0], layer.put_out)
    _spread(moving, found)
    return found


def ranges_of(plan: Plan, path: str) -> LayerRanges:
    """Of the layer at `path`; EdgeavError if it has none."""
    if path not in (plan.learned or {}):
        raise EdgeavError(f"quantization.json has no learned range for {path}; run the qat stage again")
    return (plan.learned or {})[path]


def _spread(moves: Sequence[NodeProto], found: dict[str, Ends]) -> None:
    """To both sides of every node that only moves or rectifies, until nothing is new."""
    orders: list[Callable[[Sequence[NodeProto]], Iterator[NodeProto]]] = [reversed, iter]
    before = -1
    while before != len(found):
        before = len(found)
        for order in orders:
            for node in order(moves):
                sides = [*node.input[: None if node.op_type == "Concat" else 1], *node.output]
                known = next((found[name] for name in sides if name in found), None)
                if known is not None:
                    found |= {name: known for name in sides if name not in found}
