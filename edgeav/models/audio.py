"""What hears: from log-mel or samples down to the model's steps.

- `dw-striding`: depthwise-separable striding, Fast Conformer (Rekesh et al. 2023, https://arxiv.org/abs/2305.05084).
- `conv1d`: one convolution over log-mel, as in small Conformers.
- `resnet1d`: samples through a 1-D ResNet18 (Petridis et al. 2018, https://arxiv.org/abs/1802.06424), which is
  Auto-AVSR's teacher. Its checkpoints' trunk.conv1 and trunk.bn1 are `stem` and `norm` here, its trunk.layerL.I is
  `layers.{2 (L - 1) + I}`, its projection `linear`.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from edgeav.models import config as c
from edgeav.models.resnet import residual_blocks
from edgeav.runtime.inputs import LogMel

SAMPLES_PER_STEP = 640  # of `resnet1d`: 40 ms at 16 kHz
STEM_RATE = SAMPLES_PER_STEP // 4  # 160 numbers a step behind its first convolution; then 80, 40, 20


def audio_frontend(config: c.ModelConfig) -> nn.Module:
    """The module that `config.audio` names: forward(audio, valid (B, N, 1), frames (B,) or None) -> (B, N, D)."""
    inputs = config.inputs
    match config.audio, inputs.audio:
        case c.DwStriding() as settings, LogMel() as mel:
            return MelSubsampling(settings, mel.mels, inputs.audio_frames, config.width)
        case c.Conv1d() as settings, LogMel() as mel:
            return MelConv(settings, mel.mels, inputs.audio_frames, config.width)
        case c.ResNet1d() as settings, _:
            return SampleResNet(settings, config.width)
    raise ValueError(f"no front end {config.audio} for {inputs.audio}")


class SlimConv2d(nn.Conv2d):
    """A convolution with one input channel a group. Training keeps it in float32 and channels-last: on CPUs that is
    4x faster than bfloat16 (one frame of 14 clips: 45 against 184 ms, forward and backward, 1 thread)."""

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
        if not self.training:
            return super().forward(x)
        with torch.autocast(x.device.type, enabled=False):
            return super().forward(x.float().contiguous(memory_format=torch.channels_last))


class MelSubsampling(nn.Module):
    """(B, 8N, mels) -> (B, N, D), or 4N for a model of 25 steps a second.

    Every convolution has kernel 3, left padding 1 in time and an even number of frames before it, so that no output
    looks past its own step: padding a batch in whole steps changes nothing, and no mask is needed between the layers.
    """

    def __init__(self, settings: c.DwStriding, mels: int, frames_per_step: int, width: int) -> None:
        super().__init__()
        halvings = frames_per_step.bit_length() - 1
        if 2**halvings != frames_per_step:
            raise ValueError(f"dw-striding halves: {frames_per_step} log-mel frames a step are no power of two")
        channels, *widths = settings.widths(halvings)
        layers: list[nn.Module] = [SlimConv2d(1, channels, 3, stride=2, padding=1), nn.ReLU()]
        for outputs in widths:
            layers += [SlimConv2d(channels, channels, 3, stride=2, padding=1, groups=channels)]
            layers += [nn.Conv2d(channels, outputs, 1), nn.ReLU()]
            channels = outputs
        self.layers = nn.Sequential(*layers)
        bands = -(-mels // frames_per_step)  # 80 -> 40 -> 20 -> 10, rounded up
        self.linear = nn.Linear(channels * bands, width)

    def forward(self, mel: Tensor, valid: Tensor, frames: Tensor | None = None) -> Tensor:
        """`frames` (B,): the true number of log-mel frames, where it is not whole steps, as NeMo counts them. The
        layers then see zeros behind it; without it, what the filters make of the zeros inside the last step."""
        x = mel.unsqueeze(1)  # (B, 1, T, mels)
        x = self.layers(x) if frames is None else self._masked(x, frames)
        return self.linear(x.transpose(1, 2).flatten(2))

    def _masked(self, x: Tensor, frames: Tensor) -> Tensor:
        for layer in self.layers:
            if isinstance(layer, nn.Conv2d) and layer.stride[0] == 2:
                x = x * (torch.arange(x.shape[2], device=x.device) < frames[:, None])[:, None, :, None]
                frames = (frames + 1) // 2
            x = layer(x)
        return x


class MelConv(nn.Module):
    """(B, F N, mels) -> (B, N, D) for F frames in a step: kernel 3, stride F, then ReLU or GELU."""

    def __init__(self, settings: c.Conv1d, mels: int, frames_per_step: int, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv1d(mels, width, 3, stride=frames_per_step, padding=1)
        self.activation = nn.ReLU() if settings.activation == "relu" else nn.GELU()

    def forward(self, mel: Tensor, valid: Tensor, frames: Tensor | None = None) -> Tensor:
        """`frames` needs no look: behind the sound `mel` is zero, and there is one layer."""
        return self.activation(self.conv(mel.transpose(1, 2))).transpose(1, 2)


class SampleResNet(nn.Module):
    """(B, 640 N) -> (B, N, D), 25 steps a second.

    A batch norm makes numbers of the zeros in padding and in absent sound. They are zeroed again before every
    convolution, so that a padded row equals the row run alone; for one complete utterance that changes nothing.
    """

    def __init__(self, settings: c.ResNet1d, width: int) -> None:
        super().__init__()
        channels = settings.channels
        self.stem = nn.Conv1d(1, channels[0], 80, stride=4, padding=38, bias=False)
        self.norm = nn.BatchNorm1d(channels[0])
        self.activation = nn.SiLU()
        self.layers = nn.ModuleList(residual_blocks(1, channels, settings.inner))
        self.pool = nn.AvgPool1d(STEM_RATE // 8)
        self.linear = nn.Linear(channels[-1], width)

    def forward(self, samples: Tensor, valid: Tensor, frames: Tensor | None = None) -> Tensor:
        """`frames` is not looked at: samples come in whole steps."""
        x = self.activation(self.norm(self.stem(samples.unsqueeze(1))))  # (B, C, 160 N)
        there = (valid * valid.new_ones(STEM_RATE)).flatten(1).unsqueeze(1)  # (B, 1, 160 N)
        for block in self.layers:
            x = block(x, there)
            there = there[..., :: block.stride]
        return self.linear(self.pool(x).transpose(1, 2))
