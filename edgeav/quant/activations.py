"""One activation's grid inside a simulated model: it is observed, rounded, and in QAT its range is learned.

Ranges are learned as factors: what an optimizer adds is a share of the range, whatever its size (the log domain of TQT,
Jain et al. 2020, https://arxiv.org/abs/1903.08066). Zero stays on the grid: it is what padding consists of.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from edgeav.quant.grids import FP8_TYPES, HALVES, fp8_scale, round_dynamic, round_fp8, round_half, round_u8
from edgeav.quant.plan import Format


class Activation(nn.Module):
    """(…) -> the same shape, on the format's grid. `low` <= 0 <= `high`, scalars, are the ends before learning."""

    low: Tensor
    high: Tensor

    def __init__(self, number_format: Format, *, rectified: bool = False) -> None:
        """`rectified`: a ReLU follows, so that nothing below zero needs a number."""
        super().__init__()
        self.number_format: Format = number_format
        self.rectified = rectified
        self.observing, self.rounds, self.integers, self.stretch = False, True, True, None
        self.register_buffer("low", torch.zeros(()))
        self.register_buffer("high", torch.zeros(()))

    def learn(self) -> None:
        """Make the ends parameters of the training."""
        self.stretch = nn.Parameter(torch.zeros(2))

    def watch(self) -> None:
        """Round nothing, but go on noting the range, for engines that round here."""
        self.rounds = False

    def ends(self) -> tuple[Tensor, Tensor]:
        """The smallest and the largest number of the grid."""
        if self.stretch is None:
            return self.low, self.high
        factors = self.stretch.exp()
        return self.low * factors[0], self.high * factors[1]

    def forward(self, x: Tensor) -> Tensor:
        if self.observing or (self.training and not self.rounds):
            self._note(x.detach())
        return x if self.observing or not self.rounds else self._rounded(x)

    def _note(self, x: Tensor) -> None:
        if x.numel():
            seen = x.clamp(min=0) if self.rectified else x
            self.low.copy_(torch.minimum(self.low, seen.amin()))
            self.high.copy_(torch.maximum(self.high, seen.amax()))

    def _rounded(self, x: Tensor) -> Tensor:
        low, high = self.ends()
        if self.number_format == "int8":
            return round_u8(x, low, high) if x.numel() else x
        if self.number_format == "int8-dynamic":
            return round_dynamic(x) if x.numel() else x
        if self.number_format in FP8_TYPES:
            return round_fp8(x, self.number_format, fp8_scale(torch.maximum(-low, high), self.number_format))
        return round_half(x, self.number_format) if self.number_format in HALVES else x
