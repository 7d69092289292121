"""A complete audio-visual model that exports in seconds, and utterances of every kind to run through it."""

from __future__ import annotations

import numpy as np

from edgeav.models import AVModel, ModelConfig, random_model
from edgeav.models.config import Block, ConcatMlp, Conv3dDense, DwStriding
from edgeav.runtime.features import Inputs, empty_inputs
from edgeav.target import Target

TOKENS = ("▁one", "▁two", "▁three", "s", "▁f", "our")
BLOCK = Block(heads=2, head_width=16, feed_forward=96, feed_forward_2=80, conv_channels=40)


def tiny_model(seed: int = 0) -> AVModel:
    """One block, narrow, and no two widths alike."""
    config = ModelConfig(
        width=48,
        audio=DwStriding(channels=16),
        video=Conv3dDense(stem_channels=8, channels=(16, 24), strides=(2, 2)),
        fusion=ConcatMlp(hidden=72),
        blocks=(BLOCK,),
        tokens=TOKENS,
    )
    return random_model(seed, config)


def clip(steps: int, seed: int = 0, sound: bool = True, lips: bool = True, padding: int = 0) -> Inputs:
    """Noise of deviation 1 for `steps` steps, and `padding` empty ones behind it."""
    random = np.random.default_rng(seed)
    inputs = empty_inputs(steps + padding)
    if sound:
        inputs.mel[:, : 8 * steps] = random.standard_normal((1, 8 * steps, 80))
        inputs.presence[:, :steps, 0] = 1
    if lips:
        inputs.video[:, : 2 * steps] = random.standard_normal((1, 2 * steps, 88, 88))
        inputs.presence[:, :steps, 1] = 1
    return inputs


def all_kinds() -> list[Inputs]:
    """Complete, heard only, seen only, padded; the shortest and lengths beyond the export's example."""
    return [
        clip(2, seed=1),
        clip(13, seed=2),
        clip(31, seed=3, lips=False),
        clip(17, seed=4, sound=False),
        clip(20, seed=5, padding=9),
        clip(60, seed=6),
    ]


def calibration() -> list[Inputs]:
    return [clip(20, seed=10), clip(9, seed=11), clip(14, seed=12, lips=False), clip(11, seed=13, sound=False)]


def target(name: str, *overrides: str) -> Target:
    return Target.load(name, overrides)
