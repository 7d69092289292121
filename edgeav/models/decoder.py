"""The attention decoder: text so far and the encoder's output -> the next token.

Vaswani et al. 2017 (https://arxiv.org/abs/1706.03762), with norms before the layers as ESPnet and Auto-AVSR have it.
Their names and these: `embed.0` embed · `decoders.i.self_attn` blocks.i.self_attention · `decoders.i.src_attn`
blocks.i.source_attention · in both `linear_q, linear_k, linear_v, linear_out` query, key, value, out ·
`feed_forward.w_1, w_2` feed_forward.up, down · `norm1, norm2, norm3` norms.0, norms.1, norms.2 · `after_norm` norm ·
`output_layer` head.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from edgeav.models.config import ModelConfig
from edgeav.models.conformer import MASKED
from edgeav.models.dropout import Dropout

Pair = tuple[Tensor, Tensor]  # keys and values, (B, H, N, W) each


@dataclass(frozen=True)
class Cache:
    """What `TextDecoder.step` need not compute again, for B utterances with K hypotheses each."""

    memory: list[Pair]  # per block, (B, H, N, W): the same for all hypotheses of an utterance
    mask: Tensor  # (B, 1, 1, N), added to the scores
    past: list[Pair]  # per block, (B*K, H, L, W): of the L tokens so far

    def select(self, parents: Tensor) -> Cache:
        """(B, K') numbers of hypotheses, each in 0..K-1 -> the cache of those K', copied where one is named twice."""
        batch = parents.shape[0]
        offset = torch.arange(batch, device=parents.device)[:, None] * (self.past[0][0].shape[0] // batch)
        rows = (parents + offset).flatten()
        return replace(self, past=[(keys[rows], values[rows]) for keys, values in self.past])


class TextDecoder(nn.Module):
    """Tokens (B, L) and the encoder's output (B, N, D) -> (B, L, V) logits of the token behind each."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        assert config.decoder is not None
        width, vocabulary = config.width, config.vocabulary
        self.embed = nn.Embedding(vocabulary, width)
        nn.init.normal_(self.embed.weight, std=width**-0.5)  # 1 after the scaling, as large as the positions
        self.blocks = nn.ModuleList([DecoderBlock(config) for _ in range(config.decoder.blocks)])
        self.norm = nn.LayerNorm(width, config.encoder.norm_epsilon)
        self.head = nn.Linear(width, vocabulary)
        self.dropout = Dropout(config.dropout)

    def forward(self, tokens: Tensor, memory: Tensor, valid: Tensor) -> Tensor:
        """`valid` (B, N, 1) is 0 at padding of `memory`; padding of `tokens` must stand behind the text."""
        length, mask = tokens.shape[1], _memory_mask(valid)
        later = torch.ones(length, length, device=tokens.device).triu(1) * MASKED
        x = self._embedded(tokens, 0)
        for block in self._blocks():
            x = block(x, block.source_attention.project(memory), mask, later)
        return self.head(self.norm(x))

    def begin(self, memory: Tensor, valid: Tensor) -> Cache:
        """For `step`: one hypothesis without tokens for each of the (B, N, D)."""
        pairs = [block.source_attention.project(memory) for block in self._blocks()]
        empty = [(keys[:, :, :0], values[:, :, :0]) for keys, values in pairs]
        return Cache(pairs, _memory_mask(valid), empty)

    def step(self, tokens: Tensor, cache: Cache) -> tuple[Tensor, Cache]:
        """The newest token (B, K) of each hypothesis -> (B, K, V) logits of the next one, and the longer cache."""
        x, past = self._embedded(tokens.unsqueeze(-1), cache.past[0][0].shape[2]).squeeze(2), []
        for block, memory, before in zip(self._blocks(), cache.memory, cache.past, strict=True):
            x, pair = block.step(x, memory, cache.mask, before)
            past.append(pair)
        return self.head(self.norm(x)), replace(cache, past=past)

    def _embedded(self, tokens: Tensor, first: int) -> Tensor:
        """(…, L) -> (…, L, D); the first of them has position `first`."""
        width = self.embed.embedding_dim
        positions = position_rows(first, tokens.shape[-1], width).to(tokens.device)
        return self.dropout(self.embed(tokens) * math.sqrt(width) + positions)

    def _blocks(self) -> list[DecoderBlock]:
        return [block for block in self.blocks if isinstance(block, DecoderBlock)]


class DecoderBlock(nn.Module):
    """(B, L, D) -> (B, L, D): the text looks back on itself, then at the encoder's output, then a feed-forward."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        assert config.decoder is not None
        width, heads = config.width, config.decoder.heads
        self.self_attention, self.source_attention = MultiHead(width, heads), MultiHead(width, heads)
        self.feed_forward = RectifiedLayer(width, config.decoder.feed_forward, config.dropout)
        self.norms = nn.ModuleList([nn.LayerNorm(width, config.encoder.norm_epsilon) for _ in range(3)])
        self.dropout = Dropout(config.dropout)

    def forward(self, x: Tensor, memory: Pair, mask: Tensor, later: Tensor) -> Tensor:
        """Keys and values of the memory, its mask (B, 1, 1, N), and the mask of what is still to come (L, L)."""
        normed = self.norms[0](x)
        attended = self.self_attention(normed, self.self_attention.project(normed), later)
        return self._look(x + self.dropout(attended), memory, mask)

    def step(self, x: Tensor, memory: Pair, mask: Tensor, past: Pair) -> tuple[Tensor, Pair]:
        """(B, K, D): one token of K hypotheses, which share the memory and have a past (B*K, H, L, W) each."""
        normed = self.norms[0](x).flatten(0, 1).unsqueeze(1)
        keys, values = self.self_attention.project(normed)
        pair = torch.cat([past[0], keys], dim=2), torch.cat([past[1], values], dim=2)
        return self._look(x + self.self_attention(normed, pair, None).view_as(x), memory, mask), pair

    def _look(self, x: Tensor, memory: Pair, mask: Tensor) -> Tensor:
        x = x + self.dropout(self.source_attention(self.norms[1](x), memory, mask))
        return x + self.dropout(self.feed_forward(self.norms[2](x)))


class MultiHead(nn.Module):
    """Attention of (B, L, D) to keys and values that `project` made of something else."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads, self.head_width = heads, width // heads
        self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))

    def project(self, x: Tensor) -> Pair:
        """(B, N, D) -> keys and values (B, H, N, W)."""
        return self._split(self.key(x)), self._split(self.value(x))

    def forward(self, x: Tensor, pair: Pair, mask: Tensor | None) -> Tensor:
        keys, values = pair
        scores = torch.matmul(self._split(self.query(x)), keys.transpose(-2, -1)) / math.sqrt(self.head_width)
        weights = torch.softmax(scores if mask is None else scores + mask, dim=-1)
        return self.out(torch.matmul(weights, values).transpose(1, 2).flatten(2))

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, self.head_width)).transpose(1, 2)


class RectifiedLayer(nn.Module):
    """(B, L, D) -> (B, L, D) through a hidden layer with ReLU."""

    def __init__(self, width: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(width, hidden), nn.Linear(hidden, width)
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(self.dropout(self.up(x).relu()))


def position_rows(first: int, length: int, width: int) -> Tensor:
    """(L, D): sines and cosines, interleaved, of the positions first, first + 1, …"""
    place = torch.arange(first, first + length, dtype=torch.float32)[:, None]
    rate = torch.exp(torch.arange(0, width, 2.0) * (-math.log(10_000.0) / width))
    return torch.stack([torch.sin(place * rate), torch.cos(place * rate)], dim=-1).flatten(1)


def _memory_mask(valid: Tensor) -> Tensor:
    return (1 - valid.transpose(1, 2).unsqueeze(1)) * MASKED
