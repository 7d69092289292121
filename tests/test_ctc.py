"""Greedy CTC on matrices whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest

from edgeav.runtime.ctc import decode

TOKENS = ["▁bin", "▁bl", "ue", "▁", "s"]
BLANK = len(TOKENS)


def path(*labels: int, confidence: float = 0.9) -> np.ndarray:
    """(N, V) log-probabilities in which `labels` win with `confidence`."""
    probabilities = np.full((len(labels), BLANK + 1), (1 - confidence) / BLANK)
    probabilities[np.arange(len(labels)), labels] = confidence
    return np.log(probabilities).astype(np.float32)


def test_repeats_merge_and_blanks_vanish() -> None:
    decoding = decode(path(BLANK, 0, 0, BLANK, 1, 2, 2, BLANK), TOKENS, BLANK)

    assert decoding.text == "bin blue"


def test_a_blank_parts_two_equal_labels() -> None:
    assert decode(path(0, BLANK, 0), TOKENS, BLANK).text == "bin bin"
    assert decode(path(0, 0, 0), TOKENS, BLANK).text == "bin"


def test_words_have_the_times_of_their_first_and_last_piece() -> None:
    bin_, blue = decode(path(BLANK, 0, 0, BLANK, 1, 1, 2, BLANK), TOKENS, BLANK, steps_per_second=10).words

    assert (bin_.word, bin_.start_s, bin_.end_s) == ("bin", 0.1, 0.3)
    assert (blue.word, blue.start_s, blue.end_s) == ("blue", 0.4, 0.7)


def test_confidence_is_the_geometric_mean_of_the_pieces() -> None:
    log_probs = np.concatenate([path(1, confidence=0.9), path(2, confidence=0.4)])

    (word,) = decode(log_probs, TOKENS, BLANK).words

    assert word.confidence == pytest.approx(np.sqrt(0.9 * 0.4), abs=1e-4)


def test_padding_is_skipped_whatever_the_model_says_there() -> None:
    presence = np.array([[1, 1], [1, 0], [0, 1], [0, 0], [0, 0]])

    assert decode(path(0, 1, 2, 0, 0), TOKENS, BLANK, presence).text == "bin blue"


def test_a_lone_word_mark_starts_a_word_and_is_none_itself() -> None:
    assert decode(path(0, 3, 4), TOKENS, BLANK).text == "bin s"
    assert decode(path(0, 3), TOKENS, BLANK).text == "bin"


def test_a_piece_without_a_mark_may_begin_the_text() -> None:
    assert decode(path(2, 0), TOKENS, BLANK).text == "ue bin"


def test_only_blanks_is_no_text() -> None:
    decoding = decode(path(BLANK, BLANK), TOKENS, BLANK)

    assert (decoding.text, decoding.words) == ("", [])
