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


class MelSubsampling(nn.Module):
    """(B, 8N, mels) -> (B, N, D)."""

    def __init__(self, config: AudioFrontend, width: int) -> None:
        super().__init__()
        c = config.channels
        layers: list[nn.Module] = [nn.Conv2d(1, c, 3, stride=2, padding=1), nn.ReLU()]
        for _ in range(2):
            layers += [nn.Conv2d(c, c, 3, stride=2, padding=1, groups=c), nn.Conv2d(c, c, 1), nn.ReLU()]
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

    The fast and portable form of the same arithmetic is `Stem2d`; `edgeav.exporters.rewrites` changes one into the other.
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
    """`Stem3d` as a 2-D convolution, exactly: `side` x `side` blocks of pixels and neighbouring frames become channels.

    A 7x7 kernel with stride 4 on 5 frames is then a 2x2 kernel with stride 1 on 4*4*5 = 80 channels, the shape integer
    kernels are made for, at the price of 1.3 times the multiplications (64 taps hold the 49). No runtime here has a fast
    int8 3-D kernel, and stacking the frames alone (49 taps of 5 channels) spent more time on moving bytes than on sums.
    `border` is the number of zero blocks before and after the picture.
    """

    def __init__(self, conv: nn.Conv2d, norm: nn.Module, side: int, border: tuple[int, int]) -> None:
        super().__init__()
        self.conv, self.norm, self.side, self.border = conv, norm, side, border
        self.taps = conv.in_channels // side**2

    def forward(self, video: Tensor) -> Tensor:
        batch, frames, height, width = video.shape
        grid = video.reshape(batch * frames, height // self.side, self.side, width // self.side, self.side)
        blocks = (
            grid.transpose(2, 3).flatten(3).unflatten(0, (batch, frames))
        )  # (B, T, H', W', side*side): channels last
        padded = nn.functional.pad(blocks, (0, 0, *self.border, *self.border, self.taps // 2, self.taps // 2))
        stacked = torch.cat([padded[:, tap : tap + frames] for tap in range(self.taps)], dim=-1).flatten(0, 1)
        return self.norm(self.conv(stacked.permute(0, 3, 1, 2))).relu()  # (B*T, C, H', W')


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
