"""How a word is written in a model's pieces, and the steps of a recognition that say nothing made to say so.

A CTC model may emit a word as any sequence of pieces that joins to it; training showed it one of them, and what the
others get is part of the word's probability too. Those of fewest pieces come first: a trained tokenizer writes so.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from edgeav.errors import EdgeavError
from edgeav.runtime.ctc import WORD_START

NOTHING = -1e4  # log-probability of every label but blank where there is nothing to hear or see
MOST_SPELLINGS = 16
Spellings = Mapping[str, list[tuple[int, ...]]]


def spell(words: Iterable[str], tokens: Sequence[str], most: int = MOST_SPELLINGS) -> Spellings:
    """Each word in up to `most` sequences of token numbers, fewest pieces first.

    EdgeavError names every word that cannot be written with `tokens`, and every one that is several.
    """
    number = {token: i for i, token in enumerate(tokens) if not (token.startswith("<") and token.endswith(">"))}
    found = {word: _segmentations(WORD_START + word, number, most) for word in dict.fromkeys(words)}
    problems = [f"{word!r} is not one word" for word in found if len(word.split()) != 1]
    problems += [
        f"{word!r} cannot be spelled with the model's {len(tokens)} tokens" for word in found if not found[word]
    ]
    if problems or not found:
        hint = "Words are written as the model writes them, often in lower case, without punctuation."
        raise EdgeavError("\n".join([*(problems or ["there are no words"]), hint]))
    return found


def silence_absent(log_probs: NDArray[np.float32], presence: NDArray, blank: int) -> NDArray[np.float32]:
    """(N, V) and presence (N, 2) -> the same, certainly blank in the steps with neither sound nor picture."""
    silent = np.where(np.arange(log_probs.shape[1]) == blank, 0, NOTHING).astype(np.float32)
    return np.where(np.any(presence, axis=-1, keepdims=True), log_probs, silent)


def _segmentations(text: str, number: Mapping[str, int], most: int) -> list[tuple[int, ...]]:
    """The `most` shortest, found from the end of the text on: the rest of a shortest one is a shortest one too."""
    rests: list[list[tuple[int, ...]]] = [[] for _ in text] + [[()]]
    for start in reversed(range(len(text))):
        for stop in range(start + 1, len(text) + 1):
            piece = number.get(text[start:stop])
            if piece is not None:
                rests[start] += [(piece, *rest) for rest in rests[stop]]
        rests[start] = sorted(rests[start], key=len)[:most]
    return rests[0]
