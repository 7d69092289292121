"""The captions of devices/raspberry-pi: when somebody speaks, one clock for lips and sound, what is read of it."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from tiny_bundle import make_bundle
from web_tools import ask

pytest.importorskip("cv2", reason="pip install 'edgeav[video]'")
pytest.importorskip("onnxruntime", reason="pip install 'edgeav[onnxruntime]'")
pytest.importorskip("onnx", reason="the tiny model is built with onnx: pip install 'edgeav[compress]'")
sys.path.insert(0, str(Path(__file__).parents[1] / "devices" / "raspberry-pi"))

from drawn_face import draw_face

from edgeav.runtime.face import Face, Gray, HaarFaces
from edgeav.runtime.inputs import SAMPLE_RATE_HZ
from edgeav.runtime.live import Caption, Live
from edgeav.runtime.media import at_25_fps
from edgeav.runtime.mouth import extract_mouth
from edgeav.runtime.speech import FLOOR_DB, Segmenter, agreed, level_db, movement_db
from edgeav.runtime.tracks import PictureTrack, SoundTrack
from edgeav.runtime.transcriber import Transcriber

RATE = 12.5  # steps a second
RNG = np.random.default_rng
Samples = NDArray[np.float32]


def loud_and_quiet(*seconds: float) -> Samples:
    """Noise: quiet, loud, quiet, … for so long each."""
    parts = [(1e-3, 0.1)[i % 2] * RNG(i).standard_normal(round(s * SAMPLE_RATE_HZ)) for i, s in enumerate(seconds)]
    return np.concatenate(parts).astype(np.float32)


def face_pictures(count: int) -> list[Gray]:
    mouths = RNG(0).integers(0, 256, (count, 96, 96), np.uint8)
    return [draw_face(mouth, x=320 + index % 7) for index, mouth in enumerate(mouths)]


@dataclass
class NoFaces:
    say: str = "nobody"
    asked: list[int] = field(default_factory=list)

    def find(self, picture: Gray) -> list[Face]:
        self.asked.append(int(picture[0, 0]))
        return []


@pytest.fixture(scope="module")
def face() -> Gray:
    return face_pictures(1)[0]


@pytest.mark.parametrize("seed", range(4))
def test_captions_begin_and_end_where_the_page_has_them(seed: int) -> None:
    loud = np.repeat(RNG(seed).random(40) > 0.6, 10)
    levels = np.where(loud, -20.0, -55.0) + 4 * RNG(seed + 9).standard_normal(400)
    levels[RNG(seed).integers(0, 400, 9)] = FLOOR_DB
    segmenter = Segmenter(RATE, longest=60)
    found = [span for span in map(segmenter.push, levels.tolist()) if span]
    expected = ask("segments", levels=levels.tolist(), perSecond=RATE, longest=60)
    assert len(found) > 3
    assert found == [(span["start"], span["stop"]) for span in expected]


def test_levels_are_those_of_a_formula() -> None:
    assert level_db(np.full(100, 0.1, np.float32)) == pytest.approx(-20, abs=0.01)
    assert level_db(np.zeros(100, np.float32)) == FLOOR_DB
    still = np.tile(RNG(0).integers(0, 256, (1, 96, 96), np.uint8), (4, 1, 1))
    lively = RNG(1).integers(0, 256, (4, 96, 96), np.uint8)
    seen = np.ones(4, bool)
    assert movement_db(still, seen) < -60
    assert movement_db(lively, seen) == pytest.approx(
        10 * np.log10(2), abs=0.1
    )  # independent pixels: twice the variance
    assert movement_db(lively, np.array([True, False, True, True])) == FLOOR_DB


@pytest.mark.parametrize(
    ("before", "now", "sure"), [("a b c", "a b d e", 2), ("", "a", 0), ("a b", "a b", 2), ("a b c", "a b", 2)]
)
def test_words_on_which_two_readings_agree_are_sure(before: str, now: str, sure: int) -> None:
    assert agreed(before.split(), now.split()) == sure


def test_lost_sound_becomes_silence_of_its_length_and_old_sound_is_gone() -> None:
    track, second = SoundTrack(start_s=100.0, seconds=4), np.ones(SAMPLE_RATE_HZ, np.float32)
    track.push(1 * second, at_s=101.5)  # heard from 0.5 to 1.5 s
    track.push(2 * second, at_s=102.6)  # 0.1 s late: the system's doing
    track.push(3 * second, at_s=105.5)  # two seconds are missing
    assert track.end == 5.5 * SAMPLE_RATE_HZ
    middles = [track.read(at, at + 1)[0] for at in (np.array([0.2, 1.9, 3.0, 4.9, 5.9]) * SAMPLE_RATE_HZ).astype(int)]
    assert middles == [0, 2, 0, 3, 0]
    assert not track.read(0, SAMPLE_RATE_HZ).any()  # only four seconds are kept


@pytest.mark.parametrize("seed", range(3))
def test_pictures_are_placed_by_their_times_as_in_a_file(seed: int) -> None:
    times = np.cumsum(RNG(seed).uniform(0.01, 0.11, 60))
    times -= times[0]
    pictures = [np.full((2, 2), number, np.uint8) for number in range(60)]
    detector = NoFaces()
    track = PictureTrack(10.0, 9, detector)
    for picture, at_s in zip(pictures, times, strict=True):
        track.push(picture, 10.0 + at_s)
        track.push(np.full((2, 2), 255, np.uint8), 10.0 + at_s)  # a clock that stands still
    expected = [int(picture[0, 0]) for picture in at_25_fps(zip(times.tolist(), pictures, strict=True))]
    assert len(expected) - 4 <= track.end <= len(expected)  # the last picture still waits for the one after it
    assert detector.asked == expected[: track.end : 3]
    assert track.sees_a_face() is False


def test_a_camera_that_stood_still_leaves_a_hole(face: Gray) -> None:
    track = PictureTrack(0.0, 9, HaarFaces())
    for at_s in (*np.arange(0, 0.6, 0.04), *np.arange(4, 4.6, 0.04)):
        track.push(face, float(at_s))
    mouth, present = track.mouth(0, 114)
    assert mouth is not None and len(mouth) == 114
    assert present[:13].all() and present[102:].all() and not present[30:90].any()
    assert not mouth[~present].any()


def test_the_mouth_is_that_of_a_file_with_the_same_pictures() -> None:
    pictures = face_pictures(31)
    track = PictureTrack(0.0, 5, HaarFaces())
    for number, picture in enumerate(pictures):
        track.push(picture, number / 25)
    mouth, present = track.mouth(0, 30)
    expected = extract_mouth(lambda: iter(pictures[:30]), HaarFaces())
    assert expected is not None and mouth is not None
    assert present.all() and track.sees_a_face()
    np.testing.assert_array_equal(mouth, expected.frames)


def listen(transcriber: Transcriber, sound: Samples | None, pictures: list[Gray]) -> list[Caption]:
    """The captions of sound in blocks of 80 ms and pictures at 25 a second, as fast as they can be read."""
    told, now = [], [0.0]
    live = Live(transcriber, HaarFaces(), told.append, clock=lambda: now[0])
    seconds = max(0 if sound is None else len(sound) / SAMPLE_RATE_HZ, len(pictures) / 25)
    for tick in range(1, round(25 * seconds) + 1):
        now[0] = tick / 25
        if tick <= len(pictures):
            live.picture(pictures[tick - 1], now[0] - 0.04)
        if sound is not None and tick % 2 == 0:
            live.samples(sound[(tick - 2) * 640 : tick * 640], now[0])
    live.close()
    return told


@pytest.fixture(scope="module")
def transcriber(tmp_path_factory: pytest.TempPathFactory) -> Transcriber:
    return Transcriber(make_bundle(tmp_path_factory.mktemp("tiny") / "bundle").folder)


def test_a_caption_is_read_of_what_was_heard_between_two_pauses(transcriber: Transcriber) -> None:
    sound = loud_and_quiet(2.0, 1.6, 1.6, 1.2, 1.6)
    told = listen(transcriber, sound, [])
    finals = [caption for caption in told if caption.final]
    assert [caption.seconds for caption in finals] == pytest.approx([2.2, 1.8], abs=0.17)  # 0.3 s of quiet around them
    start = round((2.0 - 0.3) * RATE)
    spans = [sound[s * 1280 : round((s + finals[0].seconds * RATE) * 1280)] for s in range(start - 1, start + 2)]
    assert finals[0].words in [transcriber.transcribe_arrays(span, None).text.split() for span in spans]
    assert any(not caption.final for caption in told)  # words appear while somebody speaks
    assert finals[0].rtf > 0 and finals[0].waited_ms == 0  # no time passes on this clock
    assert {"features", "model", "ctc", "face", "crop"} <= set(finals[0].parts_ms)


def test_without_a_microphone_the_lips_say_when_somebody_speaks(transcriber: Transcriber) -> None:
    speaking, still = face_pictures(50), [draw_face(np.full((96, 96), 90, np.uint8), x=320)]
    told = listen(transcriber, None, [*(still * 40), *speaking, *(still * 40)])
    finals = [caption for caption in told if caption.final]
    assert len(finals) == 1
    assert 1.5 < finals[0].seconds < 3.5


def test_silence_without_a_face_gives_no_caption_and_no_error(transcriber: Transcriber) -> None:
    assert listen(transcriber, np.zeros(3 * SAMPLE_RATE_HZ, np.float32), [np.zeros((480, 640), np.uint8)] * 60) == []
