"""Quantization-aware training: through the one loop, better than ranges from clips, a normal model afterwards."""

from __future__ import annotations

import copy
import math
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from small_job import drawn_clips, killed_in_step_5, run, small_job
from tiny_av import all_kinds, calibration, clip, tiny_25hz_model, tiny_model
from tiny_models import model_config

from edgeav.data.batch import Take
from edgeav.data.cache import DecodedClips
from edgeav.data.corpus import Media
from edgeav.data.disturbance import Disturbance
from edgeav.distillation import Schooling, Terms
from edgeav.errors import EdgeavError
from edgeav.exporters.parity import eager_log_probs, largest_difference
from edgeav.exporters.rewrites import deployable
from edgeav.job import Job
from edgeav.models import AVModel, load_model, random_model, save_model
from edgeav.models.config import ConcatMlp
from edgeav.quant.fake_quant import simulate
from edgeav.quant.folding import unfolded
from edgeav.quant.learned import calibrated, learnable, save_learned
from edgeav.quant.plan import Plan, load_plan
from edgeav.recipe import Recipe
from edgeav.runtime.features import Inputs, model_inputs
from edgeav.teacher import OnlineTeacher

CLIPS = [clip(steps, seed=40 + steps) for steps in (12, 20)]


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Job:
    """A tiny model that is sure of something, its float self as the teacher, six drawn clips without noise."""
    folder = tmp_path_factory.mktemp("qat")
    tokenizer = drawn_clips(folder)
    model = random_model(0, tiny_model().config.model_copy(update={"tokens": tokenizer.tokens}))
    model.head.weight.data *= 8
    for name in ("teacher", "initial"):
        save_model(model, folder / name)
        tokenizer.save(folder / name)
    calibrated(model, Plan(), calibration()).save(folder / "initial")
    school = Schooling(str(folder / "teacher"), Terms(ctc=0.0, blank_weight=1.0), hears="same")
    rates = {"learning_rate": 1e-4, "weight_decay": 0.0, "range_learning_rate": 1e-3}
    noise = Disturbance(share=0.0, kinds={"white": 1.0})
    return small_job(folder, "initial", noise, per_batch=2, precision="fp32", school=school, **rates)


def test_training_begins_with_what_is_simulated() -> None:
    model, plan = tiny_model(), calibrated(tiny_model(), Plan(), calibration())
    ours, simulated = learnable(model, plan).eval(), simulate(model, Plan(), calibration())
    for path, given in (("head", 0), ("video.convs.0", 0)):
        low, high = (plan.learned or {})[path].given
        assert [low, high] == [float(end) for end in simulated.get_submodule(f"{path}.given").ends()], given  # pyright: ignore
    x = [torch.from_numpy(array) for array in CLIPS[0]]
    with torch.no_grad():  # to the first bias that is an integer there
        torch.testing.assert_close(ours.video.stem(x[1]), simulated.video.stem(x[1]), atol=0.05, rtol=0)  # pyright: ignore
    assert largest_difference(eager_log_probs(ours, CLIPS[0]), eager_log_probs(simulated, CLIPS[0]), CLIPS[0]) < 0.2


def test_every_weight_and_every_range_that_rounds_has_a_gradient() -> None:
    model = learnable(tiny_model(), calibrated(tiny_model(), Plan(), calibration())).train()
    model(*(torch.from_numpy(array) for array in CLIPS[0])).square().sum().backward()
    gradients = {name: p.grad for name, p in model.named_parameters()}
    assert not [name for name, gradient in gradients.items() if gradient is None]
    assert gradients["head.given.stretch"] is not None and bool(gradients["head.given.stretch"].any())
    assert "head.put_out.stretch" not in gradients  # ONNX Runtime lets it go on in float


@pytest.mark.parametrize("kind", ["both", "25 Hz", "resnets", "normed fusion, low rank"])
def test_unfolding_undoes_what_deploying_does(kind: str) -> None:
    normed = model_config("dw-striding", "conv3d-dense", "concat-mlp with norm", ranks={"fusion.up": 8})
    assert isinstance(normed.fusion, ConcatMlp)
    models = {"both": tiny_model, "25 Hz": tiny_25hz_model}
    configs = {"resnets": model_config("resnet1d", "resnet18"), "normed fusion, low rank": normed}
    model = models[kind]() if kind in models else random_model(1, configs[kind])
    plain = unfolded(deployable(model))
    assert plain.state_dict().keys() == model.state_dict().keys()
    x = clip(9, features=model.config.inputs)
    torch.testing.assert_close(eager_log_probs(plain, x), eager_log_probs(model, x), atol=2e-4, rtol=0)


def test_what_is_saved_is_a_normal_model_with_its_ranges(tmp_path: Path) -> None:
    plan = calibrated(tiny_model(), Plan(), calibration())
    model = learnable(tiny_model(), plan)
    stretch = model.get_parameter("head.given.stretch")
    stretch.data += torch.tensor([0.5, -0.25])
    save_learned(copy.deepcopy(model), plan, tmp_path)
    before, after = ((p.learned or {})["head"].given for p in (plan, load_plan(tmp_path)))
    assert after == pytest.approx((before[0] * 2.718281828**0.5, before[1] * 2.718281828**-0.25), rel=1e-5)
    for inputs in all_kinds()[:2]:
        found = eager_log_probs(load_model(tmp_path), inputs)
        assert largest_difference(found, eager_log_probs(tiny_model(), inputs), inputs) < 0.01  # of half precision


def test_ranges_of_another_model_are_refused() -> None:
    with pytest.raises(EdgeavError, match="of other layers than this model has"):
        learnable(tiny_25hz_model(), calibrated(tiny_model(), Plan(keep_float=("head",)), calibration()))


def test_training_lowers_the_loss_that_rounding_costs() -> None:
    """Against the float model, from the ranges of the clips on; the rate is small, since the loss is."""
    teacher = tiny_model()
    teacher.head.weight.data *= 8  # sure of something
    model = learnable(teacher, calibrated(teacher, Plan(), calibration()))
    optimizer, losses = torch.optim.AdamW(model.parameters(), lr=3e-6, weight_decay=0), []
    for _ in range(60):
        loss = torch.stack([_divergence(teacher, model, x) for x in calibration()]).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    # A level more or less changes the loss of a step by half: many steps are averaged.
    assert sum(losses[-20:]) / 20 < 0.75 * losses[0], losses
    assert bool(model.get_parameter("head.given.stretch").any())


def test_the_teacher_is_given_what_the_student_is_given_and_nothing_else() -> None:
    nothing, model = Media(None, None, ()), tiny_model()
    takes = [Take(nothing, 1.0, nothing, x, np.zeros(0, int), "", (0, 0)) for x in (clip(9, lips=False), clip(14))]
    for take, answer in zip(takes, OnlineTeacher(model, hears="same").answers(takes), strict=True):
        np.testing.assert_allclose(answer.log_probs.numpy(), eager_log_probs(model, take.inputs)[0], atol=1e-4)


def test_the_loop_takes_back_what_one_loud_clip_did_to_the_ranges(job: Job, tmp_path: Path) -> None:
    """With dropout in the model and clips without sound or lips: the teacher is given the same, nothing drops out."""
    shutil.copytree(job.model, tmp_path / "initial")
    teacher, clips = load_model(Path(job.model)), DecodedClips(Path(job.sources[0].clips))
    drawn = [model_inputs(clips.media(i).waveform, clips.media(i).mouth, teacher.config.inputs) for i in range(3)]
    loud = [Inputs(8 * x.audio, 8 * x.video, x.presence) for x in drawn]
    calibrated(teacher, Plan(), loud).save(tmp_path / "initial")
    settings = {"learning_rate": 3e-6, "range_learning_rate": 0.1, "steps": 16}
    trained = run(replace(job, model=str(tmp_path / "initial"), **settings), tmp_path / "run")
    before, after = (_loss(teacher, folder, drawn) for folder in (tmp_path / "initial", trained))
    assert after < 0.3 * before


def test_ranges_have_a_rate_of_their_own_and_weights_the_usual_one(job: Job, tmp_path: Path) -> None:
    trained = run(replace(job, learning_rate=1e-6, range_learning_rate=0.05, steps=1), tmp_path)
    ends, new = ((load_plan(folder).learned or {})["head"].given for folder in (Path(job.model), trained))
    moved = [abs(math.log(b / a)) for a, b in zip(ends, new, strict=True)]
    assert all(0.02 < one < 0.11 for one in moved), moved  # Adam's first step is as large as the rate, which warms up
    weights = [load_model(folder).head.weight.detach() for folder in (Path(job.model), trained)]
    assert float((weights[0] - weights[1]).abs().max()) < 1e-5 + 2**-11 * float(weights[0].abs().max())


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_another_teacher_moves_the_weights_too(job: Job, tmp_path: Path, optimizer: str) -> None:
    """A model that is sure of other things teaches more than rounding costs; float matrices move, not rounded ones."""
    other = random_model(3, load_model(Path(job.model)).config)
    other.head.weight.data *= 8
    save_model(other, tmp_path / "other")
    shutil.copy2(Path(job.model) / "tokenizer.model", tmp_path / "other")
    school = Schooling(str(tmp_path / "other"), Terms(ctc=0.0, blank_weight=1.0), hears="clean")
    changed = {"school": school, "optimizer": optimizer, "learning_rate": 1e-3, "steps": 12}
    trained = run(replace(job, **changed), tmp_path / "run")
    clips = DecodedClips(Path(job.sources[0].clips))
    drawn = [model_inputs(clips.media(i).waveform, clips.media(i).mouth, other.config.inputs) for i in range(3)]
    assert _loss(other, trained, drawn) < 0.7 * _loss(other, Path(job.model), drawn)
    before, after = (
        load_model(folder).get_parameter("blocks.0.attention.out.weight") for folder in (Path(job.model), trained)
    )
    assert 1e-4 < float((before - after).abs().mean()) < 0.1


def test_a_killed_run_learns_the_ranges_of_an_unbroken_one(
    job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unbroken = run(job, tmp_path / "unbroken")
    killed_in_step_5(job, tmp_path / "killed", monkeypatch)
    resumed = run(job, tmp_path / "killed")
    ours, theirs = (load_plan(folder).learned or {} for folder in (resumed, unbroken))
    for path, ranges in ours.items():
        assert ranges.given == pytest.approx(theirs[path].given, abs=1e-5), path
    for name, weight in load_model(unbroken).state_dict().items():
        torch.testing.assert_close(load_model(resumed).state_dict()[name], weight, atol=1e-4, rtol=0, msg=name)


def test_a_recipe_with_qat_exports_int8_and_settings_that_teach_nothing_are_refused() -> None:
    stage = 'stages=[{"qat": {"mix": [{"corpus": "demo", "per_batch": 2}], "steps": 5}}]'
    recipe = Recipe.load("int8", [stage])
    assert recipe.plans == [Plan()]
    with pytest.raises(EdgeavError, match="nothing is to be learned"):
        Recipe.load("int8", [stage, "stages.0.qat.kl_weight=0"])
    with pytest.raises(EdgeavError, match="needs loaders: 0"):
        Recipe.load("int8", [stage, "stages.0.qat.loaders=2"])
    with pytest.raises(EdgeavError, match="name no `student`"):
        Recipe.load("int8", [stage, "stages.0.qat.student=av-teacher"])
    with pytest.raises(EdgeavError, match="posteriors: without a `teacher` the float model itself is asked online"):
        Recipe.load("int8", [stage, "stages.0.qat.posteriors=cached"])
    with pytest.raises(EdgeavError, match="teacher_hears: the float model itself is asked online"):
        Recipe.load("int8", [stage, "stages.0.qat.teacher_hears=noisy"])
    taught = ["stages.0.qat.teacher=av-teacher", "stages.0.qat.teacher_hears=noisy"]
    Recipe.load("int8", [stage, *taught])
    with pytest.raises(EdgeavError, match="cached ones are of clean clips"):
        Recipe.load("int8", [stage, *taught, "stages.0.qat.posteriors=cached"])
    with pytest.raises(EdgeavError, match="products of attention have no ranges"):
        Recipe.load("int8", [stage, "stages.0.qat.keep_float=[head]"])
    with pytest.raises(EdgeavError, match="the quantize before it has fp16"):
        Recipe.load("int8", [f'stages=[{{"quantize": {{"format": "fp16"}}}}, {stage[8:-1]}]'])
    with pytest.raises(EdgeavError, match="make qat the last stage"):
        Recipe.load("int8", [f"{stage[:-1]}, {{quantize: {{}}}}]"])


def _loss(teacher: AVModel, folder: Path, clips: list[Inputs]) -> float:
    """Of the rounded model in `folder`: its divergence, the mean over `clips`."""
    student = learnable(load_model(folder), load_plan(folder)).eval()
    with torch.no_grad():
        return sum(_divergence(teacher, student, inputs).item() for inputs in clips) / len(clips)


def _divergence(teacher: AVModel, student: AVModel, inputs: Inputs) -> torch.Tensor:
    """KL(teacher || student) a frame."""
    x = [torch.from_numpy(array) for array in inputs]
    with torch.no_grad():
        log_probs = teacher(*x)
    return (log_probs.exp() * (log_probs - student(*x))).sum(-1).mean()
