"""The losses: each equals its formula, every part of every kind of model learns, and what is learned is found again."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from edgeav.beam import Search, ctc_beam_search, joint_beam_search
from edgeav.data.batch import NO_LABEL, Batch
from edgeav.losses import STRAY, CtcTraining, Mixture, astray, cross_entropy, ctc, decoder_texts
from edgeav.models import AVModel, ModelConfig, noise
from edgeav.models.config import AttentionDecoder, Block, ConcatMlp, Conv3dDense, DwStriding
from edgeav.runtime.inputs import Features
from edgeav.train import learns

TEXTS = [[0, 1, 1, 2], [3, 0]]
BLOCK = Block(heads=2, head_width=16, feed_forward=64, feed_forward_2=64, conv_channels=32)


def model(hears: bool = True, sees: bool = True) -> AVModel:
    torch.manual_seed(0)
    inputs = Features()
    return AVModel(
        ModelConfig(
            inputs=Features(audio=inputs.audio if hears else None, video=inputs.video if sees else None),
            width=32,
            audio=DwStriding(channels=16) if hears else None,
            video=Conv3dDense(stem_channels=8, channels=(8, 16), strides=(2, 2)) if sees else None,
            fusion=ConcatMlp(hidden=32) if hears and sees else None,
            blocks=(BLOCK, BLOCK),
            inter_ctc=(1,),
            decoder=AttentionDecoder(blocks=1, heads=2, feed_forward=64),
            tokens=("▁a", "▁b", "▁c", "▁d"),
            dropout=0.0,
        )
    )


def batch(of: AVModel, steps: tuple[int, int] = (9, 6)) -> Batch:
    """Two clips of noise, the second of them shorter."""
    torch.manual_seed(1)
    audio, video, presence = noise(of.config, max(steps), batch=2)
    for part in (audio, video, presence):
        part[1, part.shape[1] * steps[1] // steps[0] :] = 0
    return Batch(
        audio=audio,
        video=video,
        video_rows=torch.arange(2),
        presence=presence,
        labels=torch.tensor([[0, 0, 1, 1, 1, 2, 2, 4, 4], [3, 3, 0, 0, 4, 4, NO_LABEL, NO_LABEL, NO_LABEL]]),
        steps=torch.tensor(steps),
        targets=torch.tensor([token for text in TEXTS for token in text]),
        target_lengths=torch.tensor([len(text) for text in TEXTS]),
        lips_fit=torch.ones(2, dtype=torch.bool),
    )


@pytest.mark.parametrize(("hears", "sees"), [(True, True), (True, False), (False, True)])
def test_every_kind_of_model_learns_two_clips_and_search_finds_their_texts(hears: bool, sees: bool) -> None:
    training = CtcTraining(model(hears, sees), Mixture(attention=0.5))
    data, optimizer = batch(training.model), torch.optim.Adam(training.parameters(), 3e-3)
    for _ in range(60):
        optimizer.zero_grad()
        training(data, frame_weight=0.5)["loss"].backward()
        optimizer.step()
    learned = training.model.eval()
    with torch.no_grad():
        encoded = learned.encode(data.audio, data.video, data.presence)[-1]
        log_probs = learned.head(encoded).log_softmax(-1)
    together = joint_beam_search(learned, encoded, learned.valid(data.presence), Search(beam=5, ctc_weight=0.5))
    assert [list(found[0].tokens) for found in together] == TEXTS
    by_ctc = [
        ctc_beam_search(row[:steps], learned.config.blank, 5) for row, steps in zip(log_probs, (9, 6), strict=True)
    ]
    assert [list(found[0].tokens) for found in by_ctc] == TEXTS


def test_a_token_is_astray_where_neither_this_step_nor_one_beside_it_says_it() -> None:
    blank, labels = 3, torch.tensor([[3, 3, 0, 0, 1, 3, NO_LABEL]])
    allowed = [{3}, {3, 0}, {3, 0}, {3, 0, 1}, {3, 0, 1}, {3, 1}, {0, 1, 2, 3}]
    found = [{token for token in range(4) if not far[token]} for far in astray(labels, blank, 4)[0].bool().tolist()]
    assert found == allowed
    assert not astray(torch.full((1, 7), NO_LABEL), blank, 4).any()


def test_ctc_costs_the_same_in_its_words_and_more_by_the_penalty_for_each_token_elsewhere() -> None:
    data = replace(
        batch(model()), steps=torch.tensor([4]), targets=torch.tensor([0, 1]), target_lengths=torch.tensor([2])
    )
    blank, labels = 3, torch.tensor([[0, 0, 1, 1]])
    logits = torch.full((1, 4, 4), -30.0).scatter(2, torch.tensor([[[0], [3], [3], [1]]]), 30.0)
    plain, stray = ctc(logits, data, blank), astray(labels, blank, 4)
    torch.testing.assert_close(ctc(logits, data, blank, stray), plain)
    early = torch.full((1, 4, 4), -30.0).scatter(2, torch.tensor([[[0], [1], [3], [3]]]), 30.0)
    late_labels = torch.tensor([[3, 0, 3, 1]])  # the second token comes two steps too early
    extra = ctc(early, data, blank, astray(late_labels, blank, 4)) - ctc(early, data, blank)
    torch.testing.assert_close(extra, torch.tensor(STRAY / 2))  # a mean over two tokens


def test_training_leaves_out_padding_and_clips_without_sound_and_computes_the_rest_as_ever() -> None:
    training = CtcTraining(model())
    data = batch(training.model)
    data.presence[1, :, 0] = data.audio[1] = 0  # the second clip is lips alone, with a gap
    data.presence[1, 2:5, 1] = data.video[1, 4:10] = 0
    learns(training, frozen_norms=True)
    frames: list[int] = []
    assert training.model.video is not None
    training.model.video.linear.register_forward_hook(lambda _, inputs, __: frames.append(len(inputs[0])))
    found, _ = training.encoded(data)
    expected, _ = CtcTraining(training.model).eval().encoded(data)
    assert frames == [2 * (9 + 6), 2 * (9 + 9)]  # without what pads the second clip, in training
    for name, place in (("sound", 0), ("lips", 1)):
        there = data.presence[..., place] > 0
        torch.testing.assert_close(found[name][there], expected[name][there], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("hears", "sees"), [(True, True), (True, False), (False, True)])
def test_every_parameter_gets_a_gradient(hears: bool, sees: bool) -> None:
    training = CtcTraining(model(hears, sees))
    data = batch(training.model)
    training(data, frame_weight=1.0)["loss"].backward()
    assert [name for name, p in training.named_parameters() if p.grad is None] == []
    assert ("lips" in training.heads, "sound" in training.heads) == (sees, hears)


def test_the_loss_mixes_ctc_intermediate_ctc_attention_and_frames_as_weighed() -> None:
    training = CtcTraining(model(), Mixture(inter_ctc=0.25, attention=0.6))
    losses = training.eval()(batch(training.model), frame_weight=0.5)
    text = 0.4 * (0.75 * losses["ctc"] + 0.25 * losses["inter_ctc"]) + 0.6 * losses["attention"]
    frames = 1.5 * losses["middle"] + losses["last"] + 0.5 * losses["sound"] + losses["lips"]
    torch.testing.assert_close(losses["loss"], text + 0.5 * frames)


def test_a_model_with_a_ctc_head_alone_has_no_other_loss_on_the_text() -> None:
    config = model().config.model_copy(update={"inter_ctc": (), "decoder": None})
    losses = CtcTraining(AVModel(config)).eval()(batch(AVModel(config)), frame_weight=0.0)
    assert set(losses) == {"ctc", "middle", "last", "sound", "lips", "loss"}
    torch.testing.assert_close(losses["loss"], losses["ctc"])


def test_intermediate_ctc_is_the_loss_of_the_same_head_behind_that_block() -> None:
    training = CtcTraining(model()).eval()
    data, recognizer = batch(training.model), training.model
    data = replace(data, labels=torch.full_like(data.labels, NO_LABEL))  # no token is out of place
    middle = recognizer.head(recognizer.encode(data.audio, data.video, data.presence)[1]).log_softmax(-1)
    expected = [
        F.ctc_loss(row[:n], torch.tensor(text), torch.tensor(n), torch.tensor(len(text)), blank=4)  # per token of text
        for row, n, text in zip(middle, (9, 6), TEXTS, strict=True)
    ]
    torch.testing.assert_close(training(data, 0.0)["inter_ctc"], torch.stack(expected).mean())


def test_the_decoder_is_given_the_text_behind_eos_and_is_to_say_it_before_eos() -> None:
    given, wanted = decoder_texts(batch(model()), eos=4)
    assert given.tolist() == [[4, 0, 1, 1, 2], [4, 3, 0, 4, 4]]
    assert wanted.tolist() == [[0, 1, 1, 2, 4], [3, 0, 4, NO_LABEL, NO_LABEL]]


def test_smoothed_cross_entropy_equals_the_formula_over_known_labels() -> None:
    logits, labels = torch.randn(2, 3, 5), torch.tensor([[0, 4, NO_LABEL], [2, NO_LABEL, NO_LABEL]])
    target = torch.full((3, 5), 0.1 / 5)
    target[range(3), [0, 4, 2]] += 0.9
    known: Tensor = logits[labels != NO_LABEL].log_softmax(-1)
    torch.testing.assert_close(cross_entropy(logits, labels, 0.1), -(target * known).sum(-1).mean())
    assert cross_entropy(logits, torch.full_like(labels, NO_LABEL)) == 0
