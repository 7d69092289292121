"""What a recipe gained and lost against the model that it began with.

Stages that train, prune or distill leave another model: "int8 against fp32" then says nothing of what became of the
teacher. So the model of the recipe's `model` is measured on the same clips, exported to the same targets in float, and
timed in turn with what came out, in one process.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from edgeav import work
from edgeav.device import Device
from edgeav.errors import EdgeavError
from edgeav.run import Run, Step, write_json
from edgeav.target import Target

WHY_NOT = "not_exported.json"


@dataclass(frozen=True)
class Beginning:
    """Steps of the model that a recipe begins with."""

    measured: Step
    exports: dict[str, Step]
    races: dict[tuple[str, str], Step]  # (target, device)

    def __iter__(self) -> Iterator[Step]:
        yield self.measured
        yield from self.exports.values()
        yield from self.races.values()


def beginning_of(run: Run, facts: Mapping[str, Any], finals: Mapping[str, Step]) -> Beginning:
    """Its steps. `facts`: of the model and the corpus. `finals`: the bundles that it is compared with, by target."""
    measured = Step("measured/start", facts, lambda out: work.measure_eager(run, work.starting_model(run), out))
    exports, races = {}, {}
    for target in run.recipe.targets:
        settings = {"target": target.model_dump(mode="json"), **facts}
        export = Step(f"bundles/{target.name}-start", settings, partial(_export, run, target))
        exports[target.name] = export
        for device in (device for device in run.recipe.devices if not device.emulated):
            both = export, finals[target.name]
            asked = {"device": device.model_dump(mode="json")}
            name = f"profiles/{target.name}-{device.name}-start"
            races[target.name, device.name] = Step(name, asked, partial(_race, run, both, device), both)
    return Beginning(measured, exports, races)


def _export(run: Run, target: Target, out: Path) -> None:
    """A teacher may be nothing for a device, which must not keep its student from it: then it is said why."""
    try:
        work.export_bundle(run, work.starting_model(run), target, "fp32", out)
    except EdgeavError as error:
        write_json(out / WHY_NOT, {"why": str(error)})


def _race(run: Run, both: tuple[Step, Step], device: Device, out: Path) -> None:
    from edgeav.profiling import compare_pair

    before, after = (run.folder / step.name for step in both)
    if not (before / WHY_NOT).is_file():
        write_json(out / "pair.json", compare_pair(before, after, device))
