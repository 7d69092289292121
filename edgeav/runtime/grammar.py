"""The most probable sentence that a grammar allows: Viterbi search (1967) through a graph of words, spelled in pieces.

A grammar is a finite graph of words: slots such as GRID's (command, colour, …), or any nodes and arcs, loops allowed.
Every spelling of every arc becomes a chain of CTC states, with a blank at each node and between the pieces; one pass
over time finds the best alignment of any sentence. Exact: nothing is pruned.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgeav.errors import EdgeavError
from edgeav.runtime.ctc import Decoding, Word
from edgeav.runtime.spelling import Spellings

NEVER = -np.inf
GRID = (
    ("bin", "lay", "place", "set"),
    ("blue", "green", "red", "white"),
    ("at", "by", "in", "with"),
    tuple("abcdefghijklmnopqrstuvxyz"),  # no w: it takes three syllables
    ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"),
    ("again", "now", "please", "soon"),
)


@dataclass(frozen=True)
class Grammar:
    """Words lead from node to node: (from, word, to). Sentences begin at node 0 and end at one of `final`."""

    arcs: tuple[tuple[int, str, int], ...]
    final: frozenset[int]

    @property
    def words(self) -> list[str]:
        return list(dict.fromkeys(word for _, word, _ in self.arcs))

    @property
    def nodes(self) -> int:
        return 1 + max([*self.final, *(node for source, _, target in self.arcs for node in (source, target))])


def slots(choices: Sequence[Sequence[str]]) -> Grammar:
    """One word of each list, in their order."""
    arcs = [(i, word, i + 1) for i, words in enumerate(choices) for word in words]
    return Grammar(tuple(arcs), frozenset([len(choices)]))


def loop(words: Iterable[str]) -> Grammar:
    """Any number of words in any order."""
    return Grammar(tuple((0, word, 0) for word in words), frozenset([0]))


def read_grammar(path: Path) -> Grammar:
    """JSON: {"slots": [["bin", "lay"], ["blue"]]}, or {"arcs": [[0, "bin", 1], …], "final": [1]}; else EdgeavError."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        if list(data) == ["slots"]:
            return slots([[str(word) for word in words] for words in data["slots"]])
        arcs = tuple((int(source), str(word), int(target)) for source, word, target in data["arcs"])
        grammar = Grammar(arcs, frozenset(map(int, data["final"])))
        if not arcs or not grammar.final or min(min(s, t) for s, _, t in arcs) < 0:
            raise ValueError("needs arcs between nodes 0, 1, … and at least one final node")
        return grammar
    except (OSError, KeyError, TypeError, ValueError) as error:
        allowed = '{"slots": [["bin", "lay"], ["blue"]]} or {"arcs": [[0, "bin", 1]], "final": [1]}'
        raise EdgeavError(f"{path}: is no grammar ({type(error).__name__}: {error}); allowed: {allowed}") from None


class GrammarSearch:
    """A grammar spelled in one model's pieces, ready for any number of utterances.

    States: piece s of some spelling; the blank before piece s (used behind the first of a word); the blank at node g.
    """

    def __init__(self, grammar: Grammar, spellings: Spellings, blank: int) -> None:
        self.blank, self.final = blank, sorted(grammar.final)
        label, before, source, self.word = [], [], [], []
        lasts: list[list[int]] = [[] for _ in range(grammar.nodes)]
        for start, word, end in grammar.arcs:
            for pieces in spellings[word]:
                for i, piece in enumerate(pieces):
                    before.append(len(label) - 1 if i else -1)
                    source.append(start)
                    label.append(piece)
                    self.word.append(word)
                lasts[end].append(len(label) - 1)
        self.label, self.before, self.source = np.array(label), np.array(before), np.array(source)
        self.first = self.before < 0
        self.alike = ~self.first & (self.label == self.label[self.before])  # the same piece twice: a blank between
        self.lasts = _padded(lasts)

    def decode(self, log_probs: NDArray[np.float32], steps_per_second: float = 12.5) -> Decoding:
        """(N, V) -> the best sentence with the times of its words; none where N is too short for any sentence."""
        score, path = self.viterbi(log_probs)
        if score == NEVER:
            return Decoding("", [])
        words, spans = [], self._spans(path)
        for states in spans:
            steps = [t for t, _ in states]
            sure = float(np.exp(np.mean([log_probs[t, self.label[s]] for t, s in states])))
            word, end = self.word[states[0][1]], (steps[-1] + 1) / steps_per_second
            words.append(Word(word, round(steps[0] / steps_per_second, 3), round(end, 3), round(sure, 4)))
        return Decoding(" ".join(word.word for word in words), words)

    def viterbi(self, log_probs: NDArray[np.float32]) -> tuple[float, list[int]]:
        """(N, V) -> ln p of the best alignment, and its state at every step; (-inf, []) if no sentence fits into N."""
        pieces, nodes = len(self.label), len(self.lasts)
        scores = np.full(2 * pieces + nodes, NEVER)
        scores[2 * pieces] = 0.0  # before the first step: as if a blank had been read at node 0
        came_from = []
        for row in log_probs.astype(np.float64):
            scores, choice = self._step(scores, row)
            came_from.append(choice)
        ends = np.concatenate([2 * pieces + np.array(self.final), self.lasts[self.final].ravel()])
        ends = ends[ends >= 0]
        state = int(ends[scores[ends].argmax()])
        if scores[state] == NEVER:
            return NEVER, []
        path = [state]
        for choice in reversed(came_from[1:]):
            path.append(int(choice[path[-1]]))
        return float(scores[state]), path[::-1]

    def _step(self, scores: NDArray, row: NDArray) -> tuple[NDArray, NDArray]:
        """The scores of all states after one more step, and the state each came from."""
        pieces = len(self.label)
        own, gap, rest = np.arange(pieces), np.arange(pieces, 2 * pieces), np.arange(2 * pieces, len(scores))
        best, other = self._word_ends(scores)
        entry = best[self.source]
        same = (entry >= 0) & (self.label[entry] == self.label)  # a word that begins as the one before it ended
        entry = np.where(same, other[self.source], entry)
        previous = np.where(self.alike, -1, self.before)
        into_piece = [
            own,
            np.where(self.first, 2 * pieces + self.source, gap),
            np.where(self.first, entry, previous),
        ]
        piece, piece_from = _best(scores, np.stack(into_piece))
        blank, blank_from = _best(scores, np.stack([gap, np.where(self.first, -1, self.before)]))
        node, node_from = _best(scores, np.stack([rest, best]))
        added = [piece + row[self.label], blank + row[self.blank], node + row[self.blank]]
        return np.concatenate(added), np.concatenate([piece_from, blank_from, node_from])

    def _word_ends(self, scores: NDArray) -> tuple[NDArray, NDArray]:
        """Of the last pieces that lead to each node: the best, and the best of another label; -1: none."""
        values = np.where(self.lasts >= 0, scores[self.lasts], NEVER)
        rows = np.arange(len(values))
        best = self.lasts[rows, values.argmax(axis=1)]
        differs = (self.lasts >= 0) & (self.label[self.lasts] != self.label[best][:, None])
        values = np.where(differs, values, NEVER)
        other = np.where(values.max(axis=1) > NEVER, self.lasts[rows, values.argmax(axis=1)], -1)
        return best, other

    def _spans(self, path: list[int]) -> list[list[tuple[int, int]]]:
        """(step, state) of the pieces of each word; a word begins where its first piece is entered anew."""
        spans: list[list[tuple[int, int]]] = []
        for step, state in enumerate(path):
            if state >= len(self.label):
                continue
            entered = step == 0 or path[step - 1] != state
            if self.first[state] and entered:
                spans.append([])
            spans[-1].append((step, state))
        return spans


def _best(scores: NDArray, origins: NDArray) -> tuple[NDArray, NDArray]:
    """Candidates (K, S) of states to come from, -1 for none -> the best score (S,) and its state (S,)."""
    values = np.where(origins >= 0, scores[origins], NEVER)
    choice, columns = values.argmax(axis=0), np.arange(origins.shape[1])
    return values[choice, columns], origins[choice, columns]


def _padded(rows: list[list[int]]) -> NDArray:
    """Rows of different lengths as one array, -1 behind the short ones."""
    out = np.full((len(rows), max(1, max(map(len, rows)))), -1)
    for i, row in enumerate(rows):
        out[i, : len(row)] = row
    return out
