"""What sees: gray mouths at 25 fps down to the model's steps.

- `conv3d-dense`: a spatio-temporal stem (Stafylakis & Tzimiropoulos 2017, https://arxiv.org/abs/1703.04105) and dense
  3x3 convolutions: depthwise ones multiply less but are slower on CPUs, in training and in int8 alike.
- `resnet18`: the same stem and ResNet18, which is Auto-AVSR's teacher (Ma et al. 2023,
  https://arxiv.org/abs/2303.14307). Its checkpoints' frontend3D.0 and .1 are `stem.conv` and `stem.norm`, its
  trunk.layerL.I is `convs.{2 L + I - 1}` (behind the max-pool), its projection `linear`.
- `space-to-depth`: neighbouring pixels and frames become channels (Shi et al. 2016, https://arxiv.org/abs/1609.05158,
  backwards), so that the first convolution already runs on many channels of a small picture.
- `linear`: no convolution at all, LP-Conformer (Chang et al. 2023, https://arxiv.org/abs/2302.10915).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from edgeav.models import config as c
from edgeav.models.dropout import Dropout
from edgeav.models.resnet import residual_blocks


def visual_frontend(config: c.ModelConfig) -> LipFrontend:
    """The module that `config.video` names: forward(video) -> (B, N, D)."""
    assert config.inputs.video is not None
    side = config.inputs.video.crop
    match config.video:
        case c.Conv3dDense() as settings:
            stem = Stem3d(settings.stem_channels, settings.stem_kernel, settings.stem_stride, nn.ReLU())
            layers = dense_convs(settings, settings.stem_channels)
            side = _strided(side, settings.stem_stride, *settings.strides)  # 88 -> 22 -> 11 -> 11 -> 6 -> 3
            return LipFrontend(config, stem, layers, settings.channels[-1] * side**2)
        case c.ResNet18() as settings:
            stem = Stem3d(settings.channels[0], (5, 7, 7), 2, nn.SiLU(), Shrink(settings.pool))
            side = _strided(side // settings.pool, 2, 2, 2, 2, 2)  # 88 -> 44 -> 22 -> 11 -> 6 -> 3
            layers = [nn.MaxPool2d(3, 2, 1), *residual_blocks(2, settings.channels, settings.inner), nn.AvgPool2d(side)]
            return LipFrontend(config, stem, layers, settings.channels[-1], rectify=False)
        case c.SpaceToDepth() as settings:
            layers = dense_convs(settings, SpaceToDepth.FRAMES * settings.block**2)
            side = _strided(side // settings.pool, settings.block, *settings.strides)
            stem = SpaceToDepth(settings.block, Shrink(settings.pool))
            return LipFrontend(config, stem, layers, settings.channels[-1] * side**2)
        case c.LinearPatch() as settings:
            side = side // settings.pool
            return LipFrontend(config, Frames(Shrink(settings.pool)), [], side**2, rectify=False)
    raise ValueError("a model without video has no visual front end")


class LipFrontend(nn.Module):
    """(B, 2N, H, W) -> (B, N, D), or N frames for a model of 25 steps a second.

    `stem` (B, T, H, W) -> (B*T, C, H', W'), `layers` on single frames, then one linear layer over their `features`
    numbers, with a ReLU behind it if `rectify` (the teacher's projection and LP-Conformer's have none).
    """

    def __init__(
        self, config: c.ModelConfig, stem: nn.Module, layers: list[nn.Module], features: int, *, rectify: bool = True
    ) -> None:
        super().__init__()
        self.stem, self.convs, self.rectify = stem, nn.Sequential(*layers), rectify
        self.linear = nn.Linear(features, config.width)
        self.dropout = Dropout(config.dropout)
        self.downsample = Downsample(config.width) if config.inputs.video_frames == 2 else nn.Identity()

    def forward(self, video: Tensor, within: Tensor | None = None) -> Tensor:
        """`within` (B, T): the frames of each clip; those that only pad it are left out of the work."""
        x = self.stem(video)
        if within is None:
            x = self._single(x)
        else:
            there = within.flatten().nonzero()[:, 0]
            some = self._single(x[there])
            x = some.new_zeros(len(x), some.shape[1]).index_copy(0, there, some)
        return self.downsample(x.unflatten(0, (video.shape[0], video.shape[1])))

    def _single(self, frames: Tensor) -> Tensor:
        """(B*T, C, H, W) -> (B*T, D), each frame by itself."""
        x = self.linear(self.convs(frames).flatten(1))
        return self.dropout(x.relu() if self.rectify else x)


class Stem3d(nn.Module):
    """(B, T, H, W) -> (B*T, C, H', W'): 3-D convolution over time and space, normalized and activated.

    The fast and portable form of it is `Stem2d`; `edgeav.exporters.rewrites` changes one into the other.
    """

    def __init__(
        self,
        channels: int,
        kernel: tuple[int, int, int],
        stride: int,
        activation: nn.Module,
        shrink: nn.Module | None = None,
    ) -> None:
        super().__init__()
        time, height, width = kernel
        padding = (time // 2, height // 2, width // 2)
        self.shrink = shrink or nn.Identity()
        self.conv = nn.Conv3d(1, channels, kernel, (1, stride, stride), padding, bias=False)
        self.norm, self.activation = PictureNorm(channels), activation

    def forward(self, video: Tensor) -> Tensor:
        x = self.conv(self.shrink(video).unsqueeze(1)).transpose(1, 2).flatten(0, 1)  # (B*T, C, H', W')
        if self.training:  # all that follows takes half the time on CPUs
            x = x.contiguous(memory_format=torch.channels_last)
        return self.activation(self.norm(x))


class PictureNorm(nn.BatchNorm3d):
    """The norm of a convolution over time and space, whose pictures it is given one by one: (B*T, C, H, W)."""

    def _check_input_dim(self, input: Tensor) -> None:
        if input.dim() != 4:
            raise ValueError(f"expected (B*T, C, H, W), got {tuple(input.shape)}")


class Stem2d(nn.Module):
    """`Stem3d` as a 2-D convolution over neighbouring frames stacked as channels: exact, 1.4x faster in float.

    In int8 it is 10x: ONNX Runtime has no integer kernel for 3-D convolutions, and XNNPACK does not run them at all.
    """

    def __init__(self, conv: nn.Conv2d, norm: nn.Module, activation: nn.Module, shrink: nn.Module) -> None:
        super().__init__()
        self.shrink, self.conv, self.norm, self.activation = shrink, conv, norm, activation
        self.taps = conv.in_channels

    def forward(self, video: Tensor) -> Tensor:
        stacked = _neighbours(self.shrink(video), self.taps).flatten(0, 1)  # (B*T, taps, H, W)
        return self.activation(self.norm(self.conv(stacked)))


class StemByFrames(nn.Module):
    """`Stem2d` with time where a batch is, for batch 1, as in an exported graph. As exact.

    Frames are cut out between constant ends, which needs no arithmetic on shapes.
    """

    def __init__(self, conv: nn.Conv2d, activation: nn.Module, shrink: nn.Module) -> None:
        super().__init__()
        self.shrink, self.conv, self.activation = shrink, conv, activation
        self.taps = conv.in_channels

    def forward(self, video: Tensor) -> Tensor:
        frames = self.shrink(video).flatten(0, 1).unsqueeze(1)  # (T, 1, H, W)
        padded = nn.functional.pad(frames, (0, 0, 0, 0, 0, 0, self.taps // 2, self.taps // 2))
        stacked = torch.cat([padded[tap : tap - self.taps + 1 or None] for tap in range(self.taps)], dim=1)
        return self.activation(self.conv(stacked))


class StemByRows(nn.Module):
    """`Stem2d` turned: the rows under a kernel are stacked as channels, time is a side of the picture. As exact.

    Rows overlap less than frames do (7 of them in steps of 4: 1.75 copies of the pictures, against 5), which counts
    where an engine keeps every copy. For batch 1, as in an exported graph.
    """

    def __init__(self, conv: nn.Conv2d, stride: int, padding: int, activation: nn.Module, shrink: nn.Module) -> None:
        """`conv` is over (time, width), a channel for each row under the kernel, which `stride` and `padding` move."""
        super().__init__()
        self.shrink, self.conv, self.activation = shrink, conv, activation
        self.stride, self.padding = stride, padding

    def forward(self, video: Tensor) -> Tensor:
        rows = self.shrink(video).flatten(0, 1).transpose(0, 1)  # (H, T, W)
        rows = nn.functional.pad(rows, (0, 0, 0, 0, self.padding, self.padding))
        stacked = rows.unfold(0, self.conv.in_channels, self.stride).permute(0, 3, 1, 2)  # (H', h, T, W)
        return self.activation(self.conv(stacked)).transpose(0, 2)  # (H', C, T, W') -> (T, C, H', W')


class StemByBlocks(nn.Module):
    """`Stem2d` of pictures cut into blocks as large as its stride, whose pixels in every frame are channels. As exact.

    The kernel becomes 2x2 over 80 channels instead of 7x7 over 5. An engine that copies what lies under the kernel
    before it multiplies then copies runs of 160 numbers, not of 35. For batch 1, as in an exported graph.
    """

    def __init__(
        self, conv: nn.Conv2d, taps: int, kernel: int, padding: int, activation: nn.Module, shrink: nn.Module
    ) -> None:
        """`conv` is over blocks, its channels are (frame, row, column); `kernel` and `padding` are those in pixels."""
        super().__init__()
        self.shrink, self.conv, self.activation = shrink, conv, activation
        self.taps, self.kernel, self.padding = taps, kernel, padding
        self.block = round((conv.in_channels / taps) ** 0.5)

    def forward(self, video: Tensor) -> Tensor:
        frames = self.shrink(video).flatten(0, 1)
        sides = [self._padding(side) for side in (frames.shape[2], frames.shape[1])]
        padded = nn.functional.pad(frames, (*sides[0], *sides[1], self.taps // 2, self.taps // 2))
        blocks = padded.unflatten(2, (-1, self.block)).unflatten(1, (-1, self.block)).transpose(2, 3).flatten(3)
        stacked = torch.cat([blocks.narrow(0, tap, frames.shape[0]) for tap in range(self.taps)], dim=3)
        return self.activation(self.conv(stacked.permute(0, 3, 1, 2)))

    def _padding(self, side: int) -> tuple[int, int]:
        """Before and behind a picture's side, so that it ends with the last block that is needed; may cut some off."""
        outputs = (side + 2 * self.padding - self.kernel) // self.block + 1
        return self.padding, (outputs - 1 + self.conv.kernel_size[0]) * self.block - side - self.padding


class SpaceToDepth(nn.Module):
    """(B, T, H, W) -> (B*T, 3 b^2, H/b, W/b): the `block` x `block` pixels of a frame and its neighbours as channels.

    By reshape and permute, which every engine has; pixel_unshuffle is not one operator everywhere.
    """

    FRAMES = 3  # t-1, t, t+1

    def __init__(self, block: int, shrink: Shrink | None = None) -> None:
        super().__init__()
        self.block, self.shrink = block, shrink or Shrink(1)

    def forward(self, video: Tensor) -> Tensor:
        pixels = self.pixels(video).unflatten(0, (video.shape[0], video.shape[1]))
        return _neighbours(pixels, self.FRAMES).flatten(2, 3).flatten(0, 1)

    def pixels(self, video: Tensor) -> Tensor:
        """(B, T, H, W) -> (B*T, b^2, H/b, W/b)"""
        video = self.shrink(video)
        b, (height, width) = self.block, video.shape[2:]
        blocks = video.flatten(0, 1).reshape(-1, height // b, b, width // b, b)
        return blocks.permute(0, 2, 4, 1, 3).flatten(1, 2)


class SpaceToDepthByConv(SpaceToDepth):
    """`SpaceToDepth` whose pixels are shrunk and sorted by one convolution as large as a block, with constant weights.

    A fifth of the time on ONNX Runtime (0.30 ms for 4 s instead of 1.58), whose pooling and transposition go number by
    number. As exact.
    """

    def __init__(self, stem: SpaceToDepth) -> None:
        super().__init__(stem.block)
        pool = stem.shrink.pool
        rows = torch.eye(self.block).repeat_interleave(pool, dim=1) / pool  # (b, k): the mean of `pool` pixels
        side = rows.shape[1]
        self.gather = nn.Conv2d(1, self.block**2, side, side, bias=False)
        weight = torch.einsum("ih,jw->ijhw", rows, rows).reshape(self.gather.weight.shape)
        self.gather.weight = nn.Parameter(weight, requires_grad=False)

    def pixels(self, video: Tensor) -> Tensor:
        return self.gather(video.flatten(0, 1).unsqueeze(1))


class Frames(nn.Module):
    """(B, T, H, W) -> (B*T, 1, H', W'): every frame by itself, its pixels averaged first."""

    def __init__(self, shrink: nn.Module) -> None:
        super().__init__()
        self.shrink = shrink

    def forward(self, video: Tensor) -> Tensor:
        return self.shrink(video).flatten(0, 1).unsqueeze(1)


class Shrink(nn.Module):
    """(B, T, H, W) -> (B, T, H/pool, W/pool), the mean of pool x pool pixels."""

    def __init__(self, pool: int) -> None:
        super().__init__()
        self.pool = pool

    def forward(self, video: Tensor) -> Tensor:
        return video if self.pool == 1 else nn.functional.avg_pool2d(video, self.pool)


class Downsample(nn.Conv1d):
    """(B, F N, D) -> (B, N, D) for F = 2 pictures in a step. Kernel 3 padded at the left of an even number of frames:
    no output looks past its own step."""

    def __init__(self, width: int) -> None:
        super().__init__(width, width, 3, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.transpose(1, 2)).transpose(1, 2)


def dense_convs(settings: c.DenseConvs, inputs: int) -> list[nn.Module]:
    """3x3 convolution, batch norm, ReLU for each of `settings.channels`."""
    layers: list[nn.Module] = []
    for outputs, stride in zip(settings.channels, settings.strides, strict=True):
        layers += [nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]
        inputs = outputs
    return layers


def _neighbours(frames: Tensor, taps: int) -> Tensor:
    """(B, T, …) -> (B, T, taps, …): each frame between those before and after it, zeros outside of the clip."""
    side = frames.new_zeros(frames.shape[0], taps // 2, *frames.shape[2:])
    padded = torch.cat([side, frames, side], dim=1)
    return torch.stack([padded.narrow(1, tap, frames.shape[1]) for tap in range(taps)], dim=2)


def _strided(side: int, *strides: int) -> int:
    """The side of a picture behind these strides, each rounding up."""
    for stride in strides:
        side = -(-side // stride)
    return side
