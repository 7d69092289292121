"""How input longer than a model takes at once is cut: overlapping windows, parted where it is quiet.

Every step's output comes from exactly one window, in which it has a second of context on both sides; so
merging is copying, and no word has to be matched with itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from edgeav.runtime.features import SAMPLES_PER_STEP, STEPS_PER_SECOND

WINDOW = int(14 * STEPS_PER_SECOND)  # 175 steps seen at once
CONTEXT = int(1 * STEPS_PER_SECOND)  # 12 steps seen but not used, on each side
SEARCH = int(4 * STEPS_PER_SECOND)  # 50 steps in which the quietest place is looked for
PAUSE = 5  # steps: a cut wants 0.4 s of quiet around it, not one silent plosive


@dataclass(frozen=True)
class Window:
    """Steps [start, stop) go into the model; the outputs of [keep_start, keep_stop) are used."""

    start: int
    stop: int
    keep_start: int
    keep_stop: int


def plan_windows(steps: int, loudness: NDArray[np.float32], longest: int) -> list[Window]:
    """Windows of at most `longest` steps whose kept parts cover `steps` once, cut at the least `loudness`."""
    if steps <= longest:
        return [Window(0, steps, 0, steps)]
    core = min(WINDOW, longest) - 2 * CONTEXT
    cuts = [0]
    while steps - cuts[-1] > core:
        latest = cuts[-1] + core
        choices = np.arange(latest, latest - min(SEARCH, core // 2), -1)  # backwards: of equals the latest
        cuts.append(int(choices[np.argmin(loudness[choices])]))
    cuts.append(steps)
    return [Window(max(0, a - CONTEXT), min(steps, b + CONTEXT), a, b) for a, b in pairwise(cuts)]


def loudness(waveform: NDArray[np.float32] | None, steps: int) -> NDArray[np.float32]:
    """(S,) -> (steps,) mean power of the 0.4 s around each step; zeros without sound."""
    padded = np.zeros(steps * SAMPLES_PER_STEP, np.float32)
    if waveform is not None:
        padded[: len(waveform)] = waveform[: len(padded)]
    power = (padded.reshape(steps, SAMPLES_PER_STEP) ** 2).mean(axis=1)
    return np.convolve(power, np.full(PAUSE, 1 / PAUSE), mode="same").astype(np.float32)
