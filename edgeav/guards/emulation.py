"""What an ExecuTorch file says it computes, in eager PyTorch: its own numbers, its own levels, float in between.

A file whose numbers are right may still be wired wrongly. XNNPACK rounds a level up where PyTorch rounds it down now
and then, so the two differ by less than quantization itself does, and never by as much as a swapped input makes.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable

import numpy as np
import torch
from torch import Tensor, nn

from edgeav.guards.numbers import Stored
from edgeav.guards.pte import Grid, PteLayer
from edgeav.models import AVModel


def emulate(model: AVModel, layers: Iterable[tuple[str, PteLayer]]) -> AVModel:
    """A copy of a deployable `model` that computes with the numbers of the file; `layers` are its modules' by path."""
    emulated = copy.deepcopy(model)
    for path, layer in layers:
        module = emulated.get_submodule(path)
        assert isinstance(module, nn.Linear | nn.Conv1d | nn.Conv2d)
        module.weight.data = _tensor(layer.weight).reshape(module.weight.shape)
        if module.bias is not None:
            module.bias.data = torch.zeros_like(module.bias) if layer.bias is None else _tensor(layer.bias)
        if layer.input is not None:
            module.register_forward_pre_hook(lambda _, inputs, grid=layer.input: (rounded(inputs[0], grid),))
        if layer.output is not None:
            module.register_forward_hook(_rounds(layer.output))
    return emulated


def _rounds(grid: Grid) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], Tensor]:
    """A hook that puts a module's output on `grid`."""

    def hook(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        return rounded(output, grid)

    return hook


def rounded(x: Tensor, grid: Grid) -> Tensor:
    """`x` on the 256 levels of `grid`."""
    return torch.fake_quantize_per_tensor_affine(x, grid.scale, grid.zero_point, -128, 127)


def _tensor(stored: Stored | np.ndarray) -> Tensor:
    values = stored.values if isinstance(stored, Stored) else stored
    return torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32))
