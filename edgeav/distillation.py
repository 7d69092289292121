"""What a student learns from a teacher: its posteriors, its texts, what it thinks on the way.

- Posteriors: Hinton et al. 2015 (https://arxiv.org/abs/1503.02531); for CTC Takashima et al. 2018
  (https://doi.org/10.1109/ICASSP.2018.8461995). A CTC teacher is silent in most frames, and a loss over all of them
  teaches silence: frames count by how much the teacher says in them (Hilmes et al. 2025,
  https://arxiv.org/abs/2506.01503, compare ways to do so).
- Tolerance: spikes of two CTC models need not coincide, so a frame of the teacher may be met by the student a little
  earlier or later, wherever that is cheapest (Kurata & Audhkhasi 2018, https://doi.org/10.1109/SLT.2018.8639629; spikes
  guided to one place: Kurata & Audhkhasi 2019, https://arxiv.org/abs/1904.08311).
- Texts: the teacher's n best with their probabilities (Kim & Rush 2016, https://arxiv.org/abs/1606.07947; for CTC Huang
  et al. 2018, https://doi.org/10.21437/Interspeech.2018-1589, and Takashima et al. 2019).
- Thoughts: hidden layers through a learned projection (FitNets, Romero et al. 2015, https://arxiv.org/abs/1412.6550).
- Across modalities: the teacher always hears and sees all there is of a clip, the student what `modalities` leave it
  (Afouras et al. 2020, https://arxiv.org/abs/1911.12747; Ren et al. 2021, https://arxiv.org/abs/2105.14021).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgeav.data.batch import Batch
from edgeav.data.resample import Pooling
from edgeav.losses import CtcTraining, Mixture, weighed
from edgeav.models import AVModel

Hears = Literal["clean", "noisy", "same"]  # the whole clip, that with the student's noise, or what the student is given


@dataclass(frozen=True)
class Teaching:
    """What the teacher says to a batch, at the student's steps; without K or empty where that is not asked for.

    log_probs (B, N, V); texts (B, K, L) padded with 0, their lengths (B, K) and probabilities (B, K), which add up to
    1; hidden: (B, N, D) of each matched block.
    """

    log_probs: Tensor
    texts: Tensor
    text_lengths: Tensor
    text_weights: Tensor
    hidden: tuple[Tensor, ...] = ()


@dataclass(frozen=True)
class Lesson:
    """What the student is given, and what the teacher says to it."""

    batch: Batch
    teaching: Teaching


@dataclass(frozen=True)
class Terms:
    """Weights and settings of the loss; a weight of 0 leaves its term out."""

    ctc: float = 1.0  # of all losses that need no teacher
    kl: float = 1.0
    sequence: float = 0.0
    features: float = 0.0
    temperature: float = 1.0
    blank_weight: float = 0.1  # of a frame that is certainly blank to the teacher; others count 1
    tolerance: int = 0  # steps of the student
    match: tuple[tuple[int, int], ...] = ()  # (block of the student, of the teacher), 0 is the fused input


@dataclass(frozen=True)
class Schooling:
    """Who teaches, from where, what; plain data, a part of a training job."""

    teacher: str  # model folder
    terms: Terms
    posteriors: tuple[str, ...] = ()  # folders of its cached answers, one a source; none: it is asked online
    nbest: int = 4
    pooling: Pooling = "either"
    hears: Hears = "clean"


class DistillationTraining(CtcTraining):
    """The student with its losses, and projections where hidden layers are matched."""

    def __init__(self, model: AVModel, mixture: Mixture, terms: Terms, teacher_width: int) -> None:
        super().__init__(model, mixture)
        self.terms = terms
        pairs = terms.match if terms.features else ()
        self.projections = nn.ModuleList([nn.Linear(model.config.width, teacher_width) for _ in pairs])

    def forward(
        self, lesson: Lesson, frame_weight: float, shares: Mapping[str, float] | None = None
    ) -> dict[str, Tensor]:
        """As CtcTraining's, with "kl", "sequence" and "features"."""
        streams, hidden = self.encoded(lesson.batch)
        losses = self.losses(lesson.batch, streams, hidden) | self._taught(lesson, hidden)
        losses = weighed(losses, shares)
        taught = {"kl": self.terms.kl, "sequence": self.terms.sequence, "features": self.terms.features}
        total = self.terms.ctc * self.total(losses, frame_weight)
        return losses | {"loss": total + sum(weight * losses[name] for name, weight in taught.items() if weight)}

    def counts(self, batch: Lesson) -> dict[str, float]:
        terms, counts = self.terms, super().counts(batch.batch)
        if terms.kl:
            counts["kl"] = float(self._weights(batch).sum())
        if terms.sequence:
            counts["sequence"] = float(len(batch.batch.steps))
        if terms.features:
            counts["features"] = float(self._real(batch.batch).sum())
        return counts

    def _taught(self, lesson: Lesson, hidden: list[Tensor]) -> dict[str, Tensor]:
        terms, teaching, losses = self.terms, lesson.teaching, {}
        real = self._real(lesson.batch)
        logits = self.model.head(hidden[-1]).float()
        if terms.kl:
            log_probs = (logits / terms.temperature).log_softmax(-1)
            teacher = (teaching.log_probs / terms.temperature).log_softmax(-1)
            frames = terms.temperature**2 * frame_kl(teacher, log_probs, real, terms.tolerance)
            losses["kl"] = weighted_mean(frames, self._weights(lesson))
        if terms.sequence:
            losses["sequence"] = sequence_loss(logits, lesson, self.model.config.blank)
        if terms.features:
            pairs = zip(self.projections, terms.match, teaching.hidden, strict=True)
            far = [distance(project(hidden[place]), theirs) for project, (place, _), theirs in pairs]
            losses["features"] = weighted_mean(torch.stack(far).mean(0), real.float())
        return losses

    def _real(self, batch: Batch) -> Tensor:
        """(B, N) bool: the steps of each clip at which the student is given something."""
        within = torch.arange(batch.presence.shape[1], device=batch.steps.device) < batch.steps[:, None]
        return within & (self.model.valid(batch.presence)[..., 0] > 0)

    def _weights(self, lesson: Lesson) -> Tensor:
        """(B, N): how much each frame counts in "kl"."""
        silence = lesson.teaching.log_probs[..., self.model.config.blank].exp()
        return (1 - (1 - self.terms.blank_weight) * silence) * self._real(lesson.batch)


def frame_kl(teacher: Tensor, student: Tensor, real: Tensor, tolerance: int = 0) -> Tensor:
    """Log-probabilities (B, N, V) twice, (B, N) bool -> (B, N): KL(teacher || student) of each frame of the teacher,
    with the cheapest frame of the student at most `tolerance` steps away. 0 where nothing is real."""
    probs, cost = teacher.exp(), torch.full_like(real, torch.inf, dtype=teacher.dtype)
    entropy = torch.xlogy(probs, probs).sum(-1)
    for shift in range(-tolerance, tolerance + 1):
        there = real & moved(real, shift)
        shifted = entropy - (probs * moved(student, shift)).sum(-1)
        cost = torch.minimum(cost, shifted.masked_fill(~there, torch.inf))
    return cost.masked_fill(~real, 0.0)


def moved(x: Tensor, shift: int) -> Tensor:
    """(B, N, …) -> the same with step n + shift at step n; zeros, or False, from outside."""
    count = x.shape[1]
    out = torch.zeros_like(x)
    if abs(shift) < count:
        out[:, max(0, -shift) : count - max(0, shift)] = x[:, max(0, shift) : count + min(0, shift)]
    return out


def sequence_loss(logits: Tensor, lesson: Lesson, blank: int) -> Tensor:
    """(B, N, V) -> mean over clips of the CTC loss per token of the teacher's texts, by their probabilities.

    A text that is too long for the student's steps counts 0.
    """
    teaching, (clips, count) = lesson.teaching, lesson.teaching.text_lengths.shape
    log_probs = logits.log_softmax(-1).repeat_interleave(count, 0).transpose(0, 1)
    lengths = teaching.text_lengths.flatten()
    steps = lesson.batch.steps.repeat_interleave(count)
    texts = teaching.texts.flatten(0, 1)
    costs = F.ctc_loss(log_probs, texts, steps, lengths, blank=blank, reduction="none", zero_infinity=True)
    return (costs / lengths.clamp(min=1) * teaching.text_weights.flatten()).sum() / clips


def distance(ours: Tensor, theirs: Tensor) -> Tensor:
    """(B, N, D) twice -> (B, N): mean square to the teacher's, which is normalized first: blocks differ in loudness."""
    return (ours.float() - F.layer_norm(theirs.float(), theirs.shape[-1:])).square().mean(-1)


def weighted_mean(values: Tensor, weights: Tensor) -> Tensor:
    """(B, N) twice -> a scalar; 0 where all weights are 0."""
    return (values * weights).sum() / weights.sum().clamp(min=1e-9)
