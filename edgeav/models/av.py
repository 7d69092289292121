"""The audio-visual recognizer: two front ends, one fusion, Conformer blocks, a CTC head.

What is absent is said by `presence`, not guessed from zeros: a learned vector stands in for a missing modality, so one
set of weights serves sound with lips, sound alone and lips alone (modality dropout: Neverova et al. 2016, ModDrop,
https://arxiv.org/abs/1501.00102).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from edgeav.models.config import Fusion, ModelConfig
from edgeav.models.conformer import MASKED, ConformerBlock, position_table
from edgeav.models.frontend import LipFrontend, MelSubsampling


class ConcatMlp(nn.Module):
    """(B, N, D) + (B, N, D) -> (B, N, D), both at 12.5 Hz."""

    def __init__(self, config: Fusion, width: int) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(2 * width, config.hidden), nn.Linear(config.hidden, width)

    def forward(self, sound: Tensor, lips: Tensor) -> Tensor:
        return self.down(self.up(torch.cat([sound, lips], dim=-1)).relu())


class AVModel(nn.Module):
    """(B, 8N, 80) log-mel, (B, 2N, 88, 88) mouth, (B, N, 2) presence -> (B, N, V) log-probabilities, 12.5 a second."""

    positions: Tensor

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.audio = MelSubsampling(config.audio, config.width)
        self.video = LipFrontend(config.video, config.width, config.dropout)
        self.audio_norm, self.video_norm = nn.LayerNorm(config.width), nn.LayerNorm(config.width)
        self.no_audio = nn.Parameter(torch.zeros(config.width))
        self.no_video = nn.Parameter(torch.zeros(config.width))
        self.fusion = ConcatMlp(config.fusion, config.width)
        self.blocks = nn.ModuleList([ConformerBlock(config.width, b, config.dropout) for b in config.blocks])
        self.head = nn.Linear(config.width, config.vocabulary)
        self.register_buffer("positions", position_table(config.max_steps, config.width), persistent=False)

    def forward(self, mel: Tensor, video: Tensor, presence: Tensor) -> Tensor:
        return self.head(self.encode(mel, video, presence)[-1]).log_softmax(dim=-1)

    def encode(self, mel: Tensor, video: Tensor, presence: Tensor) -> list[Tensor]:
        """The (B, N, D) output of every block, after the fused input: [fused, block 1, …, last block]."""
        sound, lips = self.streams(mel, video)
        return self.trunk(sound, lips, presence)

    def streams(self, mel: Tensor, video: Tensor) -> tuple[Tensor, Tensor]:
        """Each modality alone, (B, N, D), before anything is replaced or fused."""
        return self.audio_norm(self.audio(mel)), self.video_norm(self.video(video))

    def trunk(self, sound: Tensor, lips: Tensor, presence: Tensor) -> list[Tensor]:
        has_sound, has_lips = presence[..., :1], presence[..., 1:]
        sound = sound * has_sound + self.no_audio * (1 - has_sound)
        lips = lips * has_lips + self.no_video * (1 - has_lips)
        valid = torch.maximum(has_sound, has_lips)  # (B, N, 1)
        mask = (1 - valid.transpose(1, 2).unsqueeze(1)) * MASKED  # (B, 1, 1, N)
        hidden = [self.fusion(sound, lips) * valid]
        positions = self._positions(hidden[0].shape[1])
        for block in self.blocks:
            hidden.append(block(hidden[-1], positions, valid, mask))
        return hidden

    def _positions(self, steps: int) -> Tensor:
        return self.positions[:, self.config.max_steps - steps : self.config.max_steps + steps - 1]
