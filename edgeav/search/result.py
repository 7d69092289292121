"""What a search found out, as search.json, for the report and for `edgeav explain`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, JsonValue

from edgeav.errors import EdgeavError
from edgeav.search.budget import UNITS, Measures, choose, front, proof
from edgeav.search.prediction import mape, summary
from edgeav.search.space import drawn
from edgeav.spec import Strict, load

if TYPE_CHECKING:
    from edgeav.search.job import Job
    from edgeav.search.study import Study

FILE = "search.json"


class Measured(Strict):
    wer: float
    """Of validation clips, in points."""
    ms: float
    """Process CPU time of one input of `seconds` on one thread, the median."""
    mb: float


class TrialRow(Strict):
    number: int
    settings: dict[str, JsonValue]
    """What was drawn."""
    state: Literal["measured", "discarded", "failed"]
    measured: Measured | None = None
    increase: tuple[float, float, float] | None = Field(default=None, strict=False)
    """Points of WER over the reference, and the 95 % interval."""
    predicted: dict[str, dict[str, float]] = Field(default_factory=dict)
    """"ms" and "mb": `raw`, the bare sum of the layers, and `calibrated` by the trials before this one."""
    why: str = ""
    """It was not measured."""
    seconds: float | None = None


class PredictionRow(Strict):
    """Mean absolute percentage errors of what was predicted of the measured trials."""

    n: int
    raw_mape: float | None
    """Of the bare sum of the layers."""
    calibrated_mape: float | None
    """Of the calibrated one, each trial by a fit to all the others."""
    ahead_mape: float | None
    """Of what was said before each was measured, by the trials until then."""

    def say(self, unit: str) -> str:
        figures = [("bare sum", self.raw_mape), ("calibrated", self.calibrated_mape), ("said ahead", self.ahead_mape)]
        said = ", ".join(f"{name} {value:.1f} %" for name, value in figures if value is not None)
        return f"Predicted against measured {UNITS[unit]}, mean error of {self.n}: {said}."


class SearchRow(Strict):
    schema_: Literal["edgeav-search/1"] = Field(default="edgeav-search/1", alias="schema")
    target: str
    cpu: str
    seconds: float
    """Length of the input that is timed."""
    utterances: int
    """Validation clips."""
    sampler: str
    seed: int
    asked: int
    """Trials that were asked for; a small space has fewer."""
    limits: dict[str, float]
    reference: Measured | None = None
    """The float model that the search began with."""
    trials: list[TrialRow]
    front: list[int]
    """Trials that no other dominates, fastest first."""
    chosen: int | None = None
    prediction: dict[str, PredictionRow]

    @property
    def summary(self) -> list[str]:
        """What was tried, asked for, predicted and chosen, a line each."""
        counts = f"{self.count('measured')} measured, {self.count('discarded')} discarded by prediction"
        limits = ", ".join(f"{limit:.4g} {UNITS[unit]}" for unit, limit in self.limits.items())
        return [
            f"{len(self.trials)} trials: {counts}, {self.count('failed')} could not be made.",
            f"Budget: {limits}, on {self.utterances} validation clips and {self.target}.",
            *(row.say(unit) for unit, row in self.prediction.items() if row.n),
            self.missed() if self.chosen is None else f"Chosen: trial {self.chosen}, the least WER within the budget.",
        ]

    @property
    def measured(self) -> dict[int, Measures]:
        return {row.number: Measures(**row.measured.model_dump()) for row in self.trials if row.measured}

    def row(self, number: int) -> TrialRow:
        return next(row for row in self.trials if row.number == number)

    def count(self, state: str) -> int:
        return sum(row.state == state for row in self.trials)

    def fits(self, number: int) -> bool:
        found = self.measured[number]
        return all(getattr(found, unit) <= limit + 1e-9 for unit, limit in self.limits.items())

    def missed(self) -> str:
        """That nothing fits, in words."""
        says = []
        if gone := [row for row in self.trials if row.state == "discarded"]:
            says.append(f"{len(gone)} were discarded unmeasured, like trial {gone[0].number}: {gone[0].why}")
        if bad := [row for row in self.trials if row.state == "failed"]:
            says.append(f"{len(bad)} could not be made, like trial {bad[0].number}: {bad[0].why}")
        return proof(self.measured, self.limits, says)


def collect(study: Study, job: Job, limits: Mapping[str, float], reference: Any, utterances: int) -> SearchRow:
    """All that the finished `study` holds; `reference` as edgeav/search/measuring.py has it."""
    rows = [_row(trial, job) for trial in study.trials]
    found = {row.number: Measures(**row.measured.model_dump()) for row in rows if row.measured}
    return SearchRow(
        target=job.search.target, cpu=job.cpu, seconds=reference.seconds if reference else _seconds(),
        utterances=utterances, sampler=job.search.sampler, seed=job.recipe.seed, asked=job.search.trials,
        limits=dict(limits),
        reference=Measured(wer=reference.wer, ms=reference.ms, mb=reference.mb) if reference else None,
        trials=rows, front=front(found), chosen=choose(found, limits),
        prediction={unit: _prediction(study, rows, unit) for unit in ("ms", "mb")},
    )  # fmt: skip


def load_search(run: Path) -> tuple[SearchRow, Path] | None:
    """Of a run's last search stage, or of a search that found nothing or still goes on; None if there is none."""
    found = sorted(run.glob(f"*-search/{FILE}")) or sorted(run.glob(f"work/search-*/{FILE}"), key=_age)
    return (load(SearchRow, found[-1]), found[-1]) if found else None


def table(found: SearchRow) -> list[dict[str, str]]:
    """The front, fastest first, as plain data for consoles."""
    return [_line(found, number) for number in found.front]


def plain(settings: Mapping[str, JsonValue]) -> str:
    """Drawn settings as `path: value`."""
    return ", ".join(f"{path}: {json.dumps(value)}" for path, value in settings.items())


def _line(found: SearchRow, number: int) -> dict[str, str]:
    row = found.row(number)
    assert row.measured is not None
    change = "" if row.increase is None else f"{row.increase[0]:+.2f} [{row.increase[1]:+.2f}, {row.increase[2]:+.2f}]"
    mark = "chosen" if number == found.chosen else "fits" if found.fits(number) else ""
    return {
        "trial": str(number), "WER": f"{row.measured.wer:.2f}", "change": change, "ms": f"{row.measured.ms:.3g}",
        "RTF": f"{row.measured.ms / 1000 / found.seconds:.4f}", "MB": f"{row.measured.mb:.3g}",
        "settings": plain(row.settings), "": mark,
    }  # fmt: skip


def _row(trial: Any, job: Job) -> TrialRow:
    attrs, values = trial.user_attrs, trial.values
    measured = Measured(wer=values[0], ms=values[1], mb=values[2]) if values is not None else None
    return TrialRow(
        number=trial.number, settings=drawn(job.search.vary, trial.params),
        state="measured" if measured else "failed" if "error" in attrs else "discarded",
        measured=measured, increase=attrs.get("increase"), predicted=attrs.get("predicted", {}),
        why=attrs.get("error", attrs.get("why", "")), seconds=attrs.get("seconds"),
    )  # fmt: skip


def _prediction(study: Study, rows: list[TrialRow], unit: str) -> PredictionRow:
    parts = {trial.number: trial.user_attrs["parts"][unit] for trial in study.trials if trial.values is not None}
    measured = {row.number: getattr(row.measured, unit) for row in rows if row.measured}
    ahead = dict(_ahead(rows, unit))
    figures = summary(list(parts.values()), [measured[number] for number in parts])
    said = mape(list(ahead.values()), [measured[number] for number in ahead])
    return PredictionRow.model_validate(figures | {"ahead_mape": said})


def _ahead(rows: list[TrialRow], unit: str) -> Iterator[tuple[int, float]]:
    for row in rows:
        if row.measured and "calibrated" in row.predicted.get(unit, {}):
            yield row.number, row.predicted[unit]["calibrated"]


def _seconds() -> float:
    from edgeav.macs import SECONDS

    return SECONDS


def _age(path: Path) -> float:
    return path.stat().st_mtime


def chosen_of(found: SearchRow, path: Path) -> int:
    """The chosen trial; EdgeavError is the proof that nothing tried fits."""
    if found.chosen is None:
        raise EdgeavError(f"{found.missed()}\nAll trials: {path}")
    return found.chosen
