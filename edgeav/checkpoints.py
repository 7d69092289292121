"""A training run on the disk: where it stopped, and the weights it will be averaged from.

Averages are better than the last weights, and cost nothing at run time: a moving one over all updates (Polyak and
Juditsky 1992, https://doi.org/10.1137/0330046), or the plain mean of the last checkpoints (Vaswani et al. 2017,
https://arxiv.org/abs/1706.03762, section 6.1).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from edgeav.errors import EdgeavError

CHECKPOINT = "checkpoint.pt"


def save_checkpoint(folder: Path, step: int, *parts: torch.nn.Module | torch.optim.Optimizer) -> None:
    """The state of `parts` after `step` updates, in place of the one before."""
    part = folder / (CHECKPOINT + ".part")
    torch.save({"step": step, "parts": [p.state_dict() for p in parts]}, part)
    part.rename(folder / CHECKPOINT)


def resume(folder: Path, *parts: torch.nn.Module | torch.optim.Optimizer) -> int:
    """Load the last checkpoint into `parts`; the step to go on with."""
    if not (folder / CHECKPOINT).exists():
        return 0
    saved = torch.load(folder / CHECKPOINT, map_location="cpu", weights_only=True)
    for part, state in zip(parts, saved["parts"], strict=True):
        part.load_state_dict(state)
    return saved["step"]


def keep_weights(folder: Path, step: int, module: torch.nn.Module, count: int) -> None:
    """Write the weights after `step` updates, and delete those older than the last `count`; nothing for 0."""
    if count:
        folder.mkdir(exist_ok=True)
        part = folder / "weights.part"
        torch.save({name: w.cpu() for name, w in module.state_dict().items()}, part)
        part.rename(folder / f"{step:09d}.pt")
        for old in sorted(folder.glob("*.pt"))[:-count]:
            old.unlink()


def mean_weights(folder: Path) -> dict[str, Tensor]:
    """The mean of all weights that were kept; counters, such as those of batch norms, are the last ones."""
    kept = [torch.load(path, map_location="cpu", weights_only=True) for path in sorted(folder.glob("*.pt"))]
    if not kept:
        raise EdgeavError(f"{folder}: no weights to average. Train again, with average_last at least 1")
    floating = [name for name, weight in kept[-1].items() if weight.is_floating_point()]
    return kept[-1] | {name: torch.stack([weights[name] for weights in kept]).mean(0) for name in floating}


@torch.no_grad()
def moving_average(averaged: Sequence[Tensor], current: Sequence[Tensor], count: int | Tensor) -> None:
    """Move `averaged` towards `current`: over the last 1,000 updates, or the last ninth of a shorter past.

    A constant decay would leave 13 % of the random initial weights in the average after 2,000 updates.
    """
    decay = min(0.999, (1 + float(count)) / (10 + float(count)))
    for mean, value in zip(averaged, current, strict=True):
        mean.lerp_(value, 1 - decay)
