"""The part of the Android app that is not Android, compiled and run on this machine's JVM, against Python.

The app itself is type-checked only; see devices/android/README.md for what that proves.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from android_jvm import ENGINE, ask, check, mouths, sound, stored
from tiny_bundle import TOKENS, expected, make_bundle

from edgeav.errors import EdgeavError
from edgeav.runtime.bundle import Bundle, read_bundle, write_bundle, write_golden
from edgeav.runtime.clip import Clip
from edgeav.runtime.ctc import decode
from edgeav.runtime.features import Inputs, model_inputs
from edgeav.runtime.inputs import Features, LogMel, Mouth, Samples, settings


@pytest.fixture
def heard_bundle(tmp_path: Path) -> Bundle:
    """A tiny bundle whose golden vectors begin at a waveform."""
    bundle = make_bundle(tmp_path / "tiny")
    cases = []
    for seed, samples in enumerate((16_000, 40_321)):
        wave, mouth = sound(samples, seed), mouths(samples // 640, seed)
        inputs = model_inputs(wave, mouth, Features())
        log_probs = expected(inputs)
        arrays = {**inputs.named(Features().names), "waveform": wave, "log_probs": log_probs}
        text = decode(log_probs[0], TOKENS, len(TOKENS), inputs.presence[0]).text
        cases.append(write_golden(bundle.folder, f"clip-{seed}", arrays, transcript=text, tolerance=1e-3))
    spec = json.loads((bundle.folder / "bundle.json").read_text("utf-8")) | {"golden": cases}
    return write_bundle(bundle.folder, spec={key: spec[key] for key in spec if key not in ("schema", "files")})


def test_the_unit_tests_of_the_pipeline_pass_on_the_jvm() -> None:
    assert "OK (" in check("test")


def test_golden_vectors_come_out_the_same(heard_bundle: Bundle, tmp_path: Path) -> None:
    cases = ask(tmp_path, {"do": "golden", "bundle": heard_bundle.folder})[0]

    assert [case["name"] for case in cases] == ["clip-0", "clip-1"]
    for case, golden in zip(cases, heard_bundle.golden_cases(), strict=True):
        assert case["mel_off"] < 1e-4
        assert not case["mel_rest"]  # what pads the last step is zero
        assert case["text"] == golden.transcript != ""


FEATURES = [
    Features(),
    Features(video=None),
    Features(audio=None, video=Mouth(crop=80)),
    Features(audio=Samples(), video=Mouth(normalize="fixed", mean=0.421, deviation=0.165)),
    Features(step_ms=40, audio=LogMel(mels=64, window_function="hann-periodic", mel_scale="htk", mel_norm="none")),
    Features(audio=LogMel(mel_corners="bins", mels=26, padding="reflect", log_guard="clamp", log_floor=1e-9)),
    Features(audio=LogMel(n_fft=400, low_hz=20.0, high_hz=7600.0, normalize="none", pre_emphasis=0.0, hop=320)),
]


def test_features_of_any_model_are_those_of_python(tmp_path: Path) -> None:
    wave, mouth = sound(20_123), mouths(33)
    present = np.ones(33, bool)
    present[5:12] = False  # a face that is lost inside steps
    clips, requests = [], []
    for number, features in enumerate(FEATURES):
        out = tmp_path / str(number)
        out.mkdir()
        media: dict[str, Any] = {"waveform": stored(out / "wave", wave), "mouth": stored(out / "mouth", mouth)}
        requests.append(
            {"do": "inputs", "features": settings(features), "out": out, "present": present.tolist(), **media}
        )
        heard, seen = wave if features.audio else None, mouth if features.video else None
        clips.append(Clip(heard, seen, present if features.video else present[:0], [], features))

    shapes = ask(tmp_path, *requests)

    for number, (clip, features) in enumerate(zip(clips, FEATURES, strict=True)):
        right: Inputs = clip.inputs(0, clip.steps)
        for name, array in right.named(features.names).items():
            assert shapes[number][name] == list(array.shape), (number, name)
            found = np.fromfile(tmp_path / str(number) / f"{name}.f32", "<f4").reshape(array.shape)
            np.testing.assert_allclose(found, array, atol=1e-4, err_msg=f"{number} {name}")


def broken_bundles(tiny: Path, place: Path) -> list[Path]:
    """Copies of a bundle, each wrong in another way."""
    spec = json.loads((tiny / "bundle.json").read_text("utf-8"))
    case, features, steps = spec["golden"][0], spec["features"], spec["steps"]
    audio, files = features["audio"], case["files"]
    unlisted, misshapen = {"file": "none", "dtype": "float32", "shape": [1]}, {**files["mel"], "shape": [1, 2]}
    changes: list[dict[str, Any]] = [
        {"engine": "tflite", "model": "other.onnx", "blank": 9},
        {"tokens": "abc", "surprise": 1, "blank": 1.5},
        {"steps": {**steps, "max": 1}, "outputs": []},
        {"steps": {**steps, "per_second": 10}, "inputs": spec["inputs"][:1]},
        {"features": {**features, "step_ms": 0, "extra": 2}},
        {"features": {**features, "mouth": 88, "audio": {**audio, "mels": 0, "hop": "160"}}},
        {"features": {**features, "audio": {**audio, "window": 513, "log_floor": 0}}},
        {"features": {**features, "audio": None, "video": None}},
        {"features": {**features, "audio": {"kind": "mfcc"}}},
        {"features": {**features, "video": {"crop": 97, "normalize": "per-clip", "mean": 0, "deviation": 0}}},
        {"golden": [{"name": "x"}, {**case, "files": {"mel": unlisted}}]},
        {"golden": [{**case, "files": {**files, "mel": misshapen}}]},
        {"files": {**spec["files"], "../up": {"sha256": "0", "bytes": 1}, "gone.bin": {"sha256": "0", "bytes": 1}}},
        {"files": {**spec["files"], "model.onnx": {"sha256": "0" * 64, "bytes": 3}}},
        {"schema": "edgeav-bundle/1"},
    ]
    folders = []
    for number, change in enumerate(changes):
        folder = Path(shutil.copytree(tiny, place / str(number)))
        (folder / "bundle.json").write_text(json.dumps(spec | change), encoding="utf-8")
        folders.append(folder)
    return folders


def subjects(message: str) -> list[str]:
    """What each line of an error is about."""
    return [line.strip().split(":")[0] for line in message.splitlines()[1:] if not line.startswith("Export")]


def test_a_broken_bundle_is_refused_for_the_same_reasons_all_at_once(tmp_path: Path) -> None:
    folders = broken_bundles(make_bundle(tmp_path / "tiny").folder, tmp_path / "broken")

    answers = ask(
        tmp_path, {"do": "read", "bundle": tmp_path / "tiny"}, *({"do": "read", "bundle": folder} for folder in folders)
    )

    assert answers[0]["tokens"] == TOKENS
    for folder, answer in zip(folders, answers[1:], strict=True):
        with pytest.raises(EdgeavError) as refused:
            read_bundle(folder)
        assert "error" in answer, folder
        assert subjects(answer["error"]) == subjects(str(refused.value)), (folder, answer["error"])


def test_a_tampered_file_is_named_with_its_hash(tmp_path: Path) -> None:
    folder = make_bundle(tmp_path / "tiny").folder
    with (folder / "model.onnx").open("r+b") as file:
        file.seek(100)
        file.write(b"?")

    (answer,) = ask(tmp_path, {"do": "read", "bundle": folder})

    assert "model.onnx: changed or truncated: sha256 is" in answer["error"]


def test_the_profile_has_the_schema_of_edgeav_profile(tmp_path: Path) -> None:
    from edgeav.profiling import Profile

    bundle = make_bundle(tmp_path / "tiny")
    wrong = make_bundle(tmp_path / "wrong", off=0.01)

    def request(folder: Path) -> dict[str, Any]:
        return {"do": "profile", "bundle": folder, "command": [sys.executable, str(ENGINE), str(folder)]}

    measured, refused = ask(tmp_path, request(bundle.folder), request(wrong.folder))

    profile = Profile.model_validate_json(json.dumps(measured))
    assert profile.golden.cases == 2
    assert profile.model_bytes == bundle.size_bytes
    assert profile.n == 3 and profile.wall_ms.min <= profile.wall_ms.p50 <= profile.wall_ms.p99
    assert "Nothing was timed" in refused["error"]


@pytest.mark.slow
def test_the_manifest_and_the_app_fit_the_signatures_they_were_written_against() -> None:
    assert "fits its resources" in check("app")
