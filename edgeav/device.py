"""Where a bundle must run: one `devices/*.yaml`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from pydantic import Field, field_validator

from edgeav import spec
from edgeav.target import EngineName


class Device(spec.Strict):
    """A machine that runs bundles: how it is reached and what it can be asked to do."""

    schema_: Literal["edgeav/1"] = Field("edgeav/1", alias="schema")
    name: str = Field(pattern=spec.NAME)
    description: str
    """One line for `edgeav devices` lists and the report."""
    connect: Literal["local"]
    """How commands reach it; `local` is the machine that edgeav runs on."""
    arch: Literal["native", "x86_64", "aarch64", "armv7"]
    """Its instruction set; `native` is whatever this machine has."""
    threads: int = Field(1, ge=1, le=1024)
    """Threads that an engine may use in a measurement."""
    engines: list[EngineName] = Field(min_length=1)
    """The engines that can run there."""
    emulated: bool = False
    """True when its times mean nothing (QEMU): reports then mark them."""

    @field_validator("engines")
    @classmethod
    def _no_engine_twice(cls, engines: list[EngineName]) -> list[EngineName]:
        return spec.unique(engines)

    @classmethod
    def load(cls, name: str, overrides: Sequence[str] = ()) -> Device:
        """A shipped device by name, or one from a YAML file."""
        return spec.load(cls, spec.find("devices", name), overrides)
