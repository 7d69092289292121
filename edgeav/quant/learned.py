"""The ranges that training found for activations: made, kept in quantization.json, handed to the exporters.

Weights need no entry: their scale is the largest magnitude of each output channel over 127 in training and in every
engine, so that the weights of the model folder say it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

from edgeav.errors import EdgeavError
from edgeav.exporters.rewrites import deployable
from edgeav.models import AVModel, save_model
from edgeav.quant.activations import Activation
from edgeav.quant.fake_quant import formats_of, observe, round_activations, round_weights_in_training
from edgeav.quant.folding import unfolded
from edgeav.quant.plan import Ends, LayerRanges, Plan
from edgeav.runtime.features import Inputs


def calibrated(model: AVModel, plan: Plan, calibration: Sequence[Inputs]) -> Plan:
    """The plan with the ranges that training begins with: the smallest and largest values of `calibration`."""
    copy = deployable(model)
    observe(copy, round_activations(copy, formats_of(copy, plan)), calibration)
    return plan.model_copy(update={"learned": _ranges(copy)})


def learnable(model: AVModel, plan: Plan) -> AVModel:
    """A copy of `model` in its deployed form, rounded in every pass, whose weights and ranges are parameters."""
    copy = deployable(model).requires_grad_(True)
    formats = formats_of(copy, plan)
    for activation in round_activations(copy, formats):
        if activation.rounds:
            activation.learn()
    _set_ranges(copy, plan)
    round_weights_in_training(copy, formats)
    return copy


def save_learned(model: AVModel, plan: Plan, folder: Path) -> None:
    """Write a `learnable` model as a normal model folder, with quantization.json that holds what it learned."""
    save_model(unfolded(model), folder, half=True)
    plan.model_copy(update={"learned": _ranges(model)}).save(folder)


def learned_activations(model: nn.Module) -> list[Activation]:
    """Those whose ranges are parameters."""
    return [part for part in model.modules() if isinstance(part, Activation) and part.stretch is not None]


@torch.no_grad()
def take_ranges(source: nn.Module, model: nn.Module) -> None:
    """Give `model`, a copy of `source`, its ranges as they are: a mean of weights is better than the last ones, but
    where a range began says nothing about where it is to end. Changes `model`."""
    pairs = zip(source.modules(), model.modules(), strict=True)
    for ours, theirs in pairs:
        if isinstance(ours, Activation) and isinstance(theirs, Activation):
            theirs.load_state_dict(ours.state_dict())


def _ranges(model: AVModel) -> dict[str, LayerRanges]:
    """Of each rounded layer by its path."""
    rounded = _rounded(model)
    return {path: LayerRanges(given=_ends(m, "given"), put_out=_ends(m, "put_out")) for path, m in rounded}


def _rounded(model: AVModel) -> list[tuple[str, nn.Module]]:
    """Every layer that is rounded, with its path."""
    return [(path, module) for path, module in model.named_modules() if hasattr(module, "given")]


def _ends(layer: nn.Module, place: str) -> Ends:
    low, high = _activation(layer, place).ends()
    return low.item(), high.item()


def _activation(layer: nn.Module, place: str) -> Activation:
    module = layer.get_submodule(place)
    assert isinstance(module, Activation)
    return module


def _set_ranges(model: AVModel, plan: Plan) -> None:
    paths = {path for path, _ in _rounded(model)}
    if paths != set(plan.learned or {}):
        raise EdgeavError(
            f"quantization.json holds ranges of other layers than this model has: {_example(paths, plan)}"
        )
    for path, ranges in (plan.learned or {}).items():
        layer = model.get_submodule(path)
        for place, (low, high) in (("given", ranges.given), ("put_out", ranges.put_out)):
            activation = _activation(layer, place)
            activation.low.fill_(low)
            activation.high.fill_(high)


def _example(paths: set[str], plan: Plan) -> str:
    return ", ".join(sorted(paths ^ set(plan.learned or {}))[:3])
