"""One clock for lips and sound: both are kept for as long as a caption may last, by the time at which they happened.

Sound counts its own samples from where its first one lay. Pictures come when they please and are placed on a grid of 25
a second by their time, as edgeav.runtime.media does for files.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from edgeav.runtime.face import Face, FaceDetector, Gray
from edgeav.runtime.inputs import MOUTH, SAMPLE_RATE_HZ, VIDEO_FPS
from edgeav.runtime.mouth import STRIDE, cut_mouths, follow_mouth

STILL_S = 1.0  # a picture that none follows for longer was not a still one: its frames stay without a face
GAP_S = 0.3  # sound this much later than its samples say was interrupted: silence stands in for the loss


class SoundTrack:
    """The last seconds of sound. A block is late by what the system makes it wait, never early."""

    def __init__(self, start_s: float, seconds: float) -> None:
        self._start_s, self._samples = start_s, np.zeros(round(seconds * SAMPLE_RATE_HZ), np.float32)
        self._origin: int | None = None
        self._count = 0

    @property
    def end(self) -> int:
        """Samples since the start up to the last one heard."""
        return 0 if self._origin is None else self._origin + self._count

    def push(self, samples: NDArray[np.float32], at_s: float) -> None:
        """(S,) samples, the last heard at `at_s`."""
        first = round((at_s - self._start_s) * SAMPLE_RATE_HZ) - len(samples)
        if self._origin is None:
            self._origin = max(0, first)
        elif first - self.end > GAP_S * SAMPLE_RATE_HZ:
            self._write(np.zeros(first - self.end, np.float32))
        self._write(samples)

    def read(self, start: int, stop: int) -> NDArray[np.float32]:
        """The samples [start, stop) since the start; zeros where they are gone, or not there yet."""
        out = np.zeros(stop - start, np.float32)
        first = max(start, self.end - len(self._samples), self._origin or 0)
        last = min(stop, self.end)
        if first < last:
            places = np.arange(first, last) - (self._origin or 0)
            out[first - start : last - start] = self._samples[places % len(self._samples)]
        return out

    def _write(self, samples: NDArray[np.float32]) -> None:
        kept = samples[-len(self._samples) :]
        places = np.arange(self._count + len(samples) - len(kept), self._count + len(samples))
        self._samples[places % len(self._samples)] = kept
        self._count += len(samples)


class PictureTrack:
    """The last seconds of pictures at 25 a second, with the faces found in every third."""

    def __init__(self, start_s: float, seconds: float, detector: FaceDetector) -> None:
        self._start_s, self._kept, self._detector = start_s, round(seconds * VIDEO_FPS), detector
        self._before: tuple[float, Gray] | None = None
        self._pictures: dict[int, Gray] = {}
        self._faces: dict[int, list[Face]] = {}
        self.end = 0

    def push(self, picture: Gray, at_s: float) -> None:
        """A gray picture taken at `at_s`. It completes the frames to which the one before it was nearest."""
        now = at_s - self._start_s
        for frame in self._completed(now):
            assert self._before is not None
            self._keep(frame, self._before[1])
        if self._before is None or now > self._before[0]:  # a clock that stands still or runs back says nothing
            self._before = now, picture

    def sees_a_face(self) -> bool | None:
        """In the last half second; None without pictures."""
        recent = [faces for frame, faces in self._faces.items() if frame >= self.end - VIDEO_FPS // 2]
        return any(recent) if recent else None

    def mouth(self, start: int, stop: int) -> tuple[NDArray[np.uint8] | None, NDArray[np.bool_]]:
        """(T, 96, 96) and (T,): whether a face shows, of the frames [start, stop) that there are; None without any."""
        stop = min(stop, self.end)
        frames = range(start - start % STRIDE, stop)  # the faces are of every third frame since the start
        if stop <= start or not any(frame in self._pictures for frame in frames):
            return None, np.zeros(0, bool)
        black = np.zeros((MOUTH, MOUTH), np.uint8)
        pictures = [self._pictures.get(frame, black) for frame in frames]
        path = follow_mouth(pictures, _Remembered(self._detector.say, self._found(frames)))
        mouth = np.stack(list(cut_mouths(pictures, path)))
        shown = path.present & np.array([frame in self._pictures for frame in frames])
        mouth[~shown] = 0
        return mouth[start - frames.start :], shown[start - frames.start :]

    def _found(self, frames: range) -> Iterator[list[Face]]:
        return (self._faces.get(frame, []) for frame in frames[::STRIDE])

    def _completed(self, now: float) -> range:
        if self._before is None or now <= self._before[0]:
            return range(0)
        if now - self._before[0] >= STILL_S:
            self.end = max(self.end, math.ceil(now * VIDEO_FPS - 0.5))
            return range(0)
        middle = (self._before[0] + now) / 2
        return range(self.end, max(self.end, math.ceil((middle - 1e-6) * VIDEO_FPS)))

    def _keep(self, frame: int, picture: Gray) -> None:
        self._pictures[frame], self.end = picture, frame + 1
        if frame % STRIDE == 0:
            self._faces[frame] = self._detector.find(picture)
        for track in (self._pictures, self._faces):
            while next(iter(track), frame) < frame - self._kept:
                del track[next(iter(track))]


class _Remembered:
    """A detector that repeats what was found while the pictures came in."""

    def __init__(self, say: str, found: Iterator[list[Face]]) -> None:
        self.say, self._found = say, found

    def find(self, picture: Gray) -> list[Face]:
        return next(self._found)
