"""Which units and blocks stay: what is worth least for what it costs goes, until the budget holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from edgeav.shrink.cost import Cost
from edgeav.shrink.greedy import Counts, descend
from edgeav.shrink.importance import Scores
from edgeav.shrink.places import Group, Kind, block_of

SMALLEST = 8  # of all widths in a model.json but heads, of which one is enough


@dataclass(frozen=True)
class Rules:
    """What may be removed: `kinds` of groups, in multiples, down to a share of each group."""

    kinds: frozenset[Kind | str]
    multiple: int = 8
    floor: float = 0.1


class Pruning:
    """The problem for greedy.py: items are groups, and blocks with a count of 1 or 0."""

    def __init__(self, groups: Sequence[Group], scores: Scores, cost: Cost) -> None:
        self.cost, self.units = cost, {group.name: group.units for group in groups}
        self.lost = {name: _cumulated(score) for name, score in scores.items()}
        self.inside = {name: block_of(name) for name in self.units}

    def loss(self, item: str, count: int, counts: Counts) -> float:
        if item in self.units:
            return self._lost(item, count) - self._lost(item, counts[item])
        inside = [name for name, block in self.inside.items() if block == item]
        return sum(self._lost(name, 0) - self._lost(name, counts.get(name, self.units[name])) for name in inside)

    def saving(self, item: str, count: int, counts: Counts) -> float:
        return self.cost.change(item, count, {**self.cost.units, **counts})

    def neighbours(self, item: str) -> list[str]:
        """What has a layer in common."""
        layers = self.cost.touching[item]
        found = {name for layer in layers for name in (*layer.axes.values(), layer.block) if name}
        return sorted(found - {item})

    def _lost(self, group: str, count: int) -> float:
        return float(self.lost[group][self.units[group] - count])


def choose(
    groups: Sequence[Group], blocks: Sequence[str], scores: Scores, cost: Cost, target: float, rules: Rules
) -> tuple[dict[str, int], float]:
    """How many units of each group stay, 0 for a block that goes; and by how much the cost is still above `target`."""
    levels = {g.name: levels_of(g, rules) for g in groups if g.kind in rules.kinds}
    levels |= {block: [1, 0] for block in blocks if "blocks" in rules.kinds}
    excess = cost.total(cost.units) - target
    return descend(Pruning(groups, scores, cost), levels, excess)


def levels_of(group: Group, rules: Rules) -> list[int]:
    """The counts that a group may have: all, or fewer by the rules."""
    step, least = (1, 1) if group.kind == "heads" else (rules.multiple, SMALLEST)
    least = max(least, group.least, round(rules.floor * group.units))
    return [group.units, *(n for n in range(group.units - 1, 0, -1) if n % step == 0 and n >= least)]


def kept_units(scores: Scores, counts: Mapping[str, int]) -> dict[str, Tensor]:
    """The most important units of each group that loses some, in their order."""
    fewer = {name: count for name, count in counts.items() if name in scores and 0 < count < len(scores[name])}
    return {name: scores[name].topk(count).indices.sort().values for name, count in fewer.items()}


def _cumulated(score: Tensor) -> Tensor:
    """(units,) -> (units + 1,): what is lost with the least important 0, 1, 2, … units."""
    return torch.cat([score.new_zeros(1), score.sort().values.cumsum(0)])
