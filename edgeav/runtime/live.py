"""Pictures and sound in, captions out: when a caption begins and ends, and what is read of it.

Every half second a caption is read again from its beginning; a pause ends it. Without sound the movement of the lips
says when somebody speaks. One thread: while the model runs, sound and pictures wait in the queue of their sources.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from edgeav.errors import EdgeavError
from edgeav.runtime.clip import Clip
from edgeav.runtime.face import FaceDetector
from edgeav.runtime.speech import STILL_DB, Segmenter, Span, agreed, level_db, movement_db
from edgeav.runtime.tracks import PictureTrack, SoundTrack
from edgeav.runtime.transcriber import Transcriber, Transcript

PARTIAL_S = 0.5  # between two readings of a caption that still grows
FRESH_S = 1.0  # sound without news for longer is taken to be gone
SPARE_S = 4.0  # kept beyond the longest caption: sound that waits while the model runs


@dataclass(frozen=True)
class Caption:
    """Words of one caption, of which the first `sure` will stay; `final`: all of them will."""

    words: list[str]
    sure: int
    final: bool
    seconds: float
    waited_ms: float = 0.0
    """From the last that was heard or seen of it, the pause that closed it included, to its text."""
    rtf: float = 0.0
    """Of a final one: all work for it, faces included, over its length."""
    parts_ms: dict[str, float] = field(default_factory=dict)


class Live:
    """`tell` gets every caption. Times are seconds of `clock`."""

    def __init__(
        self,
        transcriber: Transcriber,
        detector: FaceDetector,
        tell: Callable[[Caption], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._transcriber, self._tell, self._clock = transcriber, tell, clock
        start_s = clock()
        bundle = transcriber.bundle
        self._takes, self._rate, self._longest = bundle.features, bundle.steps.per_second, bundle.steps.max
        kept_s = self._longest / self._rate + SPARE_S
        self._sound = SoundTrack(start_s, kept_s)
        self.pictures = PictureTrack(start_s, kept_s, detector)
        self._segmenters = {"sound": self._segmenter(), "lips": self._segmenter(STILL_DB)}
        self._by: Literal["sound", "lips"] | None = None
        self._heard_s, self._now_s = -np.inf, start_s
        self._faces_ms = 0.0  # spent on the pictures of the caption being spoken
        self._read_to, self._before = 0, list[str]()

    def samples(self, samples: NDArray[np.float32], at_s: float) -> None:
        """(S,) samples at 16 kHz, the last heard at `at_s`."""
        if self._takes.audio is None:
            return
        self._heard_s = self._now_s = at_s
        self._sound.push(samples, at_s)
        self._follow(self._sound.end // self._takes.samples_per_step, "sound")

    def picture(self, gray: NDArray[np.uint8], at_s: float) -> None:
        if self._takes.video is None:
            return
        self._now_s = at_s
        before = time.perf_counter()
        self.pictures.push(gray, at_s)
        self._faces_ms += 1000 * (time.perf_counter() - before)
        if at_s - self._heard_s > FRESH_S:
            self._follow(self.pictures.end // self._takes.video_frames, "lips")

    def close(self) -> None:
        """Read what is being spoken, as far as it is."""
        span = self._segmenters[self._by].finish() if self._by else None
        if span:
            self._finish(span)

    def _follow(self, stop: int, by: Literal["sound", "lips"]) -> None:
        """Go through the steps up to `stop`: each has a level, and may end a caption."""
        if by != self._by:  # that track came or went: what was being spoken is finished as it is
            begun = self._segmenters[self._by].step if self._by else stop - 1
            self.close()
            self._by = by
            self._segmenters[by].begin(max(begun, stop - 1, 0))
        segmenter = self._segmenters[by]
        while segmenter.step < stop:
            span = segmenter.push(self._level(segmenter.step))
            if span:
                self._finish(span)
        if segmenter.open and stop - max(self._read_to, segmenter.open.start) >= PARTIAL_S * self._rate:
            self._partial((segmenter.open.start, stop))

    def _level(self, step: int) -> float:
        if self._by == "sound":
            return level_db(self._waveform(step, step + 1))
        mouth, present = self.pictures.mouth(
            *(self._takes.video_frames * side for side in (max(0, step - 1), step + 1))
        )
        return movement_db(np.zeros((0, 1, 1), np.uint8) if mouth is None else mouth, present)

    def _partial(self, span: Span) -> None:
        self._read_to = span[1]
        transcript, crop_ms = self._recognize(span)
        words, waited_ms = self._words(transcript), 1000 * (self._clock() - self._now_s)
        parts = self._parts(transcript, crop_ms)
        caption = Caption(words, agreed(self._before, words), False, self._seconds(span), waited_ms, parts_ms=parts)
        self._tell(caption)
        self._before = words

    def _finish(self, span: Span) -> None:
        faces_ms, self._faces_ms, self._before = self._faces_ms, 0.0, []
        transcript, crop_ms = self._recognize(span)
        words = self._words(transcript)
        if not transcript or not words:
            return
        parts = self._parts(transcript, crop_ms) | {"face": faces_ms}
        seconds, waited_ms = self._seconds(span), 1000 * (self._clock() - self._now_s)
        rtf = sum(parts.values()) / 1000 / seconds
        self._tell(Caption(words, len(words), True, seconds, waited_ms, rtf, parts))

    def _recognize(self, span: Span) -> tuple[Transcript | None, float]:
        """The transcript of the steps [start, stop), and the milliseconds it took to cut the mouths out."""
        before = time.perf_counter()
        start, stop = span
        frames = self._takes.video_frames
        mouth, present = self.pictures.mouth(start * frames, stop * frames) if frames else (None, np.zeros(0, bool))
        crop_ms = 1000 * (time.perf_counter() - before)
        heard = self._takes.audio is not None and self._sound.end > start * self._takes.samples_per_step
        clip = Clip(self._waveform(start, stop) if heard else None, mouth, present, [], self._takes)
        try:
            return self._transcriber.transcribe_clip(clip, "the caption"), crop_ms
        except EdgeavError:
            if present.any() or (clip.waveform is not None and clip.waveform.any()):
                raise
            return None, crop_ms  # nothing was heard nor seen in it: no words, and no mistake

    def _waveform(self, start: int, stop: int) -> NDArray[np.float32]:
        side = self._takes.samples_per_step
        return self._sound.read(start * side, stop * side)

    def _parts(self, transcript: Transcript | None, crop_ms: float) -> dict[str, float]:
        return (transcript.timings_ms if transcript else {}) | {"crop": crop_ms}

    def _words(self, transcript: Transcript | None) -> list[str]:
        return transcript.text.split() if transcript else []

    def _seconds(self, span: Span) -> float:
        return (span[1] - span[0]) / self._rate

    def _segmenter(self, *least_db: float) -> Segmenter:
        return Segmenter(self._rate, self._longest, *least_db)
