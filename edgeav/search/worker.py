"""The loop of a worker: claim a candidate, predict it, discard it or measure it, until all trials are taken.

Any number of these may run on one study. Whoever is slower to die than its siblings does what they left behind.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from edgeav.errors import EdgeavError
from edgeav.progress import Progress
from edgeav.search.alive import Pulse
from edgeav.search.budget import UNITS, Measures
from edgeav.search.candidate import Candidate, build
from edgeav.search.job import START, STUDY, Job
from edgeav.search.measuring import Gauge, parts_of
from edgeav.search.parts import table_of
from edgeav.search.prediction import Parts, fit, hopeless, known
from edgeav.search.space import Point
from edgeav.search.study import Claim, Study
from edgeav.search.trial_run import TrialRun

WAIT_S = 2.0
PREDICTED = ("ms", "mb")


class Bench(Protocol):
    """What is done to candidates; a test has one without models."""

    def limits(self) -> dict[str, float]:
        """By unit."""
        ...

    def parts(self, candidate: Candidate) -> dict[str, dict[str, float]]:
        """Unit -> format -> what its layers cost; without training anything."""
        ...

    def measure(self, candidate: Candidate) -> tuple[Measures, dict[str, Any]]:
        """Make and measure it, and more to be kept about it."""
        ...


@dataclass(frozen=True)
class ModelBench:
    """The real one."""

    job: Job
    run: TrialRun
    gauge: Gauge
    table: Any

    @classmethod
    def at(cls, job: Job, place: Path, folder: Path, turn: int, progress: Progress) -> ModelBench:
        """Of worker `turn` at the search in `place`, of the run in `folder`."""
        run = TrialRun(folder, job.recipe, progress, shared=place, place=place / f"worker-{turn}", turn=turn)
        return cls(job, run, Gauge(job, run), table_of(job.target.engine))

    def limits(self) -> dict[str, float]:
        return self.gauge.limits()

    def parts(self, candidate: Candidate) -> dict[str, dict[str, float]]:
        from edgeav.models import load_model

        self._at(candidate)
        folder = build(candidate.sketch, self.run.shared / START, self.run, trained=False)
        return parts_of(load_model(folder), folder, self.table)

    def measure(self, candidate: Candidate) -> tuple[Measures, dict[str, Any]]:
        self._at(candidate)
        found = self.gauge.measure(build(candidate, self.run.shared / START, self.run))
        shutil.rmtree(self.run.place)
        return found

    def _at(self, candidate: Candidate) -> None:
        self.run.place = self.run.shared / "trials" / candidate.key


def work(study: Study, candidate_of: Callable[[Point], Candidate], bench: Bench, progress: Progress) -> int:
    """Do trials until none is left, those that other workers lose too; how many were done here."""
    limits, done = bench.limits(), 0
    while True:
        claim = study.claim()
        if claim is not None:
            done += 1
            became = _try(study, claim, candidate_of(claim.point), bench, limits)
            progress.say(f"search: trial {claim.number}: {became}")
        elif not study.running:
            return done
        else:
            time.sleep(WAIT_S)


def _try(study: Study, claim: Claim, candidate: Candidate, bench: Bench, limits: Mapping[str, float]) -> str:
    """Do one trial; what became of it."""
    start = time.monotonic()
    try:
        facts: dict[str, Any] = {"parts": bench.parts(candidate)}
        before = measured_parts(study)
        over, why = _over(facts["parts"], before, limits)
        facts["predicted"] = _predicted(facts["parts"], before)
        if over:
            study.discarded(claim, over, facts | {"why": why})
            return f"discarded: {why}"
        found, more = bench.measure(candidate)
    except EdgeavError as error:
        study.failed(claim, str(error))
        return f"cannot be made: {error}"
    study.measured(claim, found, limits, facts | more | {"seconds": round(time.monotonic() - start, 1)})
    return f"{found.wer:.2f} % WER, {found.ms:.4g} ms, {found.mb:.4g} MB"


Known = dict[str, tuple[list[Parts], list[float]]]  # unit -> parts of each measured candidate, what was measured


def measured_parts(study: Study) -> Known:
    """What predictions are calibrated by."""
    trials = [trial for trial in study.trials if trial.values is not None]
    return {
        unit: (
            [trial.user_attrs["parts"][unit] for trial in trials],
            [t.values[list(UNITS).index(unit)] for t in trials],
        )
        for unit in PREDICTED
    }


def _over(parts: Mapping[str, Parts], before: Known, limits: Mapping[str, float]) -> tuple[dict[str, float], str]:
    """The limits that are hopelessly missed, by how much, and that in words."""
    over, says = {}, []
    for unit in PREDICTED:
        if unit in limits and (found := hopeless(parts[unit], *before[unit], limits[unit])):
            predicted, margin = found
            over[unit] = predicted - limits[unit]
            says.append(f"{predicted:.4g} {UNITS[unit]} predicted, give or take {margin:.0%}, for {limits[unit]:.4g}")
    return over, "; ".join(says)


def _predicted(parts: Mapping[str, Parts], before: Known) -> dict[str, dict[str, float]]:
    """Unit -> the bare sum, and where its formats were measured before, what the fit to all those says."""
    found: dict[str, dict[str, float]] = {}
    for unit in PREDICTED:
        rows, measured = before[unit]
        found[unit] = {"raw": round(sum(parts[unit].values()), 4)}
        if known(parts[unit], rows):
            found[unit]["calibrated"] = round(fit(rows, measured).of(parts[unit]), 4)
    return found


def join(job: Job, place: Path, run: Path, turn: int, progress: Progress) -> int:
    """Work along as worker `turn` at the search in `place`; EdgeavError on another kind of machine."""
    from edgeav.runtime.machine import machine

    here = machine()["cpu"]
    if here != job.cpu:
        raise EdgeavError(
            f"search: its milliseconds are those of {job.cpu}; this is {here}, whose would not compare. Join from a"
            " machine of the same kind"
        )
    bench = ModelBench.at(job, place, run, turn, progress)
    with Pulse(place / "workers").beating() as pulse:
        study = Study(place / STUDY, job.plan, pulse.name, pulse.alive, turn)
        return work(study, job.candidate, bench, progress)
