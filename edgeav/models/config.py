"""What a model is made of, as data: model.json, from which a pruned, factorized or imported model rebuilds.

One family covers what the project compresses: each modality has a front end, blocks of its own (Auto-AVSR's teacher has
12, a Fast Conformer student none), they are fused, more blocks follow, then the heads. A model may lack a modality.

To add a front end or a fusion: a class here in its union, and one case where the union is matched
(`models/audio.py`, `models/visual.py`, `models/fusion.py`).
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import ConfigDict, Field, model_validator

from edgeav.runtime.inputs import Features
from edgeav.spec import Strict

Width = Annotated[int, Field(ge=8, le=16_384)]
OddKernel = Annotated[int, Field(ge=1, le=63, multiple_of=1)]
Pool = Annotated[int, Field(ge=1, le=4)]


class Part(Strict):
    """Read from JSON, which has lists where Python has tuples: hence not strict about that."""

    model_config = ConfigDict(strict=False)


class DwStriding(Part):
    """Log-mel -> width by depthwise-separable 2-D convolutions of stride 2: Fast Conformer (Rekesh et al. 2023)."""

    kind: Literal["dw-striding"] = "dw-striding"
    channels: Width = 128


class Conv1d(Part):
    """Log-mel -> width by one convolution of kernel 3 over time, stride one step, then ReLU or GELU."""

    kind: Literal["conv1d"] = "conv1d"
    activation: Literal["relu", "gelu"] = "relu"


class ResNet1d(Part):
    """Samples -> width at 25 Hz: a convolution of 80 samples and a 1-D ResNet18 (Petridis et al. 2018)."""

    kind: Literal["resnet1d"] = "resnet1d"
    channels: tuple[Width, Width, Width, Width] = (64, 128, 256, 512)


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
    pool: Pool = 1


class SpaceToDepth(DenseConvs):
    """`block` x `block` pixels of 3 neighbouring frames become channels, then dense convolutions."""

    kind: Literal["space-to-depth"] = "space-to-depth"
    block: Annotated[int, Field(ge=2, le=16)] = 4


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


class ModelConfig(Part):
    """An encoder of sound, lips or both, with a CTC head and, if asked, an attention decoder."""

    family: Literal["av-conformer"] = "av-conformer"
    inputs: Features = Features()
    width: Width = 192
    audio: AudioFrontend | None = DwStriding()
    video: VisualFrontend | None = Conv3dDense()
    audio_blocks: Annotated[tuple[Block, ...], Field(max_length=64)] = ()
    video_blocks: Annotated[tuple[Block, ...], Field(max_length=64)] = ()
    fusion: Fusion | None = ConcatMlp()
    blocks: Annotated[tuple[Block, ...], Field(max_length=64)] = (Block(),) * 6
    encoder: Encoder = Encoder()
    missing: Literal["learned", "zeros"] = "learned"
    """What stands in for an absent modality before the fusion: a vector of its own, or zeros."""
    inter_ctc: tuple[Annotated[int, Field(ge=1)], ...] = ()
    """Blocks (1 is the first of `blocks`) behind which the CTC head is applied too, in training."""
    decoder: AttentionDecoder | None = None
    ranks: dict[str, Annotated[int, Field(ge=1)]] = Field(default_factory=dict)
    """Factorized layers: path of a linear layer ("blocks.0.feed_forward_1.up") -> its rank."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1
    max_steps: Annotated[int, Field(ge=2, le=4096)] = 200
    tokens: tuple[str, ...] = ()
    blank_index: Annotated[int, Field(ge=0)] | None = None
    """None: the blank is the output after the last token. A number: that one of `tokens` stands for the blank."""

    @model_validator(mode="after")
    def _fits_together(self) -> ModelConfig:
        wrong = [text for broken, text in self._problems() if broken]
        if wrong:
            raise ValueError("; ".join(wrong))
        return self

    def _problems(self) -> list[tuple[bool, str]]:
        """(whether it is so, what to say) for each way in which parts can contradict each other."""
        hears, sees, clock = self.inputs.audio is not None, self.inputs.video is not None, self.inputs.step_ms
        return [
            (not (hears or sees), "inputs: a model needs audio, video or both"),
            (hears != (self.audio is not None), "audio and inputs.audio must both be there, or both be null"),
            (sees != (self.video is not None), "video and inputs.video must both be there, or both be null"),
            ((hears and sees) != (self.fusion is not None), "fusion is for two modalities, and needed for two"),
            (bool(self.audio_blocks) and not hears, "audio_blocks need audio"),
            (bool(self.video_blocks) and not sees, "video_blocks need video"),
            (not self.blocks + self.audio_blocks + self.video_blocks, "a model needs at least one block"),
            (sees and clock not in (40, 80), f"inputs.step_ms: {clock} does not fit video at 25 fps; 40 or 80 do"),
            (hears and self.inputs.audio_frames < 1, f"inputs.step_ms: {clock} is shorter than one frame of audio"),
            (hears and clock % 10 != 0, f"inputs.step_ms: {clock} must be a multiple of 10"),
            (
                self.encoder.global_tokens > 0 and self.encoder.window is None,
                "encoder.global_tokens need encoder.window",
            ),
            (
                self.encoder.window is not None and self.encoder.positions == "none",
                "encoder.window needs encoder.positions: relative",
            ),
            (
                any(place >= max(1, len(self.blocks)) for place in self.inter_ctc),
                f"inter_ctc: {self.inter_ctc} must be blocks before the last of {len(self.blocks)}",
            ),
            (
                self.blank_index is not None and self.blank_index >= max(1, len(self.tokens)),
                f"blank_index: {self.blank_index} is not one of {len(self.tokens)} tokens",
            ),
            (self.eos >= self.vocabulary, f"decoder.eos: {self.eos} is not one of {self.vocabulary} outputs"),
            (
                self.decoder is not None and self.width % self.decoder.heads > 0,
                f"decoder.heads must divide the width {self.width}",
            ),
            *self._misfits(),
        ]

    def _misfits(self) -> list[tuple[bool, str]]:
        """The same for a front end and what it is fed."""
        ear, clock = self.audio.kind if self.audio else "", self.inputs.step_ms
        crop = self.inputs.video.crop if self.inputs.video else 0
        block = self.video.block if self.video and self.video.kind == "space-to-depth" else 1
        return [
            (
                bool(ear) and (ear == "resnet1d") != (self.inputs.names[0] == "samples"),
                "audio: resnet1d takes inputs.audio of kind samples, every other front end log-mel",
            ),
            (ear == "resnet1d" and clock != 40, f"audio: resnet1d makes steps of 40 ms, not {clock}"),
            (ear == "conv1d" and clock > 30, f"audio: conv1d looks at 30 ms, and would skip some of {clock}"),
            (crop % block > 0, f"video: space-to-depth cannot divide {crop} pixels by {block}"),
        ]

    @property
    def blank(self) -> int:
        return len(self.tokens) if self.blank_index is None else self.blank_index

    @property
    def vocabulary(self) -> int:
        return len(self.tokens) + (self.blank_index is None)

    @property
    def eos(self) -> int:
        """What begins and ends a text for the attention decoder."""
        return self.blank if self.decoder is None or self.decoder.eos is None else self.decoder.eos
