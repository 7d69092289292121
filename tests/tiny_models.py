"""Small models of every front end and fusion, and clips that begin together and end apart."""

from __future__ import annotations

import torch
from torch import Tensor

from edgeav.models import config as c
from edgeav.runtime.inputs import Features, LogMel, Mouth, Samples

CROP = 24
SLIM = (8, 8, 16, 16)
VIDEO: dict[str, c.VisualFrontend] = {
    "conv3d-dense": c.Conv3dDense(stem_channels=8, channels=(8, 16), strides=(2, 1)),
    "resnet18": c.ResNet18(channels=SLIM),
    "resnet18 halved": c.ResNet18(channels=SLIM, pool=2),
    "space-to-depth": c.SpaceToDepth(channels=(8, 16), strides=(1, 2)),
    "linear": c.LinearPatch(),
    "linear halved": c.LinearPatch(pool=2),
}
AUDIO: dict[str, tuple[c.AudioFrontend, int]] = {  # and the length of its step
    "dw-striding": (c.DwStriding(channels=8), 80),
    "dw-striding at 25 a second": (c.DwStriding(channels=8), 40),
    "conv1d": (c.Conv1d(), 20),
    "resnet1d": (c.ResNet1d(channels=SLIM), 40),
}
FUSION: dict[str, c.Fusion] = {
    "concat-mlp": c.ConcatMlp(hidden=24),
    "concat-mlp with norm": c.ConcatMlp(hidden=24, norm=True),
    "sum": c.Sum(),
    "cross-attention": c.CrossAttention(heads=2, head_width=8, feed_forward=24),
}


def model_config(
    audio: str | None = None,
    video: str | None = None,
    fusion: str = "sum",
    step_ms: int | None = None,
    ranks: dict[str, int] | None = None,
) -> c.ModelConfig:
    """One block of width 16 on the named front ends; the step is `step_ms`, or the audio front end's."""
    ear, clock = AUDIO[audio] if audio else (None, 80)
    sound = None if ear is None else Samples() if ear.kind == "resnet1d" else LogMel(mels=20)
    return c.ModelConfig(
        inputs=Features(step_ms or clock, sound, Mouth(crop=CROP) if video else None),
        width=16,
        audio=ear,
        video=VIDEO[video] if video else None,
        fusion=FUSION[fusion] if audio and video else None,
        blocks=(c.Block(heads=2, head_width=8, feed_forward=24, feed_forward_2=24, conv_channels=16),),
        tokens=("a", "b", "c"),
        ranks=ranks or {},
    )


def padded(rows: list[Tensor]) -> Tensor:
    """Rows (T, …) of different lengths as one (B, T, …), zeros behind the short ones."""
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
