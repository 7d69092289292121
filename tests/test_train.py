"""Training: it learns, and a killed run goes on as if it had not been killed."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from edgeav import train as training
from edgeav.data.acoustics import build_acoustics
from edgeav.data.cache import decode
from edgeav.data.corpus import open_corpus
from edgeav.data.disturbance import Disturbance, RoomShare
from edgeav.data.text import train_tokenizer
from edgeav.models import AVModel, ModelConfig, load_model, save_model
from edgeav.models.config import Block, ConcatMlp, Conv3dDense, DwStriding
from edgeav.progress import Progress
from edgeav.train import Job, learning_rate, train

SMALL = ModelConfig(
    width=32,
    audio=DwStriding(channels=16),
    video=Conv3dDense(stem_channels=8, channels=(8, 16), strides=(2, 2)),
    fusion=ConcatMlp(hidden=32),
    blocks=(Block(heads=2, head_width=16, feed_forward=64, feed_forward_2=64, conv_channels=32),) * 2,
)


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Job:
    """A job on six drawn clips, small enough for seconds."""
    folder = tmp_path_factory.mktemp("job")
    utterances = open_corpus("demo").train[:6]
    decode(utterances, folder / "clips", workers=1, progress=Progress(), label="")
    tokenizer = train_tokenizer([u.text for u in open_corpus("demo").train], 128)
    torch.manual_seed(0)
    save_model(AVModel(SMALL.model_copy(update={"tokens": tokenizer.tokens})), folder / "initial")
    tokenizer.save(folder / "initial")
    noise = Disturbance(share=0.5, snr_db=(0.0, 20.0), kinds={"white": 1.0}, rooms=RoomShare(share=0.3))
    build_acoustics(noise, [], 0, folder / "acoustics")
    return Job(
        folder=str(folder / "run"),
        model=str(folder / "initial"),
        sources=[(str(folder / "clips"), 3)],
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


def run(job: Job, folder: Path) -> dict[str, torch.Tensor]:
    folder.mkdir(exist_ok=True)
    train(replace(job, folder=str(folder)))
    return load_model(folder / "trained").state_dict()


def test_a_killed_run_ends_with_the_same_weights_as_an_unbroken_one(
    job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unbroken = run(job, tmp_path / "unbroken")
    asked = training.learning_rate

    def dies_in_step_5(step: int, job: Job) -> float:
        if step == 5:
            raise KeyboardInterrupt
        return asked(step, job)

    monkeypatch.setattr(training, "learning_rate", dies_in_step_5)
    with pytest.raises(KeyboardInterrupt):
        run(job, tmp_path / "killed")
    monkeypatch.undo()
    resumed = run(job, tmp_path / "killed")
    for name, weight in unbroken.items():
        torch.testing.assert_close(resumed[name], weight, atol=1e-4, rtol=0, msg=name)


def test_training_lowers_the_loss_on_what_it_trains_on(job: Job, tmp_path: Path) -> None:
    run(replace(job, steps=150, checkpoint_every=150, warmup=10), tmp_path / "run")
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    losses = [row["loss"] for row in rows if "loss" in row]
    assert losses[-1] < 0.6 * losses[0]


def test_the_rate_warms_up_stays_and_falls(job: Job) -> None:
    plan = replace(job, steps=100, warmup=10, flat=0.4, learning_rate=1.0)
    rates = [learning_rate(step, plan) for step in range(100)]
    assert rates[0] == 0.1 and rates[9] == rates[39] == 1.0
    assert all(a >= b for a, b in itertools.pairwise(rates[40:]))
    assert rates[-1] == pytest.approx(0.01, abs=0.002)
