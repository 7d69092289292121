"""Whose words stand where, for a synthesizer that does not say: dynamic time warping onto one that does.

Two renditions of one text differ in tempo and voice; the cheapest monotonous path between their cepstra carries the
phoneme and word times of the one over to the other (Sakoe & Chiba 1978, https://doi.org/10.1109/TASSP.1978.1163055).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgeav.data.mouth import Segment
from edgeav.runtime.inputs import SAMPLE_RATE_HZ, LogMel
from edgeav.runtime.log_mel import log_mel, normalize_mel

FRAME_S = LogMel().hop / SAMPLE_RATE_HZ
CEPSTRA = 16  # the shape of the spectrum; finer detail is the voice's, not the sound's
STRAIGHT = 0.15  # what a frame of standing still costs, in mean distances: speech at rest would else drift


def carry_over(segments: list[Segment], source: NDArray[np.float32], target: NDArray[np.float32]) -> list[Segment]:
    """`segments` of `source` (S,) at their places in `target` (S',), both renditions of one text at 16 kHz."""
    path = warp(cepstra(source), cepstra(target))
    frames = np.arange(path[:, 0].max() + 1)
    place = np.array([path[path[:, 0] == frame, 1].mean() for frame in frames])
    end_s = len(target) / SAMPLE_RATE_HZ

    def moved(time_s: float) -> float:
        return float(np.clip(np.interp(time_s / FRAME_S, frames, place) * FRAME_S, 0.0, end_s))

    return [(name, moved(start), moved(stop)) for name, start, stop in segments if moved(stop) > moved(start)]


def cepstra(waveform: NDArray[np.float32]) -> NDArray[np.float64]:
    """(S,) -> (T, 2 * CEPSTRA) cepstral coefficients and their slopes, every 10 ms."""
    mel = normalize_mel(log_mel(waveform)).astype(np.float64)
    bands = mel.shape[1]
    basis = np.cos(np.pi / bands * (np.arange(bands)[:, None] + 0.5) * np.arange(CEPSTRA))
    static = mel @ basis / bands
    return np.concatenate([static, 3 * np.gradient(static, axis=0)], axis=1)


def warp(source: NDArray[np.float64], target: NDArray[np.float64]) -> NDArray[np.int64]:
    """(T, D), (T', D) -> (L, 2) pairs of frames, from the first of both to the last of both."""
    distance = np.sqrt(((source[:, None] - target[None]) ** 2).sum(-1))
    rest = STRAIGHT * distance.mean()
    rows, columns = distance.shape
    total = np.full((rows + 1, columns + 1), np.inf)
    total[0, 0] = 0
    for diagonal in range(rows + columns - 1):  # all cells of an anti-diagonal at once
        i = np.arange(max(0, diagonal - columns + 1), min(rows, diagonal + 1))
        j = diagonal - i
        best = np.minimum(total[i, j], np.minimum(total[i, j + 1], total[i + 1, j]) + rest)
        total[i + 1, j + 1] = distance[i, j] + best
    return _trace(total, rest)


def _trace(total: NDArray[np.float64], rest: float) -> NDArray[np.int64]:
    i, j = total.shape[0] - 1, total.shape[1] - 1
    path = []
    while i > 0 and j > 0:
        path.append((i - 1, j - 1))
        step = int(np.argmin([total[i - 1, j - 1], total[i - 1, j] + rest, total[i, j - 1] + rest]))
        i, j = i - (step != 2), j - (step != 1)
    return np.array(path[::-1])
