"""Search: the settings of other stages chosen together, so that a budget holds with the fewest errors.

An example; each stage has its settings, `vary` says which of them may change and to what:

    stages:
      - search:
          prune: {budget: {macs: 0.6}}
          low_rank: {energy: 0.98}
          quantize: {format: int8}
          vary:
            prune.budget.macs: {low: 0.3, high: 0.9, step: 0.1}
            low_rank: [true, false]
            quantize.keep_float: [[attention-matmul], [attention-matmul, head]]
          trials: 40
          budget: {size_mb: 8, rtf: 0.05, wer_increase_abs: 0.5}

Candidates are exported and measured in their runtime (edgeav/search); validation clips judge them, never test clips.
The model that goes on is the one with the least WER within the budget. docs/search.md explains the settings.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field, field_validator, model_validator

from edgeav import spec
from edgeav.errors import EdgeavError
from edgeav.new_model import NewModel
from edgeav.quant.plan import Plan
from edgeav.quant.support import problems as unsupported
from edgeav.search.budget import SearchBudget
from edgeav.search.space import Values, points, problems, read, settings_of
from edgeav.stages.distill import Distill
from edgeav.stages.low_rank import LowRank
from edgeav.stages.prune import Prune
from edgeav.stages.quantize import Quantize
from edgeav.stages.stage import Stage
from edgeav.stages.train import Train
from edgeav.target import Target

if TYPE_CHECKING:
    from edgeav.run import Run

ORDER = ("model", "train", "distill", "prune", "low_rank", "quantize")


class Search(Stage):
    """Multi-objective search over the settings of the stages named here, which are applied in this order."""

    model: NewModel | None = None
    """A new model to begin with, for `train` or `distill`; nothing: the model as the stage before left it."""
    train: Train | None = None
    distill: Distill | None = None
    prune: Prune | None = None
    low_rank: LowRank | None = None
    quantize: Quantize | None = None
    vary: dict[str, Values] = Field(min_length=1)
    """Path of a setting, like quantize.format -> a list of values, or {low, high}; path of a stage -> [true, false]."""
    budget: SearchBudget
    """What the result must keep."""
    trials: int = Field(40, ge=1, le=100_000)
    """Candidates; raised later, a finished search goes on."""
    target: str = "onnxruntime"
    """Whose artifacts are measured: a name from export/, or a YAML file."""
    utterances: int = Field(200, ge=1, le=100_000)
    """Validation clips that are asked, at most."""
    sampler: Literal["tpe", "nsga2", "random"] = "tpe"
    population: int = Field(10, ge=2, le=10_000)
    """Candidates drawn at random before `tpe` begins to learn; of one generation of `nsga2`."""
    workers: int = Field(1, ge=1, le=256)
    """Processes on this machine; more can join, see `edgeav join`."""

    @field_validator("target")
    @classmethod
    def _the_target_exists(cls, name: str) -> str:
        try:
            spec.find("export", name)
        except EdgeavError as error:
            raise ValueError(str(error)) from None
        return name

    @model_validator(mode="after")
    def _all_of_it_can_be_tried(self) -> Search:
        found = [*self._wrong_stages(), *problems(self.base, self.vary)]
        if not found:
            found = list(dict.fromkeys(self._wrong_plans()))
        if found:
            raise ValueError("\n".join(found))
        return self

    @property
    def base(self) -> dict[str, spec.Strict]:
        """The stages by name, in their order; what the search measures anyway, `prune` need not."""
        found = {name: stage for name in ORDER if (stage := getattr(self, name)) is not None}
        if self.prune is not None and not self.prune.budget.timed:
            found["prune"] = self.prune.model_copy(update={"runtime": None})
        return found

    @property
    def plans(self) -> list[Plan]:
        """All plans of quantization that a candidate may have; they depend on nothing else."""
        if self.quantize is None:
            return []
        vary: dict[str, Values] = {
            path: values if isinstance(values, list) else list(values.numbers or (values.low, values.high))
            for path, values in self.vary.items()
            if path.split(".")[0] == "quantize"
        }
        base, places = {"quantize": self.quantize}, points(vary) or []
        chosen = [settings.get("quantize") for settings in (settings_of(base, vary, place) for place in places)]
        stages = (read(Quantize, settings, "quantize, as varied") for settings in chosen if settings)
        return [stage.plan for stage in stages]

    def facts(self) -> dict[str, str]:
        stages = [(n, stage) for n, stage in self.base.items() if isinstance(stage, Stage)]
        return {f"{name} {key}": value for name, stage in stages for key, value in stage.facts().items()}

    def apply(self, model_folder: Path, out: Path, run: Run) -> None:
        from edgeav.search.conduct import conduct

        conduct(self, model_folder, out, run)

    def _wrong_stages(self) -> Iterator[str]:
        if not any(name != "model" for name in self.base):
            yield f"names no stage to search with; name some of {', '.join(ORDER[1:])}"
        if self.train is not None and self.distill is not None:
            yield "train and distill: name one of them"
        if self.model is not None and self.train is None and (self.distill is None or self.distill.teacher is None):
            yield "model: a new model needs `train`, or `distill` with a `teacher`"

    def _wrong_plans(self) -> Iterator[str]:
        try:
            engine = Target.load(self.target).engine
            for plan in self.plans:
                yield from unsupported(engine, plan)
        except EdgeavError as error:  # two of the values, each fine alone, contradict each other
            yield str(error)
