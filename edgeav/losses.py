"""What training minimizes: CTC on the text, and on the way there the word spoken in every frame.

CTC: Graves et al. 2006 (https://www.cs.toronto.edu/~graves/icml_2006.pdf). The frame losses look at the middle and the
last block and at each front end alone (cf. intermediate CTC, Lee & Watanabe 2021, https://arxiv.org/abs/2102.03216);
they are faded out, since word times are only roughly right. Without them lips take several times longer to be learned.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgeav.data.batch import NO_LABEL, Batch
from edgeav.models import AVModel

FRAME_WEIGHTS = {"middle": 1.5, "last": 1.0, "sound": 0.5, "lips": 1.0}


class CtcTraining(nn.Module):
    """A model with the auxiliary heads that only training needs."""

    def __init__(self, model: AVModel) -> None:
        super().__init__()
        self.model = model
        assert model.audio is not None
        model.audio.to(memory_format=torch.channels_last)  # twice as fast on CPUs; the numbers are the same
        width, vocabulary = model.config.width, model.config.vocabulary
        self.heads = nn.ModuleDict({name: nn.Linear(width, vocabulary) for name in FRAME_WEIGHTS})

    def forward(self, batch: Batch, frame_weight: float) -> dict[str, Tensor]:
        """The losses, each a scalar; "loss" is the one to minimize."""
        sound, lips = self._streams(batch)
        hidden = self.model.trunk(sound, lips, batch.presence)
        logits = self.model.head(hidden[-1])
        losses = {"ctc": ctc(logits, batch, self.model.config.blank)}
        views = {"middle": hidden[len(hidden) // 2], "last": hidden[-1], "sound": sound, "lips": lips}
        present = {"sound": batch.presence[..., 0] > 0, "lips": batch.presence[..., 1] > 0}
        for name, view in views.items():
            labels = batch.labels
            if name in present:
                labels = labels.masked_fill(~present[name], NO_LABEL)
            losses[name] = frame_cross_entropy(self.heads[name](view), labels)
        frames = sum(weight * losses[name] for name, weight in FRAME_WEIGHTS.items())
        losses["loss"] = losses["ctc"] + frame_weight * frames
        return losses

    def _streams(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """(B, N, D) each; lips are computed only for the rows that have them, they are the dear part."""
        model = self.model
        sound = model.sound(batch.mel, batch.presence)
        seen = model.lips(batch.video, batch.presence[batch.video_rows])
        assert sound is not None and seen is not None
        lips = torch.zeros_like(sound, dtype=seen.dtype).index_copy(0, batch.video_rows, seen)
        return sound, lips


def ctc(logits: Tensor, batch: Batch, blank: int) -> Tensor:
    """(B, N, V) -> the mean negative log-likelihood per target token."""
    log_probs = logits.float().log_softmax(-1).transpose(0, 1)
    return F.ctc_loss(log_probs, batch.targets, batch.steps, batch.target_lengths, blank=blank, zero_infinity=True)


def frame_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """(B, N, V), (B, N) with -1 for unknown -> mean over the known frames, 0 where there is none."""
    if not bool((labels != NO_LABEL).any()):
        return 0.0 * logits.float().sum()
    return F.cross_entropy(logits.float().flatten(0, 1), labels.flatten(), ignore_index=NO_LABEL)
