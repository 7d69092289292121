"""How fast is this bundle on this machine?  python -m edgeav.runtime.bench BUNDLE [BUNDLE2] --json out.json

Runs on the device: numpy and one engine, in a process of its own, so that the peak memory is this bundle's.
Before a number is reported the golden vectors are replayed: the speed of a wrong answer is of no interest.
Two bundles take turns in one process (A B A B ...): runs a minute apart measure the neighbours as well.

Process CPU time stands beside wall time: on a busy machine only the former compares.
"""

from __future__ import annotations

import argparse
import importlib
import json
import math
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeav.errors import EdgeavError, needs
from edgeav.runtime.bundle import Bundle, Golden, read_bundle
from edgeav.runtime.ctc import decode
from edgeav.runtime.engines import Engine, extra_of, fitting, open_engine, package_of
from edgeav.runtime.features import Array, Inputs, empty_inputs, from_named
from edgeav.runtime.health import condition, device_facts
from edgeav.runtime.instructions import counted
from edgeav.runtime.machine import machine, peak_rss_mb, rss_mb
from edgeav.runtime.operators import operator_table
from edgeav.runtime.parts import parts_ms
from edgeav.runtime.sustained import sustained


@dataclass(frozen=True)
class Workload:
    """What is timed: an utterance of `seconds`, `iterations` times and for `at_least_s`, warm; then `sustained_s`."""

    seconds: float = 4.0
    iterations: int = 50
    warmup: int = 5
    seed: int = 0
    at_least_s: float = 0.0
    sustained_s: float = 0.0
    parts: bool = True


def measure(
    folder: Path, workload: Workload, threads: int = 1, operators: bool = False, clip: Path | None = None
) -> dict[str, Any]:
    """All that a profile says of one bundle, as plain data. For a fresh process: it reads its peak memory.
    `clip`: a file that is streamed, see streaming.py."""
    bundle = read_bundle(folder)
    inputs = random_inputs(bundle, workload)
    import_ms, _ = _timed(lambda: _import_engine(bundle))
    runtime_mb = rss_mb()
    load_ms, engine = _timed(lambda: open_engine(bundle, threads))
    first_ms, _ = _timed(lambda: engine.run(*inputs))
    golden = check_golden(engine, bundle)
    before, (wall_ms, cpu_ms) = condition(), time_runs(engine, inputs, workload)
    peak_mb = peak_rss_mb()  # before the operator profile, which loads the model once more
    return {
        **identity(bundle),
        **machine(),
        **device_facts(),
        "runtime": f"{engine.name} {engine.version}",
        "threads": threads,
        "seconds": workload.seconds,
        "steps": inputs.steps,
        "bucket": fitting(inputs.steps, bundle.buckets),
        "n": len(wall_ms),
        "warmup": workload.warmup,
        "import_ms": import_ms,
        "load_ms": load_ms,
        "first_ms": first_ms,
        "wall_ms": summary(wall_ms),
        "cpu_ms": summary(cpu_ms),
        "rtf": float(np.median(wall_ms)) / (1000 * workload.seconds),
        "peak_rss_mb": peak_mb,
        "runtime_rss_mb": runtime_mb,
        "golden": golden,
        "condition": {"before": before, "after": condition()},
        **counted(lambda: engine.run(*inputs), workload.seconds),
        "parts_ms": parts_ms(engine, bundle, workload.seconds) if workload.parts else None,
        "sustained": sustained(engine, inputs, workload.sustained_s) if workload.sustained_s else None,
        **(operator_table(bundle, inputs, threads) if operators else {}),
        "stream": _stream(folder, clip, threads) if clip else None,
    }


def _stream(folder: Path, clip: Path, threads: int) -> dict[str, Any]:
    from edgeav.runtime.streaming import stream  # OpenCV and PyAV: needed for files with pictures alone

    return stream(folder, clip, threads)


def race(folders: tuple[Path, Path], workload: Workload, threads: int = 1, rounds: int = 5) -> dict[str, Any]:
    """Two bundles in turn: in each round the iterations of A, then of B. A ratio above 1: B is faster."""
    bundles = [read_bundle(folder) for folder in folders]
    for bundle in bundles:
        _import_engine(bundle)
    engines = [open_engine(bundle, threads) for bundle in bundles]
    for engine, bundle in zip(engines, bundles, strict=True):
        check_golden(engine, bundle)
    inputs = [random_inputs(bundle, workload) for bundle in bundles]
    medians = np.array(
        [
            [np.median(time_runs(*pair, workload), axis=1) for pair in zip(engines, inputs, strict=True)]
            for _ in range(rounds)
        ]
    )  # (rounds, A and B, wall and CPU) ms
    wall, cpu = np.moveaxis(medians[:, 0] / medians[:, 1], 1, 0)
    return {
        "bundles": [identity(bundle) for bundle in bundles],
        **machine(),
        "runtime": [f"{engine.name} {engine.version}" for engine in engines],
        "threads": threads,
        "seconds": workload.seconds,
        "rounds": rounds,
        "n": workload.iterations,
        "warmup": workload.warmup,
        **{f"{name}_ratio": float(np.median(ratios)) for name, ratios in (("wall", wall), ("cpu", cpu))},
        **{f"{name}_ratio_min": float(ratios.min()) for name, ratios in (("wall", wall), ("cpu", cpu))},
        **{f"{name}_ratio_max": float(ratios.max()) for name, ratios in (("wall", wall), ("cpu", cpu))},
        "wall_ms": np.median(medians[:, :, 0], axis=0).tolist(),
        "cpu_ms": np.median(medians[:, :, 1], axis=0).tolist(),
    }


def random_inputs(bundle: Bundle, workload: Workload) -> Inputs:
    """Noise of the right shapes and scale: no kernel's time depends on what is said."""
    steps = math.ceil(bundle.steps.per_second * workload.seconds)
    if not bundle.steps.min <= steps <= bundle.steps.max:
        shortest, longest = (limit / bundle.steps.per_second for limit in (bundle.steps.min, bundle.steps.max))
        raise EdgeavError(
            f"--seconds {workload.seconds:g}: {bundle.folder} takes {shortest:g} to {longest:g} s at once"
        )
    random = np.random.default_rng(workload.seed)
    audio, video, presence = empty_inputs(bundle.features, steps)
    presence[:] = [bundle.features.audio is not None, bundle.features.video is not None]
    return Inputs(
        random.standard_normal(audio.shape, np.float32),
        random.standard_normal(video.shape, np.float32),
        presence,
    )


def check_golden(engine: Engine, bundle: Bundle) -> dict[str, Any]:
    """Replay the golden vectors; EdgeavError when an answer differs by more than the bundle allows."""
    differences = []
    for case in bundle.golden_cases():
        found = engine.run(*from_named(case.arrays, bundle.features))
        expected = case.arrays["log_probs"]
        difference = float(np.abs(found - expected).max()) if found.shape == expected.shape else math.inf
        if not difference <= case.tolerance:  # written so that NaN fails too
            raise _wrong(engine, bundle, case, found, difference)
        differences.append(difference)
    return {"cases": len(differences), "max_abs": max(differences, default=0.0)}


def _wrong(engine: Engine, bundle: Bundle, case: Golden, found: Array, off: float) -> EdgeavError:
    here = decode(found[0], bundle.tokens, bundle.blank, case.arrays["presence"][0]).text
    return EdgeavError(
        f"{bundle.folder}: golden vector {case.name!r} comes out wrong here, "
        f"{engine.name} {engine.version}: log-probabilities differ by {off:.3g}, allowed {case.tolerance:g}; "
        f"transcript {here!r}, expected {case.transcript!r}. Nothing was timed.\n"
        "Install the versions that bundle.json names under `exported`, or export it again."
    )


def time_runs(engine: Engine, inputs: Inputs, workload: Workload) -> NDArray[np.float64]:
    """(2, n): wall and process CPU milliseconds of each run, after the warm-up; n is at least `iterations`."""
    for _ in range(workload.warmup):
        engine.run(*inputs)
    times: list[tuple[int, int]] = []
    start = time.perf_counter_ns()
    while len(times) < workload.iterations or time.perf_counter_ns() - start < workload.at_least_s * 1e9:
        wall, cpu = time.perf_counter_ns(), time.process_time_ns()
        engine.run(*inputs)
        times.append((time.perf_counter_ns() - wall, time.process_time_ns() - cpu))
    return np.array(times).T / 1e6


def summary(times_ms: NDArray[np.float64]) -> dict[str, float]:
    p50, p90, p99 = (float(value) for value in np.percentile(times_ms, (50, 90, 99)))
    return {"p50": p50, "p90": p90, "p99": p99, "mean": float(times_ms.mean()), "min": float(times_ms.min())}


def identity(bundle: Bundle) -> dict[str, Any]:
    """Which bundle this was, to the byte."""
    hashes = {name: entry["sha256"] for name, entry in bundle.files.items() if not name.startswith("golden/")}
    return {
        "bundle": bundle.name,
        "engine": bundle.engine,
        "precision": bundle.precision,
        "model_sha256": hashes,
        "model_bytes": bundle.size_bytes,
    }


def _import_engine(bundle: Bundle) -> None:
    """Import the runtime ahead of the timed load: its import costs the same for every model."""
    module = {"executorch": "executorch.runtime"}.get(bundle.engine, package_of(bundle.engine))
    try:
        importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise needs(extra_of(bundle.engine), package_of(bundle.engine)) from error


def _timed(work: Callable[[], Any]) -> tuple[float, Any]:
    start = time.perf_counter_ns()
    result = work()
    return (time.perf_counter_ns() - start) / 1e6, result


def _at_least(least: int) -> Callable[[str], int]:
    def number(text: str) -> int:
        if int(text) < least:
            raise argparse.ArgumentTypeError(f"{text}: must be at least {least}")
        return int(text)

    return number


def main(arguments: list[str] | None = None) -> int:
    default = Workload()
    parser = argparse.ArgumentParser(prog="python -m edgeav.runtime.bench", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("bundle", type=Path)
    parser.add_argument("second", type=Path, nargs="?", help="compare with this one, in turn")
    parser.add_argument("--threads", type=_at_least(1), default=1)
    parser.add_argument("--iterations", type=_at_least(1), default=default.iterations)
    parser.add_argument("--warmup", type=_at_least(0), default=default.warmup)
    parser.add_argument("--seconds", type=float, default=default.seconds, help="length of the utterance")
    parser.add_argument("--seed", type=int, default=default.seed)
    parser.add_argument("--at-least-s", type=float, default=default.at_least_s, help="repeat for so many seconds")
    parser.add_argument("--sustained-s", type=float, default=default.sustained_s, help="then work on, and watch it")
    parser.add_argument("--no-parts", action="store_true", help="do not time mel, crop, encode, decode apart")
    parser.add_argument("--rounds", type=_at_least(1), default=5, help="turns of each of two bundles")
    parser.add_argument("--stream", type=Path, metavar="CLIP", help="play this file to the live captioner too")
    parser.add_argument("--operators", action="store_true", help="time every operator type too")
    parser.add_argument("--json", type=Path, help="write the result there instead of to stdout")
    args = parser.parse_args(arguments)
    times = args.at_least_s, args.sustained_s, not args.no_parts
    workload = Workload(args.seconds, args.iterations, args.warmup, args.seed, *times)
    try:
        if args.second:
            result = race((args.bundle, args.second), workload, args.threads, args.rounds)
        else:
            result = measure(args.bundle, workload, args.threads, args.operators, args.stream)
    except EdgeavError as error:
        print(error, file=sys.stderr)
        return 2
    text = json.dumps(result, indent=1, allow_nan=False) + "\n"
    args.json.write_text(text) if args.json else print(text, end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
