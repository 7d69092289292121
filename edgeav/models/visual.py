"""What sees: gray mouths at 25 fps down to the model's steps.

The spatio-temporal stem: Stafylakis & Tzimiropoulos 2017 (https://arxiv.org/abs/1703.04105). Dense 3x3 convolutions
behind it: depthwise ones have fewer multiplications but are slower on CPUs, in training and in int8 alike.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from edgeav.models import config as c


def visual_frontend(config: c.ModelConfig) -> nn.Module:
    """The module that `config.video` names: forward(video) -> (B, N, D)."""
    assert config.inputs.video is not None
    match config.video:
        case c.Conv3dDense() as settings:
            return LipFrontend(settings, config)
        case other:
            raise NotImplementedError(other)


class Stem3d(nn.Module):
    """(B, T, H, W) -> (B*T, C, H', W'): 3-D convolution over time and space, normalized and rectified.

    The fast and portable form of it is `Stem2d`; `edgeav.exporters.rewrites` changes one into the other.
    """

    def __init__(self, config: c.Conv3dDense) -> None:
        super().__init__()
        time, height, width = config.stem_kernel
        stride = (1, config.stem_stride, config.stem_stride)
        padding = (time // 2, height // 2, width // 2)
        self.conv = nn.Conv3d(1, config.stem_channels, config.stem_kernel, stride, padding, bias=False)
        self.norm = nn.BatchNorm3d(config.stem_channels)

    def forward(self, video: Tensor) -> Tensor:
        x = self.norm(self.conv(video.unsqueeze(1))).relu()  # (B, C, T, H', W')
        return x.transpose(1, 2).flatten(0, 1)


class Stem2d(nn.Module):
    """`Stem3d` as a 2-D convolution over neighbouring frames stacked as channels: exact, 1.4x faster in float.

    In int8 it is 10x: ONNX Runtime has no integer kernel for 3-D convolutions, and XNNPACK does not run them at all.
    """

    def __init__(self, conv: nn.Conv2d, norm: nn.Module) -> None:
        super().__init__()
        self.conv, self.norm = conv, norm
        self.taps = conv.in_channels

    def forward(self, video: Tensor) -> Tensor:
        frames = video.shape[1]
        side = video.new_zeros(video.shape[0], self.taps // 2, video.shape[2], video.shape[3])
        padded = torch.cat([side, video, side], dim=1)
        taps = [padded.narrow(1, tap, frames) for tap in range(self.taps)]
        stacked = torch.stack(taps, dim=2).flatten(0, 1)  # (B*T, taps, H, W)
        return self.norm(self.conv(stacked)).relu()


class LipFrontend(nn.Module):
    """(B, 2N, H, W) -> (B, N, D), or N frames for a model of 25 steps a second."""

    def __init__(self, settings: c.Conv3dDense, config: c.ModelConfig) -> None:
        super().__init__()
        assert config.inputs.video is not None
        self.stem: nn.Module = Stem3d(settings)
        layers: list[nn.Module] = []
        channels, side = settings.stem_channels, -(-config.inputs.video.crop // settings.stem_stride)  # 88 -> 22
        for out, stride in zip(settings.channels, settings.strides, strict=True):
            layers += [nn.Conv2d(channels, out, 3, stride, 1, bias=False), nn.BatchNorm2d(out), nn.ReLU()]
            channels, side = out, -(-side // stride)  # 22 -> 11 -> 11 -> 6 -> 3
        self.convs = nn.Sequential(*layers)
        self.linear = nn.Linear(channels * side * side, config.width)
        self.dropout = nn.Dropout(config.dropout)
        self.downsample = Downsample(config.width) if config.inputs.video_frames == 2 else nn.Identity()

    def forward(self, video: Tensor) -> Tensor:
        x = self.convs(self.stem(video))
        x = self.dropout(self.linear(x.flatten(1)).relu())  # (B*2N, D)
        return self.downsample(x.unflatten(0, (video.shape[0], video.shape[1])))


class Downsample(nn.Conv1d):
    """(B, F N, D) -> (B, N, D) for F = 2 pictures in a step. Kernel 3 padded at the left of an even number of frames:
    no output looks past its own step."""

    def __init__(self, width: int) -> None:
        super().__init__(width, width, 3, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.transpose(1, 2)).transpose(1, 2)
