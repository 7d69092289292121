"""The Conformer block, as Auto-AVSR's teacher and the Fast Conformer use it.

Gulati et al. 2020 (https://arxiv.org/abs/2005.08100); relative attention after Dai et al. 2019, Transformer-XL
(https://arxiv.org/abs/1901.02860); kernel 9 and 8x subsampling after Rekesh et al. 2023, local attention with global
tokens after Beltagy et al. 2020, Longformer (https://arxiv.org/abs/2004.05150).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from edgeav.models.config import Block, Encoder
from edgeav.models.dropout import Dropout

MASKED = -1e4  # finite, so that a row with nothing to attend to stays finite too, in half precision as well


class FeedForward(nn.Module):
    """(B, N, D) -> (B, N, D) through a hidden layer with Swish, or ReLU."""

    def __init__(self, width: int, hidden: int, encoder: Encoder, dropout: float) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(width, hidden, encoder.bias), nn.Linear(hidden, width, encoder.bias)
        self.activation = nn.SiLU() if encoder.activation == "swish" else nn.ReLU()
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(self.dropout(self.activation(self.up(x))))


class Attention(nn.Module):
    """Multi-head self-attention by content alone (Vaswani et al. 2017)."""

    scaled = False
    """Whether `query`, and the biases beside it, contain the factor 1/sqrt(W) already; in exported graphs alone."""

    def __init__(self, width: int, config: Block, encoder: Encoder) -> None:
        super().__init__()
        self.heads, self.head_width = config.heads, config.head_width
        inner = config.heads * config.head_width
        self.query, self.key, self.value = (nn.Linear(width, inner, encoder.bias) for _ in range(3))
        self.out = nn.Linear(inner, width, encoder.bias)

    def forward(self, x: Tensor, positions: Tensor, mask: Tensor) -> Tensor:
        """(B, N, D), (1, 2N-1, D) from N-1 down to 1-N, (B, 1, 1 or N, N) added to the scores -> (B, N, D).

        Or all of them without the first axis, for one clip; only `LocalAttention` needs it.
        """
        query, key, value = self._projected(x)
        scores = self._scores(query, key, positions)
        scores = scores if self.scaled else scores / math.sqrt(self.head_width)
        weights = torch.softmax(scores + mask, dim=-1)
        return self.out(torch.matmul(weights, value).transpose(-3, -2).flatten(-2))

    def _projected(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(B, N, D) -> query, key and value, (B, H, N, W) each."""
        return self._split(self.query(x)), self._split(self.key(x)), self._split(self.value(x))

    def _scores(self, query: Tensor, key: Tensor, positions: Tensor) -> Tensor:
        return torch.matmul(query, key.transpose(-2, -1))

    def _split(self, x: Tensor) -> Tensor:
        """(B, N, H*W) -> (B, H, N, W)."""
        return x.unflatten(-1, (self.heads, self.head_width)).transpose(-3, -2)


class RelativeAttention(Attention):
    """Self-attention whose scores depend on content and on the distance between two steps.

    Written out rather than through scaled_dot_product_attention: with a float bias that breaks the ONNX exporter.
    """

    def __init__(self, width: int, config: Block, encoder: Encoder) -> None:
        super().__init__(width, config, encoder)
        self.position = nn.Linear(width, config.heads * config.head_width, bias=False)
        self.bias_u = nn.Parameter(torch.zeros(config.heads, 1, config.head_width))
        self.bias_v = nn.Parameter(torch.zeros(config.heads, 1, config.head_width))

    def _scores(self, query: Tensor, key: Tensor, positions: Tensor) -> Tensor:
        distance = self._split(self.position(positions))
        content = torch.matmul(query + self.bias_u, key.transpose(-2, -1))
        return content + _shift(torch.matmul(query + self.bias_v, distance.transpose(-2, -1)))


class FusedAttention(RelativeAttention):
    """`source` with its query, key and value made by one matrix, which is called `query`; for export alone."""

    def __init__(self, source: RelativeAttention) -> None:
        nn.Module.__init__(self)
        self.heads, self.head_width, self.scaled = source.heads, source.head_width, source.scaled
        self.query = _side_by_side([source.query, source.key, source.value])
        self.position, self.out = source.position, source.out
        self.bias_u, self.bias_v = source.bias_u, source.bias_v

    def _projected(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        together = self.query(x).unflatten(-1, (3 * self.heads, self.head_width)).transpose(-3, -2)
        query, key, value = together.split(self.heads, dim=-3)
        return query, key, value


def _side_by_side(layers: Sequence[nn.Linear]) -> nn.Linear:
    """One linear layer whose outputs are those of all `layers`."""
    biases = [layer.bias.detach() for layer in layers if layer.bias is not None]
    joined = nn.Linear(layers[0].in_features, sum(layer.out_features for layer in layers), len(biases) == len(layers))
    joined.weight = nn.Parameter(torch.cat([layer.weight.detach() for layer in layers]), requires_grad=False)
    if biases:
        joined.bias = nn.Parameter(torch.cat(biases), requires_grad=False)
    return joined


class LocalAttention(RelativeAttention):
    """Each step sees `window` steps to each side; the first `global_tokens` see all and are seen by all.

    As NeMo's long-form mode computes it: a global key is scored by content alone, without the biases, beside the
    window (in which it may stand a second time). Memory grows with the length, not with its square.
    """

    CHUNK = 4  # windows of rows at once; an exported graph, whose length is not known, takes all rows at once

    def __init__(self, width: int, config: Block, encoder: Encoder) -> None:
        super().__init__(width, config, encoder)
        assert encoder.window is not None
        self.window, self.global_tokens = encoder.window, encoder.global_tokens

    def forward(self, x: Tensor, positions: Tensor, mask: Tensor) -> Tensor:
        """(B, N, D), (1, 2w+1, D) from w down to -w, (B, 1, 1, N) -> (B, N, D)."""
        steps, w = x.shape[1], self.window
        query, key, value = self._split(self.query(x)), self._split(self.key(x)), self._split(self.value(x))
        distance = self._split(self.position(positions)).transpose(-2, -1)
        sides = (nn.functional.pad(y, (0, 0, w, w)) for y in (key, value))
        around = *sides, nn.functional.pad(mask, (w, w), value=MASKED)
        far = [y.narrow(axis, 0, self.global_tokens) for y, axis in zip((key, value, mask), (2, 2, 3), strict=True)]
        parts = []
        for start, count in self._chunks(steps):
            near = [y.narrow(axis, start, count + 2 * w) for y, axis in zip(around, (2, 2, 3), strict=True)]
            parts.append(self._rows(query.narrow(2, start, count), distance, near, far))
        out = torch.cat(parts, dim=2)
        if self.global_tokens:
            everywhere = self._by_content(query.narrow(2, 0, self.global_tokens), key, mask).softmax(-1)
            first = torch.arange(steps, device=x.device)[:, None] < self.global_tokens
            out = torch.where(first, torch.matmul(everywhere, value), out)
        return self.out(out.transpose(1, 2).flatten(2))

    def _chunks(self, steps: int) -> list[tuple[int, int]]:
        """(first row, number of rows)."""
        if torch.compiler.is_exporting():
            return [(0, steps)]
        rows = self.CHUNK * self.window
        return [(start, min(rows, steps - start)) for start in range(0, steps, rows)]

    def _rows(self, query: Tensor, distance: Tensor, near: list[Tensor], far: list[Tensor]) -> Tensor:
        """(B, H, C, W) rows of the result; `near` and `far` are keys, values, mask of C+2w steps and of the globals."""
        content = torch.matmul(query + self.bias_u, near[0].transpose(-2, -1))
        relative = _band(torch.matmul(query + self.bias_v, distance))
        scores = (content + relative) / math.sqrt(self.head_width) + near[2]
        weights = torch.cat([self._by_content(query, far[0], far[2]), scores], dim=-1).softmax(-1)
        return torch.matmul(weights, torch.cat([far[1], near[1]], dim=2))

    def _by_content(self, query: Tensor, key: Tensor, mask: Tensor) -> Tensor:
        return torch.matmul(query, key.transpose(-2, -1)) / math.sqrt(self.head_width) + mask


def _band(scores: Tensor) -> Tensor:
    """(B, H, C, 2w+1) by distance -> (B, H, C, C+2w) by key: row i moves i places to the right, MASKED beside it."""
    batch, heads, rows, span = scores.shape
    wide = nn.functional.pad(scores, (0, rows), value=MASKED).flatten(2).narrow(2, 0, rows * (rows + span - 1))
    return wide.reshape(batch, heads, rows, rows + span - 1)


def _attention(encoder: Encoder) -> type[Attention]:
    if encoder.window is not None:
        return LocalAttention
    return RelativeAttention if encoder.positions == "relative" else Attention


def _shift(scores: Tensor) -> Tensor:
    """(B, H, N, 2N-1) by distance -> (B, H, N, N) by key: row i begins N-1-i places in (Dai et al. 2019, appendix B).

    One spare column makes that an even stride of 2N-1 through the flattened rows. Padded on the right: with the spare
    column on the left, torch.export cannot prove the same reshape for every N. Cut to a product of the two new sizes:
    of a difference, ExecuTorch bounds the quotient by N^2 and plans 64 MB for 200 steps, or fails to load.
    """
    *parallel, steps, span = scores.shape
    flat = nn.functional.pad(scores, (0, 1)).flatten(-2).narrow(-1, steps - 1, steps * span)
    return flat.reshape(*parallel, steps, span)[..., :steps]


class ConvModule(nn.Module):
    """(B, N, D) -> (B, N, D): pointwise, gate, depthwise over time, batch norm, Swish, pointwise."""

    def __init__(self, width: int, config: Block, encoder: Encoder) -> None:
        super().__init__()
        c, bias = config.conv_channels, encoder.conv_bias
        self.expand = nn.Linear(width, 2 * c, bias)
        self.depthwise = nn.Conv1d(c, c, config.kernel, padding=config.kernel // 2, groups=c, bias=bias)
        self.norm = nn.BatchNorm1d(c)
        self.project = nn.Linear(c, width, bias)

    def forward(self, x: Tensor, valid: Tensor) -> Tensor:
        """`valid` (B, N, 1) zeroes padding before the convolution, which would carry it into its neighbours."""
        x = nn.functional.glu(self.expand(x), dim=-1) * valid
        x = nn.functional.silu(self.norm(self.depthwise(x.transpose(-2, -1))))
        return self.project(x.transpose(-2, -1))


class ConformerBlock(nn.Module):
    """(B, N, D) -> (B, N, D): half feed-forward, attention, convolution, half feed-forward, norm.

    Or (N, D) -> (N, D) in evaluation, with positions, `valid` and mask without their first axis too.
    """

    halved = False
    """Whether both feed-forwards give the half already; in exported graphs alone."""

    def __init__(self, width: int, config: Block, encoder: Encoder, dropout: float) -> None:
        super().__init__()
        self.feed_forward_1 = FeedForward(width, config.feed_forward, encoder, dropout)
        self.attention = _attention(encoder)(width, config, encoder)
        self.conv = ConvModule(width, config, encoder)
        self.feed_forward_2 = FeedForward(width, config.feed_forward_2, encoder, dropout)
        self.norms = nn.ModuleList([nn.LayerNorm(width, encoder.norm_epsilon) for _ in range(5)])
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor, positions: Tensor, valid: Tensor, mask: Tensor) -> Tensor:
        x = x + self._half(self.dropout(self.feed_forward_1(self.norms[0](x))))
        x = x + self.dropout(self.attention(self.norms[1](x), positions, mask))
        x = x + self.dropout(self.conv(self.norms[2](x), valid))
        x = x + self._half(self.dropout(self.feed_forward_2(self.norms[3](x))))
        return self.norms[4](x)

    def _half(self, x: Tensor) -> Tensor:
        return x if self.halved else 0.5 * x


def attention_mask(valid: Tensor) -> Tensor:
    """(B, N, 1) of 1 where a step is real -> (B, 1, 1, N) to add to the scores."""
    return (1 - valid.transpose(-2, -1).unsqueeze(-3)) * MASKED


def position_table(max_steps: int, width: int) -> Tensor:
    """(1, 2*max_steps-1, D): sines and cosines, interleaved, of the distances max_steps-1 down to 1-max_steps."""
    distance = torch.arange(max_steps - 1, -max_steps, -1.0)[:, None]
    rate = torch.exp(torch.arange(0, width, 2.0) * (-math.log(10_000.0) / width))
    table = torch.zeros(2 * max_steps - 1, width)
    table[:, 0::2], table[:, 1::2] = torch.sin(distance * rate), torch.cos(distance * rate)
    return table[None]
