"""The one number that a model is made smaller to; no torch in here, for recipes are read by it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from edgeav.spec import Strict

Share = Annotated[float, Field(gt=0, le=1)]
Measure = Literal["macs", "parameters", "time", "milliseconds"]


class Budget(Strict):
    """What may be left, by exactly one measure."""

    macs: Share | None = None
    """Share of the multiply-accumulates of 4 s."""
    parameters: Share | None = None
    """Share of the parameters."""
    time: Share | None = None
    """Share of the milliseconds that the model takes here, on one thread of a runtime."""
    milliseconds: float | None = Field(default=None, gt=0)
    """For 4 s of input here, on one thread of a runtime."""

    @model_validator(mode="after")
    def _exactly_one(self) -> Budget:
        named = [name for name, value in self if value is not None]
        if len(named) != 1:
            raise ValueError(f"must name one of {', '.join(type(self).model_fields)}, like {{macs: 0.5}}")
        return self

    @property
    def measure(self) -> Measure:
        measures: tuple[Measure, ...] = ("macs", "parameters", "time", "milliseconds")
        return next(name for name in measures if getattr(self, name) is not None)

    @property
    def value(self) -> float:
        return getattr(self, self.measure)

    @property
    def timed(self) -> bool:
        return self.measure in ("time", "milliseconds")

    def share_of(self, whole: float) -> float:
        """What may be left of a model that costs `whole`, as a share."""
        return self.value / whole if self.measure == "milliseconds" else self.value
