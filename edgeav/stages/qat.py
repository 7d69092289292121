"""Quantization-aware training: the model learns to compute on the grids that it will be deployed with.

Every pass rounds weights and activations, gradients pass straight through, and the ranges of activations are learned
beside the weights. Jacob et al. 2018 (https://arxiv.org/abs/1712.05877), LSQ (Esser et al. 2020,
https://arxiv.org/abs/1902.08153). The teacher is the model itself in float, given the very same inputs, or a better
one: Apprentice (Mishra & Marr 2018, https://arxiv.org/abs/1711.05852).

What is left is a float model and quantization.json with the ranges, which every exporter takes over as they are:

    stages:
      - qat: {mix: [{corpus: demo, per_batch: 6}], steps: 400}
      - qat: {mix: [{corpus: demo, per_batch: 6}], teacher: av-teacher, ctc_weight: 1, learning_rate: 1.0e-4}
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from edgeav.errors import EdgeavError
from edgeav.quant.plan import FILE, KEPT_FLOAT, Plan, Role, load_plan
from edgeav.stages.distill import Distill

if TYPE_CHECKING:
    from edgeav.data.corpus import Corpus
    from edgeav.distillation import Schooling
    from edgeav.run import Run

CLIPS = 256  # as many as `quantize` takes


class Qat(Distill):
    """Fake-quantized finetuning; the settings of `distill`, and these."""

    teacher: str | None = None
    """A name from `edgeav models` or a model folder; nothing: the model itself in float, given what it is given."""

    steps: int = Field(400, ge=1)
    learning_rate: float = Field(3e-6, gt=0, le=1)
    """Of the weights. Small: rounding costs little to begin with, and larger steps cost a model more than that. With a
    better `teacher` there is more to learn, at the rates of a training."""
    range_learning_rate: float = Field(1e-3, gt=0, le=1)
    """Of the ranges of activations: each of their ends moves by about this share of itself in a step. A level of
    8 bits is 4e-3 of the whole."""
    weight_decay: float = Field(0.0, ge=0, le=1)
    warmup: int = Field(20, ge=1)
    flat: float = Field(0.0, ge=0, lt=1)
    precision: Literal["bf16", "fp32"] = "fp32"
    """bf16 rounds what lies on the grid a second time."""
    format: Literal["int8"] = "int8"
    """8-bit integers: unsigned activations, signed weights with one scale per output channel."""
    keep_float: Annotated[tuple[Role, ...], Field(strict=False)] | None = None
    """Roles that stay in float32 on every engine; nothing: those of the `quantize` before, or attention-matmul."""
    calibration: int | None = Field(None, ge=1, le=100_000)
    """Training clips that give the ranges to begin with; nothing: those of the `quantize` before, or 256."""
    ctc_weight: float = Field(0.0, ge=0, le=1000)
    """Of the losses on the texts. The teacher says more, and a small corpus would be learned by heart."""

    def _problems(self) -> list[tuple[bool, str]]:
        itself, same = self.teacher is None, "is asked online and given what the student is given"
        asking = self._problems_of_asking() if self._taught else []
        return [
            (self.student is not None, "name no `student`: it is the model as the stage before left it"),
            (not self._taught and not self.ctc_weight, "nothing is to be learned: set kl_weight or ctc_weight"),
            (
                "attention-matmul" not in self.plan.keep_float,
                "keep_float: the products of attention have no ranges to learn; name attention-matmul too",
            ),
            (
                itself and self.posteriors == "cached",
                f"posteriors: without a `teacher` the float model itself {same}",
            ),
            (itself and self.teacher_hears == "noisy", f"teacher_hears: the float model itself {same}"),
            *asking,
        ]

    @property
    def plan(self) -> Plan:
        """What is known before any clip is looked at."""
        return Plan(format=self.format, keep_float=KEPT_FLOAT if self.keep_float is None else self.keep_float)

    def starting_model(self, model_folder: Path, corpora: Mapping[str, Corpus], run: Run, out: Path) -> Path:
        """The float model with calibrated ranges beside it, made once for these settings."""
        from edgeav.run import digest, model_hash

        if not (model_folder / "model.safetensors").is_file():
            raise EdgeavError(f"qat: {model_folder} has no weights; train it first, or name a trained model")
        if self.teacher is not None:
            super().starting_model(model_folder, corpora, run, out)  # whether it can teach this model
        plan = self._begun(model_folder, run)
        key = digest([plan.model_dump(mode="json"), run.recipe.corpus, model_hash(model_folder)])
        folder = out.with_name(f"{out.name}-{key[:8]}")
        if not (folder / FILE).is_file():
            folder.mkdir(parents=True, exist_ok=True)
            for name in ("model.json", "model.safetensors", "tokenizer.model"):
                shutil.copy2(model_folder / name, folder / name)
            _calibrated(model_folder, plan, run).save(folder)  # last: it says that the folder is complete
        return folder

    def school(self, model_folder: Path, run: Run, clips: Sequence[Path]) -> Schooling | None:
        school = super().school(model_folder, run, clips) if self._taught else None
        return replace(school, hears="same") if school and self.teacher is None else school

    @property
    def _cached_in(self) -> Literal["bf16", "fp32"]:
        return "bf16"  # a teacher is on no grid; its answers serve `distill` too

    def _begun(self, model_folder: Path, run: Run) -> Plan:
        """The plan of the stage before if there is one, and what is set here; with its clips, without ranges."""
        from edgeav.work import calibration_of

        plan = load_plan(model_folder) if (model_folder / FILE).is_file() else self.plan
        others = sorted(set(plan.formats) - {"fp32", self.format})
        if others or plan.quantizes("blocks.0.attention"):
            also = ", ".join(others) or f"attention-matmul in {self.format}"
            raise EdgeavError(f"qat: learns ranges of layers in {self.format}; the plan before has {also} too")
        changed: dict[str, Any] = {} if self.keep_float is None else {"keep_float": self.keep_float}
        if self.calibration or not plan.calibration:
            changed["calibration"] = calibration_of(run, self.calibration or CLIPS, None)
        return plan.model_copy(update=changed | {"ranges": "minmax", "learned": None})


def _calibrated(model_folder: Path, plan: Plan, run: Run) -> Plan:
    from edgeav.models import load_model
    from edgeav.quant.learned import calibrated
    from edgeav.work import calibration_inputs

    assert plan.calibration is not None
    model = load_model(model_folder)
    return calibrated(model, plan, calibration_inputs(run, plan.calibration, model.config.inputs))
