"""The parts of a model.json: front ends, fusions, blocks, heads, each with its settings and their limits.

To add a front end or a fusion: a class here in its union, and one case where the union is matched
(`models/audio.py`, `models/visual.py`, `models/fusion.py`).
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, ConfigDict, Field, model_validator

from edgeav.spec import Strict

Width = Annotated[int, Field(ge=8, le=16_384)]


def _odd(kernel: int) -> int:
    """An even kernel has no middle: its output would be shifted by half a step and be one step longer."""
    if kernel % 2 == 0:
        raise ValueError(f"must be odd, not {kernel}")
    return kernel


OddKernel = Annotated[int, Field(ge=1, le=63), AfterValidator(_odd)]
Pool = Annotated[int, Field(ge=1, le=4)]
Inner = Annotated[tuple[Width, ...], Field(min_length=8, max_length=8)]
"""Channels between the two convolutions of each block of a ResNet18; where it is null, those of the block's stage."""


class Part(Strict):
    """Read from JSON, which has lists where Python has tuples: hence not strict about that."""

    model_config = ConfigDict(strict=False)


class DwStriding(Part):
    """Log-mel -> width by depthwise-separable 2-D convolutions of stride 2: Fast Conformer (Rekesh et al. 2023)."""

    kind: Literal["dw-striding"] = "dw-striding"
    channels: Width | tuple[Width, ...] = 128
    """Of all layers alike, or one number for each halving of the rate."""

    def widths(self, halvings: int) -> tuple[int, ...]:
        """Channels behind each halving."""
        return (self.channels,) * halvings if isinstance(self.channels, int) else self.channels


class Conv1d(Part):
    """Log-mel -> width by one convolution of kernel 3 over time, stride one step, then ReLU or GELU."""

    kind: Literal["conv1d"] = "conv1d"
    activation: Literal["relu", "gelu"] = "relu"


class ResNet1d(Part):
    """Samples -> width at 25 Hz: a convolution of 80 samples and a 1-D ResNet18 (Petridis et al. 2018)."""

    kind: Literal["resnet1d"] = "resnet1d"
    channels: tuple[Width, Width, Width, Width] = (64, 128, 256, 512)
    inner: Inner | None = None


AudioFrontend = Annotated[DwStriding | Conv1d | ResNet1d, Field(discriminator="kind")]


class DenseConvs(Part):
    """3x3 convolutions with batch norm and ReLU: how wide, and by how much each strides."""

    channels: tuple[Width, ...] = (64, 64, 96, 128)
    strides: tuple[int, ...] = (2, 1, 2, 2)

    @model_validator(mode="after")
    def _one_stride_a_convolution(self) -> DenseConvs:
        if len(self.channels) != len(self.strides):
            raise ValueError(f"channels and strides must be equally long, not {self.channels} and {self.strides}")
        return self


class Conv3dDense(DenseConvs):
    """A 3-D stem, then dense convolutions."""

    kind: Literal["conv3d-dense"] = "conv3d-dense"
    stem_channels: Width = 32
    stem_kernel: tuple[OddKernel, OddKernel, OddKernel] = (5, 7, 7)
    stem_stride: int = 4


class ResNet18(Part):
    """A 3-D stem and ResNet18 with Swish: the teacher's. `pool` 2 averages the pixels 2x2 first: 44 x 44."""

    kind: Literal["resnet18"] = "resnet18"
    channels: tuple[Width, Width, Width, Width] = (64, 128, 256, 512)
    inner: Inner | None = None
    pool: Pool = 1


class SpaceToDepth(DenseConvs):
    """`block` x `block` pixels of 3 neighbouring frames become channels, then dense convolutions. `pool`: see above."""

    kind: Literal["space-to-depth"] = "space-to-depth"
    block: Annotated[int, Field(ge=2, le=16)] = 4
    pool: Pool = 1


class LinearPatch(Part):
    """One linear layer over all pixels of a frame: LP-Conformer (Chang et al. 2023). `pool` averages them first."""

    kind: Literal["linear"] = "linear"
    pool: Pool = 1


VisualFrontend = Annotated[Conv3dDense | ResNet18 | SpaceToDepth | LinearPatch, Field(discriminator="kind")]


class ConcatMlp(Part):
    """Both streams side by side through a hidden layer; `norm`: batch norm in it, as the teacher has."""

    kind: Literal["concat-mlp"] = "concat-mlp"
    hidden: Width = 384
    norm: bool = False


class Sum(Part):
    """The streams added."""

    kind: Literal["sum"] = "sum"


class CrossAttention(Part):
    """Sound asks lips, through gates that start at zero: untrained, it is the audio model (Flamingo, 2022)."""

    kind: Literal["cross-attention"] = "cross-attention"
    heads: Annotated[int, Field(ge=1, le=64)] = 4
    head_width: Annotated[int, Field(ge=4, le=256)] = 48
    feed_forward: Width = 384


Fusion = Annotated[ConcatMlp | Sum | CrossAttention, Field(discriminator="kind")]


class Block(Part):
    """One Conformer block. Every width is its own, so that pruning can change one block and leave the next."""

    heads: Annotated[int, Field(ge=1, le=64)] = 4
    head_width: Annotated[int, Field(ge=4, le=256)] = 48
    feed_forward: Width = 576
    feed_forward_2: Width = 576
    conv_channels: Width = 192
    kernel: OddKernel = 9


class Encoder(Part):
    """What all blocks of a model have in common. The defaults are the Fast Conformer's."""

    activation: Literal["swish", "relu"] = "swish"  # of the feed-forwards; Auto-AVSR's is ReLU
    norm_epsilon: Annotated[float, Field(gt=0, le=1e-2)] = 1e-5  # of every LayerNorm; ESPnet's is 1e-12
    positions: Literal["relative", "none"] = "relative"
    scale_input: bool = False  # times the square root of the width, behind the front ends
    bias: bool = True  # in the linear layers of feed-forward and attention
    conv_bias: bool = True  # in the convolution module
    stream_norm: bool = True  # a LayerNorm at the end of each modality's stream
    window: Annotated[int, Field(ge=1, le=4096)] | None = None  # steps seen to each side; None: all
    global_tokens: Annotated[int, Field(ge=0, le=1)] = 0  # beside `window`: the first step sees all, and all see it


class AttentionDecoder(Part):
    """A Transformer decoder over the encoder's output (Vaswani et al. 2017, pre-norm)."""

    blocks: Annotated[int, Field(ge=1, le=24)] = 6
    heads: Annotated[int, Field(ge=1, le=64)] = 4
    feed_forward: Width = 768
    eos: Annotated[int, Field(ge=0)] | None = None
    """The token that begins and ends a text. None: the blank's output, which no decoder needs for a blank."""
