"""Plan the quantization: the number formats, the calibration clips, what stays float.

Each export realizes the plan with its engine's own tools (edgeav/exporters), because scales belong to the kernels that
will use them. What is left beside the model is quantization.json. The weights stay as they are, unless `smooth` or
`equalize` rescales them, which changes nothing in float32.

    stages:
      - quantize: {format: int8, keep_float: auto, wer_budget_abs: 0.3}
      - quantize: {format: int4-weights, roles: {visual-cnn: int8, visual-stem: int8}}
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, field_validator, model_validator

from edgeav.quant.plan import FP8, KEPT_FLOAT, CalibrationNoise, Format, Plan, Ranges, Role, not_float32
from edgeav.stages.stage import Stage, copy_files

if TYPE_CHECKING:
    from edgeav.run import Run


class Quantize(Stage):
    """Post-training quantization: ranges from a few hundred clips, no training."""

    format: Format = "int8"
    """Of every role that is not named below; what each engine makes of it: docs/quantize.md."""
    roles: dict[Role, Format] = Field(default_factory=dict)
    """Roles that have a format of their own."""
    calibration: int = Field(256, ge=1, le=100_000)
    """Training clips that the ranges of activations are taken from, of all lengths alike."""
    calibration_noise: CalibrationNoise | None = None
    """Noise in some of them."""
    ranges: Ranges = "minmax"
    """How much of what the clips showed the 8 bits cover; see edgeav/quant/ranges.py."""
    keep_float: Annotated[tuple[Role, ...], Field(strict=False)] | Literal["auto"] = KEPT_FLOAT
    """Roles that stay in float32 on every engine. `auto`: the fewest with which validation clips keep the budget."""
    wer_budget_abs: float | None = Field(default=None, ge=0, le=100)
    """For `keep_float: auto`: points of WER that validation clips may lose."""
    scan_utterances: int = Field(200, ge=1, le=10_000)
    """For `keep_float: auto`: validation clips that are asked, at most."""
    smooth: float | None = Field(default=None, ge=0, le=1)
    """SmoothQuant: how much of an activation's spread moves into the weights that follow. 0.5 is usual."""
    equalize: bool = False
    """Cross-layer equalization of neighbouring convolutions with ReLU between them."""

    @field_validator("format")
    @classmethod
    def _changes_something(cls, format: Format) -> Format:
        return not_float32(format)

    @model_validator(mode="after")
    def _auto_has_a_budget(self) -> Quantize:
        if (self.keep_float == "auto") != (self.wer_budget_abs is not None):
            raise ValueError("keep_float: auto and wer_budget_abs belong together, like wer_budget_abs: 0.3")
        if self.keep_float == "auto" and any(f in FP8 for f in self.plan.formats):
            raise ValueError("keep_float: auto weighs errors against time, and FP8 saves none here; name the roles")
        return self

    @property
    def plan(self) -> Plan:
        """What is known before any clip is looked at."""
        kept = KEPT_FLOAT if self.keep_float == "auto" else self.keep_float
        return Plan(
            format=self.format,
            roles=self.roles,
            keep_float=kept,
            ranges=self.ranges,
            smooth=self.smooth,
            equalize=self.equalize,
        )

    def apply(self, model_folder: Path, out: Path, run: Run) -> None:
        from edgeav.work import calibration_of

        calibration = calibration_of(run, self.calibration, self.calibration_noise)
        copy_files(model_folder, out)
        plan = self.plan.model_copy(update={"calibration": calibration})
        if self.smooth is not None or self.equalize:
            _rescale(out, plan, run)
        if self.wer_budget_abs is not None:
            from edgeav.quant.sensitivity import scan_model

            found = scan_model(out, plan, (self.wer_budget_abs, self.scan_utterances), run)
            found.save(out)
            plan = plan.model_copy(update={"keep_float": found.keep_float})
        plan.save(out)


def _rescale(folder: Path, plan: Plan, run: Run) -> None:
    """Change the weights in `folder`, not what they compute."""
    from edgeav.models import load_model, save_model
    from edgeav.quant.smooth import equalize, smooth
    from edgeav.work import calibration_inputs

    model = load_model(folder)
    if plan.equalize:
        equalize(model)
    if plan.smooth is not None and plan.calibration:
        smooth(model, calibration_inputs(run, plan.calibration, model.config.inputs), plan.smooth)
    save_model(model, folder)
