"""Ranges by every rule, compared with formulas on the values themselves; what is kept does not grow with the clips."""

from __future__ import annotations

import weakref
from collections.abc import Iterator

import numpy as np
import pytest
from numpy.typing import NDArray

from edgeav.quant import ranges
from edgeav.quant.ranges import BINS, LEVELS, Histogram, choose, histograms


def filled(*parts: NDArray) -> Histogram:
    histogram = Histogram()
    for part in parts:
        histogram.add(part)
    return histogram


def bell(count: int = 60_000, seed: int = 0) -> NDArray:
    return np.random.default_rng(seed).standard_normal(count)


def rounding_error(values: NDArray, low: float, high: float) -> float:
    step = (high - low) / (LEVELS - 1)
    return float(np.mean((values - (np.round((np.clip(values, low, high) - low) / step) * step + low)) ** 2))


def test_minmax_is_the_least_and_the_greatest_value_and_zero_is_between_them() -> None:
    values = bell()
    assert choose(filled(values[:100], values[100:]), "minmax") == (values.min(), values.max())
    assert choose(filled(np.array([2.0, 3.0])), "minmax") == (0.0, 3.0)


def test_percentile_is_numpys_to_a_bins_width() -> None:
    values = bell()
    histogram = filled(values)
    low, high = choose(histogram, "percentile")
    assert abs(low - np.percentile(values, 0.005)) <= 2 * histogram.width
    assert abs(high - np.percentile(values, 99.995)) <= 2 * histogram.width


def test_mse_is_nearly_as_good_as_the_best_of_a_grid_and_never_worse_than_all_of_the_values() -> None:
    values = np.concatenate([bell(), [9.0, -25.0]])
    found = rounding_error(values, *choose(filled(values), "mse"))
    best = min(rounding_error(values, a * -25, b * 9) for a in np.linspace(1, 0.1, 31) for b in np.linspace(1, 0.1, 31))
    assert found <= 1.02 * rounding_error(values, -25, 9)
    assert found < 1.1 * best  # the search sees bins, a quarter of a step wide, not values


def test_mse_finds_the_best_even_steps_for_a_bell_in_4_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Max 1960, Quantizing for minimum distortion, table II: 0.3352 deviations for 16 levels."""
    monkeypatch.setattr(ranges, "LEVELS", 16)
    low, high = choose(filled(bell()), "mse")
    assert (high - low) / 15 == pytest.approx(0.3352, rel=0.06)


def test_entropy_cuts_outliers_off_and_keeps_an_even_spread_whole() -> None:
    low, high = choose(filled(np.concatenate([bell(), [400.0]])), "entropy")
    assert 2 < high < 100
    assert low < -2
    even = np.random.default_rng(0).uniform(0, 8, 60_000)
    assert choose(filled(even), "entropy")[1] > 7


def test_the_order_and_the_grouping_of_the_clips_change_no_count() -> None:
    parts = [bell(999, 1), 50 * bell(999, 2), 0.01 * bell(999, 3), np.array([-700.0])]
    one, other = filled(*parts), filled(*reversed(parts))
    assert (one.first, one.width, one.low, one.high) == (other.first, other.width, other.low, other.high)
    assert one.counts.sum() == other.counts.sum() == 2998
    assert np.abs(np.cumsum(one.counts) - np.cumsum(other.counts)).max() <= 30  # of values beside a bin's edge


def test_every_value_lies_in_its_bin() -> None:
    values = np.concatenate([bell(5000), [90.0, -3.5]])
    histogram = filled(values[:50], values[50:])
    edges = (histogram.first + np.arange(BINS + 1)) * histogram.width
    expected, _ = np.histogram(values, edges)
    assert np.abs(np.cumsum(histogram.counts) - np.cumsum(expected)).max() <= 5


def test_an_activation_of_zeros_and_one_that_is_infinite() -> None:
    assert choose(filled(np.zeros(10)), "minmax") == (0.0, 0.0)
    with pytest.raises(ValueError, match="infinite or not a number"):
        filled(np.array([1.0, np.inf]))


def test_what_is_held_is_one_clip_and_a_histogram_for_each_activation_however_many_clips_there_are() -> None:
    alive: list[weakref.ref] = []
    most = 0

    class Clip(np.ndarray):
        """An array that can be watched."""

    def passes(count: int) -> Iterator[dict[str, NDArray]]:
        nonlocal most
        for number in range(count):
            values = bell(500, number).view(Clip)
            alive.append(weakref.ref(values))
            most = max(most, sum(ref() is not None for ref in alive))
            yield {"a": values}
            del values

    held = [sum(h.held for h in histograms(passes(count)).values()) for count in (1, 40)]
    assert held == [BINS, BINS]
    assert most <= 2  # the new one, and the one that is just let go
