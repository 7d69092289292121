"""Two streams at one rate into one."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from edgeav.models import config as c


def fusion(config: c.ModelConfig) -> nn.Module:
    """The module that `config.fusion` names: forward(sound, lips, has_lips (B, N, 1)) -> (B, N, D)."""
    match config.fusion:
        case c.ConcatMlp() as settings:
            return ConcatMlp(settings, config.width)
        case other:
            raise NotImplementedError(other)


class ConcatMlp(nn.Module):
    """(B, N, D) + (B, N, D) -> (B, N, D)."""

    def __init__(self, settings: c.ConcatMlp, width: int) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(2 * width, settings.hidden), nn.Linear(settings.hidden, width)

    def forward(self, sound: Tensor, lips: Tensor, has_lips: Tensor) -> Tensor:
        return self.down(self.up(torch.cat([sound, lips], dim=-1)).relu())
