"""Which part of an activation's values 8 bits cover: all of them, or fewer so that the steps are finer.

- `minmax`: all. - `percentile`: 99.99 % of them. - `mse`: the range with the least squared error of rounding and
cutting. - `entropy`: the one whose rounded distribution is nearest to the true one (Kullback-Leibler), Migacz 2017,
8-bit inference with TensorRT. A comparison: Wu et al. 2020 (https://arxiv.org/abs/2004.09602), section 5.

What is kept of an activation is a histogram of BINS numbers, however many clips there are: tools that keep every
activation of every clip have needed hundreds of gigabytes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import numpy as np
from numpy.typing import NDArray

from edgeav.quant.plan import Ends, Ranges

BINS = 2048
LEVELS = 256  # of 8 bits
KEPT_PERCENT = 99.99
SHRINK = np.linspace(1.0, 0.1, 46)
TURNS = 2


class Histogram:
    """Counts of values in bins whose width is a power of two, which doubles when new values do not fit.

    Widths that are powers of two make the result independent of the order of the clips.
    """

    def __init__(self) -> None:
        self.counts = np.zeros(BINS, np.int64)
        self.first, self.width = 0, 0.0  # bin i holds [(first + i) width, (first + i + 1) width)
        self.low, self.high = 0.0, 0.0  # zero is always in the range: padding must stay exactly zero

    @property
    def held(self) -> int:
        """How many numbers this keeps."""
        return len(self.counts)

    @property
    def centers(self) -> NDArray[np.float64]:
        return (self.first + np.arange(BINS, dtype=np.float64) + 0.5) * self.width

    def add(self, values: NDArray) -> None:
        """Count the values of one more activation; infinities and NaN are an error."""
        flat = np.asarray(values, np.float64).ravel()
        if not flat.size:
            return
        low, high = float(flat.min()), float(flat.max())
        if not np.isfinite([low, high]).all():
            raise ValueError("an activation is infinite or not a number")
        self._make_room(min(low, self.low), max(high, self.high))
        places = np.clip(np.floor(flat / self.width).astype(np.int64) - self.first, 0, BINS - 1)
        self.counts += np.bincount(places, minlength=BINS)

    def _make_room(self, low: float, high: float) -> None:
        """Bins wide enough for `low`..`high`. The counts move to the new ones, none is lost."""
        width = max(_power_of_two((high - low) / (BINS - 2)), self.width)
        while np.floor(high / width) - np.floor(low / width) >= BINS:
            width *= 2
        first = int(np.floor(low / width))
        if self.width:
            factor = round(width / self.width)
            places = (self.first + np.arange(BINS)) // factor - first
            there = self.counts > 0
            moved = np.bincount(places[there], weights=self.counts[there], minlength=BINS)
            self.counts = moved.astype(np.int64)
        self.low, self.high, self.first, self.width = low, high, first, width


def histograms(passes: Iterable[Mapping[str, NDArray]]) -> dict[str, Histogram]:
    """Name -> histogram over all passes; each pass is one clip's activations by name, and is let go after it."""
    found: dict[str, Histogram] = {}
    for activations in passes:
        for name, values in activations.items():
            found.setdefault(name, Histogram()).add(values)
    return found


def choose(histogram: Histogram, ranges: Ranges) -> Ends:
    """(low, high) by the rule `ranges`; zero is between them."""
    match ranges:
        case "minmax":
            return histogram.low, histogram.high
        case "percentile":
            return _percentile(histogram)
        case "mse":
            return _search(histogram, _squared_error)
        case "entropy":
            return _search(histogram, _divergence)


def _percentile(histogram: Histogram) -> Ends:
    """Half of what is left out lies at each end, but nothing is cut where it would only cut zero off."""
    share = np.cumsum(histogram.counts) / histogram.counts.sum()
    tail = (1 - KEPT_PERCENT / 100) / 2
    lowest, highest = int(np.searchsorted(share, tail, "right")), int(np.searchsorted(share, 1 - tail))
    edges = (histogram.first + np.arange(BINS + 1)) * histogram.width
    low, high = max(edges[lowest], histogram.low), min(edges[highest + 1], histogram.high)
    return min(float(low), 0.0), max(float(high), 0.0)


def _search(histogram: Histogram, cost: Callable[[Histogram, Ends], float]) -> Ends:
    """Both ends shrunk together, then in turn each by itself, to where `cost` is least."""
    low, high = histogram.low, histogram.high
    low, high = min(((s * low, s * high) for s in SHRINK), key=lambda ends: cost(histogram, ends))
    for _ in range(TURNS):
        high = min((float(s * histogram.high) for s in SHRINK), key=lambda end: cost(histogram, (low, end)))
        low = min((float(s * histogram.low) for s in SHRINK), key=lambda end: cost(histogram, (end, high)))
    return float(low), float(high)


def _squared_error(histogram: Histogram, ends: Ends) -> float:
    low, high = ends
    step = max((high - low) / (LEVELS - 1), np.finfo(np.float32).tiny)
    there = histogram.counts > 0
    values = histogram.centers[there]
    rounded = np.round((np.clip(values, low, high) - low) / step) * step + low
    return float((histogram.counts[there] * (values - rounded) ** 2).sum())


def _divergence(histogram: Histogram, ends: Ends) -> float:
    """Of what the range makes of the distribution: what is cut joins the ends, each level spreads over its bins."""
    low, high = ends
    step = max((high - low) / (LEVELS - 1), np.finfo(np.float32).tiny)
    centers, counts = histogram.centers, histogram.counts.astype(np.float64)
    inside = (centers >= low - histogram.width) & (centers <= high + histogram.width)
    if not inside.any():
        return float("inf")
    kept = counts[inside]
    true = kept.copy()
    true[0] += counts[centers < centers[inside][0]].sum()
    true[-1] += counts[centers > centers[inside][-1]].sum()
    levels = np.clip(np.round((centers[inside] - low) / step), 0, LEVELS - 1).astype(np.int64)
    there = true > 0  # of the truth: a bin that got only what was cut has no share in its level, so cutting costs
    mass = np.bincount(levels, weights=kept, minlength=LEVELS)
    bins = np.bincount(levels[there], minlength=LEVELS)
    spread = mass[levels[there]] / bins[levels[there]]
    p, q = true[there] / true.sum(), np.maximum(spread / max(kept.sum(), 1.0), 1e-12)
    return float((p * np.log(p / q)).sum())


def _power_of_two(width: float) -> float:
    """The least power of two that is not below `width`."""
    return float(2.0 ** np.ceil(np.log2(max(width, 1e-30))))
