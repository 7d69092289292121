"""A model that a recipe asks for and that does not exist yet: a published size, changed where the recipe says so."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from edgeav.explain import Sources
from edgeav.spec import Strict, validate

if TYPE_CHECKING:
    from edgeav.models import ModelConfig

Preset = Literal[
    "fast-conformer-S",
    "fast-conformer-M",
    "fast-conformer-L",
    "fast-conformer-XL",
    "av-student-tiny",
    "av-student-small",
    "av-student-medium",
    "av-student-large",
]


class NewModel(Strict):
    """A model that does not exist yet: a `train` or `distill` stage gives it tokens and weights."""

    preset: Preset | None = None
    """A published size, or a student's, to begin with."""
    modalities: Literal["audio", "video", "audio-visual"] = "audio-visual"
    """What the preset takes."""
    config: dict[str, Any] = Field(default_factory=dict)
    """As in a model.json (edgeav/models/config.py). What is left out is the preset's, or has its default."""

    def described(self, where: str) -> ModelConfig:
        """The whole config; EdgeavError, which names `where`, if its parts do not fit together."""
        from edgeav.models import ModelConfig
        from edgeav.models.presets import named

        base = named(self.preset, self.modalities).model_dump(mode="json") if self.preset else {}
        return validate(ModelConfig, base | self.config, Sources(where, {}))
