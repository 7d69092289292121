"""The Conformer block with relative positions, as the Fast Conformer uses it.

Gulati et al. 2020 (https://arxiv.org/abs/2005.08100); relative attention after Dai et al. 2019, Transformer-XL
(https://arxiv.org/abs/1901.02860); kernel 9 and 8x subsampling after Rekesh et al. 2023 (https://arxiv.org/abs/2305.05084).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from edgeav.models.config import Block

MASKED = -1e4  # finite, so that a row with nothing to attend to stays finite too, in half precision as well


class FeedForward(nn.Module):
    """(B, N, D) -> (B, N, D) through a hidden layer with Swish."""

    def __init__(self, width: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(width, hidden), nn.Linear(hidden, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(self.dropout(nn.functional.silu(self.up(x))))


class RelativeAttention(nn.Module):
    """Multi-head self-attention whose scores depend on content and on the distance between two steps.

    Written out rather than through scaled_dot_product_attention: with a float bias that breaks the ONNX exporter.
    """

    def __init__(self, width: int, config: Block) -> None:
        super().__init__()
        self.heads, self.head_width = config.heads, config.head_width
        inner = config.heads * config.head_width
        self.query, self.key, self.value = (nn.Linear(width, inner) for _ in range(3))
        self.position = nn.Linear(width, inner, bias=False)
        self.out = nn.Linear(inner, width)
        self.bias_u = nn.Parameter(torch.zeros(config.heads, 1, config.head_width))
        self.bias_v = nn.Parameter(torch.zeros(config.heads, 1, config.head_width))

    def forward(self, x: Tensor, positions: Tensor, mask: Tensor) -> Tensor:
        """(B, N, D), (1, 2N-1, D) from N-1 down to 1-N, (B, 1, 1, N) added to the scores -> (B, N, D)."""
        query, key, value = self._split(self.query(x)), self._split(self.key(x)), self._split(self.value(x))
        distance = self._split(self.position(positions))
        content = torch.matmul(query + self.bias_u, key.transpose(-2, -1))
        relative = _shift(torch.matmul(query + self.bias_v, distance.transpose(-2, -1)))
        weights = torch.softmax((content + relative) / math.sqrt(self.head_width) + mask, dim=-1)
        return self.out(torch.matmul(weights, value).transpose(1, 2).flatten(2))

    def _split(self, x: Tensor) -> Tensor:
        """(B, N, H*W) -> (B, H, N, W)."""
        return x.unflatten(-1, (self.heads, self.head_width)).transpose(1, 2)


def _shift(scores: Tensor) -> Tensor:
    """(B, H, N, 2N-1) by distance -> (B, H, N, N) by key: row i begins N-1-i places in (Dai et al. 2019, appendix B).

    One spare column makes that an even stride of 2N-1 through the flattened rows. Padded on the right: with the spare
    column on the left, torch.export cannot prove the same reshape for every N.
    """
    batch, heads, steps, span = scores.shape
    flat = nn.functional.pad(scores, (0, 1)).flatten(2)[:, :, steps - 1 : -1]
    return flat.reshape(batch, heads, steps, span)[..., :steps]


class ConvModule(nn.Module):
    """(B, N, D) -> (B, N, D): pointwise, gate, depthwise over time, batch norm, Swish, pointwise."""

    def __init__(self, width: int, config: Block) -> None:
        super().__init__()
        c = config.conv_channels
        self.expand = nn.Linear(width, 2 * c)
        self.depthwise = nn.Conv1d(c, c, config.kernel, padding=config.kernel // 2, groups=c)
        self.norm = nn.BatchNorm1d(c)
        self.project = nn.Linear(c, width)

    def forward(self, x: Tensor, valid: Tensor) -> Tensor:
        """`valid` (B, N, 1) zeroes padding before the convolution, which would carry it into its neighbours."""
        x = nn.functional.glu(self.expand(x), dim=-1) * valid
        x = nn.functional.silu(self.norm(self.depthwise(x.transpose(1, 2))))
        return self.project(x.transpose(1, 2))


class ConformerBlock(nn.Module):
    """(B, N, D) -> (B, N, D): half feed-forward, attention, convolution, half feed-forward, norm."""

    def __init__(self, width: int, config: Block, dropout: float) -> None:
        super().__init__()
        self.feed_forward_1 = FeedForward(width, config.feed_forward, dropout)
        self.attention = RelativeAttention(width, config)
        self.conv = ConvModule(width, config)
        self.feed_forward_2 = FeedForward(width, config.feed_forward_2, dropout)
        self.norms = nn.ModuleList([nn.LayerNorm(width) for _ in range(5)])
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, positions: Tensor, valid: Tensor, mask: Tensor) -> Tensor:
        x = x + 0.5 * self.dropout(self.feed_forward_1(self.norms[0](x)))
        x = x + self.dropout(self.attention(self.norms[1](x), positions, mask))
        x = x + self.dropout(self.conv(self.norms[2](x), valid))
        x = x + 0.5 * self.dropout(self.feed_forward_2(self.norms[3](x)))
        return self.norms[4](x)


def position_table(max_steps: int, width: int) -> Tensor:
    """(1, 2*max_steps-1, D): sines and cosines, interleaved, of the distances max_steps-1 down to 1-max_steps."""
    distance = torch.arange(max_steps - 1, -max_steps, -1.0)[:, None]
    rate = torch.exp(torch.arange(0, width, 2.0) * (-math.log(10_000.0) / width))
    table = torch.zeros(2 * max_steps - 1, width)
    table[:, 0::2], table[:, 1::2] = torch.sin(distance * rate), torch.cos(distance * rate)
    return table[None]
