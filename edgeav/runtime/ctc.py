"""Greedy CTC decoding: the best output of every step, repeats merged, blanks dropped.

Connectionist Temporal Classification: Graves et al. 2006, https://dl.acm.org/doi/10.1145/1143844.1143891.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

WORD_START = "▁"  # SentencePiece marks with it the piece that begins a word


@dataclass(frozen=True)
class Word:
    """A decoded word; `confidence` in 0..1 is the geometric mean of the probabilities of its pieces."""

    word: str
    start_s: float
    end_s: float
    confidence: float


@dataclass(frozen=True)
class Decoding:
    text: str
    words: list[Word]


@dataclass(frozen=True)
class _Piece:
    """One emitted output: its text, the steps [start, end) it won, and its highest log-probability there."""

    text: str
    start: int
    end: int
    log_prob: float


def decode(
    log_probs: NDArray[np.float32],
    tokens: list[str],
    blank: int,
    presence: NDArray | None = None,
    steps_per_second: float = 12.5,
) -> Decoding:
    """(N, V) log-probabilities -> text and words.

    `presence` (N, 2) as the model got it: steps with neither sound nor picture are padding and are skipped
    (they also part two equal labels, as a blank would).
    """
    best = log_probs.argmax(axis=-1)
    if presence is not None:
        best = np.where(presence.any(axis=-1), best, blank)
    pieces = _pieces(best, log_probs, tokens, blank)
    words = [_word(group, steps_per_second) for group in _by_word(pieces)]
    words = [word for word in words if word.word]  # a lone "▁" says nothing
    return Decoding(" ".join(word.word for word in words), words)


def _pieces(best: NDArray, log_probs: NDArray, tokens: list[str], blank: int) -> list[_Piece]:
    pieces, start = [], 0
    for label, run in groupby(best.tolist()):
        end = start + len(list(run))
        if label != blank:
            pieces.append(_Piece(tokens[label], start, end, float(log_probs[start:end, label].max())))
        start = end
    return pieces


def _by_word(pieces: list[_Piece]) -> list[list[_Piece]]:
    words: list[list[_Piece]] = []
    for piece in pieces:
        if not words or piece.text.startswith(WORD_START):
            words.append([])
        words[-1].append(piece)
    return words


def _word(pieces: list[_Piece], steps_per_second: float) -> Word:
    return Word(
        word="".join(piece.text for piece in pieces).replace(WORD_START, ""),
        start_s=round(pieces[0].start / steps_per_second, 3),
        end_s=round(pieces[-1].end / steps_per_second, 3),
        confidence=round(float(np.exp(np.mean([piece.log_prob for piece in pieces]))), 4),
    )
