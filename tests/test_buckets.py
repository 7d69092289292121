"""The planner's lengths are the best there are: no choice by brute force costs less."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from edgeav.buckets import fitting, padded_work, plan_buckets, work
from edgeav.errors import EdgeavError


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_no_other_choice_of_lengths_costs_less(seed: int, count: int) -> None:
    r = np.random.default_rng(seed)
    lengths = r.choice(np.arange(2, 300), 9, replace=False)
    histogram = {int(steps): int(clips) for steps, clips in zip(lengths, r.integers(0, 50, 9), strict=True)}
    there = [steps for steps, clips in histogram.items() if clips]
    others = combinations(there, min(count, len(there)))
    least = min(padded_work(histogram, choice) for choice in others if max(choice) == max(there))
    planned = plan_buckets(histogram, count)
    assert len(planned) <= count
    assert padded_work(histogram, planned) == pytest.approx(least)


def test_one_bucket_for_each_length_wastes_nothing() -> None:
    histogram = {10: 3, 20: 1, 40: 2}
    assert plan_buckets(histogram, 9) == [10, 20, 40]
    assert padded_work(histogram, [10, 20, 40]) == pytest.approx(3 * work(10) + work(20) + 2 * work(40))


def test_a_length_that_no_clip_has_gets_no_bucket() -> None:
    assert plan_buckets({10: 5, 20: 0, 30: 5}, 3) == [10, 30]


def test_a_clip_goes_to_the_smallest_bucket_that_holds_it_and_a_longer_one_to_none() -> None:
    assert [fitting(steps, [10, 20]) for steps in (3, 10, 11, 21)] == [10, 10, 20, None]
    assert padded_work({21: 1}, [10, 20]) == float("inf")


def test_nothing_to_plan_for_is_an_error() -> None:
    with pytest.raises(EdgeavError, match="at least one"):
        plan_buckets({}, 2)
