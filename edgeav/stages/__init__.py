"""The stages of a recipe, in one union: to add one, write its file and name it here."""

from __future__ import annotations

from typing import Any

from pydantic import SerializerFunctionWrapHandler, model_serializer, model_validator

from edgeav.spec import Strict
from edgeav.stages.distill import Distill
from edgeav.stages.low_rank import LowRank
from edgeav.stages.prune import Prune
from edgeav.stages.qat import Qat
from edgeav.stages.quantize import Quantize
from edgeav.stages.search import Search
from edgeav.stages.stage import Stage
from edgeav.stages.train import Train

__all__ = ["Stage", "Step"]


class Step(Strict):
    """One item of a recipe's `stages`: exactly one stage, by its name, with its settings."""

    train: Train | None = None
    distill: Distill | None = None
    prune: Prune | None = None
    low_rank: LowRank | None = None
    quantize: Quantize | None = None
    qat: Qat | None = None
    search: Search | None = None

    @property
    def name(self) -> str:
        """The stage's name in the recipe."""
        return next(name for name, stage in self if stage is not None)

    @property
    def stage(self) -> Stage:
        """The stage itself."""
        return getattr(self, self.name)

    @model_validator(mode="after")
    def _exactly_one_stage(self) -> Step:
        named = [name for name, stage in self if stage is not None]
        if len(named) != 1:
            known = ", ".join(type(self).model_fields)
            raise ValueError(f"a step is one stage with its settings, like {{quantize: {{}}}}; known: {known}")
        return self

    @model_serializer(mode="wrap")
    def _only_the_named_stage(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {name: settings for name, settings in serialize(self).items() if settings is not None}
