"""Every mistake in an int8 ONNX file is found, in every one of its layers, and a healthy file is left in peace."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import artifact_faults as faults
import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from tiny_av import calibration, tiny_model

from edgeav.exporters.onnx import integer_form, quantize_onnx, write_onnx
from edgeav.exporters.rewrites import deployable
from edgeav.guards.numbers import range_findings, weight_findings
from edgeav.guards.onnx_file import File, _measure, _stored, inspect_onnx, unquantized
from edgeav.quant.plan import Plan

FAULTS: dict[str, faults.Fault] = {
    "weight scale x1.1": faults.onnx_constant("video.linear.weight_scale", lambda a: a * np.float32(1.1)),
    "weight scale x1.1 in one channel": faults.onnx_constant("video.convs.2.weight_scale", faults.one_channel),
    "activation scale x1.1": faults.onnx_constant("silu_scale", lambda a: a * np.float32(1.1)),
    "weight zero point + 1": faults.onnx_constant("video.linear.weight_zero_point", lambda a: a + np.int8(1)),
    "activation zero point + 1": faults.onnx_constant("layer_norm_3_zero_point", lambda a: a + np.uint8(1)),
    "zero point + 1 behind a ReLU": faults.onnx_constant("relu_3_zero_point", lambda a: a + np.uint8(1)),
    "zero point + 1 on one side": faults.onnx_only_dequantize("silu_DequantizeLinear"),
    "bias of a convolution dropped": faults.onnx_node("video.convs.0/conv2d_6", faults.without_input(2)),
    "bias of a convolution zeroed": faults.onnx_constant("video.convs.0.bias_quantized", np.zeros_like),
    "bias of a linear layer dropped": faults.onnx_node("head/linear_15", faults.as_identity),
    "sound and lips swapped": faults.onnx_node("fusion/cat_1", faults.swap_first_two),
    "float fallback": faults.onnx_float_layer("video.convs.0.weight_quantized"),
}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """(int8, float)."""
    folder = tmp_path_factory.mktemp("guards")
    write_onnx(deployable(tiny_model()), folder / "float.onnx", opset=20)
    quantize_onnx(folder / "float.onnx", folder / "int8.onnx", Plan(), calibration())
    return folder / "int8.onnx", folder / "float.onnx"


def test_a_healthy_file_passes_and_all_of_it_was_looked_at(files: tuple[Path, Path]) -> None:
    found = inspect_onnx(*files, Plan(), calibration())
    assert found.passed, found.findings
    assert found.weights > 30 and found.ranges > 30
    assert found.wiring < 1e-5


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_found(fault: str, files: tuple[Path, Path], tmp_path: Path) -> None:
    spoiled = tmp_path / "model.onnx"
    shutil.copy(files[0], spoiled)
    FAULTS[fault](spoiled)
    assert not inspect_onnx(spoiled, files[1], Plan(), calibration()).passed


def test_another_number_beside_the_bytes_of_a_clip_is_found(tmp_path: Path) -> None:
    source, path = tmp_path / "float.onnx", tmp_path / "int8.onnx"
    write_onnx(integer_form(deployable(tiny_model()), Plan()), source, opset=20)
    quantize_onnx(source, path, Plan(), calibration())
    assert inspect_onnx(path, source, Plan(), calibration()).passed
    proto = onnx.load(path)
    pad = next(node for node in proto.graph.node if node.op_type == "Pad" and len(node.input) > 2)
    zero = next(item for item in proto.graph.initializer if item.name == pad.input[2])
    other = numpy_helper.to_array(zero) + np.uint8(9)
    proto.graph.initializer.append(numpy_helper.from_array(other, "other"))
    pad.input[2] = "other"
    onnx.save(proto, path)
    assert not inspect_onnx(path, source, Plan(), calibration()).passed


def test_swapped_inputs_are_seen_in_the_wiring_alone(files: tuple[Path, Path], tmp_path: Path) -> None:
    spoiled = tmp_path / "model.onnx"
    shutil.copy(files[0], spoiled)
    FAULTS["sound and lips swapped"](spoiled)
    found = inspect_onnx(spoiled, files[1], Plan(), calibration())
    assert found.wiring > 0.01


def test_a_scale_of_any_weight_is_found_when_it_is_ten_percent_off_either_way(files: tuple[Path, Path]) -> None:
    file, reference = File.load(files[0]), File.load(files[1])
    weights = {node.input[0].removesuffix("_quantized"): _stored(node, file) for node in file.weights()}
    for name in weights.keys() & reference.constants.keys():
        expected, stored = reference.constants[name], weights[name]
        if expected.any():
            assert not [*weight_findings(name, stored, expected)]
            for factor in (1.1, 1 / 1.1):
                off = replace(stored, scale=stored.scale * np.float32(factor))
                assert [*weight_findings(name, off, expected)], name


def test_a_scale_or_zero_point_of_any_activation_is_found_when_it_is_off(files: tuple[Path, Path]) -> None:
    bare, ranges = unquantized(File.load(files[0]), File.load(files[1]))
    _measure(bare, ranges, files[1], calibration())
    assert not [*range_findings(ranges)]
    for index, item in enumerate(ranges):
        exact = -item.seen[0] / (item.seen[1] - item.seen[0]) * 255
        wider = replace(item, low=1.1 * item.low, high=1.1 * item.high)
        moved = replace(item, low=item.low - item.step, high=item.high - item.step)
        tie = abs(exact % 1 - 0.5) < 0.003  # then either neighbour is as right: the sines of the position table
        for spoiled in (wider,) if tie else (wider, moved):
            assert [*range_findings([*ranges[:index], replace(spoiled, group=""), *ranges[index + 1 :]])], item.name
