"""What each visual front end costs: parameters, multiply-accumulates and measured time for one second of lips.

    python benchmarks/frontend_macs.py

Eager PyTorch, 1 thread, batch 1, on the deployable form (2-D stem, batch norms folded) with its projection to width
512, 25 steps a second; parameters are those of the form that is trained and stored. The front ends take turns, in each
of ROUNDS rounds each runs once; process CPU time, because something else may be running; the ratio to ResNet18 is taken
within a round, and of each the median is given, with the lowest and highest.
Writes benchmarks/results/frontend_macs.json and prints a Markdown table.
"""

from __future__ import annotations

import json
import statistics
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from edgeav.exporters.rewrites import deployable
from edgeav.models import ModelConfig, random_model
from edgeav.models.config import Block, Conv3dDense, LinearPatch, ResNet18, SpaceToDepth, VisualFrontend
from edgeav.models.visual import visual_frontend
from edgeav.results import provenance
from edgeav.runtime.inputs import VIDEO_FPS, Features, Mouth
from edgeav.runtime.machine import machine

RESULTS = Path(__file__).parent / "results" / "frontend_macs.json"
WIDTH, SECONDS, ROUNDS, WARMUP = 512, 2, 9, 2
HALF = (32, 64, 128, 256)
REFERENCE = "ResNet18, 88x88"
FRONTENDS: dict[str, VisualFrontend] = {
    REFERENCE: ResNet18(),
    "ResNet18, 44x44": ResNet18(pool=2),
    "ResNet18, half width, 88x88": ResNet18(channels=HALF),
    "ResNet18, half width, 44x44": ResNet18(channels=HALF, pool=2),
    "3-D stem and dense convolutions": Conv3dDense(),
    "space to depth, 4x4": SpaceToDepth(),
    "linear, 88x88": LinearPatch(),
    "linear, 44x44": LinearPatch(pool=2),
}


def main() -> None:
    frontends = {name: _frontend(settings) for name, settings in FRONTENDS.items()}
    video = torch.randn(1, SECONDS * VIDEO_FPS, 88, 88, generator=torch.Generator().manual_seed(0))
    torch.set_num_threads(1)
    rows = _rows(frontends, _timed(frontends, video))
    result = {
        "width": WIDTH,
        "steps_per_second": VIDEO_FPS,
        **provenance(),
        "isa": machine()["isa"],
        "runtime": "PyTorch, eager",
        "threads": 1,
        "seconds": SECONDS,
        "rounds": ROUNDS,
        "warmup": WARMUP,
        "rows": rows,
    }
    RESULTS.write_text(json.dumps(result, indent=1) + "\n")
    print(markdown(rows))


def markdown(rows: list[dict[str, Any]]) -> str:
    """The rows as a Markdown table."""
    lines = [
        "| front end | parameters | GMAC per second | ms per second | faster than the teacher's |",
        "|---|---:|---:|---:|---:|",
    ]
    for row in rows:
        span = f"{row['faster']:.1f}x ({row['faster_min']:.1f}-{row['faster_max']:.1f})"
        cost = f"{row['gmac_per_second']:.3f} | {row['cpu_ms_per_second']:.1f}"
        lines.append(f"| {row['frontend']} | {row['params']:,} | {cost} | {span} |")
    return "\n".join(lines)


def _frontend(settings: VisualFrontend) -> nn.Module:
    """The deployable front end; batch norms settled on noise."""
    frontend = deployable(random_model(config=_config(settings))).video
    assert isinstance(frontend, nn.Module)
    return frontend


def _config(settings: VisualFrontend) -> ModelConfig:
    lips = Features(step_ms=1000 // VIDEO_FPS, audio=None, video=Mouth())
    return ModelConfig(inputs=lips, width=WIDTH, audio=None, video=settings, fusion=None, blocks=(Block(),))


def _timed(frontends: dict[str, nn.Module], video: Tensor) -> dict[str, list[float]]:
    """CPU milliseconds for one second of `video`, of each front end in each round."""
    times: dict[str, list[float]] = {name: [] for name in frontends}
    with torch.inference_mode():
        for _ in range(WARMUP + ROUNDS):
            for name, frontend in frontends.items():
                start = time.process_time()
                frontend(video)
                times[name].append((time.process_time() - start) * 1000 / SECONDS)
    return {name: values[WARMUP:] for name, values in times.items()}


def _rows(frontends: dict[str, nn.Module], times: dict[str, list[float]]) -> list[dict[str, Any]]:
    rows = []
    for name, frontend in frontends.items():
        faster = [theirs / ours for theirs, ours in zip(times[REFERENCE], times[name], strict=True)]
        rows.append(
            {
                "frontend": name,
                "settings": FRONTENDS[name].model_dump(mode="json"),
                "params": sum(p.numel() for p in visual_frontend(_config(FRONTENDS[name])).parameters()),
                "gmac_per_second": _gmac_per_second(frontend),
                "cpu_ms_per_second": round(statistics.median(times[name]), 2),
                "faster": round(statistics.median(faster), 2),
                "faster_min": round(min(faster), 2),
                "faster_max": round(max(faster), 2),
            }
        )
    return rows


def _gmac_per_second(frontend: nn.Module) -> float:
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        frontend(torch.zeros(1, VIDEO_FPS, 88, 88))
    return round(counter.get_total_flops() / 2 / 1e9, 4)


if __name__ == "__main__":
    main()
