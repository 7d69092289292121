"""Word error rate, its interval, and the difference of two systems."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from edgeav.macs import gmac_per_second
from edgeav.measure import character_error_rate, eager, greedy_text, wer_increase, word_error_rate
from edgeav.models import random_model
from edgeav.runtime.features import empty_inputs
from edgeav.runtime.inputs import Features

REFERENCES = ["bin blue at f two now", "set red by a one soon"] * 60


def spoil(text: str, word: int) -> str:
    words = text.split()
    words[word] = "wrong"
    return " ".join(words)


def test_the_rate_counts_each_kind_of_error() -> None:
    found = word_error_rate(["a b c d", "e f"], ["a x c", "e f g"])
    assert (found.substitutions, found.deletions, found.insertions, found.words) == (1, 1, 1, 6)
    assert found.wer == 50.0


def test_characters_are_counted_with_the_spaces_between_words() -> None:
    rate, low, high = character_error_rate(["ab cd", "ef"], ["ab d", "ef"])  # one of 5 + 2 is missing
    assert rate == pytest.approx(100 / 7, abs=0.01) and low == 0 and high == pytest.approx(20)
    assert character_error_rate(["ab", "c"], ["", "c"])[0] == pytest.approx(200 / 3, abs=0.01)


def test_the_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    """300 simulated test sets with 10 % wrong words: the 95 % interval holds 10 in most of them."""
    r, hits = np.random.default_rng(0), 0
    for trial in range(60):
        texts = [spoil(t, int(r.integers(6))) if r.random() < 0.6 else t for t in REFERENCES]
        found = word_error_rate(REFERENCES, texts, seed=trial)
        hits += found.low <= 10.0 <= found.high
    assert hits >= 52


def test_perfect_transcripts_have_no_error_and_no_doubt() -> None:
    found = word_error_rate(REFERENCES, REFERENCES)
    assert (found.wer, found.low, found.high) == (0.0, 0.0, 0.0)


def test_a_difference_is_resampled_in_pairs_so_common_errors_cancel() -> None:
    before = [spoil(t, 0) if i % 2 else t for i, t in enumerate(REFERENCES)]
    after = [spoil(t, 1) if i == 3 else t for i, t in enumerate(before)]
    difference, low, high = wer_increase(REFERENCES, before, after)
    assert difference == pytest.approx(100 / 720, abs=0.01)
    assert low >= 0 and high < 0.6
    assert wer_increase(REFERENCES, before, before) == (0.0, 0.0, 0.0)


def test_greedy_text_ignores_steps_where_nothing_is_present() -> None:
    inputs = empty_inputs(Features(), 4)
    inputs.presence[0, :2] = 1
    log_probs = np.full((1, 4, 3), -5, np.float32)
    log_probs[0, [0, 1, 2, 3], [0, 2, 1, 1]] = 0
    assert greedy_text(log_probs, inputs, ("▁a", "▁b"), 2) == "a"


def test_an_eager_model_recognizes_arrays_without_gradients() -> None:
    model = random_model()
    out = eager(model)(empty_inputs(Features(), 5))
    assert isinstance(out, np.ndarray) and out.shape == (1, 5, 5) and out.dtype == np.float32


def test_the_cost_of_a_linear_layer_is_counted_by_its_formula() -> None:
    model = random_model()
    full = gmac_per_second(model)
    head = model.head
    model.head = torch.nn.Linear(head.in_features, head.out_features + 1000)
    assert gmac_per_second(model) - full == pytest.approx(12.5 * head.in_features * 1000 / 1e9, abs=2e-4)
