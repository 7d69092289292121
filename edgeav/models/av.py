"""The recognizer: front ends, blocks of each modality, one fusion, common blocks, a CTC head.

What is absent is said by `presence`, not guessed from zeros: something stands in for a missing modality, so one set of
weights serves sound with lips, sound alone and lips alone (modality dropout: Neverova et al. 2016, ModDrop,
https://arxiv.org/abs/1501.00102). Where something is absent, its input is zero.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from edgeav.models.audio import audio_frontend
from edgeav.models.config import Block, ModelConfig
from edgeav.models.conformer import ConformerBlock, attention_mask, position_table
from edgeav.models.decoder import TextDecoder
from edgeav.models.fusion import fusion
from edgeav.models.low_rank import factorize
from edgeav.models.visual import visual_frontend


class AVModel(nn.Module):
    """Sound (B, 8N, 80) log-mel, mouth (B, 2N, 88, 88), presence (B, N, 2) -> (B, N, V) log-probabilities.

    Frames in a step and their size are `config.inputs`'; the input of a modality that the model lacks is not looked at.
    """

    positions: Tensor
    one_clip = False
    """Only clips one by one, in evaluation: what follows the front ends goes without the axis B. See
    `edgeav.exporters.rewrites.by_clip`."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        width, learned = config.width, config.missing == "learned" and config.fusion is not None
        self.audio = audio_frontend(config) if config.audio else None
        self.video = visual_frontend(config) if config.video else None
        self.audio_blocks, self.video_blocks = self._blocks(config.audio_blocks), self._blocks(config.video_blocks)
        self.audio_norm = self._stream_norm() if config.audio else None
        self.video_norm = self._stream_norm() if config.video else None
        self.no_audio = nn.Parameter(torch.zeros(width)) if learned else None
        self.no_video = nn.Parameter(torch.zeros(width)) if learned else None
        self.fusion = fusion(config) if config.fusion else None
        self.blocks = self._blocks(config.blocks)
        self.head = nn.Linear(width, config.vocabulary)
        self.decoder = TextDecoder(config) if config.decoder else None
        self.register_buffer("positions", position_table(self._reach() + 1, width), persistent=False)
        factorize(self, config.ranks)

    def forward(self, audio: Tensor, video: Tensor, presence: Tensor, frames: Tensor | None = None) -> Tensor:
        """`frames` (B,): see `MelSubsampling.forward`."""
        log_probs = self.head(self.encode(audio, video, presence, frames)[-1]).log_softmax(dim=-1)
        return log_probs.unsqueeze(0) if self.one_clip else log_probs

    def encode(self, audio: Tensor, video: Tensor, presence: Tensor, frames: Tensor | None = None) -> list[Tensor]:
        """The (B, N, D) output of every common block, after the fused input: [fused, block 1, …, last block]."""
        return self.trunk(*self.streams(audio, video, presence, frames), self._clip(presence))

    def streams(
        self, audio: Tensor, video: Tensor, presence: Tensor, frames: Tensor | None = None
    ) -> tuple[Tensor | None, Tensor | None]:
        """Each modality alone, (B, N, D), before anything is replaced or fused; None for one the model lacks."""
        return self.sound(audio, presence, frames), self.lips(video, presence)

    def sound(self, audio: Tensor, presence: Tensor, frames: Tensor | None = None) -> Tensor | None:
        """(B, N, D) from sound alone."""
        if self.audio is None or self.audio_norm is None:
            return None
        heard = presence[..., :1]
        x = self._scaled(self._clip(self.audio(audio, heard, frames)))
        return self.audio_norm(self._through(self.audio_blocks, x, self._clip(heard))[-1])

    def lips(self, video: Tensor, presence: Tensor) -> Tensor | None:
        """(B, N, D) from lips alone."""
        if self.video is None or self.video_norm is None:
            return None
        x = self._scaled(self._clip(self.video(video, self._until_last(presence[..., 1]))))
        return self.video_norm(self._through(self.video_blocks, x, self._clip(presence[..., 1:]))[-1])

    def _clip(self, x: Tensor) -> Tensor:
        """(1, N, …) -> (N, …) where clips come one by one."""
        return x.squeeze(0) if self.one_clip else x

    def _until_last(self, seen: Tensor) -> Tensor | None:
        """(B, N) -> (B, T): the frames up to the last that is seen. In training alone, whose batches are padded."""
        if not self.training or not seen.any():
            return None
        followed = seen.flip(1).cummax(dim=1).values.flip(1)
        return followed.repeat_interleave(self.config.inputs.video_frames, dim=1)

    def trunk(self, sound: Tensor | None, lips: Tensor | None, presence: Tensor) -> list[Tensor]:
        """[fused, block 1, …, last block], each (B, N, D)."""
        heard, seen, valid = presence[..., :1], presence[..., 1:], self.valid(presence)
        if sound is not None and lips is not None:
            assert self.fusion is not None
            fused = self.fusion(_or(sound, heard, self.no_audio), _or(lips, seen, self.no_video), presence)
        else:
            fused = sound if lips is None else lips
            assert fused is not None
        return self._through(self.blocks, fused * valid, valid)

    def valid(self, presence: Tensor) -> Tensor:
        """(B, N, 2) -> (B, N, 1): 1 at the steps at which the model hears or sees something."""
        heard, seen = presence[..., :1], presence[..., 1:]
        if self.audio is not None and self.video is not None:
            return torch.maximum(heard, seen)
        return heard if self.video is None else seen

    def _through(self, blocks: nn.ModuleList, x: Tensor, valid: Tensor) -> list[Tensor]:
        """[x, after block 1, …, after the last]."""
        hidden = [x]
        if len(blocks):
            mask, positions = attention_mask(valid), self._positions(x.shape[-2])
            for block in blocks:
                hidden.append(block(hidden[-1], positions, valid, mask))
        return hidden

    def _positions(self, steps: int) -> Tensor:
        """The rows of the table that `steps` steps need; local attention needs the same ones for any length."""
        reach = self.config.encoder.window or steps - 1
        center = self.positions.shape[-2] // 2
        return self.positions[..., center - reach : center + reach + 1, :]

    def _reach(self) -> int:
        """The greatest distance between two steps that attend to each other."""
        return self.config.encoder.window or self.config.max_steps - 1

    def _scaled(self, x: Tensor) -> Tensor:
        return x * math.sqrt(self.config.width) if self.config.encoder.scale_input else x

    def _blocks(self, blocks: tuple[Block, ...]) -> nn.ModuleList:
        config = self.config
        return nn.ModuleList([ConformerBlock(config.width, block, config.encoder, config.dropout) for block in blocks])

    def _stream_norm(self) -> nn.Module:
        encoder = self.config.encoder
        return nn.LayerNorm(self.config.width, encoder.norm_epsilon) if encoder.stream_norm else nn.Identity()


def convolutions_last(model: AVModel) -> None:
    """Put the front ends' convolutions into channels-last memory: faster on CPUs, the numbers are the same."""
    for convolutions in (model.audio, model.video.convs if model.video is not None else None):
        if convolutions is not None:
            convolutions.to(memory_format=torch.channels_last)


def _or(stream: Tensor, there: Tensor, instead: Tensor | None) -> Tensor:
    """`stream` where it is there, elsewhere `instead` (None: zeros)."""
    kept = stream * there
    return kept if instead is None else kept + instead * (1 - there)
