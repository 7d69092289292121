"""What a model is made of, as data: model.json, from which a pruned or factorized model rebuilds."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import ConfigDict, Field, model_validator

from edgeav.spec import Strict

Width = Annotated[int, Field(ge=8, le=4096)]
OddKernel = Annotated[int, Field(ge=1, le=63)]


class Part(Strict):
    """Read from JSON, which has lists where Python has tuples: hence not strict about that."""

    model_config = ConfigDict(strict=False)


class AudioFrontend(Part):
    """Log-mel at 100 Hz -> encoder width at 12.5 Hz."""

    kind: Literal["dw-striding"] = "dw-striding"
    mels: int = 80
    channels: Width = 128


class VisualFrontend(Part):
    """Gray mouth at 25 fps -> encoder width at 12.5 Hz; `channels`, `strides` of the convolutions after the stem."""

    kind: Literal["conv3d-dense"] = "conv3d-dense"
    crop: int = 88
    stem_channels: Width = 32
    stem_kernel: tuple[OddKernel, OddKernel, OddKernel] = (5, 7, 7)
    stem_stride: int = 4
    channels: tuple[Width, ...] = (64, 64, 96, 128)
    strides: tuple[int, ...] = (2, 1, 2, 2)

    @model_validator(mode="after")
    def _one_stride_a_convolution(self) -> VisualFrontend:
        if len(self.channels) != len(self.strides):
            raise ValueError(f"channels and strides must be equally long, not {self.channels} and {self.strides}")
        return self


class Fusion(Part):
    """Two streams at 12.5 Hz -> one."""

    kind: Literal["concat-mlp"] = "concat-mlp"
    hidden: Width = 384


class Block(Part):
    """One Conformer block. Every width is its own, so that pruning can change one block and leave the next."""

    heads: Annotated[int, Field(ge=1, le=64)] = 4
    head_width: Annotated[int, Field(ge=4, le=256)] = 48
    feed_forward: Width = 576
    feed_forward_2: Width = 576
    conv_channels: Width = 192
    kernel: OddKernel = 9


class ModelConfig(Part):
    """An audio-visual encoder with a CTC head; blank is the last of the `len(tokens) + 1` outputs."""

    family: Literal["av-fast-conformer-ctc"] = "av-fast-conformer-ctc"
    width: Width = 192
    audio: AudioFrontend = AudioFrontend()
    video: VisualFrontend = VisualFrontend()
    fusion: Fusion = Fusion()
    blocks: Annotated[tuple[Block, ...], Field(min_length=1, max_length=64)] = (Block(),) * 6
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1
    max_steps: Annotated[int, Field(ge=2, le=4096)] = 200
    tokens: tuple[str, ...] = ()

    @property
    def blank(self) -> int:
        return len(self.tokens)

    @property
    def vocabulary(self) -> int:
        return len(self.tokens) + 1
