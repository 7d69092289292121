"""Word n-grams: estimated from text, read from and written to ARPA files, and asked for probabilities and perplexity.

Interpolated Witten-Bell smoothing (Witten & Bell 1991, https://doi.org/10.1109/18.87000; Chen & Goodman 1999,
https://doi.org/10.1006/csla.1999.0128): p(w | h) = (c(h w) + T(h) p(w | h')) / (c(h) + T(h)), T(h) the number of
different words seen after h, h' the history without its oldest word. For a word not seen after h that is T / (c + T)
times p(w | h'): a back-off model, so one table serves what is estimated and what is read. It has no parameter to tune,
and unlike Kneser-Ney it is well defined on the few words of a command set, where all counts are large.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from edgeav.errors import EdgeavError

START, END, UNKNOWN = "<s>", "</s>", "<unk>"
NEVER = -99.0  # ARPA's log10 of 0
LN10 = math.log(10)
Gram = tuple[str, ...]


@dataclass(frozen=True)
class NGram:
    """Natural logarithms: of p(last word | the others) of every gram, and of what backing off from it costs."""

    order: int
    log_probs: Mapping[Gram, float]
    backoffs: Mapping[Gram, float]

    def log_prob(self, word: str, history: Gram) -> float:
        """ln p(word | history), of which the last order - 1 words count; END is the word after the last one."""
        word = word if (word,) in self.log_probs else UNKNOWN
        history = tuple(w if (w,) in self.log_probs else UNKNOWN for w in history)
        return self.backed_off(word, (START, *history)[max(0, len(history) + 2 - self.order) :])

    def backed_off(self, word: str, context: Gram) -> float:
        """The same of known words, `context` as long as it may be and with START where it reaches back to it."""
        cost = 0.0
        while context and (*context, word) not in self.log_probs:
            cost, context = cost + self.backoffs.get(context, 0.0), context[1:]
        return cost + self.log_probs.get((*context, word), NEVER * LN10)

    def sentence(self, words: Gram) -> float:
        """ln p of the words and of the end behind them."""
        return sum(self.log_prob(word, words[:i]) for i, word in enumerate((*words, END)))

    def perplexity(self, texts: Iterable[str]) -> float:
        """exp of the mean negative log-probability of a word, ends of sentences counted as words."""
        sentences = [tuple(text.split()) for text in texts]
        count = sum(len(words) + 1 for words in sentences)
        if not count:
            raise EdgeavError("perplexity: there is no text")
        return math.exp(-sum(map(self.sentence, sentences)) / count)


def estimate(texts: Iterable[str], order: int = 3, words: Iterable[str] = ()) -> NGram:
    """From sentences of words; `words` are known even if no text has them. EdgeavError without any text."""
    sentences = [tuple(text.split()) for text in texts]
    if not sentences or order < 1:
        raise EdgeavError(f"n-gram: needs texts and an order of at least 1, got {len(sentences)} and {order}")
    vocabulary = {UNKNOWN, END, *words, *(word for sentence in sentences for word in sentence)}
    log_probs: dict[Gram, float] = {(word,): -math.log(len(vocabulary)) for word in vocabulary}
    backoffs: dict[Gram, float] = {}
    for length in range(1, order + 1):
        followers = _followers(sentences, length)
        known = NGram(length, dict(log_probs), backoffs)  # of the next lower order
        for history, counts in followers.items():
            seen, kinds = counts.total(), len(counts)
            for word in vocabulary if not history else counts:
                # the base of the recursion is the uniform distribution over all words
                lower = known.log_probs[(word,)] if not history else known.backed_off(word, history[1:])
                log_probs[(*history, word)] = math.log((counts[word] + kinds * math.exp(lower)) / (seen + kinds))
            if history:
                backoffs[history] = math.log(kinds / (seen + kinds))
    return NGram(order, log_probs, backoffs)


def write_arpa(model: NGram, path: Path) -> None:
    """The format of SRILM, KenLM and most others: log10, one section an order."""
    grams = defaultdict(list)
    for gram in sorted({*model.log_probs, *model.backoffs}):
        grams[len(gram)].append(gram)
    lines = ["\\data\\", *(f"ngram {n}={len(grams[n])}" for n in sorted(grams))]
    for n in sorted(grams):
        lines += ["", f"\\{n}-grams:"]
        for gram in grams[n]:
            back = f"\t{model.backoffs[gram] / LN10:.9f}" if gram in model.backoffs else ""
            lines.append(f"{model.log_probs.get(gram, NEVER * LN10) / LN10:.9f}\t{' '.join(gram)}{back}")
    path.write_text("\n".join([*lines, "", "\\end\\", ""]), encoding="utf-8")


def read_arpa(path: Path) -> NGram:
    """EdgeavError names the line that is not ARPA."""
    log_probs: dict[Gram, float] = {}
    backoffs: dict[Gram, float] = {}
    order = 0
    for number, line in enumerate(_lines(path), 1):
        if line.startswith("\\") and line.endswith("-grams:"):
            order = int(line[1 : -len("-grams:")])
        elif order and line and not line.startswith("\\"):
            try:
                _read_gram(line, order, log_probs, backoffs)
            except ValueError:
                raise EdgeavError(f"{path}:{number}: is not log10, {order} words and a back-off: {line!r}") from None
    if not log_probs:
        raise EdgeavError(f"{path}: holds no n-grams; an ARPA file has \\data\\, \\1-grams: … and \\end\\")
    return NGram(order, log_probs, backoffs)


def _read_gram(line: str, order: int, log_probs: dict[Gram, float], backoffs: dict[Gram, float]) -> None:
    parts = line.split()
    if not order + 1 <= len(parts) <= order + 2:
        raise ValueError
    gram = tuple(parts[1 : order + 1])
    log_probs[gram] = float(parts[0]) * LN10
    if len(parts) == order + 2:
        backoffs[gram] = float(parts[-1]) * LN10


def _lines(path: Path) -> list[str]:
    try:
        return [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise EdgeavError(f"{path}: cannot be read as an ARPA file ({error})") from None


def _followers(sentences: list[Gram], length: int) -> dict[Gram, Counter[str]]:
    """Of every history of `length` - 1 words, how often each word came after it."""
    found: dict[Gram, Counter[str]] = defaultdict(Counter)
    for sentence in sentences:
        padded = (START, *sentence, END)
        for stop in range(max(2, length), len(padded) + 1):  # START is never predicted
            found[padded[stop - length : stop - 1]][padded[stop - 1]] += 1
    return found
