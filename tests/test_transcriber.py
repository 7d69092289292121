"""From files to words with a tiny model: what is missing, what is too long, and where the time goes."""

from __future__ import annotations

import dataclasses
import json
import time
from pathlib import Path

import numpy as np
import pytest
from media_files import shades, tone, write_media
from tiny_bundle import TOKENS, expected, make_bundle

from edgeav.errors import EdgeavError
from edgeav.runtime import features
from edgeav.runtime.clip import Clip
from edgeav.runtime.ctc import decode
from edgeav.runtime.features import Inputs
from edgeav.runtime.inputs import Features
from edgeav.runtime.transcriber import PARTS, Stopwatch, Transcriber
from edgeav.runtime.windows import loudness, plan_windows

Gray = np.ndarray
OURS = Features()
WINDOW, CONTEXT = 175, 12  # steps: 14 s, and 1 s on each side


class RecordingEngine:
    """Keeps what it was given and says the first token in every step."""

    name, version = "recording", "0"

    def __init__(self) -> None:
        self.calls: list[Inputs] = []

    def run(self, audio: np.ndarray, video: np.ndarray, presence: np.ndarray) -> np.ndarray:
        self.calls.append(Inputs(audio, video, presence))
        scores = np.zeros((1, presence.shape[1], len(TOKENS) + 1), np.float32)
        scores[..., 0] = 1
        return scores


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bundle(tmp_path_factory.mktemp("bundle") / "tiny").folder


@pytest.fixture(scope="module")
def transcriber(folder: Path) -> Transcriber:
    return Transcriber(folder)


@pytest.fixture
def recording(folder: Path) -> Transcriber:
    transcriber = Transcriber(folder)
    transcriber.engine = RecordingEngine()
    return transcriber


def noise(seconds: float) -> np.ndarray:
    return (0.1 * np.random.default_rng(0).standard_normal(round(16_000 * seconds))).astype(np.float32)


def mouths(frames: int) -> np.ndarray:
    return np.random.default_rng(1).integers(1, 255, (frames, 96, 96), dtype=np.uint8)


def calls(transcriber: Transcriber) -> list[Inputs]:
    assert isinstance(transcriber.engine, RecordingEngine)
    return transcriber.engine.calls


def test_the_text_is_that_of_the_model_on_the_features(transcriber: Transcriber) -> None:
    inputs = features.model_inputs(noise(3), mouths(75), OURS)
    oracle = decode(expected(inputs)[0], TOKENS, len(TOKENS), inputs.presence[0])

    transcript = transcriber.transcribe_arrays(noise(3), mouths(75))

    assert transcript.text == oracle.text != ""
    assert [word.start_s for word in transcript.words] == [word.start_s for word in oracle.words]
    assert transcript.duration_s == 3
    assert transcript.notes == []


def test_a_transcript_is_plain_data_with_the_time_of_every_part(transcriber: Transcriber, tmp_path: Path) -> None:
    transcript = transcriber.transcribe(write_media(tmp_path / "a.wav", noise(2)))

    assert tuple(transcript.timings_ms) == PARTS
    assert transcript.rtf == pytest.approx(sum(transcript.timings_ms.values()) / 2000, abs=1e-4)
    assert json.loads(json.dumps(dataclasses.asdict(transcript)))["text"] == transcript.text


def test_a_clip_without_video_or_without_sound_is_answered_and_said(recording: Transcriber, tmp_path: Path) -> None:
    heard = recording.transcribe(write_media(tmp_path / "a.wav", noise(2)))
    mouth = list(mouths(50))
    seen = recording.transcribe(write_media(tmp_path / "a.mkv", pictures=mouth))

    assert heard.notes == ["no video track"]
    assert "no audio track" in seen.notes
    assert "video: 96x96, taken for a mouth crop already made" in seen.notes
    assert [call.presence[0].mean(axis=0).tolist() for call in calls(recording)] == [[1, 0], [0, 1]]


def test_a_video_without_a_face_is_answered_from_its_sound(recording: Transcriber, tmp_path: Path) -> None:
    path = write_media(tmp_path / "a.mkv", noise(1), pictures=shades(25, height=120, width=160))

    transcript = recording.transcribe(path)

    assert any(note.startswith("no face found") for note in transcript.notes)
    assert not calls(recording)[0].presence[..., 1].any()


def test_neither_sound_nor_face_is_an_error_that_says_why(transcriber: Transcriber, tmp_path: Path) -> None:
    path = write_media(tmp_path / "a.mkv", pictures=shades(25, height=120, width=160))

    with pytest.raises(EdgeavError, match=r"a\.mkv: nothing to transcribe: no audio track; no face found"):
        transcriber.transcribe(path)
    with pytest.raises(EdgeavError, match="no sound and no pictures"):
        transcriber.transcribe_arrays(None, None)


def test_digital_silence_is_not_taken_for_sound(recording: Transcriber) -> None:
    transcript = recording.transcribe_arrays(np.zeros(32_000, np.float32), mouths(50))

    assert transcript.notes == ["audio: digital silence throughout, not used"]
    assert not calls(recording)[0].presence[..., 0].any()


def test_where_the_face_is_lost_the_model_is_told_and_the_rest_is_standardized_alone() -> None:
    present = np.ones(50, bool)
    present[21:30] = False
    frames = mouths(50)
    frames[~present] = 0

    inputs = Clip(None, frames, present, [], OURS).inputs(0, 25)

    seen = inputs.presence[0, :, 1].astype(bool)
    assert np.flatnonzero(~seen).tolist() == [10, 11, 12, 13, 14]  # half a step is no step
    assert not inputs.video[0, 20:30].any()
    assert abs(inputs.video[0][np.repeat(seen, 2)].mean()) < 1e-3
    assert abs(inputs.video[0][np.repeat(seen, 2)].std() - 1) < 1e-2


def test_input_longer_than_the_model_takes_is_windowed_and_said(recording: Transcriber) -> None:
    transcript = recording.transcribe_arrays(noise(40), mouths(1000))

    assert len(calls(recording)) > 2
    assert all(call.steps <= WINDOW for call in calls(recording))
    assert transcript.duration_s == 40
    assert transcript.words[-1].end_s == pytest.approx(40)  # one run of one label, over all cuts
    assert len(transcript.words) == 1
    assert any("longer than 16 s: read in" in note for note in transcript.notes)


def test_a_window_without_sound_or_face_is_not_given_to_the_model(recording: Transcriber) -> None:
    recording.transcribe_arrays(noise(5), mouths(1000))  # the sound ends 35 s before the pictures
    clip = Clip(noise(5), None, np.zeros(0, bool), [], OURS)

    assert calls(recording)[-1].presence[0, 20].tolist() == [0, 1]
    assert not clip.inputs(100, 150).presence.any()
    assert clip.inputs(100, 150).steps == 50


@pytest.mark.parametrize("steps", [2, 200, 201, 213, 500, 7500])
def test_windows_cover_every_step_once_with_context(steps: int) -> None:
    windows = plan_windows(steps, np.zeros(steps, np.float32), 200, 12.5)

    kept = [step for window in windows for step in range(window.keep_start, window.keep_stop)]
    assert kept == list(range(steps))
    for window in windows:
        assert 2 <= window.stop - window.start <= 200
        assert window.keep_start - window.start == (CONTEXT if window.keep_start else 0)
        assert window.stop - window.keep_stop == min(CONTEXT, steps - window.keep_stop)


def test_cuts_fall_into_pauses() -> None:
    sound = noise(30)
    sound[16_000 * 10 : 16_000 * 11] = 0

    windows = plan_windows(375, loudness(sound, 375, OURS), 200, 12.5)

    assert 10 <= windows[0].keep_stop / 12.5 <= 11


def test_ten_minutes_are_read_in_windows_of_bounded_memory(recording: Transcriber) -> None:
    transcript = recording.transcribe_arrays(noise(600), None)

    assert transcript.duration_s == 600
    assert max(call.steps for call in calls(recording)) <= WINDOW


def test_a_bundle_whose_features_are_not_those_of_its_inputs_is_refused(folder: Path, tmp_path: Path) -> None:
    import shutil

    other = Path(shutil.copytree(folder, tmp_path / "other"))
    spec = json.loads((other / "bundle.json").read_text())
    spec["features"]["audio"]["mels"] = 40
    (other / "bundle.json").write_text(json.dumps(spec))

    with pytest.raises(EdgeavError, match=r"inputs: .*'8N', 80.*; must be .*'8N', 40"):
        Transcriber(other)


def test_a_missing_face_model_is_an_error_before_any_file(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(EdgeavError, match=r"absent\.onnx does not exist"):
        Transcriber(folder, face_model=tmp_path / "absent.onnx")


def test_arrays_of_the_wrong_shape_are_named(transcriber: Transcriber) -> None:
    with pytest.raises(EdgeavError, match=r"waveform: needs .* got shape \(2, 100\)"):
        transcriber.transcribe_arrays(np.zeros((2, 100), np.float32), None)
    with pytest.raises(EdgeavError, match=r"mouth: needs \(T, 96, 96\), got \(5, 88, 88\)"):
        transcriber.transcribe_arrays(None, np.zeros((5, 88, 88), np.uint8))


def test_time_spent_inside_another_part_is_counted_once() -> None:
    watch, start = Stopwatch(), time.perf_counter()

    with watch.measure("face"):
        for _ in watch.each("decode", (time.sleep(0.02) for _ in range(3))):
            time.sleep(0.01)

    assert watch.ms["decode"] > 59
    assert watch.ms["face"] > 29
    assert sum(watch.ms.values()) <= (time.perf_counter() - start) * 1000


def test_a_real_clip_goes_the_whole_way_from_file_to_text(recording: Transcriber, grid: Path) -> None:
    transcript = recording.transcribe(sorted((grid / "raw").glob("*.mpg"))[0])

    (call,) = calls(recording)
    assert call.presence[0].mean(axis=0).tolist() == [1, 1]
    assert transcript.duration_s == pytest.approx(3, abs=0.03)
    assert "audio: 44100 Hz stereo, resampled to 16000 Hz mono" in transcript.notes
    assert "face: found with OpenCV's Haar frontal face cascade" in transcript.notes


def test_a_tone_is_no_silence(recording: Transcriber) -> None:
    assert recording.transcribe_arrays(tone(1), None).notes == []
