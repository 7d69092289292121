"""A file streamed to the live captioner: every stage is timed, and what had to wait is told."""

from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np
import pytest
from tiny_bundle import make_bundle

pytest.importorskip("cv2", reason="pip install 'edgeav[video]'")
pytest.importorskip("av", reason="pip install 'edgeav[video]'")
pytest.importorskip("onnxruntime", reason="pip install 'edgeav[onnxruntime]'")
pytest.importorskip("onnx", reason="the tiny model is built with onnx: pip install 'edgeav[compress]'")

from drawn_face import draw_face
from media_files import write_media

from edgeav import show
from edgeav.device import Device
from edgeav.errors import EdgeavError
from edgeav.profiling import profile
from edgeav.runtime.bench import Workload
from edgeav.runtime.inputs import SAMPLE_RATE_HZ
from edgeav.runtime.media import open_media
from edgeav.runtime.streaming import PAUSE_S, events, stream

SPOKEN_S = 1.6
STAGES = ("capture", "face", "crop", "mel", "encode", "decode")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bundle(tmp_path_factory.mktemp("tiny") / "bundle").folder


def talk(path: Path, *, speaks: bool = True) -> Path:
    """A face whose mouth changes, and noise that is quiet, then loud."""
    r = np.random.default_rng(0)
    quiet, loud = (level * r.standard_normal(round(s * SAMPLE_RATE_HZ)) for level, s in ((1e-3, 0.8), (0.1, SPOKEN_S)))
    sound = np.concatenate([quiet, loud if speaks else 0 * loud]).astype(np.float32)
    mouths = r.integers(60, 200, (60, 96, 96), np.uint8)
    return write_media(path, sound, pictures=[draw_face(mouth) for mouth in mouths])


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return talk(tmp_path_factory.mktemp("clips") / "a talk; $(touch x).mkv")


def test_events_come_in_order_as_often_as_a_camera_and_a_microphone_give_them(clip: Path) -> None:
    found = list(events(open_media(clip)))
    assert [event.due_s for event in found] == sorted(event.due_s for event in found)
    pictures = [event for event in found if event.samples is None]
    sound = np.concatenate([event.samples for event in found if event.samples is not None])
    assert len(pictures) == pytest.approx(25 * (0.8 + SPOKEN_S + PAUSE_S), abs=2)
    heard = open_media(clip).waveform
    assert heard is not None and not sound[len(heard) :].any()
    np.testing.assert_array_equal(sound[: len(heard)], heard)


def test_every_stage_is_timed_for_every_picture_or_reading(bundle: Path, clip: Path) -> None:
    begun_s = time.monotonic()
    found = stream(bundle, clip, seconds=0.1)
    assert time.monotonic() - begun_s > found["seconds"] - 0.2  # at its own pace, not as fast as it can
    assert found["times"] == 1 and found["seconds"] == pytest.approx(0.8 + SPOKEN_S + PAUSE_S, abs=0.15)
    stages = found["stages_ms"]
    assert set(stages) == set(STAGES)
    assert stages["capture"]["n"] == 60
    assert stages["face"]["n"] == pytest.approx(25 * found["seconds"] / 3, abs=2)  # every third, in the pause too
    assert {stages[name]["n"] for name in STAGES[2:]} == {found["readings"]} == {found["waited_ms"]["n"]}
    assert found["readings"] > len(found["captions"]) >= 1
    assert all(stage["min"] > 0 for stage in stages.values())


def test_a_slow_thread_lets_what_comes_wait(bundle: Path, clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from edgeav.runtime import streaming

    slow = streaming.TimedFaces.find
    monkeypatch.setattr(streaming.TimedFaces, "find", lambda *a: (time.sleep(0.2), slow(*a))[1])
    found = stream(bundle, clip, seconds=0.1)
    assert found["rtf"] > 1.2  # 0.2 s for every 0.12 s
    assert found["behind_ms"] > 500
    assert found["waited_ms"]["p90"] > 200


def test_a_file_in_which_nobody_speaks_has_nothing_to_time(bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(EdgeavError, match=r"quiet\.mkv: nobody speaks"):
        stream(bundle, talk(tmp_path / "quiet.mkv", speaks=False), seconds=0.1)


def test_a_profile_has_the_stream_that_was_asked_for(
    bundle: Path, clip: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    device, load = Device.load("this-machine"), Workload(seconds=1.0, iterations=2, warmup=0, parts=False)
    found = profile(bundle, device, load, operators=False, clip=clip)
    assert found.stream is not None and set(found.stream.stages_ms) == set(STAGES)
    assert "stream" not in found.not_measured
    assert not Path("x").exists()  # the name of the file is a name
    show.profile(found.model_dump(mode="json"))
    table = capsys.readouterr().out
    assert all(f" {name} " in table for name in (*STAGES, "until the words")) and "the longest wait" in table
    show.profile(found.model_copy(update={"emulated": True}).model_dump(mode="json"))
    assert "until the words" not in capsys.readouterr().out  # an emulator's times are no latency
    without = profile(bundle, device, load, operators=False)
    assert without.stream is None and "--stream" in without.not_measured["stream"]
    assert json.loads(without.model_dump_json())["stream"] is None


def test_a_clip_that_cannot_be_streamed_is_refused_before_anything_is_pushed(bundle: Path, clip: Path) -> None:
    with pytest.raises(EdgeavError, match="no such file"):
        profile(bundle, Device.load("this-machine"), clip=Path("gone.mp4"))
    cpp = Device.load("this-machine").model_copy(update={"runner": "cpp"})
    with pytest.raises(EdgeavError, match="C\\+\\+ runner, which reads no files"):
        profile(bundle, cpp, clip=clip)
