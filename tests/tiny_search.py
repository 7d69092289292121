"""A search without models: a bench that computes what real ones measure, and a study for it in a folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from edgeav.errors import EdgeavError
from edgeav.search.budget import Measures
from edgeav.search.candidate import Candidate
from edgeav.search.space import Point, Vary, settings_of
from edgeav.search.study import Plan, Sampler, Study
from edgeav.stages.prune import Prune
from edgeav.stages.quantize import Quantize

BASE = {"prune": Prune.model_validate({"budget": {"macs": 0.5}}), "quantize": Quantize.model_validate({})}
VARY: Vary = {
    "prune.budget.macs": [0.25, 0.5, 0.75, 1.0],
    "quantize": [True, False],
    "quantize.format": ["int8", "int8-dynamic"],
}
WERS = {"int8": 1.0, "int8-dynamic": 0.5, "fp32": 0.0}
COSTS = {"int8": 0.25, "int8-dynamic": 0.6, "fp32": 1.0}


def candidate_of(point: Point) -> Candidate:
    return Candidate(settings_of(BASE, VARY, point))


def plan(trials: int = 100, sampler: Sampler = "tpe", seed: int = 0) -> Plan:
    return Plan(VARY, lambda point: candidate_of(point).key, trials, sampler, seed, 4)


def study(folder: Path, worker: str = "one", alive: Callable[[str], bool] = lambda name: True, **more: Any) -> Study:
    return Study(folder / "study.log", plan(**more), worker, alive)


def truth(candidate: Candidate) -> Measures:
    """Of fewer multiplications more errors; int8 costs errors too, and saves milliseconds and megabytes."""
    macs = candidate.settings["prune"]["budget"]["macs"]
    format = candidate.settings.get("quantize", {"format": "fp32"})["format"]
    return Measures(
        10 + 8 * (1 - macs) ** 2 + WERS[format], 2 + 40 * macs * COSTS[format], 1 + 8 * macs * COSTS[format]
    )


class Stub:
    """Keeps the keys of what it measured; dies, or refuses a candidate, where it is told to."""

    def __init__(self, limits: dict[str, float] | None = None, dies_at: int | None = None) -> None:
        self._limits, self.dies_at, self.measured = limits or {}, dies_at, list[str]()
        self.refused: set[str] = set()

    def limits(self) -> dict[str, float]:
        return self._limits

    def parts(self, candidate: Candidate) -> dict[str, dict[str, float]]:
        macs = candidate.settings["prune"]["budget"]["macs"]
        format = candidate.settings.get("quantize", {"format": "fp32"})["format"]
        return {"ms": {format: 30 * macs}, "mb": {format: 8 * macs * COSTS[format]}}

    def measure(self, candidate: Candidate) -> tuple[Measures, dict[str, Any]]:
        if candidate.key in self.refused:
            raise EdgeavError("prune: the budget cannot be reached")
        if len(self.measured) == self.dies_at:
            raise KeyboardInterrupt
        self.measured.append(candidate.key)
        return truth(candidate), {"increase": [0.0, -1.0, 1.0]}
