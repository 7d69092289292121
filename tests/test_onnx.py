"""The ONNX artifact: silent in ONNX Runtime at every length, integer where the plan says so, the mask untouched."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from tiny_av import OURS, all_kinds, calibration, clip, tiny_model

from edgeav.exporters.onnx import integer_modules, quantize_onnx, write_onnx
from edgeav.exporters.parity import eager_log_probs, largest_difference
from edgeav.exporters.rewrites import deployable, onnxruntime_form
from edgeav.quant.census import macs_by_module
from edgeav.quant.plan import Plan
from edgeav.runtime.features import Inputs

NAMES = OURS.names
LARGEST_RANGE = 100  # activations span about 10; the attention mask spans 10,000


@pytest.fixture(scope="module")
def float_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("onnx") / "model.onnx"
    write_onnx(deployable(tiny_model()), path, opset=20)
    return path


@pytest.fixture(scope="module")
def int8_file(float_file: Path) -> Path:
    path = float_file.with_name("int8.onnx")
    quantize_onnx(float_file, path, Plan(), calibration())
    return path


def test_onnx_runtime_has_nothing_to_warn_about_at_any_length(
    float_file: Path, int8_file: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    for path in (float_file, int8_file):
        session = _session(path, severity=2)
        for inputs in [*all_kinds(), clip(200)]:
            _run(session, inputs)
    out, err = capfd.readouterr()
    assert "warn" not in (out + err).lower(), err  # a shared name for 2N-1 and N makes it re-plan memory on every run


def test_float_answers_are_those_of_pytorch(float_file: Path) -> None:
    session, model = _session(float_file), tiny_model()
    for inputs in [*all_kinds(), clip(200)]:
        expected = eager_log_probs(model, inputs)
        assert largest_difference(_run(session, inputs), expected, inputs) < 1e-4


def test_int8_answers_are_near_those_of_pytorch(int8_file: Path) -> None:
    session, model = _session(int8_file), tiny_model()
    for inputs in all_kinds():
        expected = eager_log_probs(model, inputs)
        assert largest_difference(_run(session, inputs), expected, inputs) < 0.5


def test_what_multiplies_is_in_integers_but_products_of_attention_and_the_layer_over_one_channel(
    int8_file: Path,
) -> None:
    busy = {path for path, macs in macs_by_module(onnxruntime_form(deployable(tiny_model()))).items() if macs}
    assert busy - integer_modules(int8_file) == {"blocks.0.attention", "audio.layers.0"}


def test_a_role_kept_in_float_stays_in_float(float_file: Path, tmp_path: Path) -> None:
    plan = Plan(keep_float=("visual-stem", "head", "attention-matmul"))
    quantize_onnx(float_file, tmp_path / "mixed.onnx", plan, calibration())
    integer = integer_modules(tmp_path / "mixed.onnx")
    assert not integer & {"video.stem.conv", "head"}
    assert "video.convs.0" in integer


def test_the_attention_mask_passes_through_no_quantizer(int8_file: Path) -> None:
    graph = onnx.load(int8_file).graph
    constants = {item.name: onnx.numpy_helper.to_array(item) for item in graph.initializer}
    scales = [constants[node.input[1]] for node in graph.node if node.op_type == "QuantizeLinear"]
    assert scales
    assert max(float(scale.max()) for scale in scales) * 255 < LARGEST_RANGE


def test_nodes_are_named_after_modules_and_no_path_of_this_machine_is_inside(float_file: Path) -> None:
    names = {node.name.partition("/")[0] for node in onnx.load(float_file).graph.node}
    assert {"video.stem.conv", "blocks.0.conv.depthwise", "head"} <= names
    assert str(Path(__file__).parents[1]).encode() not in float_file.read_bytes()


def _session(path: Path, severity: int = 3) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = severity, 1
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def _run(session: onnxruntime.InferenceSession, inputs: Inputs) -> np.ndarray:
    return np.asarray(session.run(["log_probs"], inputs.named(NAMES))[0])


def test_every_calibration_clip_counts_however_many_there_are(float_file: Path, tmp_path: Path) -> None:
    """ONNX Runtime 1.31 forgets earlier clips where CalibMaxIntermediateOutputs is set; 256 clips were 8."""
    loud = clip(9, seed=3)
    loud.video[:] *= 50
    quantize_onnx(float_file, tmp_path / "many.onnx", Plan(), [loud, *(clip(4, seed=n) for n in range(40))])
    graph = onnx.load(tmp_path / "many.onnx").graph
    scale = next(onnx.numpy_helper.to_array(item) for item in graph.initializer if item.name == "video_scale")
    assert float(scale) * 255 >= np.ptp(loud.video) * 0.99
