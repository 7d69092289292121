"""How input longer than a model takes at once is cut: overlapping windows, parted where it is quiet.

Every step's output comes from exactly one window, in which it has a second of context on both sides; so
merging is copying, and no word has to be matched with itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from edgeav.runtime.inputs import Features

WINDOW_S = 14.0  # seen at once, if the model takes as much
CONTEXT_S = 1.0  # seen but not used, on each side
SEARCH_S = 4.0  # in which the quietest place is looked for
PAUSE_S = 0.4  # a cut wants that much quiet around it, not one silent plosive


@dataclass(frozen=True)
class Window:
    """Steps [start, stop) go into the model; the outputs of [keep_start, keep_stop) are used."""

    start: int
    stop: int
    keep_start: int
    keep_stop: int


def plan_windows(steps: int, loudness: NDArray[np.float32], longest: int, steps_per_second: float) -> list[Window]:
    """Windows of at most `longest` steps whose kept parts cover `steps` once, cut at the least `loudness`."""
    if steps <= longest:
        return [Window(0, steps, 0, steps)]
    window, search = min(int(WINDOW_S * steps_per_second), longest), int(SEARCH_S * steps_per_second)
    context = min(int(CONTEXT_S * steps_per_second), window // 3)  # a model of short inputs keeps a third of them
    core = window - 2 * context
    cuts = [0]
    while steps - cuts[-1] > core:
        latest = cuts[-1] + core
        choices = np.arange(latest, latest - max(1, min(search, core // 2)), -1)  # backwards: of equals the latest
        cuts.append(int(choices[np.argmin(loudness[choices])]))
    cuts.append(steps)
    return [Window(max(0, a - context), min(steps, b + context), a, b) for a, b in pairwise(cuts)]


def loudness(waveform: NDArray[np.float32] | None, steps: int, features: Features) -> NDArray[np.float32]:
    """(S,) -> (steps,) mean power of the 0.4 s around each step; zeros without sound."""
    padded = np.zeros(steps * features.samples_per_step, np.float32)
    if waveform is not None:
        padded[: len(waveform)] = waveform[: len(padded)]
    power = (padded.reshape(steps, features.samples_per_step) ** 2).mean(axis=1)
    pause = round(PAUSE_S * features.steps_per_second)  # 5 steps of 80 ms
    return np.convolve(power, np.full(pause, 1 / pause), mode="same").astype(np.float32)
