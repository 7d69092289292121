"""What the layers of a model multiply in 4 s of input: the shapes that a latency table is asked about."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor, nn

from edgeav.macs import typical_steps
from edgeav.models import AVModel
from edgeav.models.conformer import Attention
from edgeav.quant.plan import role_of
from edgeav.runtime.features import empty_inputs

Convolution = nn.Conv1d | nn.Conv2d | nn.Conv3d


@dataclass(frozen=True)
class Shape:
    """One layer: `rows` vectors or pictures of `inputs` channels and this `size` -> `outputs` channels.

    "attention": `outputs` heads of `inputs` numbers over `rows` steps. A 3-D stem counts as the 2-D one it becomes.
    `rank` > 0: a layer in two halves.
    """

    kind: Literal["linear", "conv", "attention"]
    rows: int
    inputs: int
    outputs: int
    size: tuple[int, ...] = ()
    kernel: tuple[int, ...] = ()
    stride: tuple[int, ...] = ()
    groups: int = 1
    rank: int = 0

    @property
    def places(self) -> int:
        """How often the weights are gone through: vectors, or pixels of all pictures."""
        pixels = (-(-size // stride) for size, stride in zip(self.size, self.stride, strict=True))
        return self.rows * math.prod(pixels)

    @property
    def window(self) -> int:
        """Numbers that make one output."""
        return self.inputs * math.prod(self.kernel)

    def scaled(self, outputs: int, inputs: int) -> Shape:
        """The same layer with other channels; a depthwise one has as many inputs as outputs."""
        if self.groups > 1:
            return replace(self, outputs=outputs, inputs=outputs, groups=outputs)
        return replace(self, outputs=outputs, inputs=inputs)


def shapes_of(model: AVModel) -> dict[str, Shape]:
    """Path -> shape of every layer that a device computes, and of the products of every attention."""
    found: dict[str, Shape] = {}
    hooks = []
    for path, module in model.named_modules():
        if role_of(path) and isinstance(module, nn.Linear | Convolution | Attention):

            def note(module: nn.Module, given: tuple[Tensor, ...], output: Tensor, path: str = path) -> None:
                found[path] = _shape(module, given[0], output)

            hooks.append(module.register_forward_hook(note))
    with torch.inference_mode():
        model(*(torch.from_numpy(array) for array in empty_inputs(model.config.inputs, typical_steps(model.config))))
    for hook in hooks:
        hook.remove()
    return found


def _shape(module: nn.Module, x: Tensor, y: Tensor) -> Shape:
    match module:
        case Attention():
            return Shape("attention", x.shape[1], module.head_width, module.heads)
        case nn.Linear():
            return Shape("linear", x.numel() // x.shape[-1], module.in_features, module.out_features)
        case nn.Conv3d():
            taps, *kernel = module.kernel_size
            stride = tuple(int(s) for s in module.stride[1:])
            size = tuple(x.shape[-2:])
            return Shape("conv", x.shape[2] * x.shape[0], taps, module.out_channels, size, tuple(kernel), stride)
    assert isinstance(module, nn.Conv1d | nn.Conv2d)
    if x.ndim == module.weight.ndim and y.shape[1] != module.out_channels:  # Downsample hands (B, N, D) on
        x = x.transpose(1, 2)
    size, kernel = tuple(x.shape[2:]), tuple(module.kernel_size)
    stride = tuple(int(s) for s in module.stride)
    return Shape("conv", x.shape[0], module.in_channels, module.out_channels, size, kernel, stride, module.groups)
