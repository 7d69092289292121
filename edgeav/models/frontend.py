"""The two front ends: sound and lips, each from its own rate down to one frame per 80 ms step.

Audio: depthwise-separable striding by 8 (Rekesh et al. 2023, Fast Conformer, https://arxiv.org/abs/2305.05084).
Video: a spatio-temporal stem (Stafylakis & Tzimiropoulos 2017, https://arxiv.org/abs/1703.04105) and dense 3x3
convolutions: depthwise ones have fewer multiplications but are slower on CPUs, in training and in int8 alike.

All strided convolutions have kernel 3 and left padding 1 in time and see an even number of frames, so that no output
looks past its own step: padding a batch changes nothing, and no length mask is needed between the layers.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from edgeav.models.config import AudioFrontend, VisualFrontend


class SlimConv2d(nn.Conv2d):
    """A convolution with one input channel a group. Training keeps it in float32 and channels-last: on CPUs that is
    4x faster than bfloat16 (one frame of 14 clips: 45 against 184 ms, forward and backward, 1 thread)."""

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
        if not self.training:
            return super().forward(x)
        with torch.autocast(x.device.type, enabled=False):
            return super().forward(x.float().contiguous(memory_format=torch.channels_last))


class MelSubsampling(nn.Module):
    """(B, 8N, mels) -> (B, N, D)."""

    def __init__(self, config: AudioFrontend, width: int) -> None:
        super().__init__()
        c = config.channels
        layers: list[nn.Module] = [SlimConv2d(1, c, 3, stride=2, padding=1), nn.ReLU()]
        for _ in range(2):
            layers += [SlimConv2d(c, c, 3, stride=2, padding=1, groups=c), nn.Conv2d(c, c, 1), nn.ReLU()]
        self.layers = nn.Sequential(*layers)
        bands = config.mels
        for _ in range(3):
            bands = (bands + 1) // 2  # 80 -> 40 -> 20 -> 10
        self.linear = nn.Linear(c * bands, width)

    def forward(self, mel: Tensor) -> Tensor:
        x = self.layers(mel.unsqueeze(1))  # (B, C, N, bands)
        return self.linear(x.transpose(1, 2).flatten(2))


class Stem3d(nn.Module):
    """(B, T, H, W) -> (B*T, C, H', W'): 3-D convolution over time and space, normalized and rectified.

    The fast and portable form of it is `Stem2d`; `edgeav.exporters.rewrites` changes one into the other.
    """

    def __init__(self, config: VisualFrontend) -> None:
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
    """(B, 2N, H, W) -> (B, N, D)."""

    def __init__(self, config: VisualFrontend, width: int, dropout: float) -> None:
        super().__init__()
        self.stem: nn.Module = Stem3d(config)
        layers: list[nn.Module] = []
        channels, side = config.stem_channels, -(-config.crop // config.stem_stride)  # 88 -> 22
        for out, stride in zip(config.channels, config.strides, strict=True):
            layers += [nn.Conv2d(channels, out, 3, stride, 1, bias=False), nn.BatchNorm2d(out), nn.ReLU()]
            channels, side = out, -(-side // stride)  # 22 -> 11 -> 11 -> 6 -> 3
        self.convs = nn.Sequential(*layers)
        self.linear = nn.Linear(channels * side * side, width)
        self.dropout = nn.Dropout(dropout)
        self.downsample = nn.Conv1d(width, width, 3, stride=2, padding=1)

    def forward(self, video: Tensor) -> Tensor:
        x = self.convs(self.stem(video))
        x = self.dropout(self.linear(x.flatten(1)).relu())  # (B*2N, D)
        x = x.unflatten(0, (video.shape[0], video.shape[1])).transpose(1, 2)
        return self.downsample(x).transpose(1, 2)
