"""THE training loop: a technique passes a loss, it never copies the loop.

It runs as one process per core or GPU (`python -m torch.distributed.run -m edgeav.train JOB.json`), kept in step by
Hugging Face accelerate. Every batch and every dropout mask is a function of (seed, step, number of the batch), so a
killed run goes on from its last checkpoint as if it had not been.

P processes that accumulate k batches each make the same update as one process that accumulates P k, or has one batch
P k times as large: every loss is divided by what is counted in all of them (edgeav/losses.py). Batch norm is the
exception, its statistics are those of each batch alone, unless `frozen_norms` leaves them as they are.

Every process holds the whole model (DDP, on CPUs or GPUs). Not FSDP: checkpoints and averages take whole parameters.
"""

from __future__ import annotations

import math
import shutil
import sys
from contextlib import nullcontext
from dataclasses import dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, Protocol, TypeVar, cast

import torch
from accelerate import Accelerator
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim.swa_utils import AveragedModel

from edgeav.checkpoints import keep_weights, mean_weights, moving_average, resume, save_checkpoint
from edgeav.data.acoustics import load_acoustics
from edgeav.data.batch import Batches, Source
from edgeav.data.cache import DecodedClips
from edgeav.data.disturbance import Disturbance
from edgeav.data.prefetch import Prefetch
from edgeav.data.text import load_tokenizer
from edgeav.distillation import DistillationTraining
from edgeav.job import Job
from edgeav.losses import CtcTraining, Mixture
from edgeav.metrics import Metrics, validate
from edgeav.models import AVModel, ModelConfig, load_model, save_model
from edgeav.optimizers import optimizers_of
from edgeav.quant.learned import learnable, save_learned, take_ranges
from edgeav.quant.plan import load_plan
from edgeav.spec import load
from edgeav.teacher import Lessons, open_teacher

Lesson = TypeVar("Lesson")


class LessonSource(Protocol):
    """What makes the batches: `Batches`, or `Lessons` with a teacher."""

    def batch(self, seed: int, step: int, rank: int, disturbance: Disturbance) -> Any: ...


def train(job: Job) -> None:
    """One process of the job."""
    torch.set_num_threads(1)
    folder, precision = Path(job.folder), "bf16" if job.precision == "bf16" else "no"
    accelerator = Accelerator(cpu=not torch.cuda.is_available(), mixed_precision=precision)
    torch.manual_seed(job.seed)
    training = loss_of(job).to(accelerator.device)
    optimizers = optimizers_of(training, job)
    average = AveragedModel(training, multi_avg_fn=moving_average)
    first = resume(folder, training, *optimizers, average)
    learns(training, job.frozen_norms, dropout=not job.rounded)
    parallel = accelerator.prepare(training)
    loop = _Loop(job, accelerator, parallel, optimizers, lessons_of(job, accelerator.device))
    averaged, main = cast(CtcTraining, average.module), accelerator.is_main_process
    metrics = Metrics(folder, job.steps, first, job.log_every) if main else None
    made = Prefetch(loop.make, range(first, job.steps), job.loaders)
    for step, lessons in zip(range(first, job.steps), made, strict=True):
        losses = loop.update(step, lessons)
        average.update_parameters(training)
        if job.rounded:
            take_ranges(training, averaged)
        if metrics:
            metrics.step(step, losses, made.waited_s)
            if (step + 1) % job.checkpoint_every == 0 or step + 1 == job.steps:
                save_checkpoint(folder, step + 1, training, *optimizers, average)
                keep_weights(folder / "kept", step + 1, training, job.average_last)
                _validate(job, step, averaged, metrics)
    if metrics:
        _finish(job, training, averaged, metrics)
    accelerator.wait_for_everyone()
    accelerator.end_training()


def loss_of(job: Job) -> CtcTraining:
    """The model to train within what it minimizes."""
    model, mixture = model_of(job), Mixture(job.inter_ctc_weight, job.attention_weight)
    if job.school is None:
        return CtcTraining(model, mixture)
    teacher = load(ModelConfig, Path(job.school.teacher) / "model.json")
    return DistillationTraining(model, mixture, job.school.terms, teacher.width)


def model_of(job: Job) -> AVModel:
    """The model that is trained: as it is, or rounded as its quantization.json says."""
    model = load_model(Path(job.model))
    return learnable(model, load_plan(Path(job.model))) if job.rounded else model


def lessons_of(job: Job, device: torch.device) -> LessonSource:
    """The batches of the job, with the teacher's answers if it has one."""
    config, tokenizer = load(ModelConfig, Path(job.model) / "model.json"), load_tokenizer(Path(job.model))
    sources = [
        Source(DecodedClips(Path(s.clips)), s.per_batch, job.longest_s, s.splice, s.leave_out, s.varied, s.trim)
        for s in job.sources
    ]
    acoustics = load_acoustics(Path(job.acoustics))
    batches = Batches(sources, tokenizer, acoustics, config, job.modalities, job.lip_faults)
    return Lessons(batches, open_teacher(job.school, device), job.school.pooling) if job.school else batches


def learns(module: torch.nn.Module, frozen_norms: bool, dropout: bool = True) -> None:
    """Put `module` into training mode, its batch norms only if they are to gather statistics."""
    module.train()
    for part in module.modules():
        if (frozen_norms and isinstance(part, _BatchNorm)) or (not dropout and isinstance(part, torch.nn.Dropout)):
            part.eval()


def learning_rate(step: int, job: Job) -> float:
    """Linear warm-up, flat, then a cosine down to 1 % (Loshchilov & Hutter 2017, https://arxiv.org/abs/1608.03983)."""
    if step < job.warmup:
        return job.learning_rate * (step + 1) / job.warmup
    done = step / job.steps
    if done < job.flat:
        return job.learning_rate
    fall = 0.5 * (1 + math.cos(math.pi * (done - job.flat) / (1 - job.flat)))
    return job.learning_rate * max(0.01, fall)


@dataclass
class _Loop:
    """What an update needs in one process."""

    job: Job
    accelerator: Accelerator
    parallel: torch.nn.Module
    optimizers: list[torch.optim.Optimizer]
    lessons: LessonSource

    def __post_init__(self) -> None:
        self.noise = Disturbance.model_validate(self.job.noise)
        self.loss = cast(CtcTraining, self.accelerator.unwrap_model(self.parallel))

    def make(self, step: int) -> dict[int, Any]:
        """This process's batches of one update, by their numbers among all of it."""
        noise, first = self.noise.at(step / self.job.steps), self.accelerator.process_index * self.job.accumulate
        numbers = range(first, first + self.job.accumulate)
        return {number: self.lessons.batch(self.job.seed, step, number, noise) for number in numbers}

    def update(self, step: int, lessons: dict[int, Any]) -> dict[str, float]:
        """One step of the optimizer; the losses over all batches of all processes."""
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(step, self.job) * group["times"]
            optimizer.zero_grad(set_to_none=True)
        losses = self._backward(step, lessons)
        self.accelerator.clip_grad_norm_(self.parallel.parameters(), 3.0)
        for optimizer in self.optimizers:
            optimizer.step()
        return losses

    def _backward(self, step: int, lessons: dict[int, Any]) -> dict[str, float]:
        """Gradients of the mean over all batches. DDP averages over processes, where a sum is wanted: hence `times`."""
        counts = {number: self.loss.counts(lesson) for number, lesson in lessons.items()}
        totals, times = self._summed(list(counts.values())), self.accelerator.num_processes
        # Heads for frames are new: in a model that is only to be rounded they would pull it somewhere else.
        frame_weight, found = 0.0 if self.job.rounded else max(0.0, 1 - step / self.job.steps / self.job.fade), []
        for number, lesson in lessons.items():
            torch.manual_seed((self.job.seed * 1_000_003 + step) * 1024 + number)
            shares = {name: count / max(totals[name], 1e-9) for name, count in counts[number].items()}
            last = number == max(lessons)
            with nullcontext() if last else self.accelerator.no_sync(self.parallel):
                losses = self.parallel(placed(lesson, self.accelerator.device), frame_weight, shares)
                self.accelerator.backward(losses["loss"] * times)
            found.append({name: loss.item() for name, loss in losses.items()})
        return self._summed(found)

    def _summed(self, rows: list[dict[str, float]]) -> dict[str, float]:
        """Of all processes too."""
        values = torch.tensor([list(row.values()) for row in rows], dtype=torch.float32).sum(0)
        everyone = self.accelerator.reduce(values.to(self.accelerator.device), "sum")
        return dict(zip(rows[0], cast(torch.Tensor, everyone).tolist(), strict=True))


def placed(lesson: Lesson, device: torch.device) -> Lesson:
    """A copy of tensors, tuples and dataclasses of them that lies on `device`."""
    if isinstance(lesson, torch.Tensor):
        return cast(Lesson, lesson.to(device))
    if isinstance(lesson, tuple):
        return cast(Lesson, tuple(placed(part, device) for part in lesson))
    assert is_dataclass(lesson) and not isinstance(lesson, type)
    return replace(lesson, **{one.name: placed(getattr(lesson, one.name), device) for one in fields(lesson)})


def _validate(job: Job, step: int, averaged: CtcTraining, metrics: Metrics) -> None:
    averaged.eval()
    for name, folder in job.valid.items():
        metrics.validation(step, name, validate(averaged.model, DecodedClips(Path(folder))))


def _finish(job: Job, training: CtcTraining, averaged: CtcTraining, metrics: Metrics) -> None:
    folder = Path(job.folder)
    part = folder / "trained.part"
    if job.average_last:
        averaged.load_state_dict(mean_weights(folder / "kept"))
        take_ranges(training, averaged)
        _validate(job, job.steps - 1, averaged, metrics)
    if job.rounded:
        save_learned(averaged.model, load_plan(Path(job.model)), part)
    else:
        save_model(averaged.model, part, half=True)
    load_tokenizer(Path(job.model)).save(part)
    shutil.rmtree(folder / "trained", ignore_errors=True)  # of a run that was killed before anybody read it
    part.rename(folder / "trained")
    metrics.close()


def main() -> None:
    train(Job.read(Path(sys.argv[1])))


if __name__ == "__main__":
    main()
