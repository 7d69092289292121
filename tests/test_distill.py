"""Distillation: each term equals its formula, spikes survive resampling, only the student's inputs are taken away."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from small_job import drawn_clips, run, small_job
from torch import Tensor
from torch.nn import functional as F

from edgeav.data.disturbance import Disturbance
from edgeav.data.posteriors import Posteriors
from edgeav.distillation import DistillationTraining, Lesson, Schooling, Terms, distance
from edgeav.errors import EdgeavError
from edgeav.job import Job
from edgeav.models import AVModel, ModelConfig, load_model, save_model
from edgeav.models.config import Block, ConcatMlp, Conv3dDense, DwStriding
from edgeav.progress import Progress
from edgeav.recipe import Recipe
from edgeav.run import Run
from edgeav.runtime.inputs import Features
from edgeav.stages.distill import Distill
from edgeav.teacher import CachedTeacher, Lessons, OnlineTeacher, cache_teacher
from edgeav.train import lessons_of, loss_of

STUDENT = ModelConfig(
    width=32,
    audio=DwStriding(channels=16),
    video=Conv3dDense(stem_channels=8, channels=(8, 16), strides=(2, 2)),
    fusion=ConcatMlp(hidden=32),
    blocks=(Block(heads=2, head_width=16, feed_forward=64, feed_forward_2=64, conv_channels=32),) * 2,
    dropout=0.0,
)
TEACHER = STUDENT.model_copy(update={"inputs": Features(step_ms=40), "width": 48})
MIX = {"mix": [{"corpus": "demo", "per_batch": 2}], "steps": 1}
STILL = Disturbance(share=0.0, tempo_share=0.0)
QUIET = {"share": 0.0, "tempo_share": 0.0}


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Job:
    """A student of 12.5 steps a second with a teacher of 25, on six drawn clips."""
    folder = tmp_path_factory.mktemp("distill")
    tokenizer = drawn_clips(folder)
    torch.manual_seed(0)
    for name, config in (("teacher", TEACHER), ("student", STUDENT)):
        model = AVModel(config.model_copy(update={"tokens": tokenizer.tokens}))
        model.head.weight.data *= 8  # a head that is sure of something
        save_model(model, folder / name)
        tokenizer.save(folder / name)
    noise, school = Disturbance(share=0.0, kinds={"white": 1.0}), Schooling(str(folder / "teacher"), Terms(ctc=0.0))
    return small_job(folder, "student", noise, steps=40, warmup=5, checkpoint_every=40, log_every=1, school=school)


def lesson_of(job: Job, **terms: object) -> tuple[DistillationTraining, Lesson]:
    """The loss and the first lesson of a job with other terms."""
    assert job.school is not None
    job = replace(job, school=replace(job.school, terms=Terms(**terms)))  # pyright: ignore[reportArgumentType]
    torch.manual_seed(0)
    training = loss_of(job)
    assert isinstance(training, DistillationTraining)
    lesson = lessons_of(job, torch.device("cpu")).batch(0, 0, 0, Disturbance(share=0.0))
    return training.eval(), lesson


def test_the_term_weighs_frames_by_what_is_not_blank_and_scales_with_the_temperature(job: Job) -> None:
    training, lesson = lesson_of(job, ctc=0.0, temperature=2.0, blank_weight=0.25)
    batch, blank = lesson.batch, training.model.config.blank
    found = training(lesson, 0.0)
    logits = training.model(batch.audio, _all_rows(lesson), batch.presence).double()
    q = (logits / 2).log_softmax(-1).detach().numpy()
    p = (lesson.teaching.log_probs.double() / 2).log_softmax(-1).numpy()
    silence = lesson.teaching.log_probs[..., blank].double().exp().numpy()
    inside = np.arange(batch.presence.shape[1]) < batch.steps.numpy()[:, None]
    weights = inside * (0.25 * silence + (1 - silence))
    expected = 4 * ((np.exp(p) * (p - q)).sum(-1) * weights).sum() / weights.sum()
    assert found["kl"].item() == pytest.approx(expected, rel=1e-4)
    torch.testing.assert_close(found["loss"], found["kl"])
    assert training.counts(lesson)["kl"] == pytest.approx(weights.sum(), rel=1e-5)


def test_texts_of_the_teacher_count_by_their_probabilities_each_a_ctc_loss_per_token(job: Job) -> None:
    training, lesson = lesson_of(job, ctc=0.0, kl=0.0, sequence=2.0)
    texts = [[([5, 5, 7], 0.75), ([], 0.25)], [([9], 1.0), ([], 0.0)], [([3, 4], 0.5), ([4], 0.5)]]
    teaching = lesson.teaching
    tokens, lengths, weights = torch.zeros(3, 2, 3, dtype=torch.long), torch.zeros(3, 2, dtype=torch.long), []
    for row, both in enumerate(texts):
        for place, (text, _) in enumerate(both):
            tokens[row, place, : len(text)], lengths[row, place] = torch.tensor(text, dtype=torch.long), len(text)
        weights.append([weight for _, weight in both])
    lesson = replace(
        lesson, teaching=replace(teaching, texts=tokens, text_lengths=lengths, text_weights=torch.tensor(weights))
    )
    found, batch, blank = training(lesson, 0.0), lesson.batch, training.model.config.blank
    log_probs = training.model(batch.audio, _all_rows(lesson), batch.presence)
    expected = 0.0
    for row, both in enumerate(texts):
        own = log_probs[row, : batch.steps[row]]
        for text, weight in both:
            cost = -own[:, blank].sum().item()
            if text:
                sizes = torch.tensor(len(own)), torch.tensor(len(text))
                cost = F.ctc_loss(own, torch.tensor(text), *sizes, blank=blank, reduction="none").item() / len(text)
            expected += weight * cost / 3
    assert found["sequence"].item() == pytest.approx(expected, rel=1e-4)
    torch.testing.assert_close(found["loss"], 2 * found["sequence"])


def test_hidden_layers_are_compared_with_the_teacher_s_normalized_ones(job: Job) -> None:
    ours, theirs = torch.randn(2, 3, 8), 5 + 3 * torch.randn(2, 3, 8)
    t = theirs.double().numpy()
    normal = (t - t.mean(-1, keepdims=True)) / np.sqrt(t.var(-1, keepdims=True) + 1e-5)
    expected = ((ours.double().numpy() - normal) ** 2).mean(-1)
    np.testing.assert_allclose(distance(ours, theirs).numpy(), expected, rtol=1e-4)
    training, lesson = lesson_of(job, ctc=0.0, kl=0.0, features=1.0, match=((2, 1),))
    assert lesson.teaching.hidden[0].shape == (*lesson.batch.presence.shape[:2], 48)
    losses = training(lesson, 0.0)
    losses["loss"].backward()
    weight = training.projections[0].weight
    assert float(losses["features"]) > 0 and isinstance(weight, Tensor) and weight.grad is not None


def test_parts_of_a_batch_add_up_to_it(job: Job) -> None:
    training, lesson = lesson_of(job, ctc=0.5, kl=1.0, sequence=0.5, features=0.1, match=((2, 2),))
    assert job.school is not None
    lessons = lessons_of(replace(job, school=replace(job.school, terms=training.terms)), torch.device("cpu"))
    assert isinstance(lessons, Lessons)
    takes = lessons.batches.takes(0, 0, 0, Disturbance(share=0.0))
    parts = [lessons.lesson(takes[:1]), lessons.lesson(takes[1:])]
    counts = [training.counts(part) for part in parts]
    whole, total = training(lesson, 1.0), training.counts(lesson)
    sums = [
        training(part, 1.0, {n: c / max(total[n], 1e-9) for n, c in count.items()})
        for part, count in zip(parts, counts, strict=True)
    ]
    for name, value in whole.items():
        torch.testing.assert_close(sums[0][name] + sums[1][name], value, atol=1e-4, rtol=1e-4, msg=name)


def test_only_the_student_loses_a_modality(job: Job) -> None:
    both, lips = (
        lessons_of(replace(job, modalities=shares), torch.device("cpu")).batch(0, 0, 0, STILL)
        for shares in ({"both": 1.0}, {"lips": 1.0})
    )
    assert bool((both.batch.presence[..., 0] > 0).any()) and not bool((lips.batch.presence[..., 0] > 0).any())
    torch.testing.assert_close(lips.teaching.log_probs, both.teaching.log_probs)


def test_noise_reaches_the_teacher_only_if_asked(job: Job) -> None:
    assert job.school is not None
    noisy = Disturbance(share=1.0, snr_db=(0.0, 0.0), tempo_share=0.0, kinds={"white": 1.0})
    job, clean = replace(job, modalities={"both": 1.0}), job.school
    noisily = replace(clean, hears="noisy")
    for school, same in ((clean, True), (noisily, False)):
        lessons = lessons_of(replace(job, school=school), torch.device("cpu"))
        quiet, loud = (lessons.batch(0, 0, 0, noise).teaching.log_probs for noise in (STILL, noisy))
        assert torch.allclose(quiet, loud, atol=1e-5) is same


@pytest.mark.parametrize(("precision", "within"), [("fp32", 2e-3), ("bf16", 2e-2)])
def test_cached_answers_are_the_online_ones_and_refuse_another_tempo(
    job: Job, tmp_path: Path, precision: Literal["fp32", "bf16"], within: float
) -> None:
    assert job.school is not None
    teacher, clips = Path(job.school.teacher), Path(job.sources[0].clips)
    online = OnlineTeacher(load_model(teacher), nbest=3)
    cache = Posteriors(cache_teacher(teacher, clips, tmp_path, (128, 3), Progress(), precision))
    cached = CachedTeacher(online.config, [cache])
    lessons = lessons_of(job, torch.device("cpu"))
    assert isinstance(lessons, Lessons)
    takes = lessons.batches.takes(0, 0, 0, STILL)
    for ours, theirs in zip(cached.answers(takes), online.answers(takes), strict=True):
        torch.testing.assert_close(ours.log_probs.exp(), theirs.log_probs.exp(), atol=within, rtol=0)
        if precision == "fp32":
            assert ours.texts[0][0] == theirs.texts[0][0]
    with pytest.raises(EdgeavError, match="tempo"):
        cached.answers([replace(takes[0], tempo=1.1)])


def test_a_student_comes_closer_to_its_teacher_without_any_text(job: Job, tmp_path: Path) -> None:
    trained = run(job, tmp_path)
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    start, end = (np.mean([row["kl"] for row in part]) for part in (rows[:5], rows[-5:]))
    assert end < 0.5 * start
    assert load_model(trained).config.inputs.step_ms == 80


def test_a_job_survives_its_file(job: Job, tmp_path: Path) -> None:
    from dataclasses import asdict

    assert job.school is not None
    terms = Terms(features=1.0, match=((1, 2),))
    whole = replace(job, school=replace(job.school, terms=terms, posteriors=("a", "b")))
    (tmp_path / "job.json").write_text(json.dumps(asdict(whole)))
    assert Job.read(tmp_path / "job.json") == whole


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({}, "name a `teacher` or a `student`"),
        ({"student": "s", "kl_weight": 0}, "no weight at all"),
        ({"student": "s", "posteriors": "cached"}, "demo are spliced or put to other tempos.*variants: 4"),
        ({"student": "s", "posteriors": "cached", "noise": QUIET, "teacher_hears": "noisy"}, "online"),
        ({"student": "s", "posteriors": "cached", "noise": QUIET, "feature_weight": 1}, "no hidden layer is cached"),
        ({"student": "s", "feature_weight": 1}, "needs `match`"),
        ({"student": "s", "loaders": 2}, "loaders: 0"),
        ({"student": "s", "modalities": {"lips": 0.5}}, "must be 1"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(settings: dict, says: str) -> None:
    with pytest.raises(ValidationError, match=says.replace("`", ".")):
        Distill.model_validate(MIX | settings)


def test_a_new_student_gets_the_tokens_of_the_teacher_and_another_s_are_refused(job: Job, tmp_path: Path) -> None:
    assert job.school is not None
    recipe = Recipe.model_validate({"schema": "edgeav/1", "name": "x", "model": job.school.teacher})
    run, teacher = Run(tmp_path / "run", recipe), Path(job.school.teacher)
    small = {"width": 32, "blocks": [block.model_dump() for block in STUDENT.blocks]}
    start = Distill.model_validate(MIX | {"student": {"config": small}}).starting_model(
        teacher, {}, run, tmp_path / "new"
    )
    assert load_model(start).config.tokens == load_model(teacher).config.tokens
    assert (start / "tokenizer.model").read_bytes() == (teacher / "tokenizer.model").read_bytes()

    save_model(AVModel(STUDENT.model_copy(update={"tokens": ("▁a", "▁b")})), tmp_path / "other")
    other = Distill.model_validate(MIX | {"student": str(tmp_path / "other")})
    with pytest.raises(EdgeavError, match="same tokens"):
        other.starting_model(teacher, {}, run, tmp_path / "new")
    far = Distill.model_validate(MIX | {"student": {"config": small}, "feature_weight": 1, "match": [[3, 1]]})
    with pytest.raises(EdgeavError, match="blocks 0 to 2"):
        far.starting_model(teacher, {}, run, tmp_path / "new")


def _all_rows(lesson: Lesson) -> Tensor:
    """The video of a batch with black clips for the rows without."""
    batch = lesson.batch
    whole = batch.video.new_zeros(len(batch.steps), *batch.video.shape[1:])
    whole[batch.video_rows] = batch.video
    return whole
