"""Where a bundle must run: one `devices/*.yaml`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator, model_validator

from edgeav import spec
from edgeav.connect.address import Address, parse
from edgeav.target import EngineName

Arch = Literal["native", "x86_64", "aarch64", "armv7"]
PLACES = {"adb": "/data/local/tmp/edgeav"}  # the one place where a phone's shell may execute files
PLACE = ".cache/edgeav"  # in the user's home, where SSH sessions begin


class Limits(spec.Strict):
    """What a measurement may use there."""

    seconds: int = Field(default=1800, ge=1)
    """A measurement that takes longer is stopped; a hung engine must not hang the run."""
    memory_mb: int | None = Field(default=None, ge=1)
    """Peak memory of the process, in 10^6 bytes; a profile above it says so."""


class Device(spec.Strict):
    """A machine that runs bundles: how it is reached and what it can be asked to do."""

    schema_: Literal["edgeav/1"] = Field("edgeav/1", alias="schema")
    name: str = Field(pattern=spec.NAME)
    description: str
    """One line for `edgeav devices` and the report."""
    connect: str
    """local (the machine that edgeav runs on), ssh:USER@HOST[:PORT], adb:SERIAL, or manual (its app measures)."""
    arch: Arch
    """Its instruction set; `native` is whatever this machine has."""
    isa: list[str] = Field(default_factory=list)
    """Instruction sets that it must have, in the names of `edgeav doctor`: another machine is refused."""
    threads: int = Field(1, ge=1, le=1024)
    """Threads that an engine may use in a measurement."""
    engines: list[EngineName] = Field(min_length=1)
    """The engines that can run there."""
    runner: Literal["python", "cpp"] = "python"
    """What measures there: the agent (one Python file), or the C++ runner (ExecuTorch, no Python)."""
    python: str = "python3"
    """The interpreter on the device that has numpy and the engines; ~/ is the home there."""
    folder: str | None = None
    """Where bundles are kept there; relative to the home. Default: .cache/edgeav, on Android /data/local/tmp/edgeav."""
    key: str | None = None
    """SSH: a private key file. Default: those of the agent and of ~/.ssh."""
    known_hosts: str | None = None
    """SSH: the file that vouches for the host's key. Default: ~/.ssh/known_hosts."""
    environment: dict[str, str] = Field(default_factory=dict)
    """Variables for what is run there."""
    instruction_counter: str | None = None
    """A program there, called `PROGRAM OUT COMMAND…`: runs COMMAND, writes the number of its instructions to OUT."""
    limits: Limits = Limits()
    emulated: bool = False
    """True when its times mean nothing (QEMU): reports then show none."""

    @property
    def address(self) -> Address:
        return parse(self.connect)

    @property
    def place(self) -> str:
        """The folder of ours there."""
        kind = self.address.kind
        folder = (self.folder or PLACES.get(kind, PLACE)).removeprefix("~/")
        return str(Path.home() / folder) if kind == "local" else folder

    @property
    def interpreter(self) -> str:
        """`python` relative to the home there, where SSH sessions begin: a quoted ~ is not expanded."""
        return self.python.removeprefix("~/")

    @field_validator("connect")
    @classmethod
    def _an_address(cls, connect: str) -> str:
        parse(connect)
        return connect

    @field_validator("engines")
    @classmethod
    def _no_engine_twice(cls, engines: list[EngineName]) -> list[EngineName]:
        return spec.unique(engines)

    @model_validator(mode="after")
    def _the_runner_has_the_engines(self) -> Device:
        if self.runner == "cpp" and self.engines != ["executorch"]:
            raise ValueError("runner: cpp runs executorch alone; engines must be [executorch]")
        return self

    @classmethod
    def load(cls, name: str, overrides: Sequence[str] = ()) -> Device:
        """A shipped device by name, or one from a YAML file."""
        return spec.load(cls, spec.find("devices", name), overrides)
