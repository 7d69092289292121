"""Mistakes that models, features and importers are really made with, each one put into a copy of ours on purpose."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from comparisons import AUTO_AVSR, QUIET, Comparison, Names, Parakeet, Text
from feature_oracles import AUTO_AVSR as FED
from feature_oracles import LIPS, LOG_MEL, NORMALIZED, SAMPLES
from torch import Tensor, nn

from edgeav.models import AVModel
from edgeav.models.conformer import ConformerBlock, RelativeAttention
from edgeav.runtime import features
from edgeav.runtime.inputs import LogMel, Mouth
from edgeav.runtime.log_mel import log_mel, normalize_mel


@dataclass(frozen=True)
class Fault:
    name: str
    comparison: Comparison
    inject: Callable[[Any], Any]
    """Takes the comparison's subject, returns it spoiled (the same object, or another)."""


def blocks(model: AVModel) -> Iterator[ConformerBlock]:
    yield from (module for module in model.modules() if isinstance(module, ConformerBlock))


def each_block(spoil: Callable[[ConformerBlock], None]) -> Callable[[AVModel], AVModel]:
    def inject(model: AVModel) -> AVModel:
        with torch.no_grad():
            for block in blocks(model):
                spoil(block)
        return model

    return inject


def on_inputs(spoil: Callable[..., tuple[Tensor | None, ...]]) -> Callable[[AVModel], AVModel]:
    """A model to whose (audio, video, presence[, frames]) `spoil` is applied first."""

    def inject(model: AVModel) -> AVModel:
        model.register_forward_pre_hook(lambda _, inputs: spoil(*inputs))
        return model

    return inject


def encoder_setting(name: str, value: Any) -> Callable[[AVModel], AVModel]:
    def inject(model: AVModel) -> AVModel:
        model.config = model.config.model_copy(
            update={"encoder": model.config.encoder.model_copy(update={name: value})}
        )
        return model

    return inject


def swish_feed_forwards(block: ConformerBlock) -> None:
    for layer in (block.feed_forward_1, block.feed_forward_2):
        layer.activation = nn.SiLU()


def common_epsilon(model: AVModel) -> AVModel:
    for module in model.modules():
        if isinstance(module, nn.LayerNorm):
            module.eps = 1e-5
    return model


def training_batch_norms(model: AVModel) -> AVModel:
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.train()
    return model


def flip_kernel(block: ConformerBlock) -> None:
    block.conv.depthwise.weight.copy_(block.conv.depthwise.weight.flip(-1))


def swap_gate(block: ConformerBlock) -> None:
    for values in (block.conv.expand.weight, block.conv.expand.bias):
        values.copy_(values.roll(len(values) // 2, 0))


def drop_final_norm(block: ConformerBlock) -> None:
    block.norms[4] = nn.Identity()


def whole_feed_forwards(block: ConformerBlock) -> None:
    for layer in (block.feed_forward_1, block.feed_forward_2):
        layer.down.weight.mul_(2)
        layer.down.bias.mul_(2)


def swap_position_biases(block: ConformerBlock) -> None:
    attention = block.attention
    assert isinstance(attention, RelativeAttention)
    attention.bias_u, attention.bias_v = attention.bias_v, attention.bias_u


def scale_by_whole_width(block: ConformerBlock) -> None:
    """Scores are linear in (query + bias): all of it smaller is a greater divisor."""
    attention, factor = block.attention, 1 / math.sqrt(block.attention.heads)
    assert isinstance(attention, RelativeAttention)
    for values in (attention.query.weight, attention.query.bias, attention.bias_u, attention.bias_v):
        values.mul_(factor)


def no_position_term(block: ConformerBlock) -> None:
    assert isinstance(block.attention, RelativeAttention)
    block.attention.position.weight.zero_()


def swap_norms(block: ConformerBlock) -> None:
    first, last = block.norms[0], block.norms[3]
    block.norms[0], block.norms[3] = last, first


def reverse_positions(model: AVModel) -> AVModel:
    model.positions = model.positions.flip(1)
    return model


def swap_fusion(model: AVModel) -> AVModel:
    weight = model.get_parameter("fusion.up.weight")
    with torch.no_grad():
        weight.copy_(weight.roll(weight.shape[1] // 2, 1))
    return model


def one_step_too_long(audio: Tensor, video: Tensor, presence: Tensor, *frames: Tensor) -> tuple[Tensor, ...]:
    longer = torch.cat([presence[:, :1], presence[:, :-1]], dim=1)
    return audio, video, longer, *frames


def one_frame_too_few(audio: Tensor, video: Tensor, presence: Tensor, frames: Tensor) -> tuple[Tensor, ...]:
    return audio, video, presence, frames - 1


def late_video(audio: Tensor, video: Tensor, presence: Tensor) -> tuple[Tensor, ...]:
    return audio, torch.cat([torch.zeros_like(video[:, :1]), video[:, :-1]], dim=1), presence


def half_rate_video(audio: Tensor, video: Tensor, presence: Tensor) -> tuple[Tensor, ...]:
    return audio, video[:, ::2].repeat_interleave(2, dim=1)[:, : video.shape[1]], presence


def last_is_blank(model: AVModel) -> AVModel:
    model.config = model.config.model_copy(update={"blank_index": len(model.config.tokens) - 1})
    return model


def spell_convolution_right(weights: dict[str, Any]) -> dict[str, Any]:
    return {name.replace("pointwise_cov", "pointwise_conv"): w for name, w in weights.items()}


def model_faults() -> list[Fault]:
    """Every one in a model whose weights went through an importer."""
    names, text, parakeet = Names(), Text(), Parakeet()
    return [
        Fault("Swish for ReLU in the feed-forwards", AUTO_AVSR, each_block(swish_feed_forwards)),
        Fault("layer-norm epsilon 1e-5 for 1e-12", QUIET, common_epsilon),
        Fault("`pointwise_cov` spelled `pointwise_conv`", names, spell_convolution_right),
        Fault("relative positions reversed", AUTO_AVSR, reverse_positions),
        Fault("relative positions left out", parakeet, each_block(no_position_term)),
        Fault("length mask one step too long", AUTO_AVSR, on_inputs(one_step_too_long)),
        Fault("length mask one log-mel frame too short", parakeet, on_inputs(one_frame_too_few)),
        Fault("depthwise kernel reversed in time", AUTO_AVSR, each_block(flip_kernel)),
        Fault("batch norms in training mode", AUTO_AVSR, training_batch_norms),
        Fault("video one frame late", AUTO_AVSR, on_inputs(late_video)),
        Fault("video at 12.5 Hz, each frame shown twice", AUTO_AVSR, on_inputs(half_rate_video)),
        Fault("fusion takes (audio, video) for (video, audio)", AUTO_AVSR, swap_fusion),
        Fault("gate and content of the GLU swapped", parakeet, each_block(swap_gate)),
        Fault("final norm of the blocks missing", parakeet, each_block(drop_final_norm)),
        Fault("first and second feed-forward norm swapped", parakeet, each_block(swap_norms)),
        Fault("feed-forwards at full weight, not half", parakeet, each_block(whole_feed_forwards)),
        Fault("position biases u and v swapped", parakeet, each_block(swap_position_biases)),
        Fault("scores divided by √width, not √head width", parakeet, each_block(scale_by_whole_width)),
        Fault("input not scaled by √width", AUTO_AVSR, encoder_setting("scale_input", False)),
        Fault("input not scaled by √width, Fast Conformer", parakeet, encoder_setting("scale_input", False)),
        Fault("last output taken for the blank", text, last_is_blank),
    ]


def mel_setting(**settings: Any) -> Callable[[Any], Any]:
    return lambda _: lambda wave: log_mel(wave, replace(LogMel(), **settings))


def population_deviation(_: Any) -> Callable[[Any], Any]:
    def normalize(wave: np.ndarray) -> np.ndarray:
        mel = log_mel(wave, LogMel())
        return normalize_mel(mel, LogMel()) * math.sqrt(len(mel) / (len(mel) - 1))

    return normalize


def corner_crop(ours: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def crop(mouth: np.ndarray) -> np.ndarray:
        with patch.object(features, "center_crop", lambda frames, side: frames[:, :side, :side]):
            return ours(mouth)

    return crop


def unscaled_pixels(_: Any) -> Callable[[Any], Any]:
    return lambda mouth: features.see(mouth, replace(FED, video=Mouth()))


def feature_faults() -> list[Fault]:
    return [
        Fault("HTK's mel scale for Slaney's", LOG_MEL, mel_setting(mel_scale="htk")),
        Fault("mel filters of unit height, not area", LOG_MEL, mel_setting(mel_norm="none")),
        Fault("pre-emphasis 0.95 for 0.97", LOG_MEL, mel_setting(pre_emphasis=0.95)),
        Fault("no pre-emphasis", LOG_MEL, mel_setting(pre_emphasis=0.0)),
        Fault("periodic Hann window", LOG_MEL, mel_setting(window_function="hann-periodic")),
        Fault("reflected edges for zeros", LOG_MEL, mel_setting(padding="reflect")),
        Fault("floor 1e-10 under the logarithm", LOG_MEL, mel_setting(log_floor=1e-10)),
        Fault("deviation by T, not T - 1", NORMALIZED, population_deviation),
        Fault("samples not normalized", SAMPLES, lambda _: lambda wave: wave),
        Fault("crop at the corner, not the centre", LIPS, corner_crop),
        Fault("pixels normalized per clip, not by fixed numbers", LIPS, unscaled_pixels),
    ]
