"""The product's main loop: a recipe -> stages -> bundles -> measurements -> verdict and report.

Every arrow is a step of a `Run` (see run.py): `steps_of` lists them without doing anything, which is what `edgeav plan`
shows, and `compress` does what is missing. torch and the engines are imported inside the steps, so that a run with
nothing left to do ends in seconds.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeav import work
from edgeav.beginning import Beginning, beginning_of
from edgeav.catalog import find_model
from edgeav.device import Device
from edgeav.errors import EdgeavError
from edgeav.explain import Sources
from edgeav.guards import inspectable
from edgeav.progress import Progress
from edgeav.quant.plan import FILE as PLAN
from edgeav.quant.plan import Plan, load_plan
from edgeav.recipe import Recipe
from edgeav.run import Run, Step, corpus_manifest, model_hash
from edgeav.spec import dump, validate
from edgeav.stages import Stage
from edgeav.target import Precision, Target

if TYPE_CHECKING:
    from edgeav.report import Report
    from edgeav.runtime.bundle import Bundle


@dataclass(frozen=True)
class Steps:
    """All steps of a recipe, in the order in which they are done."""

    stages: list[Step]
    baseline: Step
    exports: dict[tuple[str, Precision], Step]
    measures: dict[tuple[str, str], Step]
    guards: dict[tuple[str, str], Step]  # where precisions are compared
    inspections: dict[str, Step]  # by target
    profiles: dict[tuple[str, str], Step]  # (target, device)
    beginning: Beginning | None = None

    def __iter__(self) -> Iterator[Step]:
        yield from (*self.stages, self.baseline)
        for key, export in self.exports.items():
            yield export
            yield self.measures[key]
            if key in self.guards:
                yield self.guards[key]
        yield from self.inspections.values()
        yield from self.profiles.values()
        yield from self.beginning or ()


def compress(recipe: Recipe, folder: Path, progress: Progress | None = None) -> Report:
    """Do what `recipe` says that is not done yet, then write report.{json,md,html} into `folder`."""
    run = Run(folder, recipe, progress or Progress())
    steps = steps_of(run)  # finds the model: nothing is written for a name that does not exist
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "recipe.resolved.yaml").write_text(dump(recipe), encoding="utf-8")
    for step in steps.stages:
        run.once(step)
    steps = steps_of(run)  # by now a search has decided which formats there are to export
    for step in steps:
        run.once(step)
    from edgeav.report import write
    from edgeav.results import assemble, describe_quality

    report = assemble(run, steps)
    for row in report.bundles:
        describe_quality(folder / steps.exports[row.target, row.precision].name, row)
    write(report, folder)
    return report


def plan(recipe: Recipe, folder: Path) -> list[dict[str, str]]:
    """One row a step: its name, "cached" or "missing", and why it is missing."""
    run = Run(folder, recipe)
    rows, redone = [], set()
    for step in steps_of(run):
        why = run.why_missing(step)
        before = [need.name for need in step.needs if need.name in redone]
        if why and why != "not done yet" and before:
            why = "follows " + ", ".join(before)
        if why:
            redone.add(step.name)
        rows.append({"step": step.name, "state": "missing" if why else "cached", "why": why or ""})
    if recipe.searched is not None and rows[recipe.searched]["state"] == "missing":
        rows.append({"step": "bundles/…", "state": "missing", "why": "in which format, the search decides"})
    return rows


def export_one(model: str, target: Target, precision: Precision, corpus: str, out: Path) -> Bundle:
    """One bundle without a recipe: `edgeav export`. `out` must not exist, or be empty."""
    if out.exists() and any(out.iterdir()):
        raise EdgeavError(f"{out} is not empty; choose another --out, or delete it")
    stages = [] if precision == "fp32" else [{"quantize": {"format": precision}}]
    recipe = validate(
        Recipe, {"name": "export", "model": model, "corpus": corpus, "stages": stages}, Sources("edgeav export", {})
    )
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".edgeav-export-", dir=out.parent) as place:
        run = Run(Path(place), recipe)
        folders = [run.once(step) for step in _stage_steps(run)]
        part = run.scratch("bundle")
        bundle = work.export_bundle(run, folders[-1] if folders else work.starting_model(run), target, precision, part)
        shutil.rmtree(out, ignore_errors=True)
        part.rename(out)
    return replace(bundle, folder=out)


def steps_of(run: Run) -> Steps:
    """The recipe's steps with their keys; nothing is done."""
    stages = _stage_steps(run)
    data = {"corpus": _corpus_facts(run.recipe)} | ({} if stages else {"model": _model_facts(run.recipe)})
    last = tuple(stages[-1:])
    model = partial(_model_folder, run, stages)
    baseline = Step("measured/eager", data, lambda out: work.measure_eager(run, model(), out), last)
    exports, measures, guards, inspections, profiles = {}, {}, {}, {}, {}
    plan = _plan(run, stages)
    precisions: tuple[Precision, ...] = ("fp32",) if plan is None else ("fp32", plan.format)  # a ratio needs both
    compares = len(precisions) > 1
    limits = {"guards": run.recipe.budget.guards.model_dump(include={"clips", "snr_db"})}
    for target in run.recipe.targets:
        for precision in precisions:
            export = _export_step(run, target, precision, data, model, last)
            measure = partial(_measure, run, export, model)
            exports[target.name, precision] = export
            measures[target.name, precision] = Step(
                f"measured/{target.name}-{precision}", data, measure, (export, *last)
            )
            if compares:
                name, guard = f"guards/{target.name}-{precision}", partial(_guard, run, export)
                guards[target.name, precision] = Step(name, data | limits, guard, (export,))
        if plan and inspectable(plan):
            both = exports[target.name, plan.format], exports[target.name, "fp32"]
            check = partial(_inspect, run, both, model)
            inspections[target.name] = Step(f"guards/{target.name}-file", data, check, (*both, *last))
        pair = tuple(exports[target.name, precision] for precision in precisions)
        for device in run.recipe.devices:
            name, settings = f"profiles/{target.name}-{device.name}", {"device": device.model_dump(mode="json")}
            profiles[target.name, device.name] = Step(name, settings, partial(_profile, run, pair, device), pair)
    began = None
    if run.recipe.changes_the_model:
        finals = {target: export for (target, _), export in exports.items()}  # of several the last: the compressed one
        began = beginning_of(run, data | {"model": _model_facts(run.recipe)}, finals)
    return Steps(stages, baseline, exports, measures, guards, inspections, profiles, began)


def _stage_steps(run: Run) -> list[Step]:
    steps: list[Step] = []
    for number, item in enumerate(run.recipe.stages, 1):
        settings: dict[str, Any] = {"stage": item.model_dump(mode="json"), "seed": run.recipe.seed}
        settings |= item.stage.facts()
        settings |= {"corpus": _corpus_facts(run.recipe)} | ({} if steps else {"model": _model_facts(run.recipe)})
        before = partial(_model_folder, run, steps[-1:])
        apply = partial(_apply, run, item.stage, before)
        steps.append(Step(f"{number:02d}-{item.name}", settings, apply, tuple(steps[-1:])))
    return steps


def _export_step(
    run: Run, target: Target, precision: Precision, data: dict, model: Callable[[], Path], last: tuple[Step, ...]
) -> Step:
    settings = {"target": target.model_dump(mode="json"), "precision": precision} | data
    name = f"bundles/{target.name}-{precision}"
    return Step(name, settings, lambda out: work.export_bundle(run, model(), target, precision, out), last)


def _apply(run: Run, stage: Stage, before: Callable[[], Path], out: Path) -> None:
    stage.apply(before(), out, run)


def _measure(run: Run, export: Step, model: Callable[[], Path], out: Path) -> None:
    work.measure_bundle(run, run.folder / export.name, model(), out)


def _guard(run: Run, export: Step, out: Path) -> None:
    from edgeav.guards.steps import recognize_buckets

    recognize_buckets(run, run.folder / export.name, out)


def _inspect(run: Run, both: tuple[Step, Step], model: Callable[[], Path], out: Path) -> None:
    from edgeav.guards.steps import inspect_bundle

    inspect_bundle(run, run.folder / both[0].name, run.folder / both[1].name, model(), out)


def _profile(run: Run, pair: Sequence[Step], device: Device, out: Path) -> None:
    work.profile_bundles([run.folder / step.name for step in pair], device, out)


def _model_folder(run: Run, stages: Sequence[Step]) -> Path:
    """The model as the last of `stages` left it."""
    return run.folder / stages[-1].name if stages else work.starting_model(run)


def _plan(run: Run, stages: Sequence[Step]) -> Plan | None:
    """How the model will be quantized; None: not at all, or a search has still to decide it."""
    place = run.recipe.searched
    if place is None:
        return next(iter(run.recipe.plans), None)
    folder = run.folder / stages[place].name
    decided = run.why_missing(stages[place]) is None and (folder / PLAN).is_file()
    return load_plan(folder) if decided else None


def _model_facts(recipe: Recipe) -> Any:
    return model_hash(find_model(recipe.model)) if isinstance(recipe.model, str) else recipe.model.model_dump()


def _corpus_facts(recipe: Recipe) -> dict[str, Any]:
    return {"name": recipe.corpus, "manifest": corpus_manifest(recipe.corpus), "seed": recipe.seed}
