"""A complete bundle around a model of three matrices: real engines and files, in milliseconds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgeav.runtime.bundle import Bundle, write_bundle, write_golden
from edgeav.runtime.bundle_check import input_entries, output_entries, step_entries
from edgeav.runtime.features import Inputs
from edgeav.runtime.inputs import Features, settings

TOKENS = ["▁one", "▁two", "▁three"]
OUTPUTS = len(TOKENS) + 1  # blank is the last
WIDTHS = {"mel": 8 * 80, "video": 2 * 88 * 88, "presence": 2}  # numbers in one step of 80 ms


def weights() -> dict[str, NDArray[np.float32]]:
    """(numbers in a step, outputs) for each input; scaled for log-probabilities down to about -10."""
    random = np.random.default_rng(7)
    return {
        name: (random.standard_normal((width, OUTPUTS)) / np.sqrt(width)).astype(np.float32)
        for name, width in WIDTHS.items()
    }


def expected(inputs: Inputs) -> NDArray[np.float32]:
    """What the model computes, in numpy: the oracle for every engine. -> (1, N, V)"""
    scores = sum(array.reshape(1, inputs.steps, -1) @ weights()[name] for name, array in named(inputs).items())
    scores = np.asarray(scores)
    scores = scores - scores.max(axis=-1, keepdims=True)
    return (scores - np.log(np.exp(scores).sum(axis=-1, keepdims=True))).astype(np.float32)


def named(inputs: Inputs) -> dict[str, NDArray[np.float32]]:
    return inputs.named(Features().names)


def some_inputs(steps: int, seed: int = 0) -> Inputs:
    random = np.random.default_rng(seed)
    shapes = ((1, 8 * steps, 80), (1, 2 * steps, 88, 88), (1, steps, 2))
    return Inputs(*(random.standard_normal(shape).astype(np.float32) for shape in shapes))


def onnx_model() -> bytes:
    """inputs mel, video, presence -> log_probs, as every exported model has them."""
    from onnx import TensorProto, helper, numpy_helper

    shapes = {"mel": (1, "M", 80), "video": (1, "F", 88, 88), "presence": (1, "N", 2)}
    nodes, constants = [], []
    for name, width in WIDTHS.items():
        constants.append(numpy_helper.from_array(weights()[name], f"{name}_weight"))
        constants.append(numpy_helper.from_array(np.array([1, -1, width], np.int64), f"{name}_shape"))
        nodes.append(helper.make_node("Reshape", [name, f"{name}_shape"], [f"{name}_flat"], name=f"{name}_reshape"))
        product = [f"{name}_flat", f"{name}_weight"]
        nodes.append(helper.make_node("MatMul", product, [f"{name}_out"], name=f"{name}_matmul"))
    nodes.append(helper.make_node("Sum", [f"{name}_out" for name in WIDTHS], ["sum"], name="sum"))
    nodes.append(helper.make_node("LogSoftmax", ["sum"], ["log_probs"], name="log_softmax", axis=-1))
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items()]
    output = helper.make_tensor_value_info("log_probs", TensorProto.FLOAT, (1, "N", OUTPUTS))
    graph = helper.make_graph(nodes, "tiny", values, [output], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    return model.SerializeToString()


def make_bundle(folder: Path, engine: str = "onnxruntime", precision: str = "fp32", off: float = 0.0) -> Bundle:
    """Write a bundle; `off` falsifies its golden vectors by that much."""
    folder.mkdir(parents=True)
    model = {"onnxruntime": "model.onnx", "openvino": "model.xml"}[engine]
    _place_model(folder / model, engine, precision)
    tolerance = 1e-4 if precision == "fp32" else 0.5
    golden = []
    for steps in (7, 20):
        inputs = some_inputs(steps, seed=steps)
        arrays = {**named(inputs), "log_probs": expected(inputs) + np.float32(off)}
        golden.append(write_golden(folder, f"noise-{steps}", arrays, transcript="one", tolerance=tolerance))
    return write_bundle(folder, spec=_spec(engine, precision, model, golden))


def _place_model(path: Path, engine: str, precision: str) -> None:
    if engine == "openvino":
        import openvino

        source = path.with_suffix(".onnx")
        source.write_bytes(onnx_model())
        openvino.save_model(openvino.convert_model(source), path, compress_to_fp16=False)
        source.unlink()
        return
    path.write_bytes(onnx_model())
    if precision == "int8":
        from onnxruntime.quantization import QuantType, quantize_dynamic

        quantize_dynamic(path, path, weight_type=QuantType.QInt8, op_types_to_quantize=["MatMul"])


def _spec(engine: str, precision: str, model: str, golden: list) -> dict:
    return {
        "name": f"tiny-{engine}-{precision}",
        "engine": engine,
        "precision": precision,
        "model": model,
        "inputs": input_entries(Features()),
        "outputs": output_entries(TOKENS, OUTPUTS - 1),
        "steps": step_entries(Features(), 200),
        "features": settings(Features()),
        "tokens": TOKENS,
        "blank": OUTPUTS - 1,
        "golden": golden,
        "quality": {},
        "exported": {"edgeav": "0.1.0"},
    }
