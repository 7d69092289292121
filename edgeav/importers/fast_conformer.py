"""What NeMo archives and Parakeet folders have in common: the network, and a config file whose fields are checked.

A field with a value that our model does not compute is an error, never ignored: the weights would fit all the same, and
the output would be wrong.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from edgeav.errors import EdgeavError
from edgeav.importers.imported import MAX_S
from edgeav.models import ModelConfig
from edgeav.models.config import Block, DwStriding, Encoder
from edgeav.runtime.inputs import Features, LogMel

HOP_MS = 10


@dataclass(frozen=True)
class FastConformer:
    """The numbers that make one of them; `subsampling` is (factor, channels)."""

    width: int
    heads: int
    blocks: int
    feed_forward: int
    kernel: int
    subsampling: tuple[int, int]
    mel: LogMel
    encoder: Encoder

    def config(self, tokens: tuple[str, ...], vocabulary: int, blank: int) -> ModelConfig:
        """`tokens`, one an output. Ours need none for a blank that is the last output."""
        step_ms = HOP_MS * self.subsampling[0]
        last = blank == vocabulary - 1
        block = Block(
            heads=self.heads,
            head_width=self.width // self.heads,
            feed_forward=self.feed_forward,
            feed_forward_2=self.feed_forward,
            conv_channels=self.width,
            kernel=self.kernel,
        )
        return ModelConfig(
            inputs=Features(step_ms=step_ms, audio=self.mel, video=None),
            width=self.width,
            audio=DwStriding(channels=self.subsampling[1]),
            video=None,
            fusion=None,
            blocks=(block,) * self.blocks,
            encoder=self.encoder,
            max_steps=MAX_S * 1000 // step_ms,
            tokens=tokens[:-1] if last else tokens,
            blank_index=None if last else blank,
        )


@dataclass(frozen=True)
class Settings:
    """A part of a config file; `place` begins every error about it."""

    values: Mapping[str, Any]
    place: str

    @classmethod
    def read(cls, path: Path, defaults: Mapping[str, Any] | None = None) -> Settings:
        """A JSON file."""
        try:
            return cls.of(json.loads(path.read_text(encoding="utf-8")), f"{path}: ", defaults)
        except ValueError as error:  # no UTF-8, or no JSON
            raise EdgeavError(f"{path}: not JSON ({error})") from None

    @classmethod
    def parse(cls, text: bytes, place: str) -> Settings:
        """YAML."""
        try:
            return cls.of(yaml.safe_load(text), f"{place}: ")
        except yaml.YAMLError as error:
            raise EdgeavError(f"{place}: not YAML ({str(error).partition(chr(10))[0]})") from None

    @classmethod
    def of(cls, values: Any, place: str, defaults: Mapping[str, Any] | None = None) -> Settings:
        if not isinstance(values, dict):
            raise EdgeavError(f"{place.rstrip('. ')}: missing, or not a table of settings")
        return cls({**(defaults or {}), **values}, place)

    def inner(self, name: str, defaults: Mapping[str, Any] | None = None) -> Settings:
        return Settings.of(self.values.get(name), f"{self.place}{name}.", defaults)

    def check(self, allowed: Mapping[str, tuple[Any, ...]]) -> None:
        """EdgeavError names each field that is there with a value that is not `allowed`."""
        wrong = [
            f"{self.place}{name}: {self.values[name]!r} is not supported; allowed: {', '.join(map(repr, values))}"
            for name, values in allowed.items()
            if name in self.values and self.values[name] not in values
        ]
        if wrong:
            raise EdgeavError("\n".join(wrong))

    def number(self, name: str, least: int = 1) -> int:
        value = self.values.get(name)
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise EdgeavError(f"{self.place}{name}: {value!r}, expected a whole number, at least {least}")
        return value

    def flag(self, name: str) -> bool:
        value = self.values.get(name)
        if not isinstance(value, bool):
            raise EdgeavError(f"{self.place}{name}: {value!r}, expected true or false")
        return value
