"""Auto-AVSR's model once more, written from its specification alone: numpy, float64, one utterance, explicit loops.

It shares no line with `edgeav.models` and works on the names and shapes of the published checkpoints (layout A), so
that what it is compared with has gone through the importer. Slow, and therefore used at small widths.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Weights = dict[str, NDArray[np.float32]]

EPSILON = 1e-12  # of ESPnet's layer norms
BATCH_NORM_EPSILON = 1e-5


@dataclass(frozen=True)
class Sizes:
    """A small model of the teacher's form; no two sizes alike where they could be confused."""

    width: int = 24
    heads: int = 3
    hidden: int = 40
    kernel: int = 7
    blocks: int = 2
    channels: tuple[int, ...] = (8, 9, 10, 11)
    fusion: int = 36
    outputs: int = 13


def teacher(weights: Weights, samples: Array, lips: Array, heads: int) -> Array:
    """(640 N,) normalized samples and (N, H, W) normalized pixels -> (N, V) CTC log-probabilities."""
    sound = encoder(weights, "aux_encoder.", sound_features(weights, "aux_encoder.frontend.trunk.", samples), heads)
    sight = encoder(weights, "encoder.", lip_features(weights, "encoder.frontend.", lips), heads)
    x = linear(weights, "fusion.fc1", np.concatenate([sight, sound], axis=1))  # the video stands first
    x = linear(weights, "fusion.fc2", np.maximum(batch_norm(weights, "fusion.bn1", x.T).T, 0))
    return log_softmax(linear(weights, "ctc.ctc_lo", x))


def encoder(weights: Weights, name: str, features: Array, heads: int) -> Array:
    """(N, C) of a front end -> (N, D)."""
    x = linear(weights, f"{name}embed.0", features)
    x = x * math.sqrt(x.shape[1])
    block = 0
    while f"{name}encoders.{block}.norm_ff.weight" in weights:
        x = conformer_block(weights, f"{name}encoders.{block}.", x, heads)
        block += 1
    return layer_norm(weights, f"{name}after_norm", x)


def conformer_block(weights: Weights, name: str, x: Array, heads: int) -> Array:
    """Gulati et al. 2020, with a ReLU in the feed-forwards, as ESPnet's default has it."""
    x = x + 0.5 * feed_forward(weights, f"{name}feed_forward_macaron", layer_norm(weights, f"{name}norm_ff_macaron", x))
    x = x + attention(weights, f"{name}self_attn.", layer_norm(weights, f"{name}norm_mha", x), heads)
    x = x + convolution_module(weights, f"{name}conv_module.", layer_norm(weights, f"{name}norm_conv", x))
    x = x + 0.5 * feed_forward(weights, f"{name}feed_forward", layer_norm(weights, f"{name}norm_ff", x))
    return layer_norm(weights, f"{name}norm_final", x)


def feed_forward(weights: Weights, name: str, x: Array) -> Array:
    return linear(weights, f"{name}.w_2", np.maximum(linear(weights, f"{name}.w_1", x), 0))


def attention(weights: Weights, name: str, x: Array, heads: int) -> Array:
    """Each pair of steps by itself: score(i, j) = ((q_i + u) k_j + (q_i + v) W r(i - j)) / sqrt(D / heads)."""
    steps, width = x.shape
    q, k, v = (linear(weights, f"{name}linear_{letter}", x).reshape(steps, heads, -1) for letter in "qkv")
    u, w = weights[f"{name}pos_bias_u"].astype(float), weights[f"{name}pos_bias_v"].astype(float)
    out = np.zeros_like(q)
    for i in range(steps):
        scores = np.zeros((heads, steps))
        for j in range(steps):
            r = (weights[f"{name}linear_pos.weight"].astype(float) @ position(i - j, width)).reshape(heads, -1)
            scores[:, j] = ((q[i] + u) * k[j] + (q[i] + w) * r).sum(axis=1) / math.sqrt(width // heads)
        odds = np.exp(scores - scores.max(axis=1, keepdims=True))
        out[i] = np.einsum("hj,jhd->hd", odds / odds.sum(axis=1, keepdims=True), v)
    return linear(weights, f"{name}linear_out", out.reshape(steps, width))


def position(distance: int, width: int) -> Array:
    """(D,): sine and cosine, in turn, of the distance times 10000^(-2 i / D)."""
    angles = distance * 10_000.0 ** (-np.arange(0, width, 2) / width)
    return np.stack([np.sin(angles), np.cos(angles)], axis=1).ravel()


def convolution_module(weights: Weights, name: str, x: Array) -> Array:
    kernel = weights[f"{name}depthwise_conv.weight"].astype(float)[:, 0]  # (D, K)
    content, gate = np.split(linear(weights, f"{name}pointwise_cov1", x), 2, axis=1)
    gated = content / (1 + np.exp(-gate))
    padded = np.pad(gated, ((kernel.shape[1] // 2,) * 2, (0, 0)))
    mixed = np.zeros_like(gated) + weights[f"{name}depthwise_conv.bias"]
    for tap in range(kernel.shape[1]):
        mixed += padded[tap : tap + len(x)] * kernel[:, tap]
    return linear(weights, f"{name}pointwise_cov2", swish(batch_norm(weights, f"{name}norm", mixed.T)).T)


def sound_features(weights: Weights, name: str, samples: Array) -> Array:
    """(640 N,) -> (N, C): 4 samples, then a half three times, then the mean of 20, is one step of 640."""
    x = convolve(samples[None], weights[f"{name}conv1.weight"], stride=4, padding=(38,))
    x = residual_stages(weights, name, swish(batch_norm(weights, f"{name}bn1", x)))
    return x.reshape(x.shape[0], -1, 20).mean(axis=2).T


def lip_features(weights: Weights, name: str, lips: Array) -> Array:
    """(N, H, W) -> (N, C)."""
    x = convolve_frames(lips, weights[f"{name}frontend3D.0.weight"])
    x = swish(batch_norm(weights, f"{name}frontend3D.1", x))  # (C, N, H/2, W/2)
    frames = [residual_stages(weights, f"{name}trunk.", max_pool(x[:, n])).mean(axis=(1, 2)) for n in range(len(lips))]
    return np.stack(frames)


def residual_stages(weights: Weights, name: str, x: Array) -> Array:
    """Two blocks in each of four stages, of which all but the first begin with stride 2."""
    for stage in (1, 2, 3, 4):
        for place in (0, 1):
            x = residual_block(weights, f"{name}layer{stage}.{place}.", x, 2 if stage > 1 and place == 0 else 1)
    return x


def residual_block(weights: Weights, name: str, x: Array, stride: int) -> Array:
    ones, shortcut = (1,) * (x.ndim - 1), x
    y = swish(batch_norm(weights, f"{name}bn1", convolve(x, weights[f"{name}conv1.weight"], stride, ones)))
    y = batch_norm(weights, f"{name}bn2", convolve(y, weights[f"{name}conv2.weight"], 1, ones))
    if f"{name}downsample.0.weight" in weights:
        shortcut = convolve(x, weights[f"{name}downsample.0.weight"], stride, (0,) * (x.ndim - 1))
        shortcut = batch_norm(weights, f"{name}downsample.1", shortcut)
    return swish(y + shortcut)


def convolve(x: Array, weight: NDArray[np.float32], stride: int, padding: tuple[int, ...]) -> Array:
    """(I, …) with (O, I, …) -> (O, …): tap by tap."""
    padded = np.pad(x, ((0, 0), *((p, p) for p in padding)))
    kernel = weight.shape[2:]
    sizes = [(n - k) // stride + 1 for n, k in zip(padded.shape[1:], kernel, strict=True)]
    out = np.zeros((weight.shape[0], *sizes))
    for tap in np.ndindex(*kernel):
        place = tuple(slice(t, t + stride * n, stride) for t, n in zip(tap, sizes, strict=True))
        out += np.tensordot(weight[(slice(None), slice(None), *tap)].astype(float), padded[(slice(None), *place)], 1)
    return out


def convolve_frames(lips: Array, weight: NDArray[np.float32]) -> Array:
    """(N, H, W) with (O, 1, 5, 7, 7) -> (O, N, H/2, W/2): each frame sees two before it and two behind it."""
    padded = np.pad(lips, ((2, 2), (0, 0), (0, 0)))
    frames = []
    for n in range(len(lips)):
        frames.append(sum(convolve(padded[None, n + t], weight[:, :, t], 2, (3, 3)) for t in range(5)))
    return np.stack(frames, axis=1)


def max_pool(x: Array) -> Array:
    """(C, H, W) -> (C, H/2, W/2): the greatest of 3x3 around every second pixel."""
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1)), constant_values=-np.inf)
    height, width = (x.shape[1] + 1) // 2, (x.shape[2] + 1) // 2
    views = [padded[:, i : i + 2 * height : 2, j : j + 2 * width : 2] for i in range(3) for j in range(3)]
    return np.max([view[:, :height, :width] for view in views], axis=0)


def linear(weights: Weights, name: str, x: Array) -> Array:
    weight = weights[f"{name}.weight"].astype(float)
    return x @ weight.reshape(weight.shape[:2]).T + weights[f"{name}.bias"]


def layer_norm(weights: Weights, name: str, x: Array) -> Array:
    centered = x - x.mean(axis=1, keepdims=True)
    scale = np.sqrt((centered**2).mean(axis=1, keepdims=True) + EPSILON)
    return centered / scale * weights[f"{name}.weight"] + weights[f"{name}.bias"]


def batch_norm(weights: Weights, name: str, x: Array) -> Array:
    """(C, …), by the statistics of training."""
    shape = (-1, *(1,) * (x.ndim - 1))
    mean, variance = weights[f"{name}.running_mean"].reshape(shape), weights[f"{name}.running_var"].reshape(shape)
    scaled = (x - mean) / np.sqrt(variance.astype(float) + BATCH_NORM_EPSILON)
    return scaled * weights[f"{name}.weight"].reshape(shape) + weights[f"{name}.bias"].reshape(shape)


def swish(x: Array) -> Array:
    return x / (1 + np.exp(-x))


def log_softmax(x: Array) -> Array:
    shifted = x - x.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
