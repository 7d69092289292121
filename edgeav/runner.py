"""The C++ runner on a device without Python: built by a script, pushed, asked like the agent."""

from __future__ import annotations

import hashlib
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from edgeav.agent import check_identity
from edgeav.connect.session import Session
from edgeav.errors import EdgeavError, needs
from edgeav.runtime.agent import clip_inputs
from edgeav.runtime.bundle import read_bundle

SOURCES = Path(__file__).resolve().parent.parent / "export" / "runners" / "cpp"
CACHE = Path("~/.cache/edgeav/runners").expanduser()
PROGRAM = "run_bundle"
BUILD_S = 600


class Runner:
    """The pushed runner of a session; every method runs a process of its own on the device."""

    def __init__(self, session: Session) -> None:
        self.session, self.device = session, session.device
        native = platform.machine() if self.device.arch == "native" else self.device.arch
        folder = build(native)
        files = {path.name: path for path in folder.iterdir() if path.is_file()}
        self._folder = session.push("runners", files)
        session.run(["chmod", "700", f"{self._folder}/{PROGRAM}"])

    def ask(self, words: Sequence[str], counted: str | None = None) -> Any:
        """The JSON that `run_bundle WORDS --json OUT` writes there; `counted`: where its instructions are counted."""
        prefix = [str(self.device.instruction_counter), counted] if counted else []
        command = [*prefix, f"{self._folder}/{PROGRAM}", *words]
        libraries = {"LD_LIBRARY_PATH": self._folder}
        return self.session.result(lambda out: [*command, "--json", out], libraries)

    def facts(self) -> dict[str, Any]:
        """What the device is; EdgeavError when it is not what its file says."""
        if not self.device.emulated:  # an emulator's shell may be the host's
            arch = self.session.connection.run(["uname", "-m"]).out.strip()
            check_identity(self.device.model_copy(update={"isa": []}), {"arch": arch, "isa": []})
        found = self.ask(["facts"])
        check_identity(self.device, found)
        return found


def build(arch: str) -> Path:
    """The folder with the program and its library for `arch`, built when its sources are new. Under a minute."""
    script = SOURCES / "build.sh"
    if not script.is_file():
        raise EdgeavError("the C++ runner's sources are only in a checkout of edgeav, not in the installed package")
    key = hashlib.sha256(_version().encode())
    for path in sorted(SOURCES.iterdir()):
        key.update(path.read_bytes())
    out = CACHE / f"{arch}-{key.hexdigest()[:16]}"
    if not (out / PROGRAM).is_file():
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=out.parent) as place:
            command = ["sh", str(script), arch, f"{place}/out"]
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=BUILD_S, env=_with_our_python(),
            )  # fmt: skip
            if done.returncode:
                lines = (done.stderr or done.stdout).strip().splitlines()[-15:]
                raise EdgeavError("\n  ".join([f"{script} {arch} failed (exit {done.returncode}):", *lines]))
            (Path(place) / "out").rename(out)
    return out


def _version() -> str:
    try:
        return version("executorch")
    except PackageNotFoundError as error:
        raise needs("executorch", "executorch") from error


def case_files(bundle: Path, clips: Path, scratch: Path) -> dict[str, Path]:
    """The inputs of each clip of an .npz file as raw float32 files: 0.mel, 0.video, 0.presence, 1.…"""
    found, files = read_bundle(bundle), {}
    for index, inputs in enumerate(clip_inputs(clips, found.features)):
        for name, array in inputs.named(found.input_names).items():
            path = scratch / f"{index}.{name}"
            array.astype("<f4").tofile(path)
            files[path.name] = path
    return files


def _with_our_python() -> dict[str, str]:
    return {**os.environ, "PYTHON": sys.executable}
