"""A complete audio-visual model that exports in seconds, and utterances of every kind to run through it."""

from __future__ import annotations

import numpy as np

from edgeav.models import AVModel, ModelConfig, random_model
from edgeav.models.config import Block, ConcatMlp, Conv3dDense, DwStriding
from edgeav.quant.learned import calibrated
from edgeav.quant.plan import LayerRanges, Plan
from edgeav.runtime.features import Inputs, empty_inputs
from edgeav.runtime.inputs import Features, LogMel, Mouth
from edgeav.target import Target

TOKENS = ("▁one", "▁two", "▁three", "s", "▁f", "our")
BLOCK = Block(heads=2, head_width=16, feed_forward=96, feed_forward_2=80, conv_channels=40)


OURS = Features()
AUDIO = Features(audio=LogMel(mels=64, window=512, mel_scale="htk", normalize="none", padding="reflect"), video=None)
VIDEO = Features(audio=None, video=Mouth(crop=64, normalize="fixed", mean=0.4, deviation=0.2))
FAST = Features(step_ms=40)
CONFIG = ModelConfig(
    width=48,
    audio=DwStriding(channels=16),
    video=Conv3dDense(stem_channels=8, channels=(16, 24), strides=(2, 2)),
    fusion=ConcatMlp(hidden=72),
    blocks=(BLOCK,),
    tokens=TOKENS,
)


def tiny_model(seed: int = 0) -> AVModel:
    """One block, narrow, and no two widths alike."""
    return random_model(seed, CONFIG)


def tiny_audio_model(seed: int = 0) -> AVModel:
    """Hears only, in features of its own."""
    return random_model(seed, CONFIG.model_copy(update={"inputs": AUDIO, "video": None, "fusion": None}))


def tiny_video_model(seed: int = 0) -> AVModel:
    """Sees only."""
    return random_model(seed, CONFIG.model_copy(update={"inputs": VIDEO, "audio": None, "fusion": None}))


def tiny_25hz_model(seed: int = 0) -> AVModel:
    """Of both modalities, with a step for every picture; its blank is the first output."""
    tokens = ("<blank>", *TOKENS)
    return random_model(seed, CONFIG.model_copy(update={"inputs": FAST, "tokens": tokens, "blank_index": 0}))


def clip(
    steps: int, seed: int = 0, *, sound: bool = True, lips: bool = True, padding: int = 0, features: Features = OURS
) -> Inputs:
    """Noise of deviation 1 for `steps` steps, and `padding` empty ones behind it, of what the model takes."""
    random = np.random.default_rng(seed)
    inputs = empty_inputs(features, steps + padding)
    if sound and features.audio:
        heard = inputs.audio[:, : features.audio_frames * steps]
        heard[:] = random.standard_normal(heard.shape)
        inputs.presence[:, :steps, 0] = 1
    if lips and features.video:
        seen = inputs.video[:, : features.video_frames * steps]
        seen[:] = random.standard_normal(seen.shape)
        inputs.presence[:, :steps, 1] = 1
    return inputs


def all_kinds(features: Features = OURS) -> list[Inputs]:
    """Complete, heard only, seen only, padded; the shortest and lengths beyond the export's example."""
    both = bool(features.audio and features.video)
    return [
        clip(2, seed=1, features=features),
        clip(13, seed=2, features=features),
        clip(31, seed=3, lips=not both, features=features),
        clip(17, seed=4, sound=not both, features=features),
        clip(20, seed=5, padding=9, features=features),
        clip(60, seed=6, features=features),
    ]


def calibration(features: Features = OURS) -> list[Inputs]:
    both = bool(features.audio and features.video)
    return [
        clip(20, seed=10, features=features),
        clip(9, seed=11, features=features),
        clip(14, seed=12, lips=not both, features=features),
        clip(11, seed=13, sound=not both, features=features),
    ]


def target(name: str, *overrides: str) -> Target:
    return Target.load(name, overrides)


def learned_plan(model: AVModel) -> Plan:
    """int8 with ranges that no calibration would find: those of the clips, each stretched by a factor of its own."""
    found = calibrated(model, Plan(), calibration())
    learned = {}
    for number, (path, ranges) in enumerate((found.learned or {}).items()):
        shared = 1.3 if path.startswith("blocks.0.attention.") else 1 + 0.01 * number
        given = ranges.given[0] * shared, ranges.given[1] * shared
        learned[path] = LayerRanges(given=given, put_out=ranges.put_out)
    return found.model_copy(update={"learned": learned})
