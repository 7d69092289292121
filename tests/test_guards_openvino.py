"""Every mistake in an int8 OpenVINO file is found, and a healthy file is left in peace."""

from __future__ import annotations

import shutil
from pathlib import Path

import artifact_faults as faults
import numpy as np
import pytest
from tiny_av import calibration, tiny_model

from edgeav.exporters.onnx import write_onnx
from edgeav.exporters.openvino import write_openvino, write_quantized_openvino
from edgeav.exporters.openvino_pictures import PADDED, READ, ROUNDED
from edgeav.exporters.rewrites import deployable, openvino_form
from edgeav.guards.openvino_file import inspect_openvino
from edgeav.quant.plan import Plan
from edgeav.target import OpenVinoOptions


def more(array: np.ndarray) -> np.ndarray:
    return array * np.float32(1.1)


def smoothing(node) -> None:
    faults.replace_constant(node, 1, more)


def another_number(side: int, by: float):
    def change(node) -> None:
        faults.replace_constant(node, side, lambda array: array + array.dtype.type(by))

    return change


def read_with_another_zero(node) -> None:
    another_number(1, 1)(node.input_value(0).get_node())


def rounded_to_other_levels(node) -> None:
    """The quantizer of the pictures, whose levels have their numbers elsewhere: behind the stack."""
    for side in (1, 2):
        faults.replace_constant(node.input_value(0).get_node(), side, more)


GATED, RECTIFIED = "blocks.0.conv/mul_", "video.convs.1/relu_"
FAULTS: dict[str, faults.Fault] = {
    "weight scale x1.1": faults.openvino_edit("Convolution", "video.convs.0/", faults.scale_weight),
    "weight scale x1.1 behind SmoothQuant": faults.openvino_edit("MatMul", "fusion.up/", faults.scale_weight),
    "SmoothQuant's factors x1.1": faults.openvino_edit("Multiply", "fusion/cat_1_0_0/nncf_smooth_quant", smoothing),
    "activation scale x1.1": faults.openvino_edit("FakeQuantize", GATED, faults.stretch_levels),
    "activation zero point + 1": faults.openvino_edit("FakeQuantize", GATED, faults.move_levels),
    "zero point + 1 behind a ReLU": faults.openvino_edit("FakeQuantize", RECTIFIED, faults.move_levels),
    "pictures' scale x1.1": faults.openvino_edit("Multiply", READ, lambda node: faults.replace_constant(node, 1, more)),
    "pictures' zero point + 1": faults.openvino_edit("Multiply", READ, read_with_another_zero),
    "pictures rounded to other levels": faults.openvino_edit("Convert", ROUNDED, rounded_to_other_levels),
    "pictures padded with another number": faults.openvino_edit("Pad", PADDED, another_number(3, 9)),
    "pictures of other neighbours": faults.openvino_edit("Concat", "video.stem/cat", faults.swap_sources),
    "bias dropped": faults.openvino_edit("Convolution", "video.convs.0/", faults.drop_bias),
    "bias zeroed": faults.openvino_edit("MatMul", "head/", faults.zero_bias),
    "sound and lips swapped": faults.openvino_edit("Concat", "fusion/cat_1", faults.swap_sources),
    "float fallback": faults.openvino_edit("FakeQuantize", RECTIFIED, faults.bypass),
}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """(int8, float)."""
    folder = tmp_path_factory.mktemp("guards")
    write_onnx(openvino_form(deployable(tiny_model())), folder / "source.onnx", opset=20)
    write_openvino(folder / "source.onnx", folder / "float.xml")
    write_quantized_openvino(folder / "source.onnx", folder / "int8.xml", Plan(), calibration(), OpenVinoOptions())
    return folder / "int8.xml", folder / "float.xml"


def test_a_healthy_file_passes_and_all_of_it_was_looked_at(files: tuple[Path, Path]) -> None:
    found = inspect_openvino(*files, Plan(), calibration())
    assert found.passed, found.findings
    assert found.weights > 30 and found.ranges > 20
    assert found.wiring < 1e-4


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_found(fault: str, files: tuple[Path, Path], tmp_path: Path) -> None:
    spoiled = tmp_path / "model.xml"
    for suffix in (".xml", ".bin"):
        shutil.copy(files[0].with_suffix(suffix), spoiled.with_suffix(suffix))
    FAULTS[fault](spoiled)
    assert not inspect_openvino(spoiled, files[1], Plan(), calibration()).passed
