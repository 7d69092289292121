"""Dropout whose mask costs a byte of randomness a number instead of a drawn number.

On one CPU core `nn.Dropout`'s masks were a sixth of a Conformer block's training time. Srivastava et al. 2014
(https://jmlr.org/papers/v15/srivastava14a.html).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

LEVELS = 256  # of one byte: the probability is rounded to a multiple of 1 / 256


class Dropout(nn.Dropout):
    """As `nn.Dropout`; in training on CPUs its probability is rounded to 1/256."""

    def forward(self, x: Tensor) -> Tensor:
        dropped = round(self.p * LEVELS)
        if not self.training or not dropped or x.device.type != "cpu":
            return super().forward(x)
        words = torch.empty(-(-x.numel() // 8), dtype=torch.int64, device=x.device).random_(-(2**63), None)
        kept = (words.view(torch.uint8)[: x.numel()].view(x.shape) >= dropped).to(x.dtype)
        return x * kept.mul_(LEVELS / (LEVELS - dropped))
