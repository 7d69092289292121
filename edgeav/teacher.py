"""The teacher in the classroom: each batch of the student, with what the teacher says to the same clips.

The teacher has the whole clip, sound and lips, without a moving camera; the student what chance leaves it. A teacher
that is to be copied exactly, as in quantization-aware training, is given the same.
Asked online, it hears each clip at the student's tempo; from the cache there is only the clip as it lies on the disk.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, Protocol

import torch
from torch import Tensor

from edgeav.beam import ctc_beam_search
from edgeav.data.batch import Batch, Batches, Take, padded
from edgeav.data.cache import DecodedClips
from edgeav.data.corpus import Media
from edgeav.data.disturbance import Disturbance
from edgeav.data.posteriors import Nbest, Origin, Posteriors, cache_posteriors, clips_hash
from edgeav.data.resample import Pooling, fitted, pool, ratio
from edgeav.distillation import Hears, Lesson, Schooling, Teaching
from edgeav.errors import EdgeavError
from edgeav.models import AVModel, ModelConfig, load_model
from edgeav.models.av import convolutions_last
from edgeav.progress import Progress
from edgeav.run import digest, model_hash
from edgeav.runtime.features import Inputs, model_inputs
from edgeav.spec import load

Precision = Literal["bf16", "fp32"]
TOGETHER = 8  # clips that it is asked about at once; of more, too much is padding


@dataclass(frozen=True)
class Answer:
    """To one clip, at the teacher's own steps: (N, V), its best texts, and (N, D) of each matched block."""

    log_probs: Tensor
    texts: Nbest
    hidden: tuple[Tensor, ...] = ()


class Teacher(Protocol):
    """Whoever answers to the clips of a batch."""

    config: ModelConfig

    def answers(self, takes: Sequence[Take]) -> list[Answer]: ...


class OnlineTeacher:
    """The model itself. `nbest`: texts of each clip, 0 for none; `blocks`: whose output is wanted."""

    def __init__(self, model: AVModel, nbest: int = 0, blocks: Sequence[int] = (), hears: Hears = "clean") -> None:
        self.model, self.config = model.eval().requires_grad_(False), model.config
        self.nbest, self.blocks, self.hears = nbest, blocks, hears

    def answers(self, takes: Sequence[Take]) -> list[Answer]:
        if self.hears == "same":
            return self._hear([take.inputs for take in takes])
        return self.listen([self._given(take) for take in takes])

    def listen(self, clips: Sequence[Media]) -> list[Answer]:
        """What it says to clips as they are; longer ones in the batch change nothing."""
        return self._hear([model_inputs(clip.waveform, clip.mouth, self.config.inputs) for clip in clips])

    @torch.no_grad()
    def _hear(self, inputs: Sequence[Inputs]) -> list[Answer]:
        device = self.model.positions.device
        hidden = self.model.encode(*(torch.from_numpy(x).to(device) for x in padded(inputs, self.config.inputs)))
        log_probs = self.model.head(hidden[-1]).float().log_softmax(-1).cpu()
        return [self._answer(log_probs[row], hidden, row, one) for row, one in enumerate(inputs)]

    def _answer(self, log_probs: Tensor, hidden: list[Tensor], row: int, inputs: Inputs) -> Answer:
        own = log_probs[: inputs.steps]
        texts = nbest(own, self.config.blank, self.nbest) if self.nbest else []
        return Answer(own, texts, tuple(hidden[block][row, : inputs.steps].cpu() for block in self.blocks))

    def _given(self, take: Take) -> Media:
        whole = take.whole
        if self.hears == "clean" or take.heard.waveform is None:
            return whole
        return Media(take.heard.waveform, whole.mouth, whole.words)


class CachedTeacher:
    """Its answers from the disk, one `Posteriors` a source of the batches."""

    def __init__(self, config: ModelConfig, posteriors: Sequence[Posteriors]) -> None:
        self.config, self.posteriors = config, posteriors

    def answers(self, takes: Sequence[Take]) -> list[Answer]:
        if any(take.tempo != 1.0 for take in takes):
            raise EdgeavError(CACHE_NEEDS_TIME)
        asked = [(self.posteriors[source], index) for source, index in (take.place for take in takes)]
        return [Answer(cache.log_probs(index), cache.texts(index)) for cache, index in asked]


CACHE_NEEDS_TIME = (
    "distill: the cached posteriors are those of clips at their own tempo, and `noise.tempo_share` changes it."
    " Set noise.tempo_share to 0, or posteriors: online"
)


class Lessons:
    """As `Batches`, with what `teacher` says to the same clips."""

    def __init__(self, batches: Batches, teacher: Teacher, pooling: Pooling = "either") -> None:
        self.batches, self.teacher = batches, teacher
        self.pooling: Pooling = pooling
        self.ratio = ratio(teacher.config.inputs.step_ms, batches.features.step_ms)

    def batch(self, seed: int, step: int, rank: int, disturbance: Disturbance) -> Lesson:
        return self.lesson(self.batches.takes(seed, step, rank, disturbance))

    def lesson(self, takes: Sequence[Take]) -> Lesson:
        batch = self.batches.collate(takes)
        return Lesson(batch, self._teaching(self.teacher.answers(takes), batch))

    def _teaching(self, answers: Sequence[Answer], batch: Batch) -> Teaching:
        steps, blank = batch.presence.shape[1], self.teacher.config.blank
        own = [fitted(answer.log_probs, steps * self.ratio, blank) for answer in answers]
        posteriors = torch.stack([pool(log_probs, self.ratio, blank, self.pooling) for log_probs in own])
        blocks = zip(*(answer.hidden for answer in answers), strict=True)
        hidden = tuple(torch.stack([self._thoughts(one, steps) for one in block]) for block in blocks)
        return Teaching(posteriors, *_texts([answer.texts for answer in answers]), hidden)

    def _thoughts(self, hidden: Tensor, steps: int) -> Tensor:
        """(N', D) of the teacher -> (steps, D), the mean over each step of the student; zeros behind the end."""
        out = hidden.new_zeros(steps * self.ratio, hidden.shape[1])
        out[: len(hidden)] = hidden[: len(out)]
        return out.reshape(steps, self.ratio, -1).mean(1)


def cache_teacher(
    teacher: Path, clips: Path, out: Path, size: tuple[int, int], progress: Progress, precision: Precision = "fp32"
) -> Path:
    """Its posteriors of all `clips`, in a folder of `out` named after both, made once. `size`: tokens, texts."""
    decoded, model, (kept, texts) = DecodedClips(clips), load_model(teacher), size
    vocabulary, name = model.config.vocabulary, "cuda" if torch.cuda.is_available() else "cpu"
    origin = Origin(model_hash(teacher), clips_hash(decoded), "av", vocabulary, min(kept, vocabulary), texts)
    convolutions_last(model)
    asked, waiting = OnlineTeacher(model.to(name), texts), dict[int, Answer]()

    def teach(index: int) -> tuple[Tensor, Nbest]:
        if index not in waiting:
            together = range(index, min(index + TOGETHER, len(decoded)))
            with torch.autocast(name, torch.bfloat16, enabled=precision == "bf16"):
                waiting.update(zip(together, asked.listen([decoded.media(i) for i in together]), strict=True))
        answer = waiting.pop(index)
        return answer.log_probs, answer.texts

    folder = out / f"{clips.name}-{digest([asdict(origin), precision])[:8]}"
    cache_posteriors(teach, len(decoded), origin, folder, progress)
    return folder


def nbest(log_probs: Tensor, blank: int, count: int) -> Nbest:
    """(N, V) -> the best texts and their shares in the probability of all that are named."""
    found = ctc_beam_search(log_probs, blank, beam=max(count, 8))[:count]
    weights = torch.tensor([one.score for one in found], dtype=torch.double).softmax(0).tolist()
    return [(list(one.tokens), weight) for one, weight in zip(found, weights, strict=True)]


def open_teacher(school: Schooling, device: torch.device) -> Teacher:
    """The teacher that `school` names: beside the student on its device, or from the disk."""
    folder, terms = Path(school.teacher), school.terms
    if school.posteriors:
        config = load(ModelConfig, folder / "model.json")
        return CachedTeacher(config, [Posteriors(Path(cache)) for cache in school.posteriors])
    blocks = [place for _, place in terms.match] if terms.features else []
    model = load_model(folder).to(device)
    return OnlineTeacher(model, school.nbest if terms.sequence else 0, blocks, school.hears)


def _texts(found: Sequence[Nbest]) -> tuple[Tensor, Tensor, Tensor]:
    """Texts of B clips -> tokens (B, K, L), lengths (B, K), probabilities (B, K)."""
    count = max(len(texts) for texts in found)
    longest = max((len(tokens) for texts in found for tokens, _ in texts), default=0)
    tokens = torch.zeros(len(found), count, max(1, longest), dtype=torch.long)
    lengths, weights = torch.zeros(len(found), count, dtype=torch.long), torch.zeros(len(found), count)
    for row, texts in enumerate(found):
        for place, (text, weight) in enumerate(texts):
            tokens[row, place, : len(text)] = torch.tensor(text, dtype=torch.long)
            lengths[row, place], weights[row, place] = len(text), weight
    return tokens, lengths, weights
