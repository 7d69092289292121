"""Which layers are worth factorizing, and to which rank: by energy, or jointly to one budget.

Two halves multiply rank * (in + out) numbers where there were in * out. Fewer products are not yet less time: a layer
gets a rank only where both halves together were measured to be faster than the whole.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from edgeav.errors import EdgeavError
from edgeav.models import AVModel
from edgeav.models.low_rank import factorizable
from edgeav.quant.census import macs_by_module
from edgeav.quant.plan import Role, role_of
from edgeav.shrink.budget import Budget
from edgeav.shrink.geometry import Shape, shapes_of
from edgeav.shrink.greedy import Counts, descend
from edgeav.shrink.latency import LatencyTable
from edgeav.shrink.svd import Components

WHOLE = 1 << 30  # the "rank" of a layer that is left as it is
MARGIN = 0.02  # faster by less than this is within the noise of a measurement


@dataclass(frozen=True)
class Candidate:
    """One layer: `ranks` that may be chosen, falling; why there are none, if so."""

    path: str
    shape: Shape
    ranks: tuple[int, ...]
    why: str = ""

    def at(self, rank: int) -> Shape:
        return self.shape if rank == WHOLE else replace(self.shape, rank=rank)

    def products(self, rank: int) -> int:
        """Numbers that its weights have, and multiplications with each row."""
        inputs, outputs = self.shape.window, self.shape.outputs
        return inputs * outputs if rank == WHOLE else rank * (inputs + outputs)


def whole_layers(model: AVModel, roles: Sequence[Role]) -> list[str]:
    """Paths of the layers of these roles that could be factorized and are not yet."""
    layers = [path for path, module in model.named_modules() if factorizable(module)]
    return [path for path in layers if role_of(path) in roles and not path.endswith((".narrow", ".widen"))]


def candidates(model: AVModel, paths: Sequence[str], multiple: int, table: LatencyTable | None) -> list[Candidate]:
    """Each layer with the ranks at which it is smaller and, with a `table`, faster."""
    shapes = shapes_of(model)
    return [_candidate(path, shapes[path], multiple, table) for path in paths]


def by_energy(found: Sequence[Candidate], parts: Mapping[str, Components], energy: float) -> dict[str, int]:
    """Path -> the least rank that keeps `energy`, of the layers where that rank may be chosen."""
    chosen = {}
    for one in found:
        enough = [rank for rank in one.ranks if parts[one.path].energy(rank) >= energy]
        if enough:
            chosen[one.path] = min(enough)
    return chosen


def by_budget(
    found: Sequence[Candidate], parts: Mapping[str, Components], budget: Budget, price: Price
) -> dict[str, int]:
    """Path -> rank with which the budget holds, at the least sum of lost shares of energy; EdgeavError if none does."""
    problem, target = _Ranks(found, parts, price.of), budget.share_of(price.whole) * price.whole
    levels = {one.path: [WHOLE, *one.ranks] for one in found}
    counts, excess = descend(problem, levels, price.whole - target)
    if excess > 0:
        left = (target + excess) / price.whole
        raise EdgeavError(
            f"low_rank: the budget cannot be reached: with every layer at its least rank {left:.1%} of the"
            f" {budget.measure} is left. Raise the budget, allow more `roles`, or set runtime: null, which also takes"
            " layers apart that get no faster"
        )
    return {path: rank for path, rank in counts.items() if rank != WHOLE}


@dataclass(frozen=True)
class Price:
    """What the whole model costs, and a layer at a rank, by one measure."""

    whole: float
    of: Callable[[Candidate, int], float]


def price(model: AVModel, budget: Budget, table: LatencyTable | None, whole_ms: float = 0.0) -> Price:
    """By the measure of `budget`."""
    match budget.measure:
        case "parameters":
            return Price(sum(p.numel() for p in model.parameters()), lambda one, rank: one.products(rank))
        case "macs":
            whole = sum(macs_by_module(model).values())
            return Price(whole, lambda one, rank: one.shape.places * one.products(rank))
    assert table is not None
    return Price(whole_ms, lambda one, rank: table[one.at(rank)])


def described(
    found: Sequence[Candidate], parts: Mapping[str, Components], ranks: Mapping[str, int], table: LatencyTable | None
) -> list[dict[str, Any]]:
    """One row a layer for low_rank.json."""
    return [_row(one, parts[one.path], ranks.get(one.path), table) for one in found]


class _Ranks:
    """The problem for greedy.py."""

    def __init__(
        self,
        found: Sequence[Candidate],
        parts: Mapping[str, Components],
        price: Callable[[Candidate, int], float],
    ) -> None:
        self.layers, self.parts, self.price = {one.path: one for one in found}, parts, price

    def loss(self, item: str, count: int, counts: Counts) -> float:
        return self.parts[item].energy(counts[item]) - self.parts[item].energy(count)

    def saving(self, item: str, count: int, counts: Counts) -> float:
        return self.price(self.layers[item], counts[item]) - self.price(self.layers[item], count)

    def neighbours(self, item: str) -> list[str]:
        return []


def _candidate(path: str, shape: Shape, multiple: int, table: LatencyTable | None) -> Candidate:
    smaller = _smaller(shape, multiple)
    if not smaller:
        return Candidate(path, shape, (), f"no multiple of {multiple} makes it smaller")
    if table is None:
        return Candidate(path, shape, smaller)
    dense = table[shape]
    faster = tuple(rank for rank in smaller if table[replace(shape, rank=rank)] < (1 - MARGIN) * dense)
    return Candidate(path, shape, faster, "" if faster else "no rank makes it faster")


def _smaller(shape: Shape, multiple: int) -> tuple[int, ...]:
    """Multiples below in * out / (in + out), falling."""
    most = (shape.window * shape.outputs - 1) // (shape.window + shape.outputs)
    return tuple(range(most // multiple * multiple, 0, -multiple))


def _row(one: Candidate, part: Components, rank: int | None, table: LatencyTable | None) -> dict[str, Any]:
    row: dict[str, Any] = {"layer": one.path, "outputs": one.shape.outputs, "inputs": one.shape.window, "rank": rank}
    row["energy"] = round(part.energy(rank or WHOLE), 4)
    row["why"] = one.why or ("" if rank else "it would lose too much for what it saves")
    if table is not None:
        row["dense_ms"] = round(table[one.shape], 4)
        row["ms"] = round(table[one.at(rank)], 4) if rank else None
    return row
