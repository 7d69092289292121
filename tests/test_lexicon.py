"""Searches among known words: against every alignment there is on small lattices, and n-grams against their formula."""

from __future__ import annotations

import itertools
import json
import math
import re
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest

from edgeav.errors import EdgeavError
from edgeav.runtime import ngram
from edgeav.runtime.ctc import decode
from edgeav.runtime.grammar import GRID, Grammar, GrammarSearch, loop, read_grammar, slots
from edgeav.runtime.lexicon import Beam, Lexicon, LexiconSearch
from edgeav.runtime.ngram import END, NGram, estimate, read_arpa, write_arpa
from edgeav.runtime.spelling import NOTHING, silence_absent, spell

TOKENS = ["<unk>", "▁a", "b", "▁", "a", "▁ab"]
BLANK = len(TOKENS)
WORDS = ["a", "ab", "b", "bb", "aba"]
EXACT = Beam(width=10**6, least_log_prob=-math.inf)
TEXTS = ["a b a", "ab b", "a bb a", "b a", "a ab"]


def lattice(steps: int, seed: int) -> np.ndarray:
    """(N, V) log-probabilities of nothing in particular."""
    scores = np.random.default_rng(seed).standard_normal((steps, BLANK + 1)) * 2
    return (scores - np.log(np.exp(scores).sum(axis=1, keepdims=True))).astype(np.float32)


def alignments(log_probs: np.ndarray) -> dict[tuple[str, ...], list[float]]:
    """Of every sentence of WORDS the log-probabilities of all its alignments: each path of labels is looked at."""
    found = defaultdict(list)
    for path in itertools.product(range(BLANK + 1), repeat=len(log_probs)):
        pieces = [TOKENS[label] for label, _ in itertools.groupby(path) if label != BLANK]
        text = "".join(pieces)
        words = tuple(text.split("▁")[1:])
        if (not text or text.startswith("▁")) and "<unk>" not in pieces and all(word in WORDS for word in words):
            found[words].append(float(log_probs[np.arange(len(path)), path].astype(float).sum()))
    return found


def total(scores: list[float]) -> float:
    return float(np.logaddexp.reduce(scores))


@pytest.mark.parametrize("seed", range(3))
def test_a_wide_beam_finds_every_sentence_with_its_exact_probability(seed: int) -> None:
    log_probs = lattice(5, seed)
    expected = {" ".join(words): total(scores) for words, scores in alignments(log_probs).items()}
    found = LexiconSearch(Lexicon(spell(WORDS, TOKENS)), BLANK, beam=EXACT).best(log_probs)
    assert {s.text: pytest.approx(s.score, abs=1e-6) for s in found} == expected
    assert found[0].text == max(expected, key=lambda text: expected[text])
    assert all(s.ctc == pytest.approx(s.score) for s in found)


def test_an_ngram_and_a_word_bonus_are_added_as_the_formula_says() -> None:
    log_probs, lm = lattice(5, 7), estimate(TEXTS, order=3)
    beam = Beam(EXACT.width, EXACT.least_log_prob, lm_weight=0.8, word_bonus=0.3)
    found = LexiconSearch(Lexicon(spell(WORDS, TOKENS)), BLANK, lm, beam).best(log_probs)
    sums = {words: total(scores) for words, scores in alignments(log_probs).items()}
    expected = {w: score + 0.8 * lm.sentence(w) + 0.3 * len(w) for w, score in sums.items()}
    assert {tuple(s.text.split()): pytest.approx(s.score, abs=1e-6) for s in found} == expected
    assert tuple(found[0].text.split()) == max(expected, key=lambda words: expected[words])
    assert {tuple(s.text.split()): pytest.approx(s.ctc, abs=1e-6) for s in found} == sums


def test_a_narrow_beam_agrees_with_the_exact_search_where_the_model_is_sure() -> None:
    search = LexiconSearch(Lexicon(spell(WORDS, TOKENS)), BLANK, beam=Beam(width=16, least_log_prob=-100))
    for seed in range(10):
        log_probs = lattice(5, seed) * 4
        exact = LexiconSearch(Lexicon(spell(WORDS, TOKENS)), BLANK, beam=EXACT).best(log_probs)[0]
        assert search.best(log_probs)[0].text == exact.text


def test_an_unfinished_word_is_dropped_where_nothing_else_is_left() -> None:
    log_probs = np.full((3, BLANK + 1), -30, np.float32)
    log_probs[[0, 1, 2], [1, BLANK, 3]] = 0  # "a", then the beginning of another word
    found = LexiconSearch(Lexicon(spell(["a", "b"], TOKENS)), BLANK, beam=Beam(width=1)).best(log_probs)
    assert [s.text for s in found] == ["a"]


GRAMMARS = {
    "slots": (
        slots([["a", "ab"], ["b", "bb", "a"]]),
        lambda w: len(w) == 2 and w[0] in ("a", "ab") and w[1] in ("b", "bb", "a"),
    ),
    "loop": (loop(WORDS), lambda w: True),
    "graph": (
        Grammar(((0, "a", 1), (1, "b", 0), (1, "ab", 2), (2, "a", 2)), frozenset([1, 2])),
        lambda w: allowed_by_the_graph(w),
    ),
}


def allowed_by_the_graph(words: tuple[str, ...]) -> bool:
    """a (b a)*, then nothing, or ab and any number of a."""
    return re.fullmatch(r"a( b a)*( ab( a)*)?", " ".join(words)) is not None


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", GRAMMARS)
def test_the_best_alignment_of_any_allowed_sentence_is_found(name: str, seed: int) -> None:
    grammar, allowed = GRAMMARS[name]
    log_probs = lattice(5, seed)
    every = {words: max(scores) for words, scores in alignments(log_probs).items() if allowed(words)}
    search = GrammarSearch(grammar, spell(grammar.words, TOKENS, most=100), BLANK)
    score, path = search.viterbi(log_probs)
    best = max(every, key=lambda words: every[words])
    assert score == pytest.approx(every[best], abs=1e-5) and len(path) == 5
    assert tuple(search.decode(log_probs).text.split()) == best


def test_a_clip_too_short_for_any_sentence_has_none() -> None:
    grammar = slots([["a"], ["a"], ["a"]])
    search = GrammarSearch(grammar, spell(grammar.words, TOKENS, most=1), BLANK)
    assert search.viterbi(lattice(4, 0)) == (-np.inf, [])  # two blanks must part three equal pieces
    assert search.decode(lattice(4, 0)).text == ""
    assert search.decode(lattice(5, 0)).text == "a a a"


def test_words_have_the_times_of_their_pieces_as_greedy_decoding_gives_them() -> None:
    log_probs = np.full((8, BLANK + 1), -20, np.float32)
    log_probs[np.arange(8), [BLANK, 1, 1, 2, BLANK, 5, BLANK, BLANK]] = -0.1
    grammar = slots([["ab"], ["ab"]])
    found = GrammarSearch(grammar, spell(grammar.words, TOKENS), BLANK).decode(log_probs)
    greedy = decode(log_probs, TOKENS, BLANK)
    assert [(w.word, w.start_s, w.end_s, w.confidence) for w in found.words] == [
        (w.word, w.start_s, w.end_s, w.confidence) for w in greedy.words
    ]


def test_a_word_is_spelled_in_every_way_shortest_first() -> None:
    ways = spell(["aba"], TOKENS, most=100)["aba"]
    assert sorted(ways) == sorted([(5, 4), (1, 2, 4), (3, 4, 2, 4)])
    assert list(map(len, ways)) == [2, 3, 4]
    assert spell(["aba"], TOKENS, most=1)["aba"] == [(5, 4)]


def test_words_that_cannot_be_spelled_are_all_named() -> None:
    with pytest.raises(EdgeavError, match=r"(?s)'A' cannot.*'c' cannot") as caught:
        spell(["a", "A", "c"], TOKENS)
    assert "'a'" not in str(caught.value)
    with pytest.raises(EdgeavError, match="'a b' is not one word"):
        spell(["a b"], [*TOKENS, "▁a b"])
    with pytest.raises(EdgeavError, match="there are no words"):
        spell([], TOKENS)


def test_absent_steps_are_blank_for_certain() -> None:
    log_probs = lattice(3, 0)
    found = silence_absent(log_probs, np.array([[1, 0], [0, 0], [0, 1]]), BLANK)
    np.testing.assert_array_equal(found[[0, 2]], log_probs[[0, 2]])
    assert found[1, BLANK] == 0 and (found[1, :BLANK] == NOTHING).all()


def test_a_grammar_is_read_from_json_and_refused_with_what_is_allowed(tmp_path: Path) -> None:
    path = tmp_path / "grammar.json"
    path.write_text(json.dumps({"slots": [["bin", "lay"], ["blue"]]}))
    assert read_grammar(path) == slots([["bin", "lay"], ["blue"]])
    path.write_text(json.dumps({"arcs": [[0, "on", 1], [1, "off", 0]], "final": [0]}))
    assert read_grammar(path).words == ["on", "off"]
    for wrong in ("[", "{}", '{"arcs": [], "final": [0]}', '{"arcs": [[0, "a"]], "final": [1]}', '"slots"'):
        path.write_text(wrong)
        with pytest.raises(EdgeavError, match=r"grammar\.json: is no grammar .*allowed:"):
            read_grammar(path)


@pytest.mark.parametrize("order", [1, 2, 3])
@pytest.mark.parametrize("history", [(), ("a",), ("a", "b"), ("bb", "never"), ("never", "never")])
def test_the_probabilities_after_any_history_sum_to_one(order: int, history: tuple[str, ...]) -> None:
    lm = estimate(TEXTS, order, words=["also"])
    words = [gram[0] for gram in lm.log_probs if len(gram) == 1]
    assert sum(math.exp(lm.log_prob(word, history)) for word in words) == pytest.approx(1)
    assert {"also", "a", END} <= set(words)


def test_witten_bell_is_its_formula() -> None:
    """p(w | h) = (c(h w) + T(h) p(w)) / (c(h) + T(h)): counted by hand in "a b", "a b", "a c" for h = a."""
    lm = estimate(["a b", "a b", "a c"], order=2)
    words, kinds, vocabulary = 9, 4, 5  # 3 a, 2 b, 1 c, 3 ends; a b c end, and the unknown word
    unigram = {w: (c + kinds / vocabulary) / (words + kinds) for w, c in {"a": 3, "b": 2, "c": 1, END: 3}.items()}
    assert math.exp(lm.log_prob("b", ("a",))) == pytest.approx((2 + 2 * unigram["b"]) / (3 + 2))
    assert math.exp(lm.log_prob(END, ("a",))) == pytest.approx(2 * unigram[END] / (3 + 2))
    assert math.exp(lm.log_prob("a", ())) == pytest.approx((3 + 1 * unigram["a"]) / (3 + 1))


def test_the_perplexity_of_equally_likely_words_is_their_number() -> None:
    uniform = NGram(1, {(word,): -math.log(8) for word in [*"abcdefg", END]}, {})
    assert uniform.perplexity(["a b c", "g"]) == pytest.approx(8)
    lm = estimate(TEXTS, 3)
    assert lm.perplexity(TEXTS) < estimate(TEXTS, 1).perplexity(TEXTS) < lm.perplexity(["zz zz zz"])


def test_an_arpa_file_holds_the_same_model(tmp_path: Path) -> None:
    lm = estimate(TEXTS, 3)
    write_arpa(lm, tmp_path / "lm.arpa")
    again = read_arpa(tmp_path / "lm.arpa")
    assert again.order == 3
    for words in itertools.product([*WORDS, "never"], repeat=3):
        assert again.sentence(words) == pytest.approx(lm.sentence(words), abs=1e-6)


def test_an_arpa_file_of_others_is_read(tmp_path: Path) -> None:
    path = tmp_path / "lm.arpa"
    lines = ["\\data\\", "ngram 1=4", "ngram 2=1", "", "\\1-grams:", "-99 <s> -0.5", "-1.0 </s>", "-0.5 a -0.25"]
    path.write_text("\n".join([*lines, "-2 <unk>", "", "\\2-grams:", "-0.1 <s> a", "", "\\end\\"]))
    lm = read_arpa(path)
    assert lm.sentence(("a",)) / math.log(10) == pytest.approx(-0.1 - 0.25 - 1.0)
    assert lm.log_prob("b", ()) / math.log(10) == pytest.approx(-0.5 - 2)
    path.write_text("\n".join([*lines, "wrong"]))
    with pytest.raises(EdgeavError, match=r"lm\.arpa:9: .*'wrong'"):
        read_arpa(path)
    path.write_text("hello")
    with pytest.raises(EdgeavError, match="holds no n-grams"):
        read_arpa(path)


def test_grid_has_51_words_and_64000_sentences() -> None:
    assert len(slots(GRID).words) == 51 and math.prod(map(len, GRID)) == 64_000


def test_three_seconds_are_searched_in_less_time_than_they_last() -> None:
    """256 pieces, 51 words of GRID; far more than is allowed here on any machine would be a quadratic mistake."""
    tokens = ["<unk>", "▁", *"abcdefghijklmnopqrstuvwxyz", *(f"▁{letter}" for letter in "abcdefghijklmnopqrstuvwxyz")]
    tokens += [f"▁{word}" for word in slots(GRID).words if len(word) > 1]
    scores = np.random.default_rng(0).standard_normal((38, len(tokens) + 1)) * 3
    log_probs = (scores - np.log(np.exp(scores).sum(axis=1, keepdims=True))).astype(np.float32)
    spellings = spell(slots(GRID).words, tokens)
    for search in (
        GrammarSearch(slots(GRID), spellings, len(tokens)).decode,
        LexiconSearch(Lexicon(spellings), len(tokens), estimate(["bin blue"])).best,
    ):
        start = time.process_time()
        search(log_probs)
        assert time.process_time() - start < 3


def test_the_searches_need_no_torch() -> None:
    code = "import sys, edgeav.runtime.grammar, edgeav.runtime.lexicon; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(ngram.__file__).parents[2])
