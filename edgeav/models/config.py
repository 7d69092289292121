"""What a model is made of, as data: model.json, from which a pruned, factorized or imported model rebuilds.

One family covers what the project compresses: each modality has a front end, blocks of its own (Auto-AVSR's teacher has
12, a Fast Conformer student none), they are fused, more blocks follow, then the heads. A model may lack a modality.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from edgeav.models.parts import (
    AttentionDecoder,
    AudioFrontend,
    Block,
    ConcatMlp,
    Conv1d,
    Conv3dDense,
    CrossAttention,
    DenseConvs,
    DwStriding,
    Encoder,
    Fusion,
    LinearPatch,
    Part,
    ResNet1d,
    ResNet18,
    SpaceToDepth,
    Sum,
    VisualFrontend,
    Width,
)
from edgeav.runtime.inputs import Features

__all__ = [
    "AttentionDecoder",
    "AudioFrontend",
    "Block",
    "ConcatMlp",
    "Conv1d",
    "Conv3dDense",
    "CrossAttention",
    "DenseConvs",
    "DwStriding",
    "Encoder",
    "Fusion",
    "LinearPatch",
    "ModelConfig",
    "ResNet1d",
    "ResNet18",
    "SpaceToDepth",
    "Sum",
    "VisualFrontend",
]


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
    """Factorized layers: path of a linear layer ("blocks.0.feed_forward_1.up") or 2-D convolution -> its rank."""
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
        block = self.video.block * self.video.pool if self.video and self.video.kind == "space-to-depth" else 1
        halvings = self.inputs.audio_frames.bit_length() - 1
        return [
            (
                bool(ear) and (ear == "resnet1d") != (self.inputs.names[0] == "samples"),
                "audio: resnet1d takes inputs.audio of kind samples, every other front end log-mel",
            ),
            (ear == "resnet1d" and clock != 40, f"audio: resnet1d makes steps of 40 ms, not {clock}"),
            (ear == "conv1d" and clock > 30, f"audio: conv1d looks at 30 ms, and would skip some of {clock}"),
            (
                isinstance(self.audio, DwStriding) and len(self.audio.widths(halvings)) != halvings,
                f"audio.channels: one number, or {halvings}: one for each halving of the frames down to the steps",
            ),
            (crop % block > 0, f"video: space-to-depth cannot divide {crop} pixels by {block} (block x pool)"),
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
