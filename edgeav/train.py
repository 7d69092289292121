"""THE training loop: a technique passes a loss, it never copies the loop.

It runs as one process per core or GPU (`python -m torch.distributed.run -m edgeav.train JOB.json`), kept in step by
Hugging Face accelerate. Every batch and every dropout mask is a function of (seed, step, rank), so a killed run
goes on from its last checkpoint as if it had not been.
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, cast

import torch
from accelerate import Accelerator
from torch.optim.swa_utils import AveragedModel

from edgeav.data.acoustics import load_acoustics
from edgeav.data.batch import Batches, Source
from edgeav.data.cache import DecodedClips
from edgeav.data.disturbance import Disturbance
from edgeav.data.text import load_tokenizer
from edgeav.errors import EdgeavError
from edgeav.losses import CtcTraining, Mixture
from edgeav.measure import recognizer, word_error_rate
from edgeav.models import ModelConfig, load_model, save_model

CHECKPOINT = "checkpoint.pt"


@dataclass(frozen=True)
class Job:
    """Everything a training process needs to know; lies in `folder`/job.json."""

    folder: str  # checkpoints, metrics and the result
    model: str  # the folder of the model to begin with
    sources: list[tuple[str, int]]  # (folder of decoded clips, clips a batch) for every corpus
    valid: dict[str, str]  # name -> folder of decoded clips
    acoustics: str  # folder of noise and rooms
    noise: dict[str, Any]  # a Disturbance
    longest_s: float  # of a clip that is trained on
    steps: int
    learning_rate: float
    weight_decay: float
    warmup: int
    flat: float  # the share of steps at full rate, before the cosine
    seed: int
    processes: int
    checkpoint_every: int
    inter_ctc_weight: float = Mixture.inter_ctc
    attention_weight: float = Mixture.attention


def launch(job: Job) -> Path:
    """Run the job in its own processes, one thread each, and return the folder of the trained model."""
    folder = Path(job.folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "job.json").write_text(json.dumps(asdict(job), indent=1))
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={job.processes}"]
    done = subprocess.run([sys.executable, *launcher, "-m", "edgeav.train", str(folder / "job.json")])
    if done.returncode:
        raise EdgeavError(
            f"training stopped with exit code {done.returncode}; its last words stand above. Run it again to resume"
        )
    return folder / "trained"


def train(job: Job) -> None:
    """One process of the job."""
    torch.set_num_threads(1)
    folder, accelerator = (
        Path(job.folder),
        Accelerator(cpu=not torch.cuda.is_available(), mixed_precision="bf16"),
    )
    rank = accelerator.process_index
    torch.manual_seed(job.seed)
    mixture = Mixture(job.inter_ctc_weight, job.attention_weight)
    training = CtcTraining(load_model(Path(job.model)), mixture)
    optimizer = torch.optim.AdamW(_groups(training, job.weight_decay), lr=job.learning_rate, betas=(0.9, 0.98))
    average = AveragedModel(training, multi_avg_fn=moving_average)
    averaged = cast(CtcTraining, average.module)
    first = _resume(folder, training, optimizer, average)
    training.train()
    parallel, optimizer = accelerator.prepare(training, optimizer)
    batches, noise = _batches(job, averaged.model.config), Disturbance.model_validate(job.noise)
    log = _Log(folder, job, first) if accelerator.is_main_process else None
    for step in range(first, job.steps):
        done = step / job.steps
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, job)
        batch = batches.batch(job.seed, step, rank, noise.at(done))
        torch.manual_seed((job.seed * 1_000_003 + step) * 1024 + rank)
        losses = parallel(batch, frame_weight=max(0.0, 1 - done / 0.85))
        optimizer.zero_grad(set_to_none=True)
        accelerator.backward(losses["loss"])
        accelerator.clip_grad_norm_(training.parameters(), 3.0)
        optimizer.step()
        average.update_parameters(training)
        if log:
            log.step(step, losses)
            if (step + 1) % job.checkpoint_every == 0 or step + 1 == job.steps:
                _checkpoint(folder, step + 1, training, optimizer, average)
                log.validate(step, averaged)
    if log:
        _finish(folder, averaged, Path(job.model))
    accelerator.wait_for_everyone()
    accelerator.end_training()


def learning_rate(step: int, job: Job) -> float:
    """Linear warm-up, flat, then a cosine down to 1 % (Loshchilov & Hutter 2017, https://arxiv.org/abs/1608.03983)."""
    if step < job.warmup:
        return job.learning_rate * (step + 1) / job.warmup
    done = step / job.steps
    if done < job.flat:
        return job.learning_rate
    fall = 0.5 * (1 + math.cos(math.pi * (done - job.flat) / (1 - job.flat)))
    return job.learning_rate * max(0.01, fall)


@torch.no_grad()
def moving_average(
    averaged: Sequence[torch.Tensor], current: Sequence[torch.Tensor], count: int | torch.Tensor
) -> None:
    """Move `averaged` towards `current`: over the last 1,000 updates, or the last ninth of a shorter past.

    A constant decay would leave 13 % of the random initial weights in the average after 2,000 updates.
    """
    decay = min(0.999, (1 + float(count)) / (10 + float(count)))
    for mean, value in zip(averaged, current, strict=True):
        mean.lerp_(value, 1 - decay)


class _Log:
    """Metrics on rank 0: a line on stderr and one in metrics.jsonl."""

    def __init__(self, folder: Path, job: Job, first: int) -> None:
        self.folder, self.job, self.first = folder, job, first
        self.valid = {name: DecodedClips(Path(path)) for name, path in job.valid.items()}
        self.start, self.sums = time.monotonic(), {}

    def step(self, step: int, losses: dict[str, torch.Tensor]) -> None:
        for name, loss in losses.items():
            self.sums[name] = self.sums.get(name, 0.0) + loss.item() / 50
        if (step + 1) % 50 == 0:
            rate = (step + 1 - self.first) / (time.monotonic() - self.start)
            left_min = (self.job.steps - step - 1) / rate / 60
            values = " ".join(f"{name} {value:.3f}" for name, value in self.sums.items())
            self._say(f"step {step + 1}/{self.job.steps} {values} {rate:.2f} steps/s, {left_min:.0f} min left")
            self._write({"step": step + 1, **self.sums, "steps_per_second": rate})
            self.sums = {}

    def validate(self, step: int, training: CtcTraining) -> None:
        """Greedy WER of the averaged weights on the validation clips: sound with lips, sound alone, lips alone."""
        training.eval()
        speech, takes = recognizer(training.model), training.model.config.inputs
        conditions = ("av", "a", "v") if takes.audio and takes.video else ("a",) if takes.audio else ("v",)
        for name, clips in self.valid.items():
            row: dict[str, float] = {}
            for condition in conditions:
                references, texts = [], []
                for index in range(len(clips)):
                    media = clips.media(index)
                    sound = media.waveform if "a" in condition else None
                    texts.append(speech.text(sound, media.mouth if "v" in condition else None))
                    references.append(clips.rows[index].text)
                row[condition] = word_error_rate(references, texts).wer
            self._say(f"step {step + 1} {name} WER " + " ".join(f"{c} {w:.1f}" for c, w in row.items()))
            self._write({"step": step + 1, "valid": name, **row})

    def _say(self, text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    def _write(self, row: dict) -> None:
        with (self.folder / "metrics.jsonl").open("a") as file:
            file.write(json.dumps(row) + "\n")


def _groups(module: torch.nn.Module, weight_decay: float) -> list[dict]:
    """Matrices decay; biases, norms and other vectors do not."""
    matrices = [p for p in module.parameters() if p.ndim >= 2]
    vectors = [p for p in module.parameters() if p.ndim < 2]
    return [{"params": matrices, "weight_decay": weight_decay}, {"params": vectors, "weight_decay": 0.0}]


def _batches(job: Job, config: ModelConfig) -> Batches:
    sources = [Source(DecodedClips(Path(folder)), count, job.longest_s) for folder, count in job.sources]
    return Batches(sources, load_tokenizer(Path(job.model)), load_acoustics(Path(job.acoustics)), config)


def _checkpoint(folder: Path, step: int, *parts: torch.nn.Module | torch.optim.Optimizer) -> None:
    part = folder / (CHECKPOINT + ".part")
    torch.save({"step": step, "parts": [p.state_dict() for p in parts]}, part)
    part.rename(folder / CHECKPOINT)


def _resume(folder: Path, *parts: torch.nn.Module | torch.optim.Optimizer) -> int:
    """Load the last checkpoint into `parts`; the step to go on with."""
    if not (folder / CHECKPOINT).exists():
        return 0
    saved = torch.load(folder / CHECKPOINT, weights_only=True)
    for part, state in zip(parts, saved["parts"], strict=True):
        part.load_state_dict(state)
    return saved["step"]


def _finish(folder: Path, training: CtcTraining, start: Path) -> None:
    part = folder / "trained.part"
    save_model(training.model, part, half=True)
    load_tokenizer(start).save(part)
    part.rename(folder / "trained")


def main() -> None:
    job = json.loads(Path(sys.argv[1]).read_text())
    train(replace(Job(**job), sources=[(folder, count) for folder, count in job["sources"]]))


if __name__ == "__main__":
    main()
