"""Where a bench runs: here in a process of its own, through the agent, or through the C++ runner of a device.

All three say the same JSON, and all three check hashes and golden vectors on the device before anything is timed.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from edgeav.agent import THREAD_VARIABLES, Agent, check_identity
from edgeav.connect.local import run
from edgeav.connect.push import bundle_files
from edgeav.connect.session import Session, ended, on_device
from edgeav.device import Device
from edgeav.errors import EdgeavError
from edgeav.runner import Runner
from edgeav.runtime.bench import Workload
from edgeav.runtime.bundle import read_bundle

COUNTED_RUNS = 3  # the instructions of one inference: (those of 1 + 3 inferences - those of 1) / 3
HOW_COUNTED = "instruction_counter of the device file, difference of two processes"


@dataclass(frozen=True)
class Bench:
    """One call of the bench: a bundle, or two in turn."""

    folders: tuple[Path, ...]
    workload: Workload
    rounds: int = 5
    operators: bool = False
    clip: Path | None = None  # a file to stream

    def words(self, places: Sequence[str], threads: int, clip: str | None = None) -> list[str]:
        """The arguments of edgeav.runtime.bench, for bundles at `places` and a clip there."""
        load = self.workload
        words = [*places, "--threads", str(threads), "--seconds", str(load.seconds), "--seed", str(load.seed)]
        words += ["--iterations", str(load.iterations), "--warmup", str(load.warmup)]
        words += ["--at-least-s", str(load.at_least_s), "--sustained-s", str(load.sustained_s)]
        words += ["--rounds", str(self.rounds)]
        words += [] if load.parts else ["--no-parts"]
        words += ["--stream", clip] if clip else []
        return [*words, "--operators"] if self.operators else words


def measure(bench: Bench, device: Device, wait_s: int = 0) -> dict[str, Any]:
    """What the bench says on `device`. EdgeavError has a failure's last lines."""
    for folder in bench.folders:
        check_engine(folder, device)
    check_clip(bench.clip, device)
    if device.address.kind == "local" and device.runner == "python":
        return _here(bench, device)
    return on_device(device, lambda session: _there(bench, session), wait_s)


def check_engine(folder: Path, device: Device) -> None:
    engine = read_bundle(folder).engine
    if engine not in device.engines:
        raise EdgeavError(f"{folder} needs {engine}, but {device.name} has {', '.join(device.engines)}")


def check_clip(clip: Path | None, device: Device) -> None:
    """EdgeavError for a clip that is not there, or for a device that cannot read it."""
    if clip is None:
        return
    if not clip.is_file():
        raise EdgeavError(f"--stream {clip}: no such file")
    if device.runner == "cpp":
        raise EdgeavError(
            f"--stream: {device.name} has the C++ runner, which reads no files; it needs `runner: python`"
        )


def pushed(session: Session, scratch: Path) -> Agent | Runner:
    """The program that measures there, pushed; `scratch`: a folder of ours while it is used."""
    return Runner(session) if session.device.runner == "cpp" else Agent(session, scratch)


def _there(bench: Bench, session: Session) -> dict[str, Any]:
    """Push what is needed, check that it is the right machine, measure, pull."""
    device = session.device
    with tempfile.TemporaryDirectory(prefix="edgeav-agent-") as scratch:
        program = pushed(session, Path(scratch))
        program.facts()
        places = [session.push("bundles", bundle_files(folder)) for folder in bench.folders]
        clip = bench.clip and f"{session.push('clips', {bench.clip.name: bench.clip})}/{bench.clip.name}"
        measured = program.ask(["bench", *bench.words(places, device.threads, clip)])
        if device.instruction_counter and len(places) == 1:
            measured["instructions"] = _count(bench, program, places)
        return measured


def _count(bench: Bench, program: Agent | Runner, places: Sequence[str]) -> dict[str, Any]:
    """Instructions a second of sound: what a process start costs falls out of the difference."""
    found = []
    for runs in (1, 1 + COUNTED_RUNS):
        load = replace(bench.workload, iterations=runs, warmup=0, at_least_s=0.0, sustained_s=0.0, parts=False)
        words = replace(bench, workload=load, operators=False).words(places, program.device.threads)
        path = f"{program.session.root}/instructions"
        program.ask(["bench", *words], counted=path)
        found.append(_number(program.session.pull(path), program.device))
    return {"per_second": (found[1] - found[0]) / COUNTED_RUNS / bench.workload.seconds, "how": HOW_COUNTED}


def _number(text: bytes, device: Device) -> int:
    try:
        return int(text)
    except ValueError:
        raise EdgeavError(f"{device.instruction_counter} on {device.name} wrote no number: {text!r:.80}") from None


def _here(bench: Bench, device: Device) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="edgeav-bench-") as place:
        result = Path(place) / "result.json"
        # -P: a file in the user's folder that is called like a package must not be imported in its stead.
        command = [sys.executable, "-P", "-m", "edgeav.runtime.bench"]
        clip = bench.clip and str(bench.clip.resolve())
        command += bench.words([str(folder.resolve()) for folder in bench.folders], device.threads, clip)
        words = [f"{key}={value}" for key, value in environment(device).items()]
        done = run(["env", *words, *command, "--json", str(result)], device.limits.seconds)
        if done.code:
            raise EdgeavError("\n  ".join([f"the bench on {device.name} {ended(done.code)}:", done.said]))
        measured = json.loads(result.read_text())
    check_identity(device, measured)
    return measured


def environment(device: Device) -> dict[str, str]:
    """What differs from ours: every thread pool of the device's size, and this edgeav found first."""
    here = str(Path(__file__).resolve().parent.parent)
    path = os.pathsep.join(filter(None, [here, os.environ.get("PYTHONPATH")]))
    return {**dict.fromkeys(THREAD_VARIABLES, str(device.threads)), "PYTHONPATH": path, **device.environment}
