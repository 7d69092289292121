"""Batches made ahead: the same, in the same order, without the wait."""

from __future__ import annotations

import time

import pytest

from edgeav.data.prefetch import Prefetch


@pytest.mark.parametrize("processes", [0, 2])
def test_what_is_made_ahead_comes_in_the_order_of_the_steps(processes: int) -> None:
    def square(step: int) -> int:
        time.sleep(0.02 if step % 2 else 0.0)  # even steps are ready before odd ones
        return step * step

    assert list(Prefetch(square, range(5, 25), processes)) == [step * step for step in range(5, 25)]
    assert list(Prefetch(square, range(0), processes)) == []


@pytest.mark.parametrize("processes", [0, 1])
def test_an_error_is_raised_at_its_step_after_what_was_made_before(processes: int) -> None:
    def breaks_at_3(step: int) -> int:
        return 12 // (3 - step)

    items = iter(Prefetch(breaks_at_3, range(6), processes))
    assert [next(items) for _ in range(3)] == [4, 6, 12]
    with pytest.raises(ZeroDivisionError):
        next(items)


def test_no_more_than_two_steps_are_made_ahead_also_when_training_stops() -> None:
    made = []
    items = iter(Prefetch(lambda step: made.append(step) or step + 1, range(100)))
    assert [next(items), next(items)] == [1, 2]
    items.close()  # type: ignore[attr-defined]
    assert made in ([0, 1, 2], [0, 1, 2, 3])
    time.sleep(0.05)
    assert len(made) <= 4


def test_making_hides_behind_learning() -> None:
    def slow(step: int) -> int:
        time.sleep(0.03)
        return step

    ahead = Prefetch(slow, range(30))
    for _ in ahead:
        time.sleep(0.04)  # a step of training
    assert 0.02 < ahead.waited_s < 0.3 * 30 * 0.03  # at least the first is waited for
