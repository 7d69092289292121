"""What exporters make of a plan is what was simulated; learned ranges arrive in the file as they were learned."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import openvino
import pytest
from onnx import numpy_helper
from tiny_av import OURS, calibration, clip, learned_plan, target, tiny_model

from edgeav.errors import EdgeavError
from edgeav.exporters import export
from edgeav.exporters.onnx import quantize_onnx, write_onnx
from edgeav.exporters.onnx_learned import ranges_of
from edgeav.exporters.openvino import integer_modules, write_quantized_openvino
from edgeav.exporters.parity import eager_log_probs, largest_difference
from edgeav.exporters.rewrites import by_rows, deployable, onnxruntime_form
from edgeav.models import AVModel
from edgeav.quant.fake_quant import simulate
from edgeav.quant.grids import weight_scales
from edgeav.quant.plan import Format, Plan, role_of
from edgeav.runtime.features import Inputs
from edgeav.runtime.onnxruntime_session import open_session
from edgeav.runtime.operators import operator_table
from edgeav.target import OpenVinoOptions

FLOAT8 = (onnx.TensorProto.FLOAT8E4M3FN, onnx.TensorProto.FLOAT8E5M2)
POSITIONS = "blocks.0.attention.position"  # of a constant, which NNCF does not quantize
OVER_ONE_CHANNEL = "audio.layers.0"  # which ONNX Runtime computes in float
SHORT = [clip(steps, seed=steps) for steps in range(2, 12)]


@pytest.fixture(scope="module")
def float_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("rounded") / "model.onnx"
    write_onnx(deployable(tiny_model()), path, opset=20)
    return path


@pytest.fixture(scope="module")
def plan() -> Plan:
    return learned_plan(tiny_model())


@pytest.fixture(scope="module")
def learned_file(float_file: Path, plan: Plan) -> Path:
    path = float_file.with_name("learned.onnx")
    quantize_onnx(float_file, path, plan, [])
    return path


def test_int8_answers_are_those_of_onnx_runtimes_int8_file(float_file: Path) -> None:
    """Up to ties: where float sums in another order fall on the other side of a step, deeper layers make that large."""
    model, path, formed = tiny_model(), float_file.with_name("int8.onnx"), float_file.with_name("formed.onnx")
    write_onnx(onnxruntime_form(deployable(model)), formed, opset=20)
    plan = Plan(keep_float=("subsampling", "attention-matmul"))  # ONNX Runtime keeps its first layer float
    quantize_onnx(formed, path, plan, calibration())
    simulated, session = simulate(model, plan, calibration()), plain_session(path)
    apart = sorted(_apart(session, simulated, inputs) for inputs in SHORT)
    drift = sorted(largest_difference(eager_log_probs(model, x), eager_log_probs(simulated, x), x) for x in SHORT)
    assert apart[len(apart) // 3] < 1e-5  # not by chance, and not with any other grid
    assert drift[0] > 1e-3  # they agree about something
    assert apart[-1] < 2 * drift[-1]


@pytest.mark.parametrize("name", ["fp8-e4m3", "fp8-e5m2"])
def test_fp8_answers_are_those_of_the_onnx_file_with_float8_in_it(float_file: Path, name: Format) -> None:
    model, path, plan = tiny_model(), float_file.with_name(f"{name}.onnx"), Plan(format=name)
    quantize_onnx(float_file, path, plan, calibration())
    layers = {path for path, module in deployable(model).named_modules() if role_of(path) and hasattr(module, "weight")}
    assert _fp8_layers(path) == layers
    session, simulated = plain_session(path), simulate(model, plan, calibration())
    apart = sorted(_apart(session, simulated, inputs) for inputs in SHORT)
    assert apart[len(apart) // 2] < 1e-5
    assert path.stat().st_size < 0.5 * float_file.stat().st_size


def test_an_fp8_bundle_runs_as_it_is_and_says_that_it_is_emulated(tmp_path: Path) -> None:
    model, examples = tiny_model(), [(None, clip(16))]
    bundle = export(model, target("onnxruntime"), "fp8-e4m3", calibration(), examples, tmp_path / "b")
    assert bundle.quality["arithmetic"] == {"fp8-e4m3": "emulated"} and bundle.quality["integer_mac_share"] == 0
    rows = operator_table(bundle, clip(16), threads=1)["operators"]
    assert {"QuantizeLinear", "Conv", "MatMul"} <= {row["type"] for row in rows if not row["integer"]}


def test_fp8_needs_an_opset_that_has_it(tmp_path: Path, float_file: Path) -> None:
    proto = onnx.load(float_file)
    proto.opset_import[0].version = 18
    onnx.save(proto, tmp_path / "old.onnx")
    with pytest.raises(EdgeavError, match="needs 19"):
        quantize_onnx(tmp_path / "old.onnx", tmp_path / "out.onnx", Plan(format="fp8-e4m3"), calibration())


def test_the_scales_in_the_onnx_file_are_the_learned_ones(learned_file: Path, plan: Plan) -> None:
    graph = onnx.load(learned_file).graph
    constants = {item.name: numpy_helper.to_array(item) for item in graph.initializer}
    makers = {name: node for node in graph.node for name in node.output}
    ready, seen = deployable(tiny_model()), set()
    for node in graph.node:
        path = node.name.partition("/")[0]
        if node.op_type not in ("Conv", "MatMul", "Gemm") or not plan.quantizes(path) or path == OVER_ONE_CHANNEL:
            continue
        low, high = ranges_of(plan, path).given
        scale, zero = (constants[name] for name in makers[node.input[0]].input[1:])
        assert float(scale) == pytest.approx((high - low) / 255, rel=1e-5), path
        assert int(zero) == round(-low * 255 / (high - low)), path
        weight = makers[node.input[1]]
        expected = weight_scales(ready.get_submodule(path).get_parameter("weight")).numpy()
        np.testing.assert_allclose(constants[weight.input[1]], expected, rtol=1e-5, err_msg=path)
        seen.add(path)
    assert seen == set(plan.learned or {}) - {OVER_ONE_CHANNEL}


def test_openvino_takes_learned_ranges_into_integer_kernels(float_file: Path, plan: Plan, learned_file: Path) -> None:
    path = float_file.with_name("learned.xml")
    write_quantized_openvino(float_file, path, plan, SHORT[:1], OpenVinoOptions())
    assert set(plan.learned or {}) - {POSITIONS} <= integer_modules(path, plan)
    compiled = openvino.Core().compile_model(
        path, "CPU", {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
    )
    session = plain_session(learned_file)
    for inputs in SHORT[:4]:
        feed = inputs.named(OURS.names)
        theirs = np.asarray(session.run(["log_probs"], feed)[0])
        assert largest_difference(compiled(feed)["log_probs"], theirs, inputs) < 0.1


def test_the_ranges_in_the_executorch_graph_are_the_learned_ones(plan: Plan) -> None:
    from edgeav.exporters.executorch import module_of_node, observed

    graph, seen = observed(by_rows(deployable(tiny_model())), 64, plan, []), set()
    for node in graph.graph.nodes:
        path = module_of_node(node) if node.op == "call_function" else ""
        if path in (plan.learned or {}) and str(node.target).split(".")[1] in ("conv1d", "conv2d", "linear"):
            observer = graph.get_submodule(str(node.args[0].target))
            found = float(observer.get_buffer("min_val")), float(observer.get_buffer("max_val"))
            assert found == pytest.approx(ranges_of(plan, path).given), path
            seen.add(path)
    assert seen == set(plan.learned or {})


def test_a_layer_without_a_learned_range_is_named(float_file: Path, plan: Plan, tmp_path: Path) -> None:
    learned = {path: ranges for path, ranges in (plan.learned or {}).items() if path != "fusion.up"}
    with pytest.raises(EdgeavError, match=r"no learned range for fusion\.up"):
        quantize_onnx(float_file, tmp_path / "out.onnx", plan.model_copy(update={"learned": learned}), [])


def plain_session(path: Path) -> onnxruntime.InferenceSession:
    """Every operator as the file has it."""
    return open_session(path, optimized=False)


def _fp8_layers(path: Path) -> set[str]:
    """Layers that read two float8 tensors."""
    graph = onnx.load(path).graph
    kinds = {item.name: item.data_type for item in graph.initializer}
    pairs = [node for node in graph.node if node.op_type == "DequantizeLinear"]
    float8 = {node.output[0] for node in pairs if kinds[node.input[2]] in FLOAT8}
    return {node.name.partition("/")[0] for node in graph.node if {*node.input[:2]} <= float8 and len(node.input) > 1}


def _apart(session: onnxruntime.InferenceSession, model: AVModel, inputs: Inputs) -> float:
    found = np.asarray(session.run(["log_probs"], inputs.named(OURS.names))[0])
    return largest_difference(found, eager_log_probs(model, inputs), inputs)
