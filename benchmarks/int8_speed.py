"""How much faster and smaller is int8 than float32, on this machine, engine by engine?

    python benchmarks/int8_speed.py                       # the demo model, all engines
    python benchmarks/int8_speed.py --random --targets onnxruntime openvino

Exports each target twice and times both in turn in one process (A B A B …), 1 thread; process CPU time, because
something else may be running. Calibrates on noise: ranges decide the accuracy of int8, not its speed.
Writes benchmarks/results/int8_speed.json.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from edgeav.catalog import find_model
from edgeav.device import Device
from edgeav.exporters import export
from edgeav.models import AVModel, ModelConfig, load_model, random_model
from edgeav.profiling import compare_pair
from edgeav.results import provenance
from edgeav.runtime.bench import Workload
from edgeav.runtime.features import Inputs, empty_inputs
from edgeav.runtime.inputs import Features
from edgeav.runtime.machine import machine
from edgeav.target import Target

DEMO = "av-fast-conformer-demo"
TARGETS = ("onnxruntime", "openvino", "executorch-xnnpack")
RESULTS = Path(__file__).parent / "results" / "int8_speed.json"
PIECES = 191  # a vocabulary of the demo model's size
ROUNDS = 5


def main() -> None:
    arguments = _arguments()
    model = _random_model() if arguments.random else load_model(find_model(arguments.model))
    device, workload = Device.load("this-machine"), Workload(seconds=4.0, iterations=10, warmup=3)
    rows = [_measure(model, Target.load(name), device, workload) for name in arguments.targets]
    facts = provenance() | {"isa": machine()["isa"]}
    result = {
        "model": "random weights" if arguments.random else arguments.model,
        "params": sum(p.numel() for p in model.parameters()),
        **facts,
        "rows": rows,
    }
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(result, indent=1) + "\n")
    print(_table(rows))
    print(f"{facts['cpu']}, {device.threads} thread, {workload.seconds:g} s of sound and lips; in {RESULTS}")


def _measure(model: AVModel, target: Target, device: Device, workload: Workload) -> dict[str, Any]:
    """Export both precisions and compare them."""
    with tempfile.TemporaryDirectory() as place:
        folders = {p: Path(place) / p for p in ("fp32", "int8")}
        golden = [(None, _noise(16, seed=99))]
        fp32 = export(model, target, "fp32", [], golden, folders["fp32"])
        int8 = export(model, target, "int8", _calibration(), golden, folders["int8"])
        pair = compare_pair(folders["fp32"], folders["int8"], device, ROUNDS, workload)
    size_ratio = round(int8.size_bytes / fp32.size_bytes, 4)
    sizes = {"fp32_bytes": fp32.size_bytes, "int8_bytes": int8.size_bytes, "size_ratio": size_ratio}
    return {"target": target.name, **sizes, "integer_mac_share": int8.quality["integer_mac_share"], **pair}


def _table(rows: list[dict[str, Any]]) -> str:
    lines = ["target               fp32 ms  int8 ms  faster (lowest-highest)  bytes  integer MACs"]
    for row in rows:
        fp32_ms, int8_ms = row["cpu_ms"]
        span = f"{row['cpu_ratio']:.2f}x ({row['cpu_ratio_min']:.2f}-{row['cpu_ratio_max']:.2f})"
        shares = f"{row['size_ratio']:.3f}  {100 * row['integer_mac_share']:.1f} %"
        lines.append(f"{row['target']:<20} {fp32_ms:>7.1f}  {int8_ms:>7.1f}  {span:<23}  {shares}")
    return "\n".join(lines)


def _calibration() -> list[Inputs]:
    """Eight clips of different lengths; one without sound, one without lips."""
    clips = [_noise(steps, seed=steps) for steps in range(12, 44, 4)]
    clips[0].video[:], clips[0].presence[..., 1] = 0, 0
    clips[1].audio[:], clips[1].presence[..., 0] = 0, 0
    return clips


def _noise(steps: int, seed: int) -> Inputs:
    """Standardized inputs are noise of deviation 1 as far as ranges go; everything is present."""
    random = np.random.default_rng(seed)
    inputs = empty_inputs(Features(), steps)
    inputs.audio[:], inputs.video[:] = (
        random.standard_normal(inputs.audio.shape),
        random.standard_normal(inputs.video.shape),
    )
    inputs.presence[:] = 1
    return inputs


def _random_model() -> AVModel:
    return random_model(config=ModelConfig(tokens=tuple(f"▁{number}" for number in range(PIECES))))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=DEMO, help="a shipped model's name or a model folder")
    parser.add_argument("--random", action="store_true", help="a model of the demo's shape with random weights")
    parser.add_argument("--targets", nargs="+", default=TARGETS, help="names of export/*.yaml")
    return parser.parse_args()


if __name__ == "__main__":
    main()
