"""How much of a model really multiplies in integers: the share of its multiply-accumulates, by module.

An int8 file proves nothing: a runtime that finds no integer kernel dequantizes and multiplies in float. Each exporter
asks its runtime which modules ended up in integer kernels; here that becomes a share of the work.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch.utils.flop_counter import FlopCounterMode

from edgeav.macs import typical_steps
from edgeav.models import AVModel
from edgeav.quant.plan import role_of
from edgeav.runtime.features import empty_inputs


def macs_by_module(model: AVModel, steps: int | None = None) -> dict[str, int]:
    """Multiply-accumulates of each module that multiplies; attention's own path counts its products of activations.

    `steps` None: as many as 4 s have.
    """
    features = model.config.inputs
    steps = steps or typical_steps(model.config)
    with torch.inference_mode(), FlopCounterMode(display=False, depth=99) as counter:
        model(*(torch.from_numpy(array) for array in empty_inputs(features, steps)))
    root = type(model).__name__
    totals = {name.removeprefix(f"{root}."): sum(c.values()) // 2 for name, c in counter.get_flop_counts().items()}
    return {path: totals[path] - _inside(totals, path) for path in totals if role_of(path)}


def mac_share(model: AVModel, paths: Iterable[str]) -> float:
    """0..1: the part of the multiply-accumulates that the modules at `paths` do."""
    macs = macs_by_module(model)
    chosen = set(paths)
    return round(sum(n for path, n in macs.items() if path in chosen) / sum(macs.values()), 4)


def _inside(totals: dict[str, int], path: str) -> int:
    """What the direct children of `path` multiply, which its own total includes."""
    return sum(n for name, n in totals.items() if name.rpartition(".")[0] == path)
