"""Bundles: what is written is read back, and nothing that was damaged passes for a bundle."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_bundle import expected, make_bundle, some_inputs

from edgeav.errors import EdgeavError
from edgeav.runtime.bundle import read_bundle, sha256, update_quality, write_bundle


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bundle(tmp_path_factory.mktemp("bundle") / "tiny").folder


@pytest.fixture
def bundle(made: Path, tmp_path: Path) -> Path:
    """A bundle to spoil."""
    return Path(shutil.copytree(made, tmp_path / "bundle"))


def edit(folder: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    spec = json.loads((folder / "bundle.json").read_text())
    change(spec)
    (folder / "bundle.json").write_text(json.dumps(spec))


def error_of(folder: Path) -> str:
    with pytest.raises(EdgeavError) as caught:
        read_bundle(folder)
    return str(caught.value)


def test_a_bundle_reads_back_what_was_written(made: Path) -> None:
    bundle = read_bundle(made)

    assert bundle.model_path == made / "model.onnx"
    assert bundle.size_bytes == (made / "model.onnx").stat().st_size
    assert bundle.steps.max == 200
    first = bundle.golden_cases()[0]
    np.testing.assert_array_equal(first.arrays["mel"], some_inputs(7, seed=7).audio)
    np.testing.assert_array_equal(first.arrays["log_probs"], expected(some_inputs(7, seed=7)))


def test_both_files_of_an_openvino_model_count_as_its_size(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "tiny", engine="openvino")

    xml, weights = ((bundle.folder / name).stat().st_size for name in ("model.xml", "model.bin"))
    assert bundle.size_bytes == xml + weights


def test_a_changed_byte_is_named_with_both_hashes(bundle: Path) -> None:
    content = bytearray((bundle / "model.onnx").read_bytes())
    right = sha256(bundle / "model.onnx")
    content[100] ^= 1
    (bundle / "model.onnx").write_bytes(content)

    message = error_of(bundle)

    assert "model.onnx: changed or truncated" in message
    assert right in message
    assert sha256(bundle / "model.onnx") in message
    assert "edgeav export" in message


def test_all_problems_are_said_at_once(bundle: Path) -> None:
    (bundle / "golden/noise-7.mel.f32").write_bytes(b"short")
    (bundle / "golden/noise-20.mel.f32").unlink()
    edit(bundle, lambda spec: spec.update(engine="tflite", precision="int4"))

    message = error_of(bundle)

    for part in (
        "noise-7.mel.f32: changed",
        "noise-20.mel.f32: missing",
        "'tflite'",
        "onnxruntime",
        "'int4'",
    ):
        assert part in message


def test_missing_and_unknown_keys_are_named(bundle: Path) -> None:
    edit(bundle, lambda spec: (spec.pop("tokens"), spec.pop("steps"), spec.update(colour="red", blank="3")))

    message = error_of(bundle)

    for part in ("tokens: missing", "steps: missing", "colour: unknown key", "blank: str, must be int"):
        assert part in message


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda spec: spec.update(blank=4), "blank: 4; must be 0..3"),
        (lambda spec: spec.update(blank=0), "outputs:"),
        (lambda spec: spec.update(model="other.onnx"), "model: 'other.onnx'"),
        (lambda spec: spec["inputs"].reverse(), "inputs: [{'name': 'presence'"),
        (lambda spec: spec["steps"].update(max="many"), "steps.max: 'many'"),
        (lambda spec: spec["steps"].update(audio_frames=4), "steps: {"),
        (lambda spec: spec["features"].update(step_ms="80"), "features.step_ms: '80', must be a whole number"),
        (lambda spec: spec["golden"][0]["files"].pop("video"), "golden noise-7: video missing"),
        (
            lambda spec: spec["golden"][0]["files"]["mel"].update(shape=[1, 2, 3]),
            "does not hold shape [1, 2, 3]",
        ),
        (lambda spec: spec["golden"].append("?"), "golden: every case"),
        (
            lambda spec: spec["files"].update({"../../secret": {"sha256": "0", "bytes": 1}}),
            "outside the bundle",
        ),
        (lambda spec: spec["files"].update({"model.onnx": "?"}), "must have sha256 and bytes"),
    ],
)
def test_wrong_values_are_named(bundle: Path, change: Callable[[dict[str, Any]], Any], said: str) -> None:
    edit(bundle, change)

    assert said in error_of(bundle)


def test_a_truncated_bundle_json_says_so(bundle: Path) -> None:
    content = (bundle / "bundle.json").read_text()
    (bundle / "bundle.json").write_text(content[: len(content) // 2])

    assert "bundle.json is truncated or not JSON" in error_of(bundle)


def test_another_schema_version_says_which_one_is_read(bundle: Path) -> None:
    edit(bundle, lambda spec: spec.update(schema="edgeav-bundle/9"))

    message = error_of(bundle)

    assert "'edgeav-bundle/9'" in message
    assert "'edgeav-bundle/2'" in message


def test_a_json_list_is_no_bundle(bundle: Path) -> None:
    (bundle / "bundle.json").write_text("[]")

    assert "schema is 'list'" in error_of(bundle)


def test_a_folder_without_bundle_json_and_no_folder_are_told_apart(tmp_path: Path) -> None:
    assert "has no bundle.json" in error_of(tmp_path)
    assert "does not exist" in error_of(tmp_path / "absent")


def test_an_interrupted_write_leaves_no_bundle(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(path: Path, target: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        write_bundle(bundle, spec={})

    assert "has no bundle.json" in error_of(bundle)


def test_what_was_measured_later_is_added_without_touching_the_files(bundle: Path) -> None:
    before = read_bundle(bundle)

    after = update_quality(before, {"wer": 0.1})

    assert after.quality == {"wer": 0.1}
    assert after.files == before.files
