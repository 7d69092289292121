"""How fast, how large, on what: the measured `Profile` of a bundle on a device; fair comparisons of two.

The measuring itself is `edgeav.runtime.bench`, which needs numpy and one engine and runs in a process of its
own: the peak memory is that bundle's alone, and no other library's threads are in the way. measuring.py starts it on
the device; this file checks what comes back and gives it a type. A number without device, versions, n and warm-up is
not a result, so a Profile has all of them; what was not measured is listed with the reason.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError, model_validator

from edgeav.device import Device
from edgeav.errors import EdgeavError
from edgeav.measuring import Bench, measure
from edgeav.runtime.bench import Workload
from edgeav.spec import Strict

SCHEMA = "edgeav-profile/1"
# MLPerf's single-stream scenario (Reddi et al. 2020, https://arxiv.org/abs/1911.02549; Mobile's rules): one query after
# another, at least 1,024 and at least a minute, judged by the 90th percentile.
SINGLE_STREAM = Workload(iterations=1024, at_least_s=60.0)
SUSTAINED_S = 600.0


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


class Condition(Strict):
    """What the device said of itself; None: it does not say."""

    temperature_c: float | None
    frequency_mhz: float | None
    throttling: list[str] | None
    """What held it back, on a Raspberry Pi; empty: nothing."""


class Conditions(Strict):
    """Before and after the timed inferences."""

    before: Condition
    after: Condition


class SingleStream(Strict):
    """MLPerf-style: queries one after another."""

    queries: int
    seconds: float
    p90_ms: float


class Window(Condition):
    """A part of the sustained work; its condition is that of its end."""

    at_s: float
    n: int
    p50_ms: float
    p90_ms: float


class Sustained(Strict):
    """Work without a pause."""

    seconds: float
    windows: list[Window]
    slowdown: float
    """Median of the last quarter of the windows / of the first; above 1: it became slower."""


class Instructions(Strict):
    """Of one inference, a second of sound; hardly depends on what else the machine does."""

    per_second: float
    how: str


class Timed(Milliseconds):
    """n times."""

    n: int


class Stream(Strict):
    """A file played at its own pace to the live captioner, which reads a caption anew twice a second."""

    seconds: float
    """Of sound and pictures, the pauses between two `times` included."""
    times: int
    readings: int
    captions: list[str]
    stages_ms: dict[str, Timed]
    """capture and face: of a picture, decoded and searched (every third); crop, mel, encode, decode: of a reading."""
    waited_ms: Timed
    """From the last sound or picture that a reading knew to its words: the captioner's part in how late they are."""
    behind_ms: float
    """The longest that a sound or a picture had to wait for the thread."""
    rtf: float
    """All work over `seconds`."""


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
    board: str | None = None
    cores: int | None = None
    memory_mb: float | None = None
    """Of the whole device, 10^6 bytes."""
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
    cpu_ms: Milliseconds | None
    """Process CPU time: what to compare on a busy machine. A browser does not tell it, nor the memory."""
    rtf: float
    """Real-time factor: median wall time / length of the sound."""
    peak_rss_mb: float | None
    """Of the whole process, Python and the engine's library included."""
    runtime_rss_mb: float | None
    """Of the same process before it opened the model: what any model costs on this engine."""
    golden: Golden
    condition: Conditions | None = None
    single_stream: SingleStream | None = None
    sustained: Sustained | None = None
    instructions: Instructions | None = None
    parts_ms: dict[str, float] | None = None
    """Medians of mel, crop, encode and decode, each on its own."""
    stream: Stream | None = None
    operators: list[Operator] | None = None
    integer_share: IntegerShare | None = None
    not_measured: dict[str, str] = Field(default_factory=dict)
    """What is missing here, and why."""

    @model_validator(mode="after")
    def _a_gap_has_a_reason(self) -> Profile:
        gaps = {"cpu_ms", "peak_rss_mb", "runtime_rss_mb"} - set(self.not_measured)
        silent = sorted(name for name in gaps if getattr(self, name) is None)
        if silent:
            raise ValueError(f"{', '.join(silent)}: null, and not_measured does not say why")
        return self


def profile(
    bundle_folder: Path,
    device: Device,
    workload: Workload | None = None,
    operators: bool = True,
    wait_s: int = 0,
    clip: Path | None = None,
) -> Profile:
    """Measure one bundle on a device, in a process of its own; `wait_s` for a device that somebody else uses, `clip`:
    a file that is streamed too."""
    workload = workload or (EMULATED if device.emulated else Workload())
    measured = measure(Bench((bundle_folder,), workload, operators=operators, clip=clip), device, wait_s)
    return _typed(measured, device, workload, operators)


def compare_pair(
    fp32_folder: Path, int8_folder: Path, device: Device, rounds: int = 5, workload: Workload | None = None
) -> dict[str, Any]:
    """How many times faster int8 is, both in turn in ONE process.

    {"cpu_ratio", "cpu_ratio_min", "cpu_ratio_max", "wall_ratio", "wall_ratio_min", "wall_ratio_max",
    "cpu_ms": [fp32, int8], "wall_ms": [fp32, int8], "rounds", "n", "warmup", "threads", "runtime", …}.

    A ratio is the median over the rounds of (fp32's median / int8's median); min and max are over the rounds.
    """
    if device.emulated:
        raise EdgeavError(f"{device.name} is emulated: a ratio of its times means nothing; compare instructions")
    workload = workload or Workload(iterations=10, warmup=2)
    return measure(Bench((fp32_folder, int8_folder), workload, rounds), device)


EMULATED = Workload(seconds=1.0, iterations=2, warmup=0, parts=False)  # enough to see that it works; no time counts


def _typed(measured: dict[str, Any], device: Device, workload: Workload, operators: bool) -> Profile:
    """What came back, checked field by field; what is missing gets its reason."""
    emulated = measured.pop("emulated_here", False) or device.emulated
    missing = _never_measured(measured, operators) | measured.pop("not_measured", {})
    if reason := measured.pop("no_instructions", None):
        missing |= {} if measured.get("instructions") else {"instructions": reason}
    if emulated:
        missing["latency"] = "emulated: its times say nothing about the device it imitates"
    elif workload.at_least_s:
        wall, seconds = measured["wall_ms"], measured["n"] * measured["wall_ms"]["mean"] / 1000
        measured["single_stream"] = {"queries": measured["n"], "seconds": seconds, "p90_ms": wall["p90"]}
    data = {"device": device.name, "emulated": emulated, **measured, "not_measured": missing}
    limit_mb = device.limits.memory_mb
    if limit_mb and measured["peak_rss_mb"] > limit_mb:
        raise EdgeavError(f"{device.name}: peak memory {measured['peak_rss_mb']:.0f} MB, allowed are {limit_mb}")
    try:
        return Profile.model_validate_json(json.dumps(data))
    except ValidationError as error:
        raise EdgeavError(f"the bench on {device.name} is not of this edgeav version: {error}") from error


def _never_measured(measured: dict[str, Any], operators: bool) -> dict[str, str]:
    """What a serious profile has and this one lacks: nobody should take silence for zero."""
    missing = {
        "energy": "needs a meter",
    }
    if not measured.get("stream"):
        missing["stream"] = "not asked for: --stream CLIP"
    if (measured.get("condition") or {}).get("after", {}).get("temperature_c") is None:
        missing["temperature"] = "the device has no readable thermal zone"
    if not measured.get("sustained"):
        missing["throttling over 10 minutes"] = "not asked for: --sustained 600"
    return missing if operators else missing | {"operators": "not asked for"}
