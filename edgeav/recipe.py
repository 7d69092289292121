"""What to do to a model: one `recipes/*.yaml`, the product's main input.

Reading a recipe checks all of it, names of targets and devices included, before any work; it loads no torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator, model_validator

from edgeav import spec
from edgeav.data import BUILT_IN
from edgeav.device import Device
from edgeav.errors import EdgeavError
from edgeav.explain import guess
from edgeav.guards.settings import GuardBudget
from edgeav.new_model import NewModel
from edgeav.quant.plan import Plan
from edgeav.quant.support import problems
from edgeav.stages import Step
from edgeav.target import EngineName, Target


class WerBudget(spec.Strict):
    """How much word error rate the int8 bundle may lose against fp32 on the same utterances."""

    max_increase_abs: float = Field(ge=0, le=100)
    """Percentage points of WER."""
    ci: int = Field(95, ge=50, le=99)
    """Confidence level of the printed interval, in percent."""
    min_utterances: int = Field(200, ge=1)
    """Fewer test utterances than this prove nothing: the check fails."""


class SpeedBudget(spec.Strict):
    """How fast the int8 bundle must be, on the same device and runtime."""

    min_ratio_vs_fp32: float = Field(gt=0)
    """fp32 time / int8 time, one thread."""


class StartBudget(spec.Strict):
    """What must hold of every bundle against the model that the recipe begins with, in float on the same runtime."""

    wer: WerBudget | None = None
    min_speedup: float | None = Field(default=None, gt=0)
    """Its time / the bundle's, one thread, on every device that has times."""
    size_ratio: float | None = Field(default=None, gt=0, le=1)
    """Largest allowed bytes / its bytes."""


class Budget(spec.Strict):
    """What must hold in the end; a broken budget makes `edgeav compress` exit with 1."""

    wer: WerBudget | None = None
    speed: SpeedBudget | None = None
    size_mb: float | None = Field(default=None, gt=0)
    """Largest allowed artifact, in 10^6 bytes."""
    size_ratio: float | None = Field(default=None, gt=0, le=1)
    """Largest allowed int8 bytes / fp32 bytes."""
    start: StartBudget | None = None
    """For recipes whose stages leave another model: pruned, factorized, distilled."""
    guards: GuardBudget = GuardBudget()
    """Limits of the checks that every run makes."""


class Recipe(spec.Strict):
    """A model, what happens to it, what it is exported to, where it is measured, and what must hold."""

    schema_: Literal["edgeav/1"] = Field("edgeav/1", alias="schema")
    name: str = Field(pattern=spec.NAME)
    """Also the run's folder: runs/<name>/."""
    model: str | NewModel
    """A name from `edgeav models`, a model folder, or `{preset: …, config: {…}}` for a new one that a stage trains."""
    corpus: str = "demo"
    """`demo` (generated, no download) or the folder of a corpus."""
    seed: int = Field(0, ge=0, lt=2**32)
    """Same recipe and seed, same report within the stated noise."""
    stages: list[Step] = Field(default_factory=list)
    """In this order."""
    export: list[str] = Field(default_factory=list)
    """Targets: names from export/, or YAML files."""
    profile: list[str] = Field(default_factory=list)
    """Devices: names from devices/, or YAML files."""
    budget: Budget = Budget()

    @classmethod
    def load(cls, name: str | Path, overrides: Sequence[str] = ()) -> Recipe:
        """A shipped recipe by name, or one from a YAML file, with `a.b=c` overrides applied."""
        return spec.load(cls, spec.find("recipes", str(name)), overrides)

    @property
    def targets(self) -> list[Target]:
        """The declarations of `export`, in its order."""
        return [Target.load(name) for name in self.export]

    @property
    def devices(self) -> list[Device]:
        """The declarations of `profile`, in its order."""
        return [Device.load(name) for name in self.profile]

    @property
    def plans(self) -> list[Plan]:
        """What the stages may leave: the plan of the last `quantize` or `qat`, or all that a later `search` chooses
        from."""
        for item in reversed(self.stages):
            if decides := item.quantize or item.qat:
                return [decides.plan]
            if item.search and item.search.quantize:
                return item.search.plans
        return []

    @property
    def changes_the_model(self) -> bool:
        """Whether a trained model goes in and another one comes out; `quantize` rounds the same one."""
        return isinstance(self.model, str) and any(item.name != "quantize" for item in self.stages)

    @property
    def searched(self) -> int | None:
        """The place of the stage that decides on the plan while it runs; None: the recipe says it, or there is none."""
        places = [
            place
            for place, item in enumerate(self.stages)
            if item.quantize or item.qat or (item.search and item.search.quantize)
        ]
        return places[-1] if places and self.stages[places[-1]].search else None

    @field_validator("corpus")
    @classmethod
    def _the_corpus_exists(cls, corpus: str) -> str:
        if corpus in BUILT_IN or spec.existing(corpus):
            return corpus
        allowed = f"allowed: {', '.join(BUILT_IN)}, or the path of a corpus"
        raise ValueError(f"no such corpus{guess(corpus, BUILT_IN)}; {allowed}")

    @field_validator("export")
    @classmethod
    def _the_targets_exist(cls, names: list[str]) -> list[str]:
        return _all_exist("export", names)

    @field_validator("profile")
    @classmethod
    def _the_devices_exist(cls, names: list[str]) -> list[str]:
        return _all_exist("devices", names)

    @model_validator(mode="after")
    def _what_qat_learned_is_kept(self) -> Recipe:
        places = [place for place, item in enumerate(self.stages) if item.qat]
        after = [item.name for item in self.stages[places[0] + 1 :]] if places else []
        if after:
            raise ValueError(f"stages: {after[0]} after qat would undo what that has learned; make qat the last stage")
        given = [item.quantize.plan for item in self.stages if item.quantize and places]
        if given and (others := [f for f in given[-1].formats if f not in ("fp32", "int8")]):
            raise ValueError(f"stages: qat learns ranges of int8; the quantize before it has {', '.join(others)}")
        return self

    @model_validator(mode="after")
    def _every_target_can_do_the_plan(self) -> Recipe:
        plans = self.plans
        engines: dict[EngineName, None] = {target.engine: None for target in self.targets} if plans else {}
        found = [problem for engine in engines for plan in plans for problem in problems(engine, plan)]
        if found:
            raise ValueError("; ".join(dict.fromkeys(found)))
        return self

    @model_validator(mode="after")
    def _every_device_runs_every_engine(self) -> Recipe:
        for device in self.devices:
            for target in self.targets:
                if target.engine not in device.engines:
                    runs = f"it runs {', '.join(device.engines)}"
                    raise ValueError(f"target {target.name} needs {target.engine}, but {device.name} has none: {runs}")
        return self

    @model_validator(mode="after")
    def _every_device_can_be_started_from_here(self) -> Recipe:
        by_hand = [device.name for device in self.devices if device.address.kind == "manual"]
        if by_hand:
            how = f"edgeav profile BUNDLE --device {by_hand[0]} --measured FILE"
            raise ValueError(f"profile: {', '.join(by_hand)}: measured by its own app, not by a run; afterwards: {how}")
        return self

    @model_validator(mode="after")
    def _a_start_is_there_to_compare_with(self) -> Recipe:
        if self.budget.start and not self.changes_the_model:
            raise ValueError(
                "budget.start compares with the model that the recipe begins with, which must be a trained one that a"
                " stage changes (train, distill, prune, low_rank, qat, search); for quantize alone use budget.wer"
            )
        return self

    @model_validator(mode="after")
    def _speed_is_measured_somewhere(self) -> Recipe:
        devices = self.devices
        wanted = self.budget.speed or (self.budget.start and self.budget.start.min_speedup)
        if wanted and devices and all(device.emulated for device in devices):
            names = ", ".join(device.name for device in devices)
            field = "speed" if self.budget.speed else "start.min_speedup"
            raise ValueError(f"budget.{field}: {names}: emulated, so no time counts; profile on a real device too")
        return self


def _all_exist(kind: spec.Kind, names: list[str]) -> list[str]:
    """The same names; ValueError names all that do not exist, or appear twice."""
    problems = []
    for name in spec.unique(names):
        try:
            spec.find(kind, name)
        except EdgeavError as error:
            problems.append(str(error))
    if problems:
        raise ValueError("; ".join(problems))
    return names
