"""Beam search against enumeration: of all alignments, of all texts, by definition and one at a time."""

from __future__ import annotations

import itertools
from collections import defaultdict

import pytest
import torch
from torch import Tensor

from edgeav.beam import Hypothesis, Search, ctc_beam_search, joint_beam_search, text
from edgeav.models import AVModel, ModelConfig
from edgeav.models.config import AttentionDecoder, Block, DwStriding
from edgeav.prefixes import Prefixes
from edgeav.runtime.ctc import decode
from edgeav.runtime.inputs import Features

Text = tuple[int, ...]
WIDTH = 16
WIDE = Search(beam=400, nbest=400, ctc_weight=0.3)


def lattice(seed: int, steps: int, vocabulary: int) -> Tensor:
    return (2 * torch.randn(steps, vocabulary, generator=torch.Generator().manual_seed(seed))).log_softmax(-1)


def texts_of(log_probs: Tensor, blank: int) -> dict[Text, float]:
    """The log-probability of every text: the sum over all V^N alignments."""
    found: dict[Text, float] = defaultdict(float)
    for path in itertools.product(range(log_probs.shape[1]), repeat=len(log_probs)):
        words = tuple(label for label, _ in itertools.groupby(path) if label != blank)
        found[words] += float(log_probs[range(len(path)), path].double().sum().exp())
    return {words: float(torch.tensor(p).double().log()) for words, p in found.items()}


def tiny(eos: int | None = None, blank: int | None = None, seed: int = 0) -> AVModel:
    """3 tokens and the blank, or 4 tokens of which one is the blank and one the eos; peaked, so that beams differ."""
    torch.manual_seed(seed)
    config = ModelConfig(
        inputs=Features(video=None),
        width=WIDTH,
        audio=DwStriding(channels=8),
        video=None,
        fusion=None,
        blocks=(Block(heads=2, head_width=8),),
        decoder=AttentionDecoder(blocks=1, heads=2, feed_forward=16, eos=eos),
        tokens=("▁a", "▁b", "c") if blank is None else ("<blank>", "▁b", "c", "<eos>"),
        blank_index=blank,
    )
    model = AVModel(config)
    for part in (model.head, model.decoder):
        assert part is not None
        for parameter in part.parameters():
            torch.nn.init.normal_(parameter, std=0.6)
    return model.eval()


def encoder_output(*steps: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """(B, N, D) of noise and (B, N, 1), whose rows have so many steps; the padding is noise too."""
    g = torch.Generator().manual_seed(seed)
    valid = (torch.arange(max(steps)) < torch.tensor(steps)[:, None]).float()[..., None]
    return torch.randn(len(steps), max(steps), WIDTH, generator=g), valid


@torch.no_grad()
def every_text(model: AVModel, encoded: Tensor, longest: int, search: Search) -> dict[Text, Hypothesis]:
    """The scores of all texts by definition: CTC by enumeration, attention by the decoder's forward pass, eos too."""
    assert model.decoder is not None
    config = model.config
    by_ctc = texts_of(model.head(encoded)[0].log_softmax(-1), config.blank)
    alphabet = [t for t in range(config.vocabulary) if t not in (config.blank, config.eos)]
    found = {}
    for length in range(longest + 1):
        for words in itertools.product(alphabet, repeat=length):
            given, wanted = torch.tensor([[config.eos, *words]]), torch.tensor([*words, config.eos])
            logits = model.decoder(given, encoded, torch.ones(1, encoded.shape[1], 1))[0].double()
            attention = float(logits.log_softmax(-1)[range(length + 1), wanted].sum())
            ctc, w = by_ctc.get(words, float("-inf")), search.ctc_weight
            score = (1 - w) * attention + (w * ctc if w else 0.0) + search.length_bonus * length
            if score > float("-inf"):
                found[words] = Hypothesis(words, score, ctc, attention)
    return found


def assert_same(found: list[Hypothesis], expected: list[Hypothesis], atol: float = 1e-5) -> None:
    assert [h.tokens for h in found] == [h.tokens for h in expected]
    assert [h.finished for h in found] == [h.finished for h in expected]
    for name in ("score", "ctc", "attention"):
        assert [getattr(h, name) for h in found] == pytest.approx([getattr(h, name) for h in expected], abs=atol)


def best(found: dict[Text, Hypothesis]) -> list[Hypothesis]:
    return sorted(found.values(), key=lambda h: -h.score)


@pytest.mark.parametrize(
    ("seed", "steps", "vocabulary", "blank"), [(0, 5, 3, 2), (1, 6, 3, 0), (2, 5, 4, 1), (3, 4, 4, 3)]
)
def test_ctc_search_with_a_wide_beam_finds_every_text_and_its_probability(
    seed: int, steps: int, vocabulary: int, blank: int
) -> None:
    log_probs = lattice(seed, steps, vocabulary)
    expected = texts_of(log_probs, blank)
    found = ctc_beam_search(log_probs, blank, beam=2000)
    assert {h.tokens: h.score for h in found} == pytest.approx(expected, abs=1e-6)
    assert [h.score for h in found] == sorted((h.score for h in found), reverse=True)
    assert sum(torch.tensor([h.score for h in found]).exp()) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("beam", [1, 2, 5])
def test_a_narrow_ctc_beam_never_claims_more_than_the_exact_probability(beam: int) -> None:
    for seed in range(10):
        log_probs = lattice(seed, 6, 4)
        exact, found = texts_of(log_probs, 3), ctc_beam_search(log_probs, 3, beam)
        assert len(found) == beam
        assert all(h.score <= exact[h.tokens] + 1e-6 for h in found)


def test_summing_alignments_beats_the_best_one() -> None:
    probabilities = torch.tensor([[0.4, 0.0, 0.6], [0.4, 0.0, 0.6]])  # a, b, blank: greedy says nothing
    assert decode(probabilities.log().numpy(), ["a", "b"], 2).text == ""
    first, second = ctc_beam_search(probabilities.log(), 2)
    assert first.tokens == (0,) and first.score == pytest.approx(torch.tensor(0.64).log().item())
    assert second.tokens == () and second.score == pytest.approx(torch.tensor(0.36).log().item())


@pytest.mark.parametrize(("seed", "steps", "vocabulary", "blank"), [(0, 5, 3, 2), (1, 6, 3, 0), (2, 5, 4, 1)])
def test_prefix_scores_equal_their_definition(seed: int, steps: int, vocabulary: int, blank: int) -> None:
    """P(text begins with g) is the sum over all texts that do; for every beginning of up to 3 tokens."""
    log_probs = lattice(seed, steps, vocabulary)
    all_texts = texts_of(log_probs, blank)

    def begins_with(prefix: Text) -> float:
        return sum(float(torch.tensor(p).exp()) for words, p in all_texts.items() if words[: len(prefix)] == prefix)

    prefixes, known = Prefixes.start(log_probs[None], torch.ones(1, steps, 1), blank), [()]
    labels = [c for c in range(vocabulary) if c != blank]
    for _ in range(3):
        scores = prefixes.extended()[0].exp()
        for row, prefix in enumerate(known):
            whole = float(prefixes.whole[0, row].exp())
            assert whole == pytest.approx(float(torch.tensor(all_texts[prefix]).exp()), abs=1e-6)
            assert scores[row, blank] == 0
            for c in labels:
                assert float(scores[row, c]) == pytest.approx(begins_with((*prefix, c)), abs=1e-6)
        parents = torch.arange(len(known)).repeat_interleave(len(labels))[None]
        prefixes = prefixes.grown(parents, torch.tensor(labels * len(known))[None])
        known = [(*prefix, c) for prefix in known for c in labels]


def test_prefix_scores_of_a_long_and_certain_utterance_stay_exact() -> None:
    """750 steps whose tokens have probability 1e-12 off their place: the sums reach -20,000, the answer is about 0."""
    steps, said = 750, [0, 1, 1, 0]
    log_probs = torch.full((1, steps, 3), 1e-12).double()
    log_probs[..., 2] = 1
    for number, token in enumerate(said):
        log_probs[0, 150 * number + 100] = (
            torch.tensor([1e-12, 1e-12, 1e-12]).double().index_fill(0, torch.tensor(token), 1)
        )
    prefixes = Prefixes.start(log_probs.log(), torch.ones(1, steps, 1), 2)
    for token in said:
        assert float(prefixes.extended()[0, 0, token]) == pytest.approx(0, abs=1e-6)
        prefixes = prefixes.grown(torch.tensor([[0]]), torch.tensor([[token]]))
    assert float(prefixes.whole) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize(
    ("seed", "steps", "eos", "blank", "weight", "bonus"),
    [
        (0, 4, None, None, 0.3, 0),
        (1, 5, None, None, 0.1, 0),
        (2, 4, 3, 0, 0.5, 0),
        (3, 4, 3, 0, 0.1, 1.5),
        (4, 4, None, None, 0, 0),
        (5, 4, 3, 0, 1, -0.5),
    ],
)
def test_joint_search_with_a_wide_beam_equals_scoring_every_text(
    seed: int, steps: int, eos: int | None, blank: int | None, weight: float, bonus: float
) -> None:
    model, (encoded, valid) = tiny(eos, blank, seed), encoder_output(steps, seed=seed)
    search = Search(beam=2000, nbest=2000, ctc_weight=weight, length_bonus=bonus)
    expected = best(every_text(model, encoded, steps, search))
    assert_same(joint_beam_search(model, encoded, valid, search)[0], expected)
    few = Search(beam=2000, nbest=3, ctc_weight=weight, length_bonus=bonus)
    assert_same(joint_beam_search(model, encoded, valid, few)[0], expected[:3])


@pytest.mark.parametrize("beam", [1, 3])
def test_a_narrow_joint_beam_gives_true_scores_none_above_the_best(beam: int) -> None:
    for seed in range(5):
        model, (encoded, valid) = tiny(seed=seed), encoder_output(4, seed=seed)
        exact = every_text(model, encoded, 4, WIDE)
        found = joint_beam_search(model, encoded, valid, Search(beam=beam, nbest=beam, ctc_weight=0.3))[0]
        finished = [h for h in found if h.finished]
        assert_same(finished, [exact[h.tokens] for h in finished])
        assert all(h.score <= best(exact)[0].score + 1e-6 for h in finished)
        assert finished or beam == 1


@pytest.mark.parametrize("search", [Search(beam=6, nbest=6), Search(beam=40, nbest=3, ctc_weight=0.5), WIDE])
def test_utterances_of_different_lengths_in_one_batch_give_the_same_as_alone(search: Search) -> None:
    model, lengths = tiny(), (6, 2, 4, 1)
    encoded, valid = encoder_output(*lengths)
    together = joint_beam_search(model, encoded, valid, search)
    for row, steps in enumerate(lengths):
        alone = joint_beam_search(model, encoded[row : row + 1, :steps], torch.ones(1, steps, 1), search)
        assert_same(together[row], alone[0])


def test_a_single_step_an_empty_one_and_a_beam_beyond_the_vocabulary_are_searched() -> None:
    model = tiny()
    encoded, valid = encoder_output(1, 0)
    one, none = joint_beam_search(model, encoded, valid, WIDE)
    assert_same(one, best(every_text(model, encoded[:1], 1, WIDE)))
    assert [h.tokens for h in none] == [()]
    assert [h.tokens for h in ctc_beam_search(torch.zeros(0, 4), 3)] == [()]


def test_certain_blanks_are_no_text() -> None:
    log_probs = torch.full((6, 4), float("-inf"))
    log_probs[:, 3] = 0
    assert ctc_beam_search(log_probs, 3) == [Hypothesis((), 0.0, 0.0)]
    model = tiny()
    torch.nn.init.zeros_(model.head.weight)
    with torch.no_grad():
        model.head.bias.copy_(torch.tensor([0.0, 0.0, 0.0, 200.0]))
    (found,) = joint_beam_search(model, *encoder_output(6), Search(ctc_weight=0.9))
    assert [h.tokens for h in found] == [()]


def test_what_does_not_finish_is_returned_and_says_so() -> None:
    model = tiny()
    assert model.decoder is not None
    with torch.no_grad():
        model.decoder.head.bias[model.config.eos] = -1000
    (found,) = joint_beam_search(model, *encoder_output(5), Search(beam=2, nbest=2, longest=3))
    assert [(len(h.tokens), h.finished) for h in found] == [(3, False)] * 2


def test_text_joins_pieces_and_leaves_out_what_is_none() -> None:
    config = ModelConfig(
        decoder=AttentionDecoder(eos=5), blank_index=0, tokens=("<blank>", "<unk>", "▁bl", "ue", "▁", "<eos>")
    )
    assert text((2, 3, 0, 4, 4, 1, 2, 3, 5), config) == "blue blue"
    assert text((), config) == text((0, 1, 4), config) == ""
    own = ModelConfig(tokens=("▁a", "b"))
    assert text((0, 1, own.blank, 0), own) == "ab a"
