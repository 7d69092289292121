"""Plan the quantization: the number format, the calibration clips, what stays float. The weights stay as they are.

Each export realizes the plan with its engine's own quantizer (edgeav/exporters), because scales belong to the kernels
that will use them. What is left beside the model is quantization.json.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from edgeav.quant.plan import KEPT_FLOAT, Calibration, Plan, Role
from edgeav.stages.stage import Stage, copy_files

if TYPE_CHECKING:
    from edgeav.run import Run


class Quantize(Stage):
    """Post-training quantization: ranges from a few hundred clips, no training."""

    format: Literal["int8"] = "int8"
    """8-bit integers: unsigned activations, signed weights with one scale per output channel."""
    calibration: int = Field(256, ge=1, le=100_000)
    """Training clips that the ranges of activations are taken from."""
    keep_float: tuple[Role, ...] = Field(default=KEPT_FLOAT, strict=False)
    """Roles that stay in float32 on every engine."""

    def apply(self, model_folder: Path, out: Path, run: Run) -> None:
        seed = run.recipe.seed
        clips = run.corpus.calibration(self.calibration, seed)
        copy_files(model_folder, out)
        calibration = Calibration(utterances=self.calibration, seed=seed, ids=tuple(clip.id for clip in clips))
        Plan(format=self.format, keep_float=self.keep_float, calibration=calibration).save(out)
