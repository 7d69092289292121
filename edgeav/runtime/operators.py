"""Where the time goes: one row per operator type of the graph that really ran, and the share of int8 kernels.

An int8 file proves nothing: an engine that finds no integer kernel dequantizes and multiplies in float. So
this asks the engine itself, after its fusions: ONNX Runtime's profile, OpenVINO's performance counters.
Profiling slows the engine down, so these times rank operators; bench.py measures the latency without it.
"""

from __future__ import annotations

import json
import tempfile
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from edgeav.runtime.bundle import Bundle
from edgeav.runtime.engines import openvino_settings, optimizes
from edgeav.runtime.features import Inputs
from edgeav.runtime.onnxruntime_session import open_session

RUNS, WARMUP = 10, 3

# ONNX Runtime's integer kernels (its docs/ContribOperators.md); QuantizeLinear and DequantizeLinear are the
# price of int8, not int8 arithmetic.
ORT_INTEGER_PREFIX = "QLinear"
ORT_INTEGER = {
    "QGemm",
    "QAttention",
    "MatMulInteger",
    "ConvInteger",
    "MatMulIntegerToFloat",
    "DynamicQuantizeMatMul",
}
# OpenVINO names a precision for nodes that only move bytes too; moving is not arithmetic.
OPENVINO_MOVES = {
    "Reorder",
    "Transpose",
    "Reshape",
    "Concatenation",
    "Split",
    "Pad",
    "StridedSlice",
    "Gather",
}
MULTIPLYING = ("Conv", "MatMul", "Gemm", "FullyConnected", "Attention")  # where a network's multiply-adds are

OTHER_PLUGINS = "only the CPU plugin names its kernels by their precision"
AOTI = "an AOTInductor package is compiled code, which has no operators left"
EXECUTORCH = "ExecuTorch's Python runtime writes no ETDump; the C++ runner tells its operators"
EXECUTORCH_MEMORY = "ExecuTorch's Python runtime loads torch, which the peak includes; the C++ runner does not"


class Node(NamedTuple):
    """One node in one run."""

    name: str
    type: str
    ms: float
    integer: bool


def operator_table(bundle: Bundle, inputs: Inputs, threads: int) -> dict[str, Any]:
    """Load the model once more, with profiling on, and sum up by operator type.

    {"operators": [{type, nodes, ms, share, integer}], "integer_share": {time, nodes}}, each share 0..1, or
    {"not_measured": {what: why}}.
    """
    match bundle.engine:
        case "onnxruntime":
            feed = inputs.named(bundle.input_names)
            return _table(onnxruntime_nodes(bundle.model_path, feed, threads, optimizes(bundle.precision)))
        case "openvino":
            from edgeav.runtime.openvino_core import place

            if place() != "CPU":
                return {"not_measured": dict.fromkeys(("operators", "integer_share"), OTHER_PLUGINS)}
            return _table(_openvino_nodes(bundle, inputs, threads))
        case "aoti":
            return {"not_measured": dict.fromkeys(("operators", "integer_share"), AOTI)}
        case _:
            reasons = {
                "operators": EXECUTORCH,
                "integer_share": EXECUTORCH,
                "memory without torch": EXECUTORCH_MEMORY,
            }
            return {"not_measured": reasons}


def _table(nodes: Iterable[Node]) -> dict[str, Any]:
    """Nodes of RUNS runs -> rows by type, the slowest first; times are of one run."""
    groups: dict[tuple[str, bool], list[Node]] = defaultdict(list)
    for node in nodes:
        groups[node.type, node.integer].append(node)
    total_ms = sum(node.ms for group in groups.values() for node in group) / RUNS or 1.0
    rows = []
    for (kind, integer), group in groups.items():
        ms = sum(node.ms for node in group) / RUNS
        count = len({node.name for node in group})
        rows.append({"type": kind, "nodes": count, "ms": ms, "share": ms / total_ms, "integer": integer})
    rows.sort(key=lambda row: -row["ms"])
    return {"operators": rows, "integer_share": _integer_share(rows)}


def _integer_share(rows: list[dict[str, Any]]) -> dict[str, float]:
    multiplying = [row for row in rows if any(word in row["type"] for word in MULTIPLYING)]
    count = sum(row["nodes"] for row in multiplying) or 1
    return {
        "time": float(sum(row["share"] for row in rows if row["integer"])),
        "nodes": sum(row["nodes"] for row in multiplying if row["integer"]) / count,
    }


def onnxruntime_nodes(model: Path, feed: dict[str, Any], threads: int, optimized: bool = True) -> list[Node]:
    """Every node of RUNS runs."""
    with tempfile.TemporaryDirectory() as folder:
        session = open_session(model, threads, optimized=optimized, profile=Path(folder) / "profile")
        for _ in range(WARMUP + RUNS):
            session.run(None, feed)
        events = json.loads(Path(session.end_profiling()).read_text())
    return list(_after_warmup(events))


def _after_warmup(events: list[dict[str, Any]]) -> Iterable[Node]:
    """Kernel times in ONNX Runtime's trace. It numbers no runs: a node's first entries are the warm-up."""
    seen: dict[str, int] = defaultdict(int)
    for event in events:
        name = event["name"]
        if event.get("cat") != "Node" or not name.endswith("_kernel_time"):
            continue
        seen[name] += 1
        if seen[name] > WARMUP:
            kind = event["args"]["op_name"]
            integer = kind.startswith(ORT_INTEGER_PREFIX) or kind in ORT_INTEGER
            yield Node(name, kind, event["dur"] / 1000, integer)  # dur: microseconds


def _openvino_nodes(bundle: Bundle, inputs: Inputs, threads: int) -> list[Node]:
    from edgeav.runtime.openvino_core import core

    settings = openvino_settings(bundle.precision, threads) | {"PERF_COUNT": True}
    compiled = core().compile_model(str(bundle.model_path), "CPU", settings)
    request = compiled.create_infer_request()
    nodes = []
    for run in range(WARMUP + RUNS):
        request.infer(inputs.named(bundle.input_names))
        if run >= WARMUP:
            nodes += [_openvino_node(info) for info in request.profiling_info if info.real_time.total_seconds() > 0]
    return nodes


def _openvino_node(info: Any) -> Node:
    """exec_type is like `brgconv_avx512_i8` or `jit_avx512_f32`: kernel, instruction set and precision."""
    eight_bit = info.exec_type.lower().endswith(("_i8", "_u8"))
    ms = info.real_time.total_seconds() * 1000
    return Node(info.node_name, info.node_type, ms, eight_bit and info.node_type not in OPENVINO_MOVES)
