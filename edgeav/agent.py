"""The agent on a device: built, pushed and asked from here.

Why a zip file that Python runs (PEP 441) and not a program of its own: what measures on a device is then the very code
that is tested here, features and decoding included, in one file of some 60 kB that needs numpy and an engine alone. It
holds edgeav.runtime and nothing else of this package; its name on the device is its hash, so an old one is never run.
"""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeav.connect.session import Session
from edgeav.errors import EdgeavError

if TYPE_CHECKING:
    from edgeav.device import Device

PACKAGE = Path(__file__).resolve().parent
NAME = "agent.pyz"
MAIN = "import sys\nfrom edgeav.runtime.agent import main\nsys.exit(main())\n"
LONG_AGO = (1980, 1, 1, 0, 0, 0)  # the same bytes whenever and wherever it is built
ARCHES = {"native": (), "x86_64": ("x86_64",), "aarch64": ("aarch64", "arm64"), "armv7": ("armv7l", "armv8l")}


def write_agent(path: Path) -> Path:
    """agent.pyz at `path`: the same sources give the same bytes."""
    sources = {"__main__.py": MAIN.encode()}
    for file in (PACKAGE / "__init__.py", PACKAGE / "errors.py", *sorted((PACKAGE / "runtime").glob("*.py"))):
        sources[f"edgeav/{file.relative_to(PACKAGE).as_posix()}"] = file.read_bytes()
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in sources.items():
            archive.writestr(zipfile.ZipInfo(name, LONG_AGO), data, zipfile.ZIP_DEFLATED)
    return path


class Agent:
    """The pushed agent of a session; every method runs a process of its own on the device."""

    def __init__(self, session: Session, scratch: Path) -> None:
        self.session, self.device = session, session.device
        folder = session.push("agents", {NAME: write_agent(scratch / NAME)})
        self._command = [self.device.interpreter, "-W", "ignore", f"{folder}/{NAME}"]

    def ask(self, words: Sequence[str], counted: str | None = None) -> Any:
        """The JSON that `agent.pyz WORDS --json OUT` writes there; `counted`: where its instructions are counted to."""
        prefix = [str(self.device.instruction_counter), counted] if counted else []
        threads = dict.fromkeys(THREAD_VARIABLES, str(self.device.threads))
        environment = threads | {"PYTHONHASHSEED": "0"}  # the same number of instructions every time
        return self.session.result(lambda out: [*prefix, *self._command, *words, "--json", out], environment)

    def facts(self) -> dict[str, Any]:
        """What the device is; EdgeavError when it is not what its file says."""
        found = self.ask(["facts"])
        check_identity(self.device, found)
        return found


THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


def check_identity(device: Device, found: dict[str, Any]) -> None:
    """EdgeavError when architecture or instruction sets are not those of the device file: it is another machine."""
    allowed = ARCHES[device.arch]
    problems = [f"arch: {found['arch']}, expected {device.arch}"] if allowed and found["arch"] not in allowed else []
    missing = [name for name in device.isa if name not in found["isa"]]
    has = " ".join(found["isa"]) or "none that is known"
    problems += [f"isa: no {' '.join(missing)}; it has {has}"] if missing else []
    if problems:
        raise EdgeavError("\n  ".join([f"{device.name} ({device.connect}) is not what its file says:", *problems]))
