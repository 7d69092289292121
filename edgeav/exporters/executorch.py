"""ExecuTorch for phones and boards: one .pte whose heavy parts are delegated to XNNPACK; int8 by PT2E.

PT2E: a quantizer annotates the traced graph, observers watch calibration data, and quantize/dequantize pairs take their
place, which the partitioner then turns into XNNPACK's integer operators.
https://docs.pytorch.org/executorch/stable/backends/xnnpack/xnnpack-quantization.html

Memory: what an input needs, not what the longest one would. ExecuTorch's own plan is for the longest, but its pages are
touched only as far as an input reaches; XNNPACK's workspace grows (`_for_the_shortest`); inputs are used in place.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import torch
from sympy import Expr
from torch.export import ExportedProgram
from torch.fx import GraphModule, Node
from torch.fx.experimental.symbolic_shapes import statically_known_true
from torch.fx.passes.infra.pass_base import PassBase, PassResult
from torch.utils._sympy.value_ranges import bound_sympy

from edgeav.errors import EdgeavError, needs
from edgeav.exporters.graph import clips_to_run, module_path, quiet, trace, trace_module
from edgeav.models import AVModel
from edgeav.quant.plan import Plan
from edgeav.runtime.features import Inputs

try:
    from executorch.backends.xnnpack.operators import node_visitor
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import (
        XnnpackDynamicallyQuantizedPartitioner,
        XnnpackPartitioner,
    )
    from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import (
        XNNPACKQuantizer,
        get_symmetric_quantization_config,
    )
    from executorch.backends.xnnpack.quantizer.xnnpack_quantizer_utils import QuantizationConfig
    from executorch.exir import EdgeCompileConfig, ExecutorchBackendConfig, to_edge_transform_and_lower
    from executorch.exir.dialects._ops import ops as exir_ops
    from executorch.exir.passes import MemoryPlanningPass
    from executorch.exir.passes.sym_shape_eval_pass import ConstraintBasedSymShapeEvalPass
    from torchao.quantization.pt2e import MinMaxObserver
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e
    from torchao.quantization.pt2e.quantizer import ComposableQuantizer, Quantizer
except ImportError as error:
    raise needs("executorch", "executorch") from error

MODEL = "model.pte"
ATEN = torch.ops.aten
EXPAND = exir_ops.edge.aten.expand_copy.default  # type: ignore[attr-defined]
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
    """Lower in the plan's formats, with one scale per output channel. Returns the modules in integer kernels."""
    with quiet(), torch.no_grad():
        quantized = convert_pt2e(observed(model, max_steps, plan, calibration))
        program = trace_module(quantized, model.config.inputs, max_steps)
    return _lower(program, path, "int8-dynamic" in plan.formats)


def observed(model: AVModel, max_steps: int, plan: Plan, calibration: Sequence[Inputs]) -> GraphModule:
    """The traced graph with an observer at every place that is rounded, which knows its range.

    Learned ranges need no clip, nor do formats without ranges; traced through the observers is then an empty one.
    """
    names = model.config.inputs.names
    clips = clips_to_run(plan, calibration, model.config.inputs)
    with quiet(), torch.no_grad():
        graph = trace(model, max_steps).module()
        assert isinstance(graph, GraphModule)
        quantizers = {"int8": _static, "int8-dynamic": _dynamic}
        chosen: list[Quantizer] = [make(plan) for name, make in quantizers.items() if name in plan.formats]
        prepared = prepare_pt2e(graph, ComposableQuantizer(chosen))
        for inputs in clips:
            prepared(*(torch.from_numpy(array) for array in inputs.named(names).values()))
        if plan.learned:
            from edgeav.exporters.executorch_learned import set_ranges

            set_ranges(prepared, plan)
    return prepared


def _static(plan: Plan) -> XNNPACKQuantizer:
    """Ranges from clips. XNNPACKQuantizer's own are `mse`, with 27 times the drift (KL) on the demo model."""
    config = get_symmetric_quantization_config(is_per_channel=True)
    if plan.ranges == "minmax":
        assert config.input_activation is not None
        observed = replace(config.input_activation, observer_or_fake_quant_ctr=MinMaxObserver.with_args(eps=2**-12))
        config = replace(config, input_activation=observed, output_activation=observed)
    elif plan.ranges != "mse":
        raise EdgeavError(f"executorch has no {plan.ranges} ranges; it has minmax, mse")
    return _quantizer(config, lambda node: node.target in QUANTIZED and _is_static(node, plan))


def _dynamic(plan: Plan) -> XNNPACKQuantizer:
    """Ranges as the numbers come, for linear layers alone."""
    config = get_symmetric_quantization_config(is_per_channel=True, is_dynamic=True)
    return _quantizer(
        config,
        lambda node: node.target is ATEN.linear.default and plan.has(module_of_node(node), "int8-dynamic"),
    )


def _quantizer(config: QuantizationConfig, wanted: Callable[[Node], bool]) -> XNNPACKQuantizer:
    quantizer = XNNPACKQuantizer()
    quantizer.set_global(config)
    quantizer.set_filter_function(lambda node: node.op != "call_function" or wanted(node))  # weights: their operator
    return quantizer


def module_of_node(node: Node) -> str:
    """The path of the module that made `node`: "blocks.0.conv.depthwise"; "" for the model itself."""
    stack = node.meta.get("nn_module_stack") or {"": ("", "")}
    path = list(stack.values())[-1][0]
    return module_path(path.removeprefix("L['self'].").removeprefix("L['self']").replace("._modules", ""))


def _is_static(node: Node, plan: Plan) -> bool:
    """An activation function goes with the layer it belongs to, or else with most of the model."""
    path = module_of_node(node)
    known = plan.format_of(path) is not None or node.target is not ATEN.relu.default
    return plan.quantizes(path) if known else plan.format == "int8"


def _lower(program: ExportedProgram, path: Path, dynamic: bool = False) -> set[str]:
    # Dynamic layers first and one by one: as part of larger pieces they make these depend on each other in a circle,
    # unless the length is fixed.
    partitioners = [XnnpackDynamicallyQuantizedPartitioner()] if dynamic else []
    # With oneDNN the shape propagation compares N with oneDNN's own thresholds, and so "proves" N <= 32.
    with quiet(), torch.backends.mkldnn.flags(enabled=False), _for_the_shortest():
        edge = to_edge_transform_and_lower(
            program,
            transform_passes=[WithoutIdleCopies()],
            partitioner=[*partitioners, XnnpackPartitioner()],
            compile_config=EdgeCompileConfig(_check_ir_validity=False),
        )
        integer = _integer_modules(edge.exported_program().graph_module)
        config = ExecutorchBackendConfig(
            sym_shape_eval_pass=ConstraintBasedSymShapeEvalPass(),
            memory_planning_pass=MemoryPlanningPass(alloc_graph_input=False),
        )
        with path.open("wb") as file:
            edge.to_executorch(config).write_to_file(file)
    return integer


class WithoutIdleCopies(PassBase):
    """Leaves out every `expand` to the shape that is there already.

    A product of two activations has one before each of them, and XNNPACK takes none: each copies, and cuts the
    delegated graph in two. In int8 1.09 times as fast without (av-student-tiny), in float as fast.
    """

    def call(self, graph_module: GraphModule) -> PassResult:
        idle = [node for node in graph_module.graph.nodes if node.target is EXPAND and _same_shape(node, node.args[0])]
        for node in idle:
            node.replace_all_uses_with(node.args[0])
            graph_module.graph.erase_node(node)
        graph_module.recompile()
        return PassResult(graph_module, bool(idle))


def _same_shape(node: Node, other: Node) -> bool:
    ours, theirs = node.meta["val"].shape, other.meta["val"].shape
    return len(ours) == len(theirs) and all(statically_known_true(a == b) for a, b in zip(ours, theirs, strict=True))


@contextmanager
def _for_the_shortest() -> Iterator[None]:
    """XNNPACK's part of the file gets the sizes of the shortest input, where ExecuTorch writes those of the longest.

    XNNPACK reserves what the file says, fills it with zeros and never makes it smaller; longer inputs make it larger.
    """
    usual = node_visitor.get_shape
    node_visitor.get_shape = smallest_shape
    try:
        yield
    finally:
        node_visitor.get_shape = usual


def smallest_shape(node: Node) -> list[int]:
    """Of what `node` makes, for the shortest input."""
    sides = node.meta["val"].shape
    return [side if isinstance(side, int) else _lower_bound(side) for side in sides]


def _lower_bound(side: torch.SymInt) -> int:
    expression, environment = side.node.expr, side.node.shape_env
    assert isinstance(expression, Expr) and environment is not None
    return int(bound_sympy(expression, environment.var_to_range).lower)


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
