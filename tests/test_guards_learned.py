"""Files with learned ranges are taken apart as well: no clip explains their scales, the plan does."""

from __future__ import annotations

import shutil
from pathlib import Path

import artifact_faults as faults
import numpy as np
import pytest
from tiny_av import calibration, clip, learned_plan, target, tiny_model

from edgeav.exporters import export
from edgeav.guards import inspect
from edgeav.guards.onnx_file import inspect_onnx, made_from
from edgeav.guards.openvino_file import inspect_openvino
from edgeav.quant.plan import Plan
from edgeav.runtime.bundle import Bundle

ENGINES = ("onnxruntime", "openvino", "executorch-xnnpack")
CONV, GATED = "video.convs.0", "blocks.0.conv/mul_"
PLAN = learned_plan(tiny_model())


def more(array: np.ndarray) -> np.ndarray:
    return array * np.float32(1.1)


FAULTS: dict[str, tuple[str, faults.Fault]] = {
    "ONNX, weight scale x1.1": ("onnxruntime", faults.onnx_constant(f"{CONV}.weight_scale", more)),
    "ONNX, activation scale x1.1": ("onnxruntime", faults.onnx_constant("silu_scale", more)),
    "ONNX, zero point + 1": ("onnxruntime", faults.onnx_constant("silu_zero_point", lambda a: a + np.uint8(1))),
    "ONNX, bias zeroed": ("onnxruntime", faults.onnx_constant(f"{CONV}.bias_quantized", np.zeros_like)),
    "ONNX, sound and lips swapped": ("onnxruntime", faults.onnx_node("fusion/cat_1", faults.swap_first_two)),
    "weight scale x1.1": ("openvino", faults.openvino_edit("Convolution", f"{CONV}/", faults.scale_weight)),
    "activation scale x1.1": ("openvino", faults.openvino_edit("FakeQuantize", GATED, faults.stretch_levels)),
    "zero point + 1": ("openvino", faults.openvino_edit("FakeQuantize", GATED, faults.move_levels)),
    "bias zeroed": ("openvino", faults.openvino_edit("Convolution", f"{CONV}/", faults.zero_bias)),
    "sound and lips swapped": ("openvino", faults.openvino_edit("Concat", "fusion/cat_1", faults.swap_sources)),
    "float fallback": ("openvino", faults.openvino_edit("FakeQuantize", GATED, faults.bypass)),
}


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Bundle]:
    """By engine, in int8."""
    folder, examples = tmp_path_factory.mktemp("learned"), [(None, clip(16))]
    return {name: export(tiny_model(), target(name), "int8", [], examples, folder / name, PLAN) for name in ENGINES}


@pytest.fixture(scope="module")
def float_bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """For OpenVINO; the other guards make their own."""
    folder = tmp_path_factory.mktemp("float") / "openvino"
    return export(tiny_model(), target("openvino"), "fp32", [], [(None, clip(16))], folder)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_healthy_file_passes_and_one_of_other_ranges_does_not(
    engine: str, bundles: dict[str, Bundle], float_bundle: Bundle
) -> None:
    bundle = bundles[engine]
    found = inspect(bundle, float_bundle, tiny_model(), PLAN, calibration())
    assert found.passed, found.findings
    assert found.weights > 30 and found.ranges > (20 if engine == "openvino" else 30)  # one an activation
    wrong = inspect(
        bundle, float_bundle, tiny_model(), with_other_ranges("video.stem.conv", "head"), calibration()
    ).findings
    assert len(wrong) >= 2 and not any("wiring" in text for text in wrong)


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_found(fault: str, bundles: dict[str, Bundle], float_bundle: Bundle, tmp_path: Path) -> None:
    engine, spoil = FAULTS[fault]
    rounded = bundles[engine]
    shutil.copytree(rounded.folder, tmp_path / "spoiled")
    path = tmp_path / "spoiled" / rounded.model_path.name
    spoil(path)
    if engine == "openvino":
        found = inspect_openvino(path, float_bundle.model_path, PLAN, calibration())
    else:
        with made_from(tiny_model(), PLAN, int(rounded.exported["opset"])) as source:
            found = inspect_onnx(path, source, PLAN, calibration())
    assert not found.passed


def with_other_ranges(*paths: str) -> Plan:
    """The plan with the ranges of these layers a tenth wider."""
    learned = dict(PLAN.learned or {})
    for path in paths:
        low, high = learned[path].given
        learned[path] = learned[path].model_copy(update={"given": (1.1 * low, 1.1 * high)})
    return PLAN.model_copy(update={"learned": learned})
