"""How good a recognizer is: word error rate with an interval, and how two recognizers differ on the same clips.

The interval resamples whole utterances (bootstrap; Bisani & Ney 2004, "Bootstrap estimates for confidence intervals in
ASR performance evaluation"): words of one sentence fail together. The difference of two systems is resampled in pairs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import jiwer
import numpy as np
import torch
from numpy.typing import NDArray

from edgeav.data.corpus import Utterance
from edgeav.models import AVModel
from edgeav.runtime.ctc import decode
from edgeav.runtime.features import Inputs, model_inputs
from edgeav.runtime.inputs import Features
from edgeav.runtime.readings import Recognize

RESAMPLES = 2000


@dataclass(frozen=True)
class Wer:
    """Word error rate in percent with its 95 % interval."""

    wer: float
    low: float
    high: float
    utterances: int
    words: int
    substitutions: int
    deletions: int
    insertions: int

    def as_dict(self) -> dict:
        return asdict(self)


@dataclass(frozen=True)
class Recognizer:
    """Sound and lips in, text out: a model or a bundle, with what it is fed and what its outputs mean."""

    recognize: Recognize
    features: Features
    tokens: Sequence[str]
    blank: int

    def text(self, waveform: NDArray[np.float32] | None, mouth: NDArray[np.uint8] | None) -> str:
        """(S,) and (T, 96, 96), either may be None -> the greedy transcript."""
        inputs = model_inputs(waveform, mouth, self.features)
        return greedy_text(self.recognize(inputs), inputs, self.tokens, self.blank)


def recognizer(model: AVModel) -> Recognizer:
    """The PyTorch model itself, greedily decoded."""
    config = model.config
    return Recognizer(eager(model), config.inputs, config.tokens, config.blank)


def transcribe_all(recognizer: Recognizer, utterances: Iterable[Utterance]) -> list[str]:
    """Greedy transcripts, one utterance at a time as a device sees them."""
    return [recognizer.text(media.waveform, media.mouth) for media in (u.media() for u in utterances)]


def greedy_text(log_probs: NDArray[np.float32], inputs: Inputs, tokens: Sequence[str], blank: int) -> str:
    """(1, N, V) -> text, over the steps where something is present."""
    return decode(log_probs[0], list(tokens), blank, presence=inputs.presence[0]).text


def blanks(log_probs: NDArray[np.float32], inputs: Inputs, blank: int) -> dict[str, int]:
    """(1, N, V) -> the steps where something is present, and at how many of them the blank is best."""
    there = inputs.presence[0].any(axis=-1)
    return {"steps": int(there.sum()), "blanks": int((log_probs[0].argmax(axis=-1) == blank)[there].sum())}


def blank_rate(rows: Iterable[Mapping[str, Any]]) -> float:
    """Percent of the steps of all `rows` of `blanks`."""
    counted = [(row["blanks"], row["steps"]) for row in rows]
    return round(100 * sum(blanks for blanks, _ in counted) / max(1, sum(steps for _, steps in counted)), 2)


def eager(model: AVModel) -> Recognize:
    """The PyTorch model itself, from inputs to log-probabilities."""

    def recognize(inputs: Inputs) -> NDArray[np.float32]:
        with torch.inference_mode():
            device = model.positions.device
            return model(*(torch.from_numpy(array).to(device) for array in inputs)).cpu().numpy()

    return recognize


def word_error_rate(references: Sequence[str], hypotheses: Sequence[str], seed: int = 0) -> Wer:
    """WER in percent; EdgeavError-free for any text, but at least one reference word is needed."""
    counts = [jiwer.process_words(r, h) for r, h in zip(references, hypotheses, strict=True)]
    errors = np.array([c.substitutions + c.deletions + c.insertions for c in counts])
    words = np.array([c.hits + c.substitutions + c.deletions for c in counts])
    low, high = _interval(errors, words, seed)
    return Wer(
        wer=_percent(errors, words),
        low=low,
        high=high,
        utterances=len(counts),
        words=int(words.sum()),
        substitutions=sum(c.substitutions for c in counts),
        deletions=sum(c.deletions for c in counts),
        insertions=sum(c.insertions for c in counts),
    )


def character_error_rate(
    references: Sequence[str], hypotheses: Sequence[str], seed: int = 0
) -> tuple[float, float, float]:
    """CER in percent, spaces counted, and its interval: (rate, low, high)."""
    counts = [jiwer.process_characters(r, h) for r, h in zip(references, hypotheses, strict=True)]
    errors = np.array([c.substitutions + c.deletions + c.insertions for c in counts])
    characters = np.array([c.hits + c.substitutions + c.deletions for c in counts])
    return (_percent(errors, characters), *_interval(errors, characters, seed))


def wer_increase(
    references: Sequence[str], before: Sequence[str], after: Sequence[str], ci: float = 95, seed: int = 0
) -> tuple[float, float, float]:
    """WER(after) - WER(before) in points, and its paired bootstrap interval: (difference, low, high)."""
    extra = np.array([_errors(r, a) - _errors(r, b) for r, a, b in zip(references, after, before, strict=True)])
    words = np.array([len(r.split()) for r in references])
    return (_percent(extra, words), *_interval(extra, words, seed, ci))


def _errors(reference: str, hypothesis: str) -> int:
    counts = jiwer.process_words(reference, hypothesis)
    return counts.substitutions + counts.deletions + counts.insertions


def _interval(errors: NDArray, words: NDArray, seed: int, ci: float = 95) -> tuple[float, float]:
    r = np.random.default_rng(seed)
    picks = r.integers(0, len(errors), (RESAMPLES, len(errors)))
    rates = 100 * errors[picks].sum(axis=1) / words[picks].sum(axis=1)
    low, high = np.percentile(rates, [(100 - ci) / 2, (100 + ci) / 2])
    return round(float(low), 2), round(float(high), 2)


def _percent(errors: NDArray, words: NDArray) -> float:
    return round(float(100 * errors.sum() / words.sum()), 2)
