"""When somebody speaks: one level a step of the model in, spans of captions out.

The same rules as in the browser page (devices/web/src/speech.js): speech is what stands out of the noise, and the noise
is the level of the pauses of the last seconds.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

HISTORY_S = 8.0  # of levels, from which the noise is read
QUIET_SHARE = 0.15  # of that time is taken to be pauses: the noise is the level below which it lies
ASSUMED_DB = -57.0  # of the noise before anything was heard
START_DB, STAY_DB = 9.0, 6.0  # above the noise begins speech, and goes on
LEAST_DB = -48.0  # below which nothing is speech, however still the room
STILL_DB = -15.0  # of the lips' movement, below which nobody speaks
FLOOR_DB = -90.0  # of a level: digital silence is not minus infinity
START_STEPS = 2  # a click is shorter
PAUSE_S = 0.6  # ends a caption
BEFORE_S = AFTER_S = 0.3  # of quiet around the loud steps belongs to the caption: fricatives are quiet
CUT_SEARCH_S = 4.0  # at the end of an endless caption, in which the quietest place is looked for

Span = tuple[int, int]


def level_db(samples: NDArray[np.float32]) -> float:
    """(S,) samples in [-1, 1] -> dB of full scale."""
    power = float(np.mean(np.square(samples))) if len(samples) else 0.0
    return max(FLOOR_DB, 10 * np.log10(power + 1e-12))


def movement_db(mouth: NDArray[np.uint8], present: NDArray[np.bool_]) -> float:
    """How much the lips of a few (T, 96, 96) pictures move, in dB of the gray levels' own deviation; no face: floor."""
    if len(mouth) < 2 or not present.all():
        return FLOOR_DB
    pixels = mouth.astype(np.float32)
    change = float(np.mean(np.square(np.diff(pixels, axis=0))))
    return max(FLOOR_DB, float(10 * np.log10(change / (pixels.var() + 1) + 1e-9)))


@dataclass
class Open:
    """The caption being spoken: its first step, the last loud one, the level of each."""

    start: int
    last: int
    levels: list[float] = field(default_factory=list)


class Segmenter:
    """`push` a level for each step; it gives the span of a caption when one ends. `longest`: steps taken at once."""

    def __init__(self, per_second: float, longest: int, least_db: float = LEAST_DB) -> None:
        self.per_second, self.longest, self.least_db = per_second, longest, least_db
        quiet = [ASSUMED_DB] * round(2 * per_second)
        self._levels = deque(quiet, maxlen=round(HISTORY_S * per_second))
        self.begin(0)

    def begin(self, step: int) -> None:
        """Nothing was spoken before `step`; what is known of the noise stays."""
        self.step, self.ended, self.loud = step, step, 0
        self.open: Open | None = None

    @property
    def noise_db(self) -> float:
        return sorted(self._levels)[int(QUIET_SHARE * len(self._levels))]

    def push(self, level: float) -> Span | None:
        if level > FLOOR_DB:  # digital silence is a loss on the way and says nothing of the room
            self._levels.append(level)
        step = self.step
        self.step += 1
        if self.open is None:
            return self._wait(step, level)
        self.open.levels.append(level)
        if level > max(self.noise_db + STAY_DB, self.least_db):
            self.open.last = step
        if step - self.open.last >= PAUSE_S * self.per_second:
            return self._close(self.open.last + 1 + round(AFTER_S * self.per_second))
        return self._split(self.open) if self.step - self.open.start >= self.longest else None

    def finish(self) -> Span | None:
        """The caption that is being spoken, as far as it is."""
        return self._close(self.step) if self.open else None

    def _wait(self, step: int, level: float) -> None:
        self.loud = self.loud + 1 if level > max(self.noise_db + START_DB, self.least_db) else 0
        if self.loud >= START_STEPS:
            start = max(self.ended, step - START_STEPS + 1 - round(BEFORE_S * self.per_second))
            self.open = Open(start, step)

    def _close(self, stop: int) -> Span:
        assert self.open is not None
        span = (self.open.start, stop)
        self.ended, self.loud, self.open = stop, 0, None
        return span

    def _split(self, caption: Open) -> Span:
        """An endless caption is cut where it is quietest; what is behind that begins the next."""
        searched = caption.levels[-round(CUT_SEARCH_S * self.per_second) :]
        back = int(np.argmin(searched[::-1]))  # of equals the latest
        span = self._close(self.step - back)
        self.open = Open(span[1], self.step - 1, caption.levels[len(caption.levels) - back :])
        return span


def agreed(before: Sequence[str], now: Sequence[str]) -> int:
    """How many words from the beginning two readings share: those stay (local agreement, Liu et al. 2020,
    https://arxiv.org/abs/2005.11185); the others may still change."""
    pairs = zip(before, now, strict=False)
    return next((i for i, (old, new) in enumerate(pairs) if old != new), min(len(before), len(now)))
