"""What a recipe made against the model it began with, each on the runtime that suits it best.

    python benchmarks/best_of_each.py runs/tiny

A run whose recipe has `budget.start` leaves bundles of its first model, in float, and of its last. They are timed in
turn in one process, runtime by runtime (A B A B …, 1 thread, process CPU time); the least time of each model on any
runtime makes the ratio. Bytes are the model files'. WER is the report's.
Writes benchmarks/results/best_of_each_RUN.json.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any, get_args

from edgeav.device import Device
from edgeav.profiling import compare_pair
from edgeav.quant.plan import Format
from edgeav.results import provenance
from edgeav.runtime.bench import Workload
from edgeav.runtime.bundle import read_bundle

RESULTS = Path(__file__).parent / "results"
ROUNDS = 7
START = "-start"
FORMATS = get_args(Format)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    run = parser.parse_args().run
    pairs = [measured(run, start) for start in sorted((run / "bundles").glob(f"*{START}"))]
    if not pairs:
        parser.error(f"{run}/bundles has no bundle of the model that the recipe began with; set budget.start")
    first, last = min(pairs, key=lambda p: p["start_ms"]), min(pairs, key=lambda p: p["ms"])
    result = {
        "run": run.name,
        **provenance(),
        "pairs": pairs,
        "fastest": {"start": first["target"], "made": last["target"]},
        "speed": first["start_ms"] / last["ms"],
        "size": min(p["start_bytes"] for p in pairs) / last["bytes"],
        "wer": json.loads((run / "report.json").read_text(encoding="utf-8"))["gains"],
    }
    path = RESULTS / f"best_of_each_{run.name}.json"
    path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(table(result))
    print(f"\n{result['cpu']}, 1 thread, 4 s of sound and lips, process CPU time; in {path}")


def measured(run: Path, start: Path) -> dict[str, Any]:
    """Times and bytes of the first model's bundle at `start` and of the last model's fastest one on that runtime."""
    target = start.name.removesuffix(START)
    made = [p for p in (run / "bundles").glob(f"{target}-*") if p.name in {f"{target}-{one}" for one in FORMATS}]
    workload, device = Workload(seconds=4.0, iterations=10, warmup=3), Device.load("this-machine")
    timed = {folder: compare_pair(start, folder, device, ROUNDS, workload) for folder in made}
    best = min(timed, key=lambda folder: timed[folder]["cpu_ms"][1])
    before, after = timed[best]["cpu_ms"]
    return {
        "target": target,
        "precision": read_bundle(best).precision,
        "start_ms": before,
        "ms": after,
        "ratio": timed[best]["cpu_ratio"],
        "start_bytes": size(start),
        "bytes": size(best),
        "runtime": timed[best]["runtime"],
        "rounds": ROUNDS,
        "n": timed[best]["n"],
        "warmup": timed[best]["warmup"],
    }


def size(folder: Path) -> int:
    """Bytes of the model's own files, without golden vectors and descriptions."""
    return sum(path.stat().st_size for path in folder.glob("model.*"))


def table(result: dict[str, Any]) -> str:
    lines = [
        "| runtime | start, ms | made, ms | times as fast | start, MB | made, MB |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for pair in result["pairs"]:
        sizes = f"{pair['start_bytes'] / 1e6:.1f} | {pair['bytes'] / 1e6:.2f}"
        name = f"{pair['target']} {pair['precision']}"
        lines.append(f"| {name} | {pair['start_ms']:.1f} | {pair['ms']:.2f} | {pair['ratio']:.1f} | {sizes} |")
    lines.append(
        f"\nBest of each: {result['fastest']['start']} against {result['fastest']['made']}:"
        f" {result['speed']:.1f} times as fast, {result['size']:.1f} times as small"
    )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
