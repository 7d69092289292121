"""How fast, how large, on what: the measured `Profile` of a bundle on a device; fair comparisons of two.

The measuring itself is `edgeav.runtime.bench`, which needs numpy and one engine and runs in a process of its
own: the peak memory is that bundle's alone, and no other library's threads are in the way. This file starts
it, checks what comes back and gives it a type. A number without device, versions, n and warm-up is not a
result, so a Profile has all of them; what was not measured is listed with the reason.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError

from edgeav.device import Device
from edgeav.errors import EdgeavError
from edgeav.runtime.bench import Workload
from edgeav.runtime.bundle import read_bundle
from edgeav.spec import Strict

SCHEMA = "edgeav-profile/1"
TIME_LIMIT_S = 1800  # a hung engine must not hang the run; a profile of the demo model takes seconds
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
LAST_LINES = 15


class Milliseconds(Strict):
    """How one quantity was distributed over the n timed inferences."""

    p50: float
    p90: float
    p99: float
    mean: float
    min: float


class Operator(Strict):
    """All nodes of one type in the graph that really ran, after the engine's own fusions."""

    type: str
    nodes: int
    ms: float
    """Wall time in one inference under the engine's profiler, which slows it: it ranks operators."""
    share: float
    """Of all operators' time, 0..1."""
    integer: bool
    """Computes in 8-bit integers."""


class IntegerShare(Strict):
    """How much of the graph runs in 8-bit integer kernels, 0..1."""

    time: float
    """Of all operators' time."""
    nodes: float
    """Of the nodes that multiply matrices or convolve."""


class Golden(Strict):
    """The bundle's golden vectors, replayed before anything was reported."""

    cases: int
    max_abs: float
    """Largest difference of a log-probability."""


class Profile(Strict):
    """One bundle on one device. Times are of a whole utterance of `seconds`, batch 1."""

    schema_: Literal["edgeav-profile/1"] = Field(default=SCHEMA, alias="schema")
    bundle: str
    engine: str
    precision: str
    model_sha256: dict[str, str]
    """By file of the bundle."""
    model_bytes: int
    device: str
    emulated: bool
    """True: the wall times say nothing about the device it imitates."""
    arch: str
    cpu: str
    isa: list[str]
    """The instruction sets that matter to engines."""
    governor: str | None
    """The processor's frequency policy; None: not readable."""
    runtime: str
    """Engine and version."""
    threads: int
    seconds: float
    steps: int
    bucket: int | None = None
    """The fixed shape that it ran in, in steps; None: the dynamic graph, because there is no bucket of that length."""
    n: int
    warmup: int
    import_ms: float
    """Importing the engine's library, once in a process."""
    load_ms: float
    """Opening the model, the library being there."""
    first_ms: float
    wall_ms: Milliseconds
    cpu_ms: Milliseconds
    """Process CPU time: what to compare on a busy machine."""
    rtf: float
    """Real-time factor: median wall time / length of the sound."""
    peak_rss_mb: float
    """Of the whole process, Python and the engine's library included."""
    runtime_rss_mb: float
    """Of the same process before it opened the model: what any model costs on this engine."""
    golden: Golden
    operators: list[Operator] | None = None
    integer_share: IntegerShare | None = None
    not_measured: dict[str, str] = Field(default_factory=dict)
    """What is missing here, and why."""


def profile(bundle_folder: Path, device: Device, workload: Workload | None = None, operators: bool = True) -> Profile:
    """Measure one bundle on a device, in a process of its own. EdgeavError has a failure's last lines."""
    _check_engine(bundle_folder, device)
    flags = ["--operators"] if operators else []
    measured = _bench([bundle_folder], device, workload or Workload(), flags)
    missing = _never_measured(operators) | measured.pop("not_measured", {})
    data = {"device": device.name, "emulated": device.emulated, **measured, "not_measured": missing}
    try:
        return Profile.model_validate_json(json.dumps(data))
    except ValidationError as error:
        raise EdgeavError(f"the bench on {device.name} is not of this edgeav version: {error}") from error


def compare_pair(
    fp32_folder: Path, int8_folder: Path, device: Device, rounds: int = 5, workload: Workload | None = None
) -> dict[str, Any]:
    """How many times faster int8 is, both in turn in ONE process.

    {"cpu_ratio", "cpu_ratio_min", "cpu_ratio_max", "wall_ratio", "wall_ratio_min", "wall_ratio_max",
    "cpu_ms": [fp32, int8], "wall_ms": [fp32, int8], "rounds", "n", "warmup", "threads", "runtime", …}.

    A ratio is the median over the rounds of (fp32's median / int8's median); min and max are over the rounds.
    """
    for folder in (fp32_folder, int8_folder):
        _check_engine(folder, device)
    workload = workload or Workload(iterations=10, warmup=2)
    return _bench([fp32_folder, int8_folder], device, workload, ["--rounds", str(rounds)])


def _check_engine(folder: Path, device: Device) -> None:
    engine = read_bundle(folder).engine
    if engine not in device.engines:
        raise EdgeavError(f"{folder} needs {engine}, but {device.name} has {', '.join(device.engines)}")


def _never_measured(operators: bool) -> dict[str, str]:
    """What a serious profile has and this one lacks: nobody should take silence for zero."""
    missing = {
        "energy": "needs a meter",
        "temperature and throttling": "needs 10 minutes on the hardware",
        "chunks of a stream": "the model takes whole utterances",
    }
    return missing if operators else missing | {"operators": "not asked for"}


def _bench(folders: list[Path], device: Device, workload: Workload, flags: list[str]) -> dict[str, Any]:
    """Run edgeav.runtime.bench on the device and return what it says."""
    match device.connect:
        case "local":
            return _bench_locally(folders, device, workload, flags)


def _bench_locally(folders: list[Path], device: Device, workload: Workload, flags: list[str]) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="edgeav-bench-") as place:
        result = Path(place) / "result.json"
        # -P: a file in the user's folder that is called like a package must not be imported in its stead.
        command = [
            sys.executable,
            "-P",
            "-m",
            "edgeav.runtime.bench",
            *(str(folder.resolve()) for folder in folders),
        ]
        command += [
            "--threads",
            str(device.threads),
            "--seconds",
            str(workload.seconds),
            "--seed",
            str(workload.seed),
        ]
        command += ["--iterations", str(workload.iterations), "--warmup", str(workload.warmup), *flags]
        _run([*command, "--json", str(result)], device)
        return json.loads(result.read_text())


def _run(command: list[str], device: Device) -> None:
    try:
        done = subprocess.run(
            command,
            env=_environment(device),
            capture_output=True,
            text=True,
            errors="replace",
            timeout=TIME_LIMIT_S,
        )
    except subprocess.TimeoutExpired as error:
        raise EdgeavError(f"the bench on {device.name} did not end in {TIME_LIMIT_S} s and was stopped") from error
    if done.returncode != 0:
        killed = f"killed by signal {-done.returncode}" if done.returncode < 0 else f"exit {done.returncode}"
        lines = (done.stderr or done.stdout).strip().splitlines()[-LAST_LINES:]
        raise EdgeavError("\n  ".join([f"the bench on {device.name} failed ({killed}):", *lines]))


def _environment(device: Device) -> dict[str, str]:
    """This process's, with every library's thread pool of the device's size, and this edgeav found first."""
    here = str(Path(__file__).resolve().parent.parent)
    path = os.pathsep.join(filter(None, [here, os.environ.get("PYTHONPATH")]))
    threads = dict.fromkeys(THREAD_VARIABLES, str(device.threads))
    return {**os.environ, **threads, "PYTHONPATH": path}
