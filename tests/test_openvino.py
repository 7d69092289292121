"""The OpenVINO artifact: right at every length, integer where the plan says so, the mask untouched."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import openvino
import pytest
from tiny_av import OURS, all_kinds, calibration, tiny_model

from edgeav.errors import EdgeavError
from edgeav.exporters.onnx import write_onnx
from edgeav.exporters.openvino import integer_modules, write_openvino, write_quantized_openvino
from edgeav.exporters.openvino_pictures import READ
from edgeav.exporters.parity import eager_log_probs, largest_difference
from edgeav.exporters.rewrites import deployable, openvino_form
from edgeav.quant.plan import Plan
from edgeav.runtime.engines import openvino_settings
from edgeav.runtime.openvino_core import VARIABLE, core, place
from edgeav.target import OpenVinoOptions

LARGEST_RANGE = 100  # activations span about 10; the attention mask spans 10,000


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("openvino") / "source.onnx"
    write_onnx(openvino_form(deployable(tiny_model())), path, opset=20)
    return path


@pytest.fixture(scope="module")
def int8_file(source: Path) -> Path:
    path = source.with_name("int8.xml")
    write_quantized_openvino(source, path, Plan(), calibration(), OpenVinoOptions())
    return path


def test_float_answers_are_those_of_pytorch(source: Path) -> None:
    write_openvino(source, source.with_name("float.xml"))
    assert _largest_difference(source.with_name("float.xml")) < 1e-4


def test_int8_answers_are_near_those_of_pytorch(int8_file: Path) -> None:
    assert _largest_difference(int8_file) < 0.5


def test_clips_of_different_lengths_calibrate_without_smooth_quant_too(source: Path, tmp_path: Path) -> None:
    path = tmp_path / "plain.xml"
    write_quantized_openvino(source, path, Plan(), calibration(), OpenVinoOptions(smooth_quant=None))
    assert _largest_difference(path) < 0.5


def test_the_front_ends_run_in_integer_kernels(int8_file: Path) -> None:
    wanted = {"video.stem.conv", "video.convs.0", "video.convs.2", "video.linear", "audio.layers.0", "audio.linear"}
    assert wanted <= integer_modules(int8_file, Plan())


def test_pictures_are_rounded_once_and_stacked_as_bytes(int8_file: Path) -> None:
    ops = {op.get_friendly_name(): op for op in core().read_model(int8_file).get_ordered_ops()}
    stack = next(op for name, op in ops.items() if name.startswith("video.stem/") and op.get_type_name() == "Concat")
    assert {value.get_element_type().to_string() for value in stack.input_values()} == {"u8"}
    assert sum("video.stem/slice" in name for name, op in ops.items() if op.get_type_name() == "FakeQuantize") == 0


def test_a_stem_in_float_keeps_its_pictures_in_float(source: Path, tmp_path: Path) -> None:
    path, plan = tmp_path / "mixed.xml", Plan(keep_float=("visual-stem",))
    write_quantized_openvino(source, path, plan, calibration(), OpenVinoOptions())
    assert READ not in {op.get_friendly_name() for op in core().read_model(path).get_ordered_ops()}
    assert _largest_difference(path) < 0.5


def test_a_role_kept_in_float_stays_in_float(source: Path, tmp_path: Path) -> None:
    plan = Plan(keep_float=("visual-cnn", "attention-matmul"))
    write_quantized_openvino(source, tmp_path / "mixed.xml", plan, calibration(), OpenVinoOptions())
    integer = integer_modules(tmp_path / "mixed.xml", plan)
    assert not integer & {"video.convs.0", "video.convs.2", "video.linear"}
    assert "audio.layers.3" in integer


def test_the_attention_mask_passes_through_no_quantizer(int8_file: Path) -> None:
    operators = core().read_model(int8_file).get_ops()
    ends = [op.input_value(2).get_node() for op in operators if op.get_type_name() == "FakeQuantize"]
    assert ends
    assert max(float(end.get_data().max()) for end in ends if isinstance(end, openvino.op.Constant)) < LARGEST_RANGE


SIGNALLED = """
import gc, os, signal, sys, threading
import openvino
from edgeav.runtime.openvino_core import core, signal_stack_kept

def forget():
    core.cache_clear()
    gc.collect()

signal.signal(signal.SIGUSR1, lambda *_: print("handled"))
core().compile_model(sys.argv[1], "CPU")
thread = threading.Thread(target=forget)
thread.start()
thread.join()
os.kill(os.getpid(), signal.SIGUSR1)

with signal_stack_kept():
    several = [openvino.Core() for _ in range(2)]
    for one in several:
        one.get_property("CPU", "FULL_DEVICE_NAME")
    del one
    while several:
        several.pop(0)
os.kill(os.getpid(), signal.SIGUSR1)
"""


def test_a_signal_after_openvino_is_gone_is_handled(int8_file: Path) -> None:
    """Its plugin brings a stack for signal handlers, and takes it away with itself."""
    done = subprocess.run([sys.executable, "-c", SIGNALLED, str(int8_file)], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, "handled\n" * 2), done.stderr


def _largest_difference(path: Path) -> float:
    settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
    compiled, model = core().compile_model(path, "CPU", settings), tiny_model()
    return max(
        largest_difference(compiled(inputs.named(OURS.names))["log_probs"], eager_log_probs(model, inputs), inputs)
        for inputs in all_kinds()
    )


def test_a_device_that_openvino_does_not_find_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    assert place() == "CPU"
    monkeypatch.setenv(VARIABLE, "GPU.7")
    with pytest.raises(EdgeavError, match=r"finds no GPU\.7 here, only CPU"):
        place()
    monkeypatch.setattr(type(core()), "available_devices", property(lambda self: ["CPU", "GPU.7"]))
    assert place() == "GPU.7"


def test_settings_of_the_cpu_alone_are_not_given_to_other_devices() -> None:
    assert openvino_settings("fp32", 2)["INFERENCE_NUM_THREADS"] == 2
    assert set(openvino_settings("fp32", 2)) - set(openvino_settings("fp32", 2, "GPU")) == {"INFERENCE_NUM_THREADS"}
