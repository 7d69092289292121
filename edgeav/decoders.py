"""From log-probabilities to text in the ways an evaluation can name: greedy, lexicon, ngram, grammar.

What a decoder knows of the language comes from files or from TRAINING texts, never from the texts it is judged on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeav.errors import EdgeavError
from edgeav.measure import Recognizer
from edgeav.run import digest
from edgeav.runtime.ctc import decode
from edgeav.runtime.grammar import GRID, Grammar, GrammarSearch, read_grammar, slots
from edgeav.runtime.lexicon import Beam, Lexicon, LexiconSearch
from edgeav.runtime.ngram import UNKNOWN, NGram, estimate, read_arpa
from edgeav.runtime.spelling import silence_absent, spell

NAMES = ("greedy", "lexicon", "ngram", "grammar")
ORDER = 3  # of an n-gram that is estimated


@dataclass(frozen=True)
class Language:
    """What is known of the language. Without `words`, those of `texts`; without `lm`, an n-gram of `texts`."""

    texts: Sequence[str] = ()  # of the training clips
    words: Path | None = None  # a file with one word a line
    grammar: str | None = None  # "grid", or a JSON file
    lm: Path | None = None  # an ARPA file
    beam: Beam = field(default_factory=Beam)


@dataclass(frozen=True)
class Decoder:
    """`text` takes (N, V) log-probabilities and (N, 2) presence; its results depend on `settings`, plain data."""

    name: str
    text: Callable[[NDArray[np.float32], NDArray[np.float32]], str]
    settings: dict[str, Any]
    words: frozenset[str] = frozenset()  # empty: any
    lm: NGram | None = None

    def fit(self, references: Sequence[str]) -> dict[str, float]:
        """How well the language covers the references: the percentage of unknown words, and perplexity."""
        spoken = [word for text in references for word in text.split()]
        facts = {}
        if self.words and spoken:
            unknown = sum(word not in self.words for word in spoken)
            facts["unknown_words"] = round(100 * unknown / len(spoken), 2)
        if self.lm:
            facts["perplexity"] = round(self.lm.perplexity(references), 2)
        return facts


def open_decoder(name: str, recognizer: Recognizer, language: Language) -> Decoder:
    """EdgeavError for an unknown name, for files that are missing or wrong, and for words the model cannot spell."""
    match name:
        case "greedy":
            return _greedy(recognizer)
        case "lexicon" | "ngram":
            return _lexicon(recognizer, language, with_lm=name == "ngram")
        case "grammar":
            return _grammar(recognizer, language)
        case _:
            raise EdgeavError(f"--decoder: {name!r} is not known; allowed: {', '.join(NAMES)}")


def _greedy(recognizer: Recognizer) -> Decoder:
    tokens, blank = list(recognizer.tokens), recognizer.blank
    return Decoder("greedy", lambda log_probs, presence: decode(log_probs, tokens, blank, presence).text, {})


def _lexicon(recognizer: Recognizer, language: Language, with_lm: bool) -> Decoder:
    words = _words(language)
    lm = None
    if with_lm:
        lm = read_arpa(language.lm) if language.lm else estimate(language.texts, ORDER, words)
    search = LexiconSearch(Lexicon(spell(words, recognizer.tokens)), recognizer.blank, lm, language.beam)

    def text(log_probs: NDArray[np.float32], presence: NDArray[np.float32]) -> str:
        return search.best(silence_absent(log_probs, presence, recognizer.blank))[0].text

    settings = {"words": sorted(words), "beam": language.beam.__dict__}
    if lm:
        settings["lm"] = digest({" ".join(gram): round(value, 6) for gram, value in lm.log_probs.items()})
    return Decoder("ngram" if with_lm else "lexicon", text, settings, frozenset(words) - {UNKNOWN}, lm)


def _grammar(recognizer: Recognizer, language: Language) -> Decoder:
    if language.grammar is None:
        raise EdgeavError("--decoder grammar: which one? Say --grammar grid, or --grammar FILE.json")
    grammar: Grammar = slots(GRID) if language.grammar == "grid" else read_grammar(Path(language.grammar))
    search = GrammarSearch(grammar, spell(grammar.words, recognizer.tokens), recognizer.blank)

    def text(log_probs: NDArray[np.float32], presence: NDArray[np.float32]) -> str:
        return search.decode(silence_absent(log_probs, presence, recognizer.blank)).text

    settings = {"arcs": grammar.arcs, "final": sorted(grammar.final)}
    return Decoder("grammar", text, settings, frozenset(grammar.words))


def _words(language: Language) -> list[str]:
    if language.words is None:
        return sorted({word for text in language.texts for word in text.split()})
    try:
        return language.words.read_text(encoding="utf-8").split()
    except (OSError, UnicodeDecodeError) as error:
        raise EdgeavError(f"{language.words}: cannot be read as a list of words ({error})") from None
