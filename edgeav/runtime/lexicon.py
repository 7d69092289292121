"""The most probable sentence of known words: CTC prefix beam search in a tree of spellings, and an n-gram if given.

Prefix search: Hannun et al. 2014, "First-pass large vocabulary continuous speech recognition using bi-directional
recurrent DNNs" (https://arxiv.org/abs/1408.2873). Here a prefix is words and a place in the tree: all spellings and
alignments of the same words are summed, so a wide enough beam finds exactly the sentence that is most probable.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from heapq import nlargest

import numpy as np
from numpy.typing import NDArray

from edgeav.runtime.ngram import END, NGram
from edgeav.runtime.spelling import Spellings

NEVER = -math.inf
ROOT = 0
Place = tuple[tuple[str, ...], int]  # the words that are finished, and a node of the tree
Scores = dict[Place, tuple[float, float]]  # ln p of all ways there that end in a blank, and in a piece


@dataclass(frozen=True)
class Beam:
    """Settings of the search."""

    width: int = 64
    least_log_prob: float = -12.0  # pieces less probable than this at a step are not tried there
    lm_weight: float = 0.5
    word_bonus: float = 0.0  # added for every word


@dataclass(frozen=True)
class Sentence:
    """`score` is what the search ordered by; `ctc` is ln p by the recognizer alone."""

    text: str
    score: float
    ctc: float


class Lexicon:
    """A tree of spellings: `children[node]` by piece, `label[node]` the piece that leads there, `word[node]` that ends
    there, or None."""

    def __init__(self, spellings: Spellings) -> None:
        self.children: list[dict[int, int]] = [{}]
        self.label: list[int] = [-1]
        self.word: list[str | None] = [None]
        for word, ways in spellings.items():
            for pieces in ways:
                self._add(word, pieces)

    def _add(self, word: str, pieces: tuple[int, ...]) -> None:
        node = ROOT
        for piece in pieces:
            if piece not in self.children[node]:
                self.children[node][piece] = len(self.label)
                self.children.append({})
                self.label.append(piece)
                self.word.append(None)
            node = self.children[node][piece]
        self.word[node] = word


class LexiconSearch:
    """Sentences of the words in a lexicon, any number of them in any order."""

    def __init__(self, lexicon: Lexicon, blank: int, lm: NGram | None = None, beam: Beam | None = None) -> None:
        self.lexicon, self.blank, self.lm, self.beam = lexicon, blank, lm, beam or Beam()
        self._known: dict[tuple[str, ...], float] = {}

    def best(self, log_probs: NDArray[np.float32]) -> list[Sentence]:
        """(N, V) -> sentences, the best first. Where no place in the beam ends a word, what was begun is dropped."""
        scores: Scores = {((), ROOT): (0.0, NEVER)}
        for row in log_probs.astype(float).tolist():
            grown = self._step(scores, row)
            scores = dict(nlargest(self.beam.width, grown.items(), key=lambda item: _either(*item[1])))
        return self._sentences(scores) or self._sentences(scores, unfinished=True)

    def _step(self, scores: Scores, row: Sequence[float]) -> Scores:
        tree, least, grown = self.lexicon, self.beam.least_log_prob, {}
        first = [(piece, node) for piece, node in tree.children[ROOT].items() if row[piece] >= least]
        for (words, node), (after_blank, after_piece) in scores.items():
            either, label, word = _either(after_blank, after_piece), tree.label[node], tree.word[node]
            _add(grown, (words, node), either + row[self.blank], 0)
            if node != ROOT:
                _add(grown, (words, node), after_piece + row[label], 1)
            for piece, child in tree.children[node].items():
                if row[piece] >= least:
                    start = after_blank if piece == label else either  # the same piece is a new one behind a blank
                    _add(grown, (words, child), start + row[piece], 1)
            if word is not None and first:
                more = (*words, word)
                cost = self._cost(more)
                for piece, child in first:
                    start = after_blank if piece == label else either
                    _add(grown, (more, child), start + row[piece] + cost, 1)
        return grown

    def _cost(self, words: tuple[str, ...]) -> float:
        """What the last word adds to the score."""
        if words not in self._known:
            lm = self.lm.log_prob(words[-1], words[:-1]) if self.lm else 0.0
            self._known[words] = self.beam.lm_weight * lm + self.beam.word_bonus
        return self._known[words]

    def _sentences(self, scores: Scores, unfinished: bool = False) -> list[Sentence]:
        ends: dict[tuple[str, ...], float] = {}
        for (words, node), found in scores.items():
            word = self.lexicon.word[node]
            if node == ROOT or unfinished or word is not None:
                more = words if word is None else (*words, word)
                score = _either(*found) + (0.0 if word is None else self._cost(more))
                ends[more] = _either(ends.get(more, NEVER), score)
        sentences = [self._sentence(words, score) for words, score in ends.items()]
        return sorted(sentences, key=lambda sentence: -sentence.score)

    def _sentence(self, words: tuple[str, ...], score: float) -> Sentence:
        ctc = score - sum(self._cost(words[: i + 1]) for i in range(len(words)))
        end = self.beam.lm_weight * self.lm.log_prob(END, words) if self.lm else 0.0
        return Sentence(" ".join(words), score + end, ctc)


def _either(a: float, b: float) -> float:
    """ln(exp a + exp b)."""
    low, high = (a, b) if a < b else (b, a)
    return high if low == NEVER else high + math.log1p(math.exp(low - high))


def _add(scores: Scores, place: Place, score: float, kind: int) -> None:
    """Sum `score` into the entry of `place`: kind 0 ends in a blank, 1 in a piece. Changes `scores`."""
    if score == NEVER:
        return
    blank, piece = scores.get(place, (NEVER, NEVER))
    scores[place] = (_either(blank, score), piece) if kind == 0 else (blank, _either(piece, score))
