"""Formats beside static int8: what the file holds, what runs in integers, and whether answers are the format's."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import openvino
import pytest
import torch
from tiny_av import OURS, all_kinds, calibration, clip, target, tiny_model
from torch import nn

from edgeav.errors import EdgeavError
from edgeav.exporters import export
from edgeav.exporters.onnx import integer_modules, quantize_onnx, write_onnx
from edgeav.exporters.openvino import integer_modules as openvino_integer_modules
from edgeav.exporters.openvino import write_quantized_openvino
from edgeav.exporters.parity import compare, eager_log_probs, largest_difference
from edgeav.exporters.rewrites import deployable
from edgeav.models import AVModel
from edgeav.quant.plan import Format, Plan
from edgeav.runtime.engines import openvino_settings
from edgeav.target import OpenVinoOptions

FRONT = {"visual-stem": "int8", "visual-cnn": "int8", "subsampling": "int8"}
LINEAR = {path for path, module in deployable(tiny_model()).named_modules() if isinstance(module, nn.Linear)}


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("formats") / "float.onnx"
    write_onnx(deployable(tiny_model()), path, opset=20)
    return path


def made(source: Path, plan: Plan, place: Path) -> Path:
    quantize_onnx(source, place / "made.onnx", plan, calibration())
    return place / "made.onnx"


def far_from(path: Path, model: AVModel) -> float:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    answers = [(inputs, np.asarray(session.run(None, inputs.named(OURS.names))[0])) for inputs in all_kinds()]
    return max(largest_difference(found, eager_log_probs(model, inputs), inputs) for inputs, found in answers)


def rounded(kinds: tuple[type, ...], rule) -> AVModel:  # type: ignore[no-untyped-def]
    """The model as deployed, each weight replaced by what `rule` makes of it."""
    model = deployable(tiny_model())
    for module in model.modules():
        if isinstance(module, kinds):
            module.weight = nn.Parameter(rule(module.weight), requires_grad=False)
    return model


def to_int8(weight: torch.Tensor) -> torch.Tensor:
    scale = weight.abs().amax(dim=1, keepdim=True) / 127
    return (weight / scale).round() * scale


def test_int8_weights_answer_like_pytorch_with_rounded_linear_layers(source: Path, tmp_path: Path) -> None:
    path = made(source, Plan(format="int8-weights"), tmp_path)
    assert far_from(path, rounded((nn.Linear,), to_int8)) < 1e-4
    assert far_from(path, tiny_model()) > 1e-3
    assert integer_modules(path) == set()


def test_fp16_answers_like_pytorch_with_weights_in_half_precision_and_computes_in_float(
    source: Path, tmp_path: Path
) -> None:
    path = made(source, Plan(format="fp16"), tmp_path)
    halves = rounded((nn.Linear, nn.Conv1d, nn.Conv2d), lambda weight: weight.half().float())
    assert far_from(path, halves) < 1e-4
    assert path.stat().st_size < 0.8 * source.stat().st_size


def test_small_weights_cost_nothing_once_the_file_is_loaded(source: Path, tmp_path: Path) -> None:
    """The operators that ONNX Runtime runs are those of the float file: no Cast, no Mul more."""

    def running(path: Path) -> Counter[str]:
        options = onnxruntime.SessionOptions()
        options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
        options.log_severity_level = 3
        onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        return Counter(node.op_type for node in onnx.load(tmp_path / "optimized.onnx").graph.node)

    (tmp_path / "b").mkdir()
    bare = running(made(source, Plan(format="int8-weights", keep_float=()), tmp_path / "b"))
    half = running(made(source, Plan(format="fp16"), tmp_path / "b"))
    assert bare["Cast"] == half["Cast"] == running(source)["Cast"]
    assert half == running(source)


def test_dynamic_int8_is_for_linear_layers_alone_and_needs_no_clip(source: Path, tmp_path: Path) -> None:
    quantize_onnx(source, tmp_path / "dynamic.onnx", Plan(format="int8-dynamic"), [])
    assert integer_modules(tmp_path / "dynamic.onnx") == LINEAR
    assert far_from(tmp_path / "dynamic.onnx", tiny_model()) < 0.3


def test_four_bits_are_multiplied_in_float_by_blocks(source: Path, tmp_path: Path) -> None:
    path = made(source, Plan(format="int4-weights"), tmp_path)
    nodes = [node for node in onnx.load(path).graph.node if node.op_type == "MatMulNBits"]
    assert {node.name.partition("/")[0] for node in nodes} == LINEAR
    settings = {a.name: onnx.helper.get_attribute_value(a) for a in nodes[0].attribute}
    assert (settings["bits"], settings["block_size"], settings["accuracy_level"]) == (4, 32, 1)
    assert integer_modules(path) == set()
    assert 1e-3 < far_from(path, tiny_model()) < 2


def test_every_role_of_a_mixed_plan_gets_its_own_format(source: Path, tmp_path: Path) -> None:
    roles: dict = FRONT | {"feed-forward": "int8-dynamic", "head": "int4-weights", "fusion": "fp32"}
    path = made(source, Plan(format="fp16", roles=roles), tmp_path)
    graph = onnx.load(path).graph
    kinds = {node.name.partition("/")[0]: node.op_type for node in graph.node if "MatMul" in node.op_type}
    assert kinds["head"] == "MatMulNBits"
    assert kinds["fusion.up"] == "MatMul"
    assert "blocks.0.feed_forward_1.up" in integer_modules(path)
    assert "video.convs.0" in integer_modules(path)
    assert not {"fusion.up", "head", "blocks.0.attention.query"} & integer_modules(path)
    halves = {c.name for c in graph.initializer if c.data_type == onnx.TensorProto.FLOAT16}
    assert any("conv.depthwise" in name for name in halves)
    assert far_from(path, tiny_model()) < 2


@pytest.mark.parametrize("ranges", ["percentile", "mse", "entropy"])
def test_other_ranges_change_the_scales_and_nothing_else(source: Path, tmp_path: Path, ranges: str) -> None:
    plain, other = tmp_path / "minmax.onnx", tmp_path / "other.onnx"
    quantize_onnx(source, plain, Plan(), calibration())
    quantize_onnx(source, other, Plan.model_validate({"ranges": ranges}), calibration())
    assert integer_modules(other) == integer_modules(plain)
    assert [node.op_type for node in onnx.load(other).graph.node] == [n.op_type for n in onnx.load(plain).graph.node]
    assert far_from(other, tiny_model()) < 1


def test_ranges_that_are_there_are_taken_over_without_a_clip(source: Path, tmp_path: Path) -> None:
    cache = tmp_path / "ranges.json"
    quantize_onnx(source, tmp_path / "first.onnx", Plan(), calibration(), cache)
    quantize_onnx(source, tmp_path / "second.onnx", Plan(keep_float=("head", "attention-matmul")), [clip(3)], cache)
    scales = [_constants(tmp_path / name) for name in ("first.onnx", "second.onnx")]
    assert len(scales[1]) > 20
    assert all((scales[0][name] == value).all() for name, value in scales[1].items() if name in scales[0])


@pytest.mark.parametrize(
    ("plan", "most"),
    [
        (Plan(format="int8-weights"), 0.2),
        (Plan(format="int8-dynamic"), 0.3),
        (Plan(format="int4-weights"), 2),
        (Plan(format="fp8-e4m3"), 2),
        (Plan(format="fp16"), 0.01),
        (Plan(format="bf16"), 0.3),
        (Plan(format="bf16", roles=dict(FRONT)), 0.5),  # type: ignore[arg-type]
        (Plan(roles={"feed-forward": "int8-weights", "head": "int4-weights"}), 2),
    ],
    ids=["int8-weights", "int8-dynamic", "int4-weights", "fp8", "fp16", "bf16", "bf16 and int8", "int8 and weights"],
)
def test_openvino_computes_each_format_and_knows_which_are_integer(
    source: Path, tmp_path: Path, plan: Plan, most: float
) -> None:
    path = tmp_path / "model.xml"
    write_quantized_openvino(source, path, plan, calibration(), OpenVinoOptions(smooth_quant=None))
    compiled = openvino.Core().compile_model(path, "CPU", openvino_settings(plan.format, threads=1))
    if compiled.get_property("INFERENCE_PRECISION_HINT").to_string() == "f32" and plan.format == "bf16":
        pytest.skip("this CPU has no bfloat16")
    model, integer = tiny_model(), openvino_integer_modules(path, plan)
    for inputs in all_kinds()[:4]:
        expected = eager_log_probs(model, inputs)
        assert largest_difference(compiled(inputs.named(OURS.names))["log_probs"], expected, inputs) < most
    allowed: tuple[Format, ...] = ("int8", "int8-dynamic")
    assert all(plan.has(module, *allowed) for module in integer)
    assert bool(integer) == any(f in plan.formats for f in allowed)


def test_a_bundle_of_small_weights_says_that_nothing_is_integer_and_is_called_after_its_format(tmp_path: Path) -> None:
    plan = Plan(format="int8-weights")
    bundle = export(tiny_model(), target("onnxruntime"), "int8-weights", [], [(None, clip(16))], tmp_path, plan)
    assert (bundle.name, bundle.precision) == ("onnxruntime-int8-weights", "int8-weights")
    assert bundle.quality["integer_mac_share"] == 0
    assert compare(bundle, tiny_model(), all_kinds()).max_abs < 0.2
    assert bundle.golden_cases()[0].tolerance >= 0.05


def test_a_format_that_the_engine_lacks_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(EdgeavError, match="onnxruntime cannot do bf16; it can do int8, int8-dynamic"):
        export(tiny_model(), target("onnxruntime"), "bf16", [], [], tmp_path / "bundle")
    assert not (tmp_path / "bundle").exists()


@pytest.mark.slow
def test_executorch_runs_dynamic_int8_at_every_length_and_beside_static_int8(tmp_path: Path) -> None:
    plan = Plan(format="int8-dynamic", roles=dict(FRONT))  # type: ignore[arg-type]
    place = target("executorch-xnnpack")
    bundle = export(tiny_model(), place, "int8-dynamic", calibration(), [(None, clip(16))], tmp_path, plan)
    assert compare(bundle, tiny_model(), [*all_kinds(), clip(200)]).max_abs < 0.5
    assert bundle.quality["integer_mac_share"] > 0.9


def _constants(path: Path) -> dict[str, np.ndarray]:
    graph = onnx.load(path).graph
    return {c.name: onnx.numpy_helper.to_array(c) for c in graph.initializer if c.name.endswith("_scale")}
