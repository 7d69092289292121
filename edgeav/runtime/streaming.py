"""A file played to the live captioner at its own pace, as camera and microphone would give it: where its time goes.

The captioner (live.py, the Raspberry Pi's) reads what is being spoken again from its beginning, twice a second, so a
stage is timed once for every reading, and capture and face once for every picture. One thread, as in the app: what
comes while the model runs has to wait, and the wait counts. The file is played again, after a pause that ends its
caption, until `seconds` of it were played.
"""

from __future__ import annotations

import heapq
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from edgeav.errors import EdgeavError
from edgeav.runtime.bench import summary
from edgeav.runtime.face import Face, FaceDetector, Gray, open_face_detector
from edgeav.runtime.inputs import SAMPLE_RATE_HZ, VIDEO_FPS
from edgeav.runtime.live import Caption, Live
from edgeav.runtime.media import Media, open_media
from edgeav.runtime.transcriber import Transcriber

SECONDS = 20.0
PAUSE_S = 1.0  # between two times that the file is played
BLOCK = SAMPLE_RATE_HZ * 80 // 1000  # samples that a microphone hands over at once
NAMES = {"crop": "crop", "features": "mel", "model": "encode", "ctc": "decode"}  # the captioner's and the profile's


class Event(NamedTuple):
    """(S,) samples, or for None the next picture, which are there `due_s` after the beginning."""

    due_s: float
    samples: NDArray[np.float32] | None


class Stages:
    """Milliseconds of each time that a stage was gone through."""

    def __init__(self) -> None:
        self.ms: dict[str, list[float]] = defaultdict(list)

    def reading(self, caption: Caption) -> None:
        for ours, name in NAMES.items():
            self.ms[name].append(caption.parts_ms.get(ours, 0.0))
        self.ms["waited"].append(caption.waited_ms)


class TimedFaces:
    """A detector whose searches are timed."""

    def __init__(self, detector: FaceDetector, stages: Stages) -> None:
        self.say, self._detector, self._stages = detector.say, detector, stages

    def find(self, picture: Gray) -> list[Face]:
        before = time.perf_counter()
        found = self._detector.find(picture)
        self._stages.ms["face"].append(1000 * (time.perf_counter() - before))
        return found


def stream(bundle: Path, clip: Path, threads: int = 1, seconds: float = SECONDS) -> dict[str, Any]:
    """The `stream` of a profile. EdgeavError for a file that cannot be read, or in which nobody speaks."""
    transcriber, stages = Transcriber(bundle, threads), Stages()
    features = transcriber.bundle.features
    media = open_media(clip, hears=features.audio is not None, sees=features.video is not None)
    captions: list[Caption] = []

    def tell(caption: Caption) -> None:
        stages.reading(caption)
        captions.append(caption)

    live = Live(transcriber, TimedFaces(open_face_detector(None, threads), stages), tell)
    played = _play(media, live, stages, seconds)
    if not captions:
        raise EdgeavError(f"{clip}: nobody speaks in it, so that there is no caption to time")
    waited, behind = stages.ms.pop("waited"), stages.ms.pop("behind")
    return played | {
        "readings": len(captions),
        "captions": [" ".join(caption.words) for caption in captions if caption.final],
        "stages_ms": {name: {"n": len(ms), **summary(np.array(ms))} for name, ms in stages.ms.items()},
        "waited_ms": {"n": len(waited), **summary(np.array(waited))},
        "behind_ms": max(behind),
    }


def _play(media: Media, live: Live, stages: Stages, seconds: float) -> dict[str, float]:
    """Hand everything over when it is due, or as soon after that as the thread is free."""
    start_s, played_s, busy_s, times = time.monotonic(), 0.0, 0.0, 0
    while played_s < seconds or not times:
        pictures, last_s, picture = media.pictures(), 0.0, None
        for event in events(media):
            due_s = start_s + played_s + event.due_s
            time.sleep(max(0.0, due_s - time.monotonic()))
            begun_s = time.monotonic()
            stages.ms["behind"].append(1000 * (begun_s - due_s))
            if event.samples is not None:
                live.samples(event.samples, due_s)
            elif (picture := _captured(pictures, picture, stages)) is not None:
                live.picture(picture, due_s)
            busy_s, last_s = busy_s + time.monotonic() - begun_s, event.due_s
        played_s, times = played_s + last_s, times + 1
    return {"seconds": played_s, "times": times, "rtf": busy_s / played_s}


def _captured(pictures: Iterator[Gray], last: Gray | None, stages: Stages) -> Gray | None:
    """The next picture; where there is none any more, the one before stays in the pause."""
    before = time.perf_counter()
    picture = next(pictures, None)
    if picture is not None:
        stages.ms["capture"].append(1000 * (time.perf_counter() - before))
    return last if picture is None else picture


def events(media: Media) -> Iterator[Event]:
    """Of one time that the file is played, and of the pause after it, in the order in which they are due."""
    sound = media.waveform
    length_s = max(0.0 if sound is None else len(sound) / SAMPLE_RATE_HZ, media.stated_s if media.has_video else 0.0)
    return heapq.merge(_blocks(sound, length_s + PAUSE_S), _pictures(media, length_s + PAUSE_S), key=lambda e: e.due_s)


def _blocks(sound: NDArray[np.float32] | None, until_s: float) -> Iterator[Event]:
    if sound is None:
        return
    padded = np.pad(sound, (0, max(0, round(until_s * SAMPLE_RATE_HZ) - len(sound))))
    for start in range(0, len(padded) - BLOCK + 1, BLOCK):
        yield Event((start + BLOCK) / SAMPLE_RATE_HZ, padded[start : start + BLOCK])


def _pictures(media: Media, until_s: float) -> Iterator[Event]:
    if media.has_video:
        yield from (Event(number / VIDEO_FPS, None) for number in range(round(until_s * VIDEO_FPS)))
