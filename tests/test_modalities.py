"""Models that hear only, see only, or run on another clock, from export to text: each answers as PyTorch does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from media_files import shades, write_media
from tiny_av import (
    all_kinds,
    calibration,
    clip,
    target,
    tiny_25hz_model,
    tiny_audio_model,
    tiny_video_model,
)

from edgeav.errors import EdgeavError
from edgeav.exporters import export
from edgeav.exporters.onnx import integer_form
from edgeav.exporters.parity import compare
from edgeav.exporters.rewrites import deployable
from edgeav.macs import gmac_per_second
from edgeav.measure import recognizer
from edgeav.models import AVModel
from edgeav.quant.census import macs_by_module
from edgeav.quant.plan import Plan
from edgeav.runtime import bench
from edgeav.runtime.bundle import Bundle, read_bundle
from edgeav.runtime.engines import open_engine
from edgeav.runtime.features import model_inputs
from edgeav.runtime.inputs import Features
from edgeav.runtime.transcriber import Transcriber

BUILDERS: dict[str, Callable[[], AVModel]] = {
    "hears": tiny_audio_model,
    "sees": tiny_video_model,
    "25 Hz": tiny_25hz_model,
}


@dataclass(frozen=True)
class Case:
    model: AVModel
    name: str

    @property
    def features(self) -> Features:
        return self.model.config.inputs

    def export(self, name: str, precision: str, folder: Path) -> Bundle:
        ranges = calibration(self.features) if precision == "int8" else []
        golden = [(None, clip(16, seed=8, features=self.features))]
        return export(self.model, target(name), precision, ranges, golden, folder)  # type: ignore[arg-type]


@pytest.fixture(scope="module", params=BUILDERS)
def case(request: pytest.FixtureRequest) -> Case:
    return Case(BUILDERS[request.param](), request.param)


@pytest.fixture(scope="module")
def bundle(case: Case, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return case.export("onnxruntime", "fp32", tmp_path_factory.mktemp("fp32"))


@pytest.fixture(scope="module")
def hears(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return Case(tiny_audio_model(), "hears").export("onnxruntime", "fp32", tmp_path_factory.mktemp("hears"))


@pytest.fixture(scope="module")
def sees(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return Case(tiny_video_model(), "sees").export("onnxruntime", "fp32", tmp_path_factory.mktemp("sees"))


def noise(seconds: float) -> np.ndarray:
    return (0.1 * np.random.default_rng(0).standard_normal(round(16_000 * seconds))).astype(np.float32)


def mouths(frames: int) -> np.ndarray:
    return np.random.default_rng(1).integers(1, 255, (frames, 96, 96), dtype=np.uint8)


def test_the_artifact_answers_like_pytorch_at_every_length_and_with_padding(case: Case, bundle: Bundle) -> None:
    parity = compare(bundle, case.model, all_kinds(case.features))
    assert parity.max_abs < 1e-3
    assert parity.transcripts_equal
    assert parity.lengths == [2, 13, 17, 29, 31, 60]


def test_openvino_answers_like_pytorch_too(case: Case, tmp_path: Path) -> None:
    parity = compare(case.export("openvino", "fp32", tmp_path), case.model, all_kinds(case.features))
    assert parity.max_abs < 1e-3
    assert parity.transcripts_equal


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_executorch_answers_like_pytorch_too(case: Case, precision: str, tmp_path: Path) -> None:
    made = case.export("executorch-xnnpack", precision, tmp_path)
    assert compare(made, case.model, all_kinds(case.features)).max_abs < (1e-3 if precision == "fp32" else 0.5)
    if precision == "int8":
        assert made.quality["integer_mac_share"] > 0.9


@pytest.mark.parametrize("name", ["25 Hz", *(pytest.param(name, marks=pytest.mark.slow) for name in ("sees", "hears"))])
def test_in_int8_all_but_attentions_products_and_one_channel_is_integers_and_answers_stay_near(
    name: str, tmp_path: Path
) -> None:
    case = Case(BUILDERS[name](), name)
    made = case.export("onnxruntime", "int8", tmp_path)
    macs = macs_by_module(integer_form(deployable(case.model), Plan()))
    in_float = macs["blocks.0.attention"] + macs.get("audio.layers.0", 0)
    expected = 1 - in_float / sum(macs.values())
    assert made.quality["integer_mac_share"] == pytest.approx(expected, abs=1e-4)
    assert compare(made, case.model, all_kinds(case.features)).max_abs < 0.5


@pytest.mark.slow
def test_openvino_quantizes_a_model_of_one_modality_too(tmp_path: Path) -> None:
    case = Case(tiny_audio_model(), "hears")
    made = case.export("openvino", "int8", tmp_path)
    assert made.quality["integer_mac_share"] > 0.5
    assert compare(made, case.model, all_kinds(case.features)).max_abs < 0.5


def test_the_file_takes_exactly_the_inputs_of_the_model(case: Case, bundle: Bundle) -> None:
    import onnx

    expected = {
        "hears": {"mel": ["1", "8N", 64], "presence": ["1", "N", 2]},
        "sees": {"video": ["1", "2N", 64, 64], "presence": ["1", "N", 2]},
        "25 Hz": {"mel": ["1", "4N", 80], "video": ["1", "N", 88, 88], "presence": ["1", "N", 2]},
    }[case.name]
    assert {entry["name"]: entry["shape"] for entry in bundle.inputs} == expected
    assert [value.name for value in onnx.load(bundle.model_path).graph.input] == list(expected)


def test_nodes_are_named_after_the_modules_of_the_model_itself(bundle: Bundle) -> None:
    import onnx

    names = {node.name.partition("/")[0] for node in onnx.load(bundle.model_path).graph.node}
    assert {"blocks.0.conv.depthwise", "blocks.0.attention.query", "head"} <= names
    assert not [name for name in names if name.startswith("model")]


def test_golden_vectors_replay_and_the_speed_is_measured(case: Case, bundle: Bundle) -> None:
    assert bench.check_golden(open_engine(bundle), bundle)["cases"] == 1
    result = bench.measure(bundle.folder, bench.Workload(seconds=1.0, iterations=2, warmup=1), operators=True)
    assert result["steps"] == {80: 13, 40: 25}[case.features.step_ms]
    assert result["golden"]["max_abs"] < 1e-3
    assert sum(row["share"] for row in result["operators"]) == pytest.approx(1)


def test_the_text_of_the_bundle_is_that_of_the_model_on_its_own_features(case: Case, bundle: Bundle) -> None:
    expected = recognizer(case.model).text(noise(3), mouths(75))
    assert Transcriber(bundle.folder).transcribe_arrays(noise(3), mouths(75)).text == expected != ""


def test_word_times_follow_the_clock_of_the_model(case: Case, bundle: Bundle) -> None:
    transcript = Transcriber(bundle.folder).transcribe_arrays(noise(3), mouths(75))
    step_s = case.features.step_ms / 1000
    assert transcript.words
    for word in transcript.words:
        assert word.end_s <= 3 + step_s
        assert round(word.start_s / step_s, 2) == pytest.approx(round(word.start_s / step_s), abs=0.02)


def test_a_blank_that_is_not_the_last_output_is_never_text(tmp_path: Path) -> None:
    bundle = Case(tiny_25hz_model(), "25 Hz").export("onnxruntime", "fp32", tmp_path)
    assert (bundle.blank, bundle.tokens[0], bundle.labels) == (0, "<blank>", len(bundle.tokens))
    transcriber = Transcriber(bundle.folder)
    gap = transcriber.transcribe_arrays(np.concatenate([noise(1), np.zeros(16_000, np.float32)]), mouths(500))
    assert "<blank>" not in gap.text


def test_long_input_is_cut_by_seconds_whatever_the_clock(case: Case, bundle: Bundle) -> None:
    transcript = Transcriber(bundle.folder).transcribe_arrays(noise(30), mouths(750))
    longest_s = {80: 16, 40: 8}[case.features.step_ms]  # 200 steps
    assert any(f"longer than {longest_s} s: read in" in note for note in transcript.notes)
    assert transcript.duration_s == 30


def test_a_model_that_does_not_see_transcribes_a_wav_and_never_misses_the_video(hears: Bundle, tmp_path: Path) -> None:
    transcript = Transcriber(hears.folder).transcribe(write_media(tmp_path / "a.wav", noise(2)))
    assert transcript.notes == []
    assert transcript.text != ""


def test_a_model_that_does_not_see_searches_no_face(hears: Bundle, tmp_path: Path) -> None:
    path = write_media(tmp_path / "a.mkv", noise(1), pictures=shades(25, height=120, width=160))
    transcript = Transcriber(hears.folder).transcribe(path)
    assert transcript.notes == []
    assert transcript.timings_ms["face"] == 0


def test_a_model_that_does_not_hear_ignores_sound(sees: Bundle, tmp_path: Path) -> None:
    both = write_media(tmp_path / "both.mkv", noise(2), pictures=list(mouths(50)))
    alone = Transcriber(sees.folder).transcribe_arrays(None, mouths(50))
    assert Transcriber(sees.folder).transcribe_arrays(noise(2), mouths(50)).text == alone.text
    assert not any("audio" in note for note in Transcriber(sees.folder).transcribe(both).notes)


def test_what_a_model_needs_and_a_file_lacks_is_an_error_that_says_so(
    hears: Bundle, sees: Bundle, tmp_path: Path
) -> None:
    silent = write_media(tmp_path / "silent.mkv", pictures=shades(25, height=120, width=160))
    spoken = write_media(tmp_path / "spoken.wav", noise(1))
    with pytest.raises(EdgeavError, match=r"silent\.mkv: .*no audio track, and the model does not see"):
        Transcriber(hears.folder).transcribe(silent)
    with pytest.raises(EdgeavError, match=r"spoken\.wav: .*no video track, and the model does not hear"):
        Transcriber(sees.folder).transcribe(spoken)
    with pytest.raises(EdgeavError, match="no sound, and the model does not see"):
        Transcriber(hears.folder).transcribe_arrays(None, mouths(20))


def test_a_model_of_one_modality_costs_less_than_one_of_both() -> None:
    assert 0 < gmac_per_second(tiny_audio_model()) < gmac_per_second(tiny_25hz_model())


def test_golden_vectors_hold_what_the_model_takes_and_no_more(sees: Bundle, hears: Bundle) -> None:
    assert set(read_bundle(sees.folder).golden_cases()[0].arrays) == {"video", "presence", "log_probs"}
    assert set(read_bundle(hears.folder).golden_cases()[0].arrays) == {"mel", "presence", "log_probs"}
    assert model_inputs(None, None, hears.features).audio.shape == (1, 16, 64)
