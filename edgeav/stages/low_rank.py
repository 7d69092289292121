"""Low rank: linear layers and convolutions in two thinner halves, where that loses little on real inputs.

An example; a layer is only taken apart where its two halves were measured to be faster:

    stages:
      - low_rank: {energy: 0.98}
      - low_rank:
          budget: {parameters: 0.7}
          finetune: {teacher: before, mix: [{corpus: demo, per_batch: 8}], steps: 500}

Which factors: edgeav/shrink/svd.py; which ranks: ranks.py. docs/shrink.md explains the settings.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, model_validator

from edgeav.quant.plan import Role
from edgeav.shrink.budget import Budget
from edgeav.stages.recovery import Recovery, facts_of, once, recover, scratch
from edgeav.stages.stage import Stage, copy_files

if TYPE_CHECKING:
    from edgeav.models import AVModel
    from edgeav.run import Run

REPORT = "low_rank.json"
ROLES: tuple[Role, ...] = (
    "visual-cnn",
    "subsampling",
    "fusion",
    "feed-forward",
    "attention-projection",
    "conv-pointwise",
)


class LowRank(Stage):
    """Data-whitened SVD of layers: by `energy` or to a `budget`."""

    energy: float | None = Field(None, gt=0, le=1)
    """Share of the variance of each layer's outputs that stays."""
    budget: Budget | None = None
    """Or: what may be left of the whole model; ranks are chosen jointly, by loss of energy for what it saves."""
    multiple: Literal[8, 16] = 8
    """Ranks are multiples of this, as kernels like them."""
    runtime: Literal["onnxruntime", "openvino"] | None = "onnxruntime"
    """Layers stay whole where two halves are not faster here, on one thread; null: nothing is measured."""
    calibration: int = Field(64, ge=1, le=100_000)
    """Training clips that the layers are observed with."""
    roles: tuple[Role, ...] = Field(default=ROLES, strict=False)
    """Whose layers may be factorized."""
    finetune: Recovery | None = None
    """Afterwards: settings of `train`, or with a `teacher` of `distill`; nothing: no training."""

    @model_validator(mode="after")
    def _one_aim(self) -> LowRank:
        if (self.energy is None) == (self.budget is None):
            raise ValueError("set one of `energy`, like 0.98, and `budget`, like {parameters: 0.7}")
        if self.budget is not None and self.budget.timed and self.runtime is None:
            raise ValueError("a budget in time needs a runtime: onnxruntime or openvino")
        return self

    def facts(self) -> dict[str, str]:
        return facts_of(self.finetune)

    def apply(self, model_folder: Path, out: Path, run: Run) -> None:
        place = scratch("low-rank", self, model_folder, run) / "factorized"
        smaller = once(place, lambda part: self._factorize(model_folder, part, run))
        if self.finetune is None:
            copy_files(smaller, out)
        else:
            recover(self.finetune, smaller, model_folder, out, run)
            shutil.copy2(smaller / REPORT, out / REPORT)

    def _factorize(self, before: Path, out: Path, run: Run) -> None:
        from edgeav.models import load_model, save_model
        from edgeav.run import write_json
        from edgeav.shrink.describe import sizes
        from edgeav.shrink.svd import factorized

        model = load_model(before)
        ranks, parts, rows = self._ranks(model, run)
        smaller = factorized(model, parts, ranks)
        copy_files(before, out)
        save_model(smaller, out)
        settings = self.model_dump(mode="json", include={"energy", "budget", "multiple", "roles", "calibration"})
        whole = {"before": sizes(model, self.runtime), "after": sizes(smaller, self.runtime)}
        write_json(out / REPORT, {"settings": settings, "model": whole, "layers": rows})

    def _ranks(self, model: AVModel, run: Run) -> tuple[dict[str, int], dict[str, Any], list[dict[str, Any]]]:
        """Path -> rank, path -> components, and what to say about each layer."""
        from edgeav.quant.plan import Calibration
        from edgeav.shrink.latency import LatencyTable
        from edgeav.shrink.ranks import candidates, described, whole_layers
        from edgeav.shrink.svd import components, record
        from edgeav.work import calibration_inputs

        table = LatencyTable(self.runtime) if self.runtime else None
        paths = whole_layers(model, self.roles)
        clips = calibration_inputs(
            run, Calibration(utterances=self.calibration, seed=run.recipe.seed), model.config.inputs
        )
        moments = record(model, paths, clips)
        parts = {path: components(_layer(model, path), moments[path]) for path in paths}
        found = candidates(model, paths, self.multiple, table)
        ranks = self._choice(model, found, parts, table)
        return ranks, parts, described(found, parts, ranks, table)

    def _choice(self, model: AVModel, found: list[Any], parts: dict[str, Any], table: Any) -> dict[str, int]:
        from edgeav.shrink.ranks import by_budget, by_energy, price
        from edgeav.shrink.whole import whole_ms

        if self.energy is not None:
            return by_energy(found, parts, self.energy)
        assert self.budget is not None
        measured = whole_ms(model, table.runtime) if self.budget.timed else 0.0
        return by_budget(found, parts, self.budget, price(model, self.budget, table, measured))


def _layer(model: AVModel, path: str) -> Any:
    return model.get_submodule(path)
