"""Two streams at one rate into one. What is absent has been replaced before: by learned vectors, or by zeros.

- `concat-mlp`: both side by side through a hidden layer, as Auto-AVSR fuses (Ma et al. 2023,
  https://arxiv.org/abs/2303.14307). The teacher's fc1, bn1, fc2 are `up`, `norm`, `down`; its fc1 takes (video, audio),
  here it is (sound, lips): an import swaps the two halves of the columns.
- `sum`: the streams added, no weights.
- `cross-attention`: sound asks lips through gates: Flamingo (Alayrac et al. 2022, https://arxiv.org/abs/2204.14198),
  for speech Whisper-Flamingo (Rouditchenko et al. 2024, https://arxiv.org/abs/2406.10082).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from edgeav.models import config as c
from edgeav.models.conformer import Attention, FeedForward, attention_mask


def fusion(config: c.ModelConfig) -> nn.Module:
    """The module that `config.fusion` names: forward(sound, lips, presence (B, N, 2)) -> (B, N, D)."""
    match config.fusion:
        case c.ConcatMlp() as settings:
            return ConcatMlp(settings, config.width)
        case c.Sum():
            return Sum()
        case c.CrossAttention() as settings:
            return CrossAttention(settings, config)
    raise ValueError("a model of one modality has no fusion")


class ConcatMlp(nn.Module):
    """(B, N, D) + (B, N, D) -> (B, N, D)."""

    def __init__(self, settings: c.ConcatMlp, width: int) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(2 * width, settings.hidden), nn.Linear(settings.hidden, width)
        self.norm = nn.BatchNorm1d(settings.hidden) if settings.norm else None

    def forward(self, sound: Tensor, lips: Tensor, presence: Tensor) -> Tensor:
        return self.down(self._normed(self.up(torch.cat([sound, lips], dim=-1)), presence).relu())

    def _normed(self, x: Tensor, presence: Tensor) -> Tensor:
        """Batch norm over steps. In training only real steps count: padding would pull the statistics to itself."""
        if self.norm is None:
            return x
        if not self.training:
            return self.norm(x.flatten(0, 1)).unflatten(0, (x.shape[0], x.shape[1]))
        real = presence.amax(dim=-1) > 0  # (B, N)
        return torch.zeros_like(x).masked_scatter(real.unsqueeze(-1), self.norm(x[real]).to(x.dtype))


class Sum(nn.Module):
    """(B, N, D) + (B, N, D) -> (B, N, D)."""

    def forward(self, sound: Tensor, lips: Tensor, presence: Tensor) -> Tensor:
        return sound + lips


class CrossAttention(nn.Module):
    """(B, N, D) + (B, N, D) -> (B, N, D): sound + tanh(a) attention(norm(sound), lips), then + tanh(f) feed-forward.

    Both gates start at zero: untrained it is exactly the audio model, whose weights it can begin from. So lips alone
    recognize nothing until training, with sound missing at times, has opened the gates; from then on they come through
    because attention is drawn to near steps, even when one learned vector stands for the sound of every step.

    A row without any lips passes its sound on unchanged, whatever the gates.
    """

    def __init__(self, settings: c.CrossAttention, config: c.ModelConfig) -> None:
        super().__init__()
        width, encoder = config.width, config.encoder
        self.norms = nn.ModuleList([nn.LayerNorm(width, encoder.norm_epsilon) for _ in range(2)])
        self.attention = NearAttention(width, settings, encoder)
        self.feed_forward = FeedForward(width, settings.feed_forward, encoder, config.dropout)
        self.attention_gate, self.feed_forward_gate = nn.Parameter(torch.zeros(1)), nn.Parameter(torch.zeros(1))

    def forward(self, sound: Tensor, lips: Tensor, presence: Tensor) -> Tensor:
        seen = presence[..., 1:]
        any_seen = seen.amax(dim=1, keepdim=True)  # (B, 1, 1)
        x = sound + self.attention_gate.tanh() * any_seen * self.attention(self.norms[0](sound), lips, seen)
        return x + self.feed_forward_gate.tanh() * any_seen * self.feed_forward(self.norms[1](x))


class NearAttention(Attention):
    """Multi-head attention of one stream to another, drawn to near steps: each head subtracts its slope times the
    distance from its scores (ALiBi: Press et al. 2022, https://arxiv.org/abs/2108.12409; here the slopes are learned).
    """

    FAR = 100  # steps; all that is farther counts as that far, which keeps every slope below the mask

    def __init__(self, width: int, settings: c.CrossAttention, encoder: c.Encoder) -> None:
        super().__init__(width, c.Block(heads=settings.heads, head_width=settings.head_width), encoder)
        self.slopes = nn.Parameter(0.5 ** torch.arange(settings.heads)[:, None, None])  # 1, 1/2, 1/4, …

    def forward(self, x: Tensor, other: Tensor, there: Tensor) -> Tensor:  # type: ignore[override]
        """(B, N, D), (B, N, D), (B, N, 1) of 1 where `other` is there -> (B, N, D)."""
        query, key, value = self._split(self.query(x)), self._split(self.key(other)), self._split(self.value(other))
        step = torch.arange(x.shape[1], device=x.device)
        distance = (step[:, None] - step[None, :]).abs().clamp(max=self.FAR).to(x.dtype)
        scores = torch.matmul(query, key.transpose(-2, -1)) / math.sqrt(self.head_width) - self.slopes * distance
        weights = torch.softmax(scores + attention_mask(there), dim=-1)
        return self.out(torch.matmul(weights, value).transpose(1, 2).flatten(2))
