"""How long a layer of a shape takes on a runtime: measured here, in one thread, and remembered.

Multiply-accumulates do not say it: a kernel that is vectorized by 16 is no faster for 17 channels than for 32, small
products wait for memory, and two halves of a layer are two calls (Yang et al. 2018, NetAdapt,
https://arxiv.org/abs/1804.03230, chooses by such a table too). Process CPU time, the least of several turns: whatever
else the machine does only ever adds.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from edgeav.errors import needs
from edgeav.runtime.onnxruntime_session import open_session
from edgeav.runtime.openvino_core import core

if TYPE_CHECKING:
    import onnx

    from edgeav.shrink.geometry import Shape

Runtime = Literal["onnxruntime", "openvino"]
TURNS, TURN_MS = 5, 4.0
OPSET = 18


class LatencyTable:
    """`table[shape]` in milliseconds."""

    def __init__(self, runtime: Runtime = "onnxruntime", turns: int = TURNS) -> None:
        self.runtime: Runtime = runtime
        self.turns = turns
        self.measured: dict[Shape, float] = {}

    def __getitem__(self, shape: Shape) -> float:
        if shape not in self.measured:
            graph, feed = graph_of(shape)
            self.measured[shape] = least_ms(session(graph, self.runtime, feed), self.turns)
        return self.measured[shape]


def least_ms(call: Callable[[], object], turns: int = TURNS) -> float:
    """Process CPU time of one call: the least over turns of some milliseconds each, after one to warm up."""
    call()
    once = max(_cpu_ms(call, 1), 1e-3)
    count = max(1, round(TURN_MS / once))
    return min(_cpu_ms(call, count) for _ in range(turns))


def session(model: onnx.ModelProto, runtime: Runtime, feed: dict[str, np.ndarray]) -> Callable[[], Any]:
    """The graph loaded in its runtime with one thread, as a call."""
    if runtime == "onnxruntime":
        return _onnxruntime(model.SerializeToString(), feed)
    return _openvino(model.SerializeToString(), feed)


def graph_of(shape: Shape) -> tuple[onnx.ModelProto, dict[str, np.ndarray]]:
    """One layer as an ONNX graph of random weights, and an input for it."""
    from onnx import TensorProto, helper

    nodes, weights, inputs = {"linear": _linear, "conv": _conv, "attention": _attention}[shape.kind](shape)
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, dims) for name, dims in inputs.items()]
    out = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    graph = helper.make_graph(nodes, "layer", values, [out], [_tensor(name, dims) for name, dims in weights.items()])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=9)
    random = np.random.default_rng(0)
    return model, {name: random.standard_normal(dims, np.float32) for name, dims in inputs.items()}


Parts = tuple[list["onnx.NodeProto"], dict[str, tuple[int, ...]], dict[str, tuple[int, ...]]]


def _linear(shape: Shape) -> Parts:
    from onnx.helper import make_node

    widths = [shape.inputs, *([shape.rank] if shape.rank else []), shape.outputs]
    weights: dict[str, tuple[int, ...]] = {"bias": (shape.outputs,)}
    nodes, last = [], "x"
    for place, (inputs, outputs) in enumerate(pairwise(widths)):
        weights[f"w{place}"] = (inputs, outputs)
        nodes.append(make_node("MatMul", [last, f"w{place}"], [f"h{place}"]))
        last = f"h{place}"
    nodes.append(make_node("Add", [last, "bias"], ["y"]))
    return nodes, weights, {"x": (1, shape.rows, shape.inputs)}


def _conv(shape: Shape) -> Parts:
    from onnx.helper import make_node

    pads = [k // 2 for k in shape.kernel] * 2
    settings = {"kernel_shape": list(shape.kernel), "strides": list(shape.stride), "pads": pads, "group": shape.groups}
    inputs, relu = {"x": (shape.rows, shape.inputs, *shape.size)}, make_node("Relu", ["h"], ["y"])
    weights = {
        "w": (shape.rank or shape.outputs, shape.inputs // shape.groups, *shape.kernel),
        "bias": (shape.outputs,),
    }
    if not shape.rank:
        return [make_node("Conv", ["x", "w", "bias"], ["h"], **settings), relu], weights, inputs
    weights["w1"] = (shape.outputs, shape.rank, *(1 for _ in shape.kernel))
    narrow = make_node("Conv", ["x", "w"], ["between"], **settings)
    return [narrow, make_node("Conv", ["between", "w1", "bias"], ["h"]), relu], weights, inputs


def _attention(shape: Shape) -> Parts:
    """Scores of content and of distance, softmax, and the sum of the values; without the shift, which moves bytes."""
    from onnx.helper import make_node

    heads, steps, width = shape.outputs, shape.rows, shape.inputs
    nodes = [
        make_node("MatMul", ["q", "k"], ["content"]),
        make_node("MatMul", ["q", "p"], ["distance"]),
        make_node("Slice", ["distance", "from", "to", "axis"], ["near"]),
        make_node("Add", ["content", "near"], ["scores"]),
        make_node("Softmax", ["scores"], ["weights"], axis=-1),
        make_node("MatMul", ["weights", "v"], ["y"]),
    ]
    for name, value in (("from", 0), ("to", steps), ("axis", 3)):
        nodes.insert(0, make_node("Constant", [], [name], value_ints=[value]))
    inputs = {"q": (1, heads, steps, width), "k": (1, heads, width, steps), "v": (1, heads, steps, width)}
    return nodes, {}, inputs | {"p": (1, heads, width, 2 * steps - 1)}


def _tensor(name: str, dims: tuple[int, ...]) -> onnx.TensorProto:
    from onnx import numpy_helper

    return numpy_helper.from_array(np.random.default_rng(1).standard_normal(dims, np.float32), name)


def _onnxruntime(model: bytes, feed: dict[str, np.ndarray]) -> Callable[[], Any]:
    try:
        loaded = open_session(model)
    except ImportError as error:
        raise needs("onnxruntime", "onnxruntime") from error
    return lambda: loaded.run(None, feed)


def _openvino(model: bytes, feed: dict[str, np.ndarray]) -> Callable[[], Any]:
    try:
        openvino = core()
    except ImportError as error:
        raise needs("openvino", "openvino") from error
    settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1, "NUM_STREAMS": 1}
    request = openvino.compile_model(openvino.read_model(model), "CPU", settings).create_infer_request()
    return lambda: request.infer(feed, share_inputs=True)


def _cpu_ms(call: Callable[[], object], count: int) -> float:
    start = time.process_time_ns()
    for _ in range(count):
        call()
    return (time.process_time_ns() - start) / count / 1e6
