"""One search as data: all that a worker needs, in a file that any worker of the run can read."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from edgeav.errors import EdgeavError
from edgeav.recipe import Recipe
from edgeav.search.candidate import Candidate
from edgeav.search.space import Point, settings_of
from edgeav.search.study import Plan
from edgeav.spec import Strict, load
from edgeav.stages.search import Search
from edgeav.target import Target

if TYPE_CHECKING:
    from edgeav.run import Run

FILE = "job.json"
STUDY = "study.log"
START = "start"  # folder of the model that every candidate begins with


class Job(Strict):
    """What job.json holds."""

    recipe: Recipe
    """Of the whole run: its corpus and seed."""
    search: Search
    cpu: str
    """Milliseconds of different machines cannot be compared."""
    reference: str | None = None
    """Name of the folder beside job.json with the model that the budget's WER is relative to."""

    def save(self, folder: Path) -> None:
        (folder / FILE).write_text(self.model_dump_json(indent=1) + "\n", encoding="utf-8")

    @cached_property
    def target(self) -> Target:
        return Target.load(self.search.target)

    @property
    def plan(self) -> Plan:
        """For the study."""
        search = self.search
        return Plan(
            search.vary, lambda point: self.candidate(point).key, search.trials, search.sampler, self.recipe.seed,
            search.population,
        )  # fmt: skip

    def candidate(self, point: Point) -> Candidate:
        return Candidate(settings_of(self.search.base, self.search.vary, point))


def find_job(run: Path) -> tuple[Job, Path]:
    """The newest search of a run's folder, and its own folder; EdgeavError if there is none."""
    found = sorted(run.glob(f"work/search-*/{FILE}"), key=lambda path: path.stat().st_mtime)
    if not found:
        raise EdgeavError(f"{run}: no search has begun here; start it with `edgeav compress RECIPE --run-dir {run}`")
    return load(Job, found[-1]), found[-1].parent


def scratch_of(search: Search, start: Path, run: Run) -> Path:
    """The search's folder: another one for everything that a measurement depends on, so `trials` can be raised."""
    from edgeav.run import code_hash, corpus_manifest, digest, model_hash

    settings = search.model_dump(mode="json", exclude={"trials", "budget", "workers", "sampler", "population"})
    corpus = [run.recipe.corpus, corpus_manifest(run.recipe.corpus), run.recipe.seed]
    key = digest([settings, search.facts(), corpus, model_hash(start), code_hash()])
    return run.scratch(f"search-{key[:8]}")
