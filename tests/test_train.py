"""Training: it learns, and a killed run goes on as if it had not been killed."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Literal

import pytest
import torch
from small_job import drawn_clips, killed_in_step_5, small_job
from small_job import run as trained

from edgeav.data.batch import Batch, Batches
from edgeav.data.disturbance import Disturbance, RoomShare
from edgeav.errors import EdgeavError
from edgeav.job import Job, launch
from edgeav.models import AVModel, ModelConfig, load_model, save_model
from edgeav.models.config import Block, ConcatMlp, Conv3dDense, DwStriding
from edgeav.train import learning_rate

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
    tokenizer = drawn_clips(folder)
    torch.manual_seed(0)
    save_model(AVModel(SMALL.model_copy(update={"tokens": tokenizer.tokens})), folder / "initial")
    tokenizer.save(folder / "initial")
    noise = Disturbance(share=0.5, snr_db=(0.0, 20.0), kinds={"white": 1.0}, rooms=RoomShare(share=0.3))
    return small_job(folder, "initial", noise)


def run(job: Job, folder: Path) -> dict[str, torch.Tensor]:
    return load_model(trained(job, folder)).state_dict()


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_a_killed_run_goes_on_with_the_losses_and_weights_of_an_unbroken_one(
    job: Job, optimizer: Literal["adamw", "muon"], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = replace(job, log_every=1, optimizer=optimizer)
    unbroken = run(job, tmp_path / "unbroken")
    killed_in_step_5(job, tmp_path / "killed", monkeypatch)
    resumed = run(job, tmp_path / "killed")
    for name, weight in unbroken.items():
        torch.testing.assert_close(resumed[name], weight, atol=1e-4, rtol=0, msg=name)
    assert len(curve(tmp_path / "killed")) == job.steps
    assert curve(tmp_path / "killed") == pytest.approx(curve(tmp_path / "unbroken"), abs=1e-4)


def test_a_run_killed_between_its_end_and_the_next_step_ends_again(job: Job, tmp_path: Path) -> None:
    first = run(job, tmp_path)
    (tmp_path / "trained" / "half-read").touch()
    again = run(job, tmp_path)
    assert sorted(path.name for path in tmp_path.glob("trained*")) == ["trained"]
    assert not (tmp_path / "trained" / "half-read").exists()
    torch.testing.assert_close(again, first, atol=0, rtol=0)


def test_nobody_trains_the_same_twice_and_no_trainer_outlives_its_command(job: Job, tmp_path: Path) -> None:
    job = replace(job, folder=str(tmp_path / "run"), steps=100_000, log_every=1)
    (tmp_path / "job.json").write_text(json.dumps(asdict(job)))
    code = "import sys, pathlib, edgeav.job as j; j.launch(j.Job.read(pathlib.Path(sys.argv[1])))"
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "job.json")]) as command:
        wait_for((tmp_path / "run" / "metrics.jsonl").exists)
        with pytest.raises(EdgeavError, match="another process trains this"):
            launch(job)
        command.kill()
    wait_for(lambda: not trainers(tmp_path))


def trainers(folder: Path) -> list[str]:
    """Command lines that name a job in this folder."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            words = path.read_bytes().decode(errors="replace").split("\0")
            found += [" ".join(words)] if str(folder / "run" / "job.json") in words else []
    return found


def wait_for(what: Callable[[], bool]) -> None:
    for _ in range(600):
        if what():
            return
        time.sleep(0.1)
    pytest.fail(f"still not after a minute: {what}")


def curve(folder: Path) -> list[float]:
    """The loss of every step; a step that was done again after a kill counts as it was done last."""
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [loss for _, loss in sorted({row["step"]: row["loss"] for row in rows}.items())]


def gradients(folder: Path) -> dict[int, torch.Tensor]:
    """Of every parameter, the mean over the steps that Adam keeps."""
    state = torch.load(folder / "checkpoint.pt", weights_only=True)["parts"][1]["state"]
    return {number: moments["exp_avg"] for number, moments in state.items()}


def assert_same_training(ours: Path, theirs: Path) -> None:
    """Equal losses in every step and equal gradients.

    Not equal weights: where a gradient is nothing but rounding, as of the keys' biases, Adam makes it large.
    """
    assert len(curve(ours)) == len(curve(theirs)) == 4
    assert curve(ours) == pytest.approx(curve(theirs), rel=1e-5, abs=1e-5)
    for number, gradient in gradients(ours).items():
        torch.testing.assert_close(gradient, gradients(theirs)[number], atol=1e-5, rtol=0)


@pytest.fixture(scope="module")
def exact(job: Job) -> Job:
    """Four updates of two batches each, with nothing in them that depends on how clips are grouped."""
    folder = Path(job.model).with_name("exact")
    model = load_model(Path(job.model))
    save_model(AVModel(model.config.model_copy(update={"dropout": 0.0})), folder)
    (folder / "tokenizer.model").write_bytes((Path(job.model) / "tokenizer.model").read_bytes())
    quick = replace(job, model=str(folder), steps=4, checkpoint_every=4, log_every=1)
    return replace(quick, accumulate=2, precision="fp32", frozen_norms=True)


def test_accumulated_gradients_are_those_of_one_large_batch(
    exact: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(exact, tmp_path / "small")

    def large(self: Batches, seed: int, step: int, rank: int, disturbance: Disturbance) -> Batch:
        takes = [take for number in (2 * rank, 2 * rank + 1) for take in self.takes(seed, step, number, disturbance)]
        return self.collate(takes)

    monkeypatch.setattr(Batches, "batch", large)
    run(replace(exact, accumulate=1), tmp_path / "large")
    assert_same_training(tmp_path / "small", tmp_path / "large")


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_two_processes_train_as_one_does(
    exact: Job, optimizer: Literal["adamw", "muon"], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[1]))
    exact = replace(exact, optimizer=optimizer)
    run(exact, tmp_path / "one")
    launch(replace(exact, accumulate=1, processes=2, folder=str(tmp_path / "two")))
    assert_same_training(tmp_path / "one", tmp_path / "two")


def test_the_mean_of_the_last_checkpoints_is_what_remains(job: Job, tmp_path: Path) -> None:
    mean = run(replace(job, average_last=2, checkpoint_every=2), tmp_path / "run")
    kept = sorted((tmp_path / "run" / "kept").iterdir())
    assert [path.name for path in kept] == ["000000004.pt", "000000006.pt"]
    states = [torch.load(path, weights_only=True) for path in kept]
    for name in ("head.weight", "blocks.0.conv.norm.running_mean"):
        expected = (states[0][f"model.{name}"] + states[1][f"model.{name}"]) / 2
        torch.testing.assert_close(mean[name], expected.half().float(), atol=0, rtol=0)


def test_frozen_norms_keep_their_statistics_and_others_do_not(job: Job, tmp_path: Path) -> None:
    before, name = load_model(Path(job.model)).state_dict(), "blocks.0.conv.norm.running_var"
    quick = replace(job, steps=1, checkpoint_every=1)
    assert torch.equal(run(replace(quick, frozen_norms=True), tmp_path / "frozen")[name], before[name].half().float())
    assert not torch.equal(run(quick, tmp_path / "free")[name], before[name])


def test_losses_and_the_loading_time_are_written_for_tensorboard_too(job: Job, tmp_path: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    run(replace(job, steps=2, log_every=1), tmp_path / "run")
    events = accumulator.EventAccumulator(str(tmp_path / "run" / "tensorboard")).Reload()
    found = [event.value for event in events.Scalars("training/loss")]
    assert found == pytest.approx(curve(tmp_path / "run"), rel=1e-6)
    assert 0 < events.Scalars("training/loading_share")[0].value < 1


def test_without_tensorboard_there_is_one_sentence_and_the_file(
    job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    run(replace(job, steps=2, log_every=1), tmp_path / "run")
    assert capsys.readouterr().err.count("tensorboard is not installed") == 1
    assert len(curve(tmp_path / "run")) == 2 and not (tmp_path / "run" / "tensorboard").exists()


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
