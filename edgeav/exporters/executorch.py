"""ExecuTorch for phones and boards: one .pte whose heavy parts are delegated to XNNPACK; int8 by PT2E.

PT2E: a quantizer annotates the traced graph, observers watch calibration data, and quantize/dequantize pairs take their
place, which the partitioner then turns into XNNPACK's integer operators.
https://docs.pytorch.org/executorch/stable/backends/xnnpack/xnnpack-quantization.html
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch.export import ExportedProgram
from torch.fx import GraphModule, Node

from edgeav.errors import needs
from edgeav.exporters.graph import module_path, quiet, trace, trace_module
from edgeav.models import AVModel
from edgeav.quant.plan import Plan
from edgeav.runtime.features import Inputs

try:
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import (
        XNNPACKQuantizer,
        get_symmetric_quantization_config,
    )
    from executorch.exir import EdgeCompileConfig, ExecutorchBackendConfig, to_edge_transform_and_lower
    from executorch.exir.passes.sym_shape_eval_pass import ConstraintBasedSymShapeEvalPass
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e
except ImportError as error:
    raise needs("executorch", "executorch") from error

MODEL = "model.pte"
ATEN = torch.ops.aten
# Sums and products stay float although XNNPACK could: the attention mask is added (-1e4 would take the whole range and
# made the drift five times as large), and an 8-bit residual stream loses more than it saves.
QUANTIZED = (ATEN.conv2d.default, ATEN.conv1d.default, ATEN.linear.default, ATEN.relu.default)
MULTIPLIES = ("aten.convolution", "aten.linear", "aten.addmm", "aten.mm")


def write_executorch(model: AVModel, path: Path, max_steps: int) -> set[str]:
    """Lower a deployable float model, memory planned for `max_steps`. Returns the modules in integer kernels: none."""
    return _lower(trace(model, max_steps), path)


def write_quantized_executorch(
    model: AVModel, path: Path, max_steps: int, plan: Plan, calibration: Sequence[Inputs]
) -> set[str]:
    """Static int8, one scale per output channel, symmetric weights. Returns the modules in integer kernels."""
    quantizer = XNNPACKQuantizer()
    quantizer.set_global(get_symmetric_quantization_config(is_per_channel=True))
    quantizer.set_filter_function(lambda node: _to_quantize(node, plan))
    with quiet(), torch.no_grad():
        graph = trace(model, max_steps).module()
        assert isinstance(graph, GraphModule)
        prepared = prepare_pt2e(graph, quantizer)
        for inputs in calibration:
            prepared(*(torch.from_numpy(array) for array in inputs.named(model.config.inputs.names).values()))
        quantized = convert_pt2e(prepared)
        program = trace_module(quantized, model.config.inputs, max_steps)
    return _lower(program, path)


def module_of_node(node: Node) -> str:
    """The path of the module that made `node`: "blocks.0.conv.depthwise"; "" for the model itself."""
    stack = node.meta.get("nn_module_stack") or {"": ("", "")}
    path = list(stack.values())[-1][0]
    return module_path(path.removeprefix("L['self'].").removeprefix("L['self']").replace("._modules", ""))


def _to_quantize(node: Node, plan: Plan) -> bool:
    if node.op != "call_function":
        return True  # weights follow their operator
    if node.target not in QUANTIZED:
        return False
    return node.target is ATEN.relu.default or plan.quantizes(module_of_node(node))


def _lower(program: ExportedProgram, path: Path) -> set[str]:
    # With oneDNN the shape propagation compares N with oneDNN's own thresholds, and so "proves" N <= 32.
    with quiet(), torch.backends.mkldnn.flags(enabled=False):
        edge = to_edge_transform_and_lower(
            program,
            partitioner=[XnnpackPartitioner()],
            compile_config=EdgeCompileConfig(_check_ir_validity=False),
        )
        integer = _integer_modules(edge.exported_program().graph_module)
        config = ExecutorchBackendConfig(sym_shape_eval_pass=ConstraintBasedSymShapeEvalPass())
        with path.open("wb") as file:
            edge.to_executorch(config).write_to_file(file)
    return integer


def _integer_modules(graph: GraphModule) -> set[str]:
    """Modules that multiply a dequantized input inside an XNNPACK delegate, which XNNPACK does in integers."""
    found = set()
    for name, _ in graph.named_children():
        lowered = getattr(graph, name)
        original = getattr(lowered, "original_module", None)
        if original is not None:
            found |= {module_of_node(node) for node in original.graph_module.graph.nodes if _in_integers(node)}
    return found


def _in_integers(node: Node) -> bool:
    if node.op != "call_function" or not any(name in str(node.target) for name in MULTIPLIES):
        return False
    sources = [source for source in node.all_input_nodes if source.op == "call_function"]
    return any("dequantize" in str(source.target) for source in sources)
