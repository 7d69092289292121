"""Learned ranges -> the observers of a graph that PT2E has prepared, so that converting it calibrates nothing.

XNNPACK's integers are signed, which moves the zero point by 128 and changes no number of the grid. It also rounds what
every linear layer puts out; training only noted those ranges.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.fx import GraphModule, Node
from torchao.quantization.pt2e import MinMaxObserver

from edgeav.errors import EdgeavError
from edgeav.exporters.onnx_learned import ranges_of
from edgeav.quant.plan import Ends, Plan

LAYERS = (torch.ops.aten.conv2d.default, torch.ops.aten.conv1d.default, torch.ops.aten.linear.default)
MOVES = {
    "cat", "dropout", "flatten", "narrow", "permute", "relu", "reshape", "slice", "squeeze", "stack", "transpose",
    "unflatten", "unsqueeze", "view",
}  # fmt: skip


def set_ranges(prepared: GraphModule, plan: Plan) -> None:
    """Give the observers of activations the plan's ranges. Changes `prepared`, whose weights were observed already."""
    for node in prepared.graph.nodes:
        if node.op == "call_module" and node.users and not _of_weight(node):
            prepared.add_submodule(str(node.target), _given(_ends(node, plan)))


def _of_weight(observer: Node) -> bool:
    return observer.all_input_nodes[0].op == "get_attr"


def _ends(observer: Node, plan: Plan) -> Ends:
    """Of the layer that reads the tensor, at once or after it was moved; else of the layer that puts it out."""
    from edgeav.exporters.executorch import module_of_node

    if reader := _reader(observer):
        return ranges_of(plan, module_of_node(reader)).given
    source = observer
    while source.target not in LAYERS:
        if not _passes(source) or not source.all_input_nodes:
            raise EdgeavError(f"executorch: no layer stands at {source.name}, which PT2E wants to round")
        source = source.all_input_nodes[0]
    return ranges_of(plan, module_of_node(source)).put_out


def _reader(node: Node) -> Node | None:
    """The first layer that is given `node`, or what moves make of it."""
    for user in node.users:
        found = user if user.target in LAYERS else _reader(user) if _passes(user) else None
        if found is not None:
            return found
    return None


def _passes(node: Node) -> bool:
    """Whether the grid behind `node` is the one before it."""
    name = str(node.target).split(".")[1] if node.op == "call_function" else ""
    return node.op == "call_module" or name in MOVES


def _given(ends: Ends) -> nn.Module:
    observer = MinMaxObserver(torch.int8, torch.per_tensor_affine, quant_min=-128, quant_max=127)
    observer.min_val.fill_(ends[0])
    observer.max_val.fill_(ends[1])
    return observer
