"""A candidate: the stages of a search with the settings of one point of its space, and the model that they make.

A model is made step by step in a cache that all workers share: candidates that begin alike have those steps in common.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from edgeav.errors import EdgeavError
from edgeav.new_model import NewModel
from edgeav.quant.plan import FILE, KEPT_FLOAT, Plan, load_plan
from edgeav.run import digest
from edgeav.search.space import Settings, read
from edgeav.search.trial_run import TrialRun
from edgeav.spec import Strict
from edgeav.stages.distill import Distill
from edgeav.stages.low_rank import LowRank
from edgeav.stages.prune import Prune
from edgeav.stages.quantize import Quantize
from edgeav.stages.stage import Stage, copy_files
from edgeav.stages.train import Train

KINDS: dict[str, type[Strict]] = {
    "model": NewModel, "train": Train, "distill": Distill, "prune": Prune, "low_rank": LowRank, "quantize": Quantize,
}  # fmt: skip
UNTRAINED: Settings = {"prune": {"finetune": None, "rounds": 1}, "low_rank": {"finetune": None}}


@dataclass(frozen=True)
class Candidate:
    """`settings` of the stages that it has."""

    settings: Settings

    @cached_property
    def key(self) -> str:
        """The same for settings that mean the same."""
        return digest(self.settings)

    @cached_property
    def steps(self) -> dict[str, Stage | NewModel]:
        """The stages themselves; EdgeavError where the settings do not fit together."""
        found: dict[str, Any] = {}
        for name in KINDS:
            if name in self.settings:
                found[name] = read(KINDS[name], self.settings[name], name)
        return found

    @property
    def sketch(self) -> Candidate:
        """As large and as fast, but without training and without a scan of roles: what a prediction is made of."""
        changes = {name: UNTRAINED[name] for name, settings in self.settings.items() if settings.get("finetune")}
        if self.settings.get("quantize", {}).get("wer_budget_abs") is not None:
            changes["quantize"] = {"keep_float": list(KEPT_FLOAT), "wer_budget_abs": None}
        return Candidate({name: settings | changes.get(name, {}) for name, settings in self.settings.items()})


def plan_of(folder: Path) -> Plan | None:
    """How the model in `folder` is quantized."""
    return load_plan(folder) if (folder / FILE).is_file() else None


def build(candidate: Candidate, start: Path, run: TrialRun, trained: bool = True) -> Path:
    """The folder of the candidate's model, made from the one in `start`; without `trained`, with random weights."""
    folder, key = start, ""
    for name, step in candidate.steps.items():
        key = digest([key, name, candidate.settings[name], trained or not isinstance(step, Train)])
        before = folder
        folder = _once(run.shared / "models" / key, run, lambda out, s=step, b=before: _apply(s, b, out, run, trained))
    return folder


def _apply(step: Stage | NewModel, before: Path, out: Path, run: TrialRun, trained: bool) -> None:
    match step:
        case NewModel():
            (out / "model.json").write_text(step.described("search: model.config").model_dump_json(indent=1))
        case Train() if not trained:
            copy_files(step.untrained(before, run, run.scratch(f"untrained-{out.name}")), out)
        case _:
            assert isinstance(step, Stage)
            if not isinstance(step, Train) and not (before / "model.safetensors").is_file():
                raise EdgeavError("search: the model to begin with has no weights; add `train` or `distill`")
            step.apply(before, out, run)


def _once(folder: Path, run: TrialRun, make: Callable[[Path], None]) -> Path:
    """As `edgeav.stages.recovery.once`, but two workers may be at it: the first to finish wins."""
    if folder.exists():
        return folder
    part = run.place / f"part-{folder.name}"
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    make(part)
    folder.parent.mkdir(parents=True, exist_ok=True)
    try:
        part.rename(folder)
    except OSError:
        if not folder.exists():
            raise
        shutil.rmtree(part)
    return folder
