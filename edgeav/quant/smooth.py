"""Rescaling that helps 8 bits and that float32 does not notice: one layer is divided by what the next is multiplied by.

- `smooth`: single channels of an activation that are much larger than the rest take the whole 8-bit range; half of
  their spread moves into the weights that follow, where each output channel has a scale of its own. SmoothQuant: Xiao
  et al. 2022 (https://arxiv.org/abs/2211.10438).
- `equalize`: neighbouring layers with nothing or a ReLU between them get weights of equal reach, channel by channel.
  Nagel et al. 2019, Data-free quantization (https://arxiv.org/abs/1906.04721).

Every factor is a power of two: the float32 outputs stay the same to the last bit, except where a sum underflows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise

import torch
from torch import Tensor, nn

from edgeav.models import AVModel
from edgeav.models.audio import MelSubsampling
from edgeav.models.conformer import ConformerBlock, FeedForward
from edgeav.models.fusion import ConcatMlp, CrossAttention
from edgeav.models.low_rank import LowRank
from edgeav.models.visual import Downsample, LipFrontend, Stem3d
from edgeav.runtime.features import Inputs

Norm = nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d
Rectified = tuple[nn.Module, Norm | None]  # a convolution, and the norm before its ReLU
LARGEST = 2.0**10  # factor: more would only make dead channels of dead channels


@dataclass(frozen=True)
class Source:
    """What makes an activation of C channels: rows of a layer, or a norm; `extra` are vectors (C,) in its place."""

    layer: nn.Module
    norm: Norm | None = None  # behind the layer
    rows: slice = field(default_factory=lambda: slice(None))
    extra: tuple[nn.Parameter | None, ...] = ()

    def reach(self) -> Tensor:
        """(C,): the largest weight of each channel, as the batch norm leaves it."""
        rows = _weight(_last(self.layer))[self.rows].flatten(1).abs().amax(dim=1)
        if self.norm is None:
            return rows
        assert self.norm.running_var is not None
        return rows * (self.norm.weight / (self.norm.running_var + self.norm.eps).sqrt()).abs()

    def divide(self, factors: Tensor) -> None:
        """Changes the weights: the activation becomes 1 / `factors` (C,) of itself."""
        last = self.norm or _last(self.layer)
        for parameter in (last.weight, last.bias):
            if isinstance(parameter, Tensor):
                parameter[self.rows] /= _along(factors, parameter.dim(), 0)
        for vector in self.extra:
            if vector is not None:
                vector /= factors


@dataclass(frozen=True)
class Use:
    """A layer that takes the activation: `columns` of its weight, each channel `repeat` times in a row."""

    layer: nn.Module
    columns: slice = field(default_factory=lambda: slice(None))
    repeat: int = 1

    def reach(self) -> Tensor:
        """(C,): the largest weight that each channel meets."""
        weight = self._weight()
        return (
            weight.abs()
            .amax(dim=tuple(d for d in range(weight.dim()) if d != 1))
            .unflatten(0, (-1, self.repeat))
            .amax(1)
        )

    def multiply(self, factors: Tensor) -> None:
        """Changes the weights: as if the activation were `factors` (C,) times itself."""
        weight = self._weight()
        weight *= _along(factors.repeat_interleave(self.repeat), weight.dim(), 1)

    def _weight(self) -> Tensor:
        """(out, in, …), a view; a depthwise convolution has one row that meets each channel."""
        weight = _weight(_first(self.layer))
        depthwise = isinstance(self.layer, nn.Conv1d | nn.Conv2d) and self.layer.groups > 1
        return weight.transpose(0, 1) if depthwise else weight[:, self.columns]


@dataclass
class Place:
    """An activation, who makes it and all who take it."""

    source: Source
    uses: list[Use]
    largest: Tensor | None = field(default=None)  # (C,) over the clips

    def see(self, module: nn.Module, arguments: tuple[Tensor, ...]) -> None:
        """A forward pre-hook of the first that takes it: only the largest of each channel is kept."""
        channels = 1 if isinstance(module, nn.Conv1d | nn.Conv2d) else -1
        found = arguments[0].detach().abs().movedim(channels, -1).flatten(0, -2).amax(dim=0)[self.uses[0].columns]
        self.largest = found if self.largest is None else torch.maximum(self.largest, found)

    def rescale(self, factors: Tensor) -> None:
        self.source.divide(factors)
        for use in self.uses:
            use.multiply(factors)


@torch.no_grad()
def smooth(model: AVModel, clips: Iterable[Inputs], strength: float) -> None:
    """Move `strength` (0..1) of the spread of activations into the weights behind them. Changes `model`'s weights."""
    places = list(_smoothable(model))
    hooks = [place.uses[0].layer.register_forward_pre_hook(place.see) for place in places]
    for inputs in clips:
        model(*(torch.from_numpy(array) for array in inputs))
    for hook in hooks:
        hook.remove()
    for place in places:
        if place.largest is not None:
            weights = torch.stack([use.reach() for use in place.uses]).amax(dim=0)
            place.rescale(_factors(place.largest, weights, lambda a, w: a**strength / w ** (1 - strength)))


@torch.no_grad()
def equalize(model: AVModel) -> None:
    """Give neighbouring layers weights of equal reach, channel by channel. Changes `model`'s weights."""
    for place in _equalizable(model):
        made, met = place.source.reach(), place.uses[0].reach()
        place.rescale(_factors(made, met, lambda a, b: (a / b).sqrt()))


def _factors(made: Tensor, met: Tensor, rule: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """(C,): the power of two that is nearest to `rule`; 1 for a channel that is always zero, or that nobody heeds."""
    alive = (made > 0) & (met > 0)
    wished = rule(torch.where(alive, made, 1.0), torch.where(alive, met, 1.0))
    powers = torch.exp2(torch.round(torch.log2(wished.clamp(1 / LARGEST, LARGEST))))
    return torch.where(alive, powers, 1.0)


def _smoothable(model: AVModel) -> Iterator[Place]:
    """Every activation that 8 bits round and that something linear makes."""
    for module in model.modules():
        match module:
            case ConformerBlock(norms=norms, attention=attention, conv=conv):
                yield Place(Source(norms[0]), [Use(module.feed_forward_1.up)])
                yield Place(Source(norms[1]), [Use(attention.query), Use(attention.key), Use(attention.value)])
                yield Place(Source(norms[2]), [Use(conv.expand)])
                yield Place(Source(norms[3]), [Use(module.feed_forward_2.up)])
                yield Place(Source(attention.value), [Use(attention.out)])
                # The half of `expand` that is not the gate: linear up to the depthwise convolution.
                yield Place(Source(conv.expand, rows=slice(conv.depthwise.in_channels)), [Use(conv.depthwise)])
            case CrossAttention(norms=norms, attention=attention, feed_forward=feed_forward):
                yield Place(Source(norms[0]), [Use(attention.query)])
                yield Place(Source(norms[1]), [Use(feed_forward.up)])
                yield Place(Source(attention.value), [Use(attention.out)])
    if isinstance(model.fusion, ConcatMlp):
        width, up = model.config.width, model.fusion.up
        streams = [
            (model.audio_norm, model.no_audio, slice(width)),
            (model.video_norm, model.no_video, slice(width, None)),
        ]
        for norm, instead, columns in streams:
            if isinstance(norm, nn.LayerNorm):
                yield Place(Source(norm, extra=(instead,)), [Use(up, columns)])


def _equalizable(model: AVModel) -> Iterator[Place]:
    """Every pair of layers with nothing or a ReLU between them."""
    for module in model.modules():
        match module:
            case MelSubsampling():
                convs: list[Rectified] = [(layer, None) for layer in module.layers if isinstance(layer, nn.Conv2d)]
                yield from _chain(convs, module.linear)
            case LipFrontend():
                yield from _chain(list(_rectified(module)), module.linear)
                if module.rectify and isinstance(module.downsample, Downsample):
                    yield Place(Source(module.linear), [Use(module.downsample)])
            case FeedForward(activation=nn.ReLU()):
                yield Place(Source(module.up), [Use(module.down)])
            case ConcatMlp():
                yield Place(Source(module.up, module.norm), [Use(module.down)])


def _rectified(lips: LipFrontend) -> Iterator[Rectified]:
    """The convolutions of a front end with their batch norms, if ReLU is all that stands between them."""
    layers = list(lips.convs)
    convs = [layer for layer in layers[0::3] if isinstance(layer, nn.Conv2d)]
    norms = [layer for layer in layers[1::3] if isinstance(layer, nn.BatchNorm2d)]
    rectifiers = [layer for layer in layers[2::3] if isinstance(layer, nn.ReLU)]
    if len(convs) + len(norms) + len(rectifiers) < len(layers):
        return
    if isinstance(lips.stem, Stem3d) and isinstance(lips.stem.activation, nn.ReLU):
        yield lips.stem.conv, lips.stem.norm
    yield from zip(convs, norms, strict=True)


def _chain(convs: list[Rectified], linear: nn.Module) -> Iterator[Place]:
    """Each convolution and the next, and the last and the linear layer over all its numbers, channels first."""
    for (conv, norm), (following, _) in pairwise(convs):
        yield Place(Source(conv, norm), [Use(following)])
    if convs:
        conv, norm = convs[-1]
        repeat = _weight(_first(linear)).shape[1] // _weight(_last(conv)).shape[0]
        yield Place(Source(conv, norm), [Use(linear, repeat=repeat)])


def _weight(layer: nn.Module) -> Tensor:
    assert isinstance(layer.weight, Tensor)
    return layer.weight


def _first(layer: nn.Module) -> nn.Module:
    """What a factorized layer does first; any other layer is whole."""
    return layer.narrow if isinstance(layer, LowRank) else layer


def _last(layer: nn.Module) -> nn.Module:
    return layer.widen if isinstance(layer, LowRank) else layer


def _along(factors: Tensor, dimensions: int, axis: int) -> Tensor:
    """(C,) -> (1, C, 1, …) with C at `axis`."""
    return factors.reshape([-1 if d == axis else 1 for d in range(dimensions)])
