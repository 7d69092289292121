"""A training job on six drawn clips, small enough for seconds."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from accelerate.state import AcceleratorState

from edgeav import train as training
from edgeav.data.acoustics import build_acoustics
from edgeav.data.cache import decode
from edgeav.data.corpus import open_corpus
from edgeav.data.disturbance import Disturbance
from edgeav.data.text import Tokenizer, train_tokenizer
from edgeav.job import Job, Serving
from edgeav.progress import Progress


def drawn_clips(folder: Path) -> Tokenizer:
    """Six clips in `folder`/clips, and the tokenizer of their corpus."""
    corpus = open_corpus("demo")
    decode(corpus.train[:6], folder / "clips", workers=1, progress=Progress(), label="")
    return train_tokenizer([u.text for u in corpus.train], 128)


def small_job(folder: Path, model: str, noise: Disturbance, per_batch: int = 3, **changes: Any) -> Job:
    """Training of `folder`/`model` on the clips there, six steps in one process unless `changes` say otherwise."""
    acoustics = noise.model_copy(update={"share": noise.share or 1.0})  # kinds must be there even where none is heard
    build_acoustics(acoustics, [], 0, folder / "acoustics")
    job = Job(
        folder=str(folder / "run"),
        model=str(folder / model),
        sources=[Serving(str(folder / "clips"), per_batch)],
        valid={},
        acoustics=str(folder / "acoustics"),
        noise=noise.model_dump(mode="json"),
        longest_s=10.0,
        steps=6,
        learning_rate=3e-3,
        weight_decay=0.01,
        warmup=2,
        flat=0.5,
        seed=1,
        processes=1,
        checkpoint_every=2,
    )
    return replace(job, **changes)


def run(job: Job, folder: Path) -> Path:
    """The folder of the trained model."""
    folder.mkdir(exist_ok=True)
    AcceleratorState._reset_state(True)  # each job is a process of its own, in truth
    training.train(replace(job, folder=str(folder)))
    return folder / "trained"


def killed_in_step_5(job: Job, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a run leaves that was interrupted there."""
    asked = training.learning_rate

    def dies(step: int, job: Job) -> float:
        if step == 5:
            raise KeyboardInterrupt
        return asked(step, job)

    with monkeypatch.context() as patch:
        patch.setattr(training, "learning_rate", dies)
        with pytest.raises(KeyboardInterrupt):
            run(job, folder)
