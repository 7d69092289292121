"""Which clips of a corpus share a batch, and how much of the silence around their speech is left.

- Half of a GRID clip is silence, which costs as much to train on as speech does. Most of it is cut away, a different
  piece each time.
- A batch is as long as its longest clip. So clips are dealt out by length over several batches in a row: the short ones
  of every corpus together, the long ones together (bucketing; the mix of corpora stays the same in each batch).

Both are a function of (seed, rank, number of the corpus, position): nothing is remembered between batches.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgeav.data.cache import Row
from edgeav.data.corpus import Media, Word
from edgeav.runtime.inputs import SAMPLE_RATE_HZ, VIDEO_FPS

TOGETHER = 8  # batches over which clips are dealt out by length
LEAST_S = 0.16  # of the silence that is left on each side: lips move before there is sound
MORE_S = 0.2  # and on average so much more


@dataclass(frozen=True)
class Draw:
    """One clip of a batch: its index, and the silence left before and behind its speech (infinite: all of it)."""

    index: int
    margins_s: tuple[float, float]
    duration_s: float


def draw(rows: Sequence[Row], usable: Sequence[int], trim: float, seed: list[int], position: int) -> Draw:
    """The clip at `position` of an endless stream that shuffles `usable` anew each time round; `trim`: how often it is
    cut, if it is known where its words are."""
    turn, place = divmod(position, len(usable))
    index = usable[int(np.random.default_rng([*seed, turn]).permutation(len(usable))[place])]
    row, r = rows[index], np.random.default_rng([*seed, position, 1])
    margins_s = margins(row.words, trim, r)
    start, end = span(row.words, row.duration_s, margins_s)
    return Draw(index, margins_s, end - start)


def margins(words: Sequence[Word], trim: float, r: np.random.Generator) -> tuple[float, float]:
    """The silence to leave before and behind `words`: of a share `trim` of the clips little, of the others all."""
    if not words or r.random() >= trim:
        return np.inf, np.inf
    before, behind = LEAST_S + r.exponential(MORE_S, 2)
    return float(before), float(behind)


def dealt(draws: Sequence[Draw], per_batch: int, order: Sequence[int]) -> list[list[Draw]]:
    """The clips of as many batches as `order` names: by length, then the batches in that order."""
    by_length = sorted(draws, key=lambda one: one.duration_s)
    return [by_length[place * per_batch : (place + 1) * per_batch] for place in order]


def span(words: Sequence[Word], whole_s: float, margins_s: tuple[float, float]) -> tuple[float, float]:
    """Where what is left of a clip of `whole_s` begins and ends, on the picture grid."""
    start, end = 0.0, whole_s
    if np.isfinite(margins_s[0]):
        start = max(0, round((words[0][1] - margins_s[0]) * VIDEO_FPS)) / VIDEO_FPS
    if np.isfinite(margins_s[1]):
        end = min(whole_s, round((words[-1][2] + margins_s[1]) * VIDEO_FPS) / VIDEO_FPS)
    return start, end


def trimmed(media: Media, margins_s: tuple[float, float]) -> Media:
    """Sound, pictures and word times of what is left."""
    start_s, end_s = span(media.words, np.inf, margins_s)
    if (start_s, end_s) == (0.0, np.inf):
        return media
    words = tuple((word, start - start_s, end - start_s) for word, start, end in media.words)
    sound, mouth = _part(media.waveform, SAMPLE_RATE_HZ, start_s, end_s), _part(media.mouth, VIDEO_FPS, start_s, end_s)
    return Media(sound, mouth, words)


def _part(frames: NDArray | None, per_second: int, start_s: float, end_s: float) -> NDArray | None:
    end = round(end_s * per_second) if np.isfinite(end_s) else None
    return None if frames is None else frames[round(start_s * per_second) : end]
