"""Remove what is worth least per unit of cost, until the budget holds.

The knapsack problem by its greedy solution: of all steps that are possible next, the one with the least loss for what
it saves. Steps are of several lengths, because costs have plateaus: 8 channels fewer may save nothing, 16 much.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

Levels = Mapping[str, Sequence[int]]  # of each item: the counts that it may have, falling; it begins with the first
Counts = Mapping[str, int]


class Problem(Protocol):
    """What it means for an item to go from its count to a lower one."""

    def loss(self, item: str, count: int, counts: Counts) -> float: ...

    def saving(self, item: str, count: int, counts: Counts) -> float: ...

    def neighbours(self, item: str) -> Sequence[str]:
        """Items whose losses or savings are others once this one has changed."""
        ...


@dataclass(frozen=True, order=True)
class _Step:
    ratio: float
    item: str
    count: int
    saved: float


NO_STEP = _Step(float("inf"), "", 0, 0.0)


def descend(problem: Problem, levels: Levels, excess: float) -> tuple[dict[str, int], float]:
    """The counts with which `excess`, the cost beyond the budget, is saved; and what is still too much, if anything."""
    counts = {item: steps[0] for item, steps in levels.items()}

    def best(item: str) -> _Step:
        return _best(problem, item, levels[item], counts, excess)

    steps = {item: best(item) for item in levels}
    while excess > 0:
        step = min(steps.values(), default=NO_STEP)
        if step.saved > excess:  # savings beyond the budget are worth nothing: compare again, without them
            steps = {item: best(item) for item in levels}
            step = min(steps.values())
        if step is NO_STEP:
            break
        counts[step.item], excess = step.count, excess - step.saved
        for changed in {step.item, *problem.neighbours(step.item)} & set(levels):
            steps[changed] = best(changed)
    return counts, max(0.0, excess)


def _best(problem: Problem, item: str, levels: Sequence[int], counts: Counts, excess: float) -> _Step:
    found = [NO_STEP]
    for count in _lengths([level for level in levels if level < counts[item]]):
        saved = problem.saving(item, count, counts)
        if saved > 0:
            loss = problem.loss(item, count, counts)
            found.append(_Step(loss / max(1e-12, min(saved, excess)), item, count, saved))
    return min(found)


def _lengths(below: Sequence[int]) -> list[int]:
    """1, 2, 4, 8, … steps down, and all of them."""
    places = [2**power - 1 for power in range(len(below).bit_length())]
    return list(dict.fromkeys([below[place] for place in places] + list(below[-1:])))
