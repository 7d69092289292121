"""A small checkpoint with the names and shapes of Auto-AVSR's layout A (sound and lips), random in every tensor."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from reference_conformer import Sizes, Weights

Shapes = Iterator[tuple[str, tuple[int, ...]]]


def random_checkpoint(sizes: Sizes, seed: int = 0, loudness: float = 1.0) -> Weights:
    """`loudness` scales what the front ends hand on: with little of it, the epsilon of the layer norms shows."""
    random = np.random.default_rng(seed)
    weights = {name: _draw(random, name, shape) for name, shape in _shapes(sizes)}
    for name in ("encoder.embed.0", "aux_encoder.embed.0"):
        weights[f"{name}.weight"] *= loudness
        weights[f"{name}.bias"] *= loudness
    return weights


def _draw(random: np.random.Generator, name: str, shape: tuple[int, ...]) -> np.ndarray:
    if name.endswith("num_batches_tracked"):
        return np.array(1000)
    if len(shape) > 1 and "pos_bias" not in name:
        drawn = random.standard_normal(shape) / np.sqrt(np.prod(shape[1:]))
    elif name.endswith(("weight", "running_var")):
        drawn = random.uniform(0.5, 1.5, shape)
    else:  # biases and means
        drawn = random.standard_normal(shape) * 0.3
    return drawn.astype(np.float32)


def _shapes(s: Sizes) -> Shapes:
    first = s.channels[0]
    yield from _encoder("encoder.", s)
    yield "encoder.frontend.frontend3D.0.weight", (first, 1, 5, 7, 7)
    yield from _batch_norm("encoder.frontend.frontend3D.1", first)
    yield from _trunk("encoder.frontend.trunk.", s, 2)
    yield from _encoder("aux_encoder.", s)
    yield "aux_encoder.frontend.trunk.conv1.weight", (first, 1, 80)
    yield from _batch_norm("aux_encoder.frontend.trunk.bn1", first)
    yield from _trunk("aux_encoder.frontend.trunk.", s, 1)
    yield from _linear("fusion.fc1", s.fusion, 2 * s.width)
    yield from _batch_norm("fusion.bn1", s.fusion)
    yield from _linear("fusion.fc2", s.width, s.fusion)
    yield from _linear("ctc.ctc_lo", s.outputs, s.width)
    yield from _decoder(s)


def _encoder(name: str, s: Sizes) -> Shapes:
    d = s.width
    yield from _linear(f"{name}embed.0", d, s.channels[-1])
    for block in range(s.blocks):
        here = f"{name}encoders.{block}."
        yield from _attention(f"{here}self_attn.", d)
        yield f"{here}self_attn.linear_pos.weight", (d, d)
        yield f"{here}self_attn.pos_bias_u", (s.heads, d // s.heads)
        yield f"{here}self_attn.pos_bias_v", (s.heads, d // s.heads)
        for layer in ("feed_forward", "feed_forward_macaron"):
            yield from _feed_forward(f"{here}{layer}.", d, s.hidden)
        yield f"{here}conv_module.pointwise_cov1.weight", (2 * d, d, 1)
        yield f"{here}conv_module.pointwise_cov1.bias", (2 * d,)
        yield f"{here}conv_module.depthwise_conv.weight", (d, 1, s.kernel)
        yield f"{here}conv_module.depthwise_conv.bias", (d,)
        yield from _batch_norm(f"{here}conv_module.norm", d)
        yield f"{here}conv_module.pointwise_cov2.weight", (d, d, 1)
        yield f"{here}conv_module.pointwise_cov2.bias", (d,)
        for norm in ("ff", "ff_macaron", "mha", "conv", "final"):
            yield from _norm(f"{here}norm_{norm}", d)
    yield from _norm(f"{name}after_norm", d)


def _decoder(s: Sizes) -> Shapes:
    d = s.width
    yield "decoder.embed.0.weight", (s.outputs, d)
    here = "decoder.decoders.0."
    for layer in ("self_attn", "src_attn"):
        yield from _attention(f"{here}{layer}.", d)
    yield from _feed_forward(f"{here}feed_forward.", d, s.hidden)
    for norm in ("norm1", "norm2", "norm3"):
        yield from _norm(f"{here}{norm}", d)
    yield from _norm("decoder.after_norm", d)
    yield from _linear("decoder.output_layer", s.outputs, d)


def _trunk(name: str, s: Sizes, dimensions: int) -> Shapes:
    before = s.channels[0]
    for stage, channels in enumerate(s.channels, start=1):
        for place in (0, 1):
            here = f"{name}layer{stage}.{place}."
            yield f"{here}conv1.weight", (channels, before, *(3,) * dimensions)
            yield from _batch_norm(f"{here}bn1", channels)
            yield f"{here}conv2.weight", (channels, channels, *(3,) * dimensions)
            yield from _batch_norm(f"{here}bn2", channels)
            if stage > 1 and place == 0:
                yield f"{here}downsample.0.weight", (channels, before, *(1,) * dimensions)
                yield from _batch_norm(f"{here}downsample.1", channels)
            before = channels


def _attention(name: str, width: int) -> Shapes:
    for layer in ("q", "k", "v", "out"):
        yield from _linear(f"{name}linear_{layer}", width, width)


def _feed_forward(name: str, width: int, hidden: int) -> Shapes:
    yield from _linear(f"{name}w_1", hidden, width)
    yield from _linear(f"{name}w_2", width, hidden)


def _linear(name: str, outputs: int, inputs: int) -> Shapes:
    yield f"{name}.weight", (outputs, inputs)
    yield f"{name}.bias", (outputs,)


def _norm(name: str, width: int) -> Shapes:
    yield f"{name}.weight", (width,)
    yield f"{name}.bias", (width,)


def _batch_norm(name: str, channels: int) -> Shapes:
    yield from _norm(name, channels)
    yield f"{name}.running_mean", (channels,)
    yield f"{name}.running_var", (channels,)
    yield f"{name}.num_batches_tracked", ()
