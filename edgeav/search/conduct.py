"""The search stage's work: set the search up, work at it beside helpers, and hand the chosen model on."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from edgeav.catalog import find_model
from edgeav.run import write_json
from edgeav.runtime.machine import machine
from edgeav.search.alive import Pulse
from edgeav.search.candidate import build
from edgeav.search.job import START, STUDY, Job, scratch_of
from edgeav.search.result import FILE, SearchRow, chosen_of, collect
from edgeav.search.study import Study
from edgeav.search.worker import ModelBench, join
from edgeav.stages.recovery import once
from edgeav.stages.search import Search
from edgeav.stages.stage import copy_files

if TYPE_CHECKING:
    from edgeav.run import Run

TEACHER = "teacher"
END_S = 60  # for helpers, once nothing is left to do


def conduct(search: Search, model_folder: Path, out: Path, run: Run) -> None:
    """Search from the model in `model_folder`; the chosen one and search.json into the empty folder `out`.

    EdgeavError if nothing that was tried keeps the budget: it says what comes nearest.
    """
    place = scratch_of(search, model_folder, run)
    job = _job(search, model_folder, place, run)
    job.save(place)
    bench = ModelBench.at(job, place, run.folder, 0, run.progress)
    limits = bench.limits()  # measures the reference, before anybody else asks for it
    with _helpers(search.workers - 1, run.folder):
        join(job, place, run.folder, 0, run.progress)
    study = Study(place / STUDY, job.plan, "", Pulse(place / "workers").alive)
    found = collect(study, job, limits, bench.gauge.reference, len(bench.gauge.clips))
    _save(found, place)
    number = chosen_of(found, place / FILE)
    trial = next(trial for trial in study.trials if trial.number == number)
    copy_files(build(job.candidate(trial.params), place / START, bench.run), out)
    _save(found, out)


def _job(search: Search, model_folder: Path, place: Path, run: Run) -> Job:
    """With copies of the models that it needs: a worker elsewhere has only the run's folder."""
    once(place / START, lambda part: copy_files(model_folder, part))
    reference = START if (place / START / "model.safetensors").is_file() else None
    if reference is None and search.distill is not None and search.distill.teacher is not None:
        teacher = find_model(search.distill.teacher)
        once(place / TEACHER, lambda part: copy_files(teacher, part))
        reference = TEACHER
    return Job(recipe=run.recipe, search=search, cpu=machine()["cpu"], reference=reference)


def _save(found: SearchRow, folder: Path) -> None:
    write_json(folder / FILE, found.model_dump(mode="json"))


@contextmanager
def _helpers(count: int, run: Path) -> Iterator[None]:
    """So many processes that work along; what they say goes where our messages go."""
    command = [sys.executable, "-m", "edgeav", "join", str(run), "--turn"]
    helpers = [subprocess.Popen([*command, str(turn)], stdout=sys.stderr) for turn in range(1, count + 1)]
    try:
        yield
        for helper in helpers:
            helper.wait(END_S)
    finally:
        for helper in helpers:
            if helper.poll() is None:
                helper.terminate()
