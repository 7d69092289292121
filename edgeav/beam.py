"""The best text, searched for: by the CTC head alone, or by CTC and the attention decoder together.

CTC prefix search: Graves 2012; Hannun et al. 2014 (https://arxiv.org/abs/1408.2873). Joint search: Watanabe et al. 2017
(https://doi.org/10.1109/JSTSP.2017.2763455), as Auto-AVSR decodes. For devices there is `edgeav/runtime/ctc.py`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from edgeav.models import AVModel, ModelConfig
from edgeav.models.decoder import Cache
from edgeav.prefixes import NEVER, Prefixes
from edgeav.runtime.ctc import WORD_START

SPECIAL = re.compile(r"<[^<>]+>")  # <unk>, <blank>, <eos>, …: outputs that are no text


@dataclass(frozen=True)
class Hypothesis:
    """A text and its log-probabilities; `score` is the one the search ordered by."""

    tokens: tuple[int, ...]
    score: float
    ctc: float
    attention: float | None = None  # None: no decoder was asked
    finished: bool = True  # False: cut off at the greatest length, before the search wanted to end it


@dataclass(frozen=True)
class Search:
    """Settings of the joint search; the defaults are Auto-AVSR's."""

    beam: int = 40
    ctc_weight: float = 0.1  # the attention decoder has the rest
    nbest: int = 1
    length_bonus: float = 0.0  # added for every token
    longest: int | None = None  # tokens; None: as many as there are steps


def ctc_beam_search(log_probs: Tensor, blank: int, beam: int = 40) -> list[Hypothesis]:
    """(N, V) -> at most `beam` texts, the best first; the probability of each is summed over its alignments."""
    prefixes: list[tuple[int, ...]] = [()]
    ends_in_blank = torch.zeros(1, dtype=torch.double)
    ends_in_token = torch.full_like(ends_in_blank, NEVER)
    for step in log_probs.double().cpu():
        last = torch.tensor([prefix[-1] if prefix else blank for prefix in prefixes])
        total, rows = torch.logaddexp(ends_in_blank, ends_in_token), torch.arange(len(prefixes))
        grown = total[:, None] + step
        grown[rows, last] = ends_in_blank + step[last]  # the same token is a new one only behind a blank
        grown[:, blank] = NEVER
        ends_in_blank, ends_in_token = total + step[blank], ends_in_token + step[last]
        _merge(prefixes, ends_in_token, grown)
        scores = torch.cat([torch.logaddexp(ends_in_blank, ends_in_token), grown.flatten()])
        place = scores.topk(min(beam, len(scores))).indices
        place = place[scores[place] > NEVER]
        ends_in_blank = torch.cat([ends_in_blank, torch.full((grown.numel(),), NEVER).double()])[place]
        ends_in_token = torch.cat([ends_in_token, grown.flatten()])[place]
        prefixes = [_grown(prefixes, int(p), len(step)) for p in place]
    scores = torch.logaddexp(ends_in_blank, ends_in_token).tolist()
    found = [Hypothesis(prefix, score, score) for prefix, score in zip(prefixes, scores, strict=True)]
    return sorted(found, key=lambda h: -h.score)


def _merge(prefixes: list[tuple[int, ...]], ends_in_token: Tensor, grown: Tensor) -> None:
    """Move what grows into a prefix that is in the beam already from `grown` to `ends_in_token`. Changes both."""
    row = {prefix: i for i, prefix in enumerate(prefixes)}
    for i, prefix in enumerate(prefixes):
        if prefix and prefix[:-1] in row:
            parent, token = row[prefix[:-1]], prefix[-1]
            ends_in_token[i] = torch.logaddexp(ends_in_token[i], grown[parent, token])
            grown[parent, token] = NEVER


def _grown(prefixes: list[tuple[int, ...]], place: int, vocabulary: int) -> tuple[int, ...]:
    if place < len(prefixes):
        return prefixes[place]
    parent, token = divmod(place - len(prefixes), vocabulary)
    return (*prefixes[parent], token)


@torch.no_grad()
def joint_beam_search(
    model: AVModel, encoded: Tensor, valid: Tensor, search: Search | None = None
) -> list[list[Hypothesis]]:
    """The encoder's output (B, N, D), 1 at its real steps in `valid` (B, N, 1) -> the best texts of each, best first.

    A hypothesis that ends competes for the beam with those that go on. An utterance is done when nothing open can
    still become better than its `nbest` finished ones: exact, since no score but the length bonus ever rises.
    """
    search, config = search or Search(), model.config
    steps = valid.sum((1, 2)).long()
    longest = steps if search.longest is None else torch.full_like(steps, search.longest)
    beams, done = _Beams.start(model, encoded, valid), [[] for _ in steps]
    while bool((beams.score > NEVER).any()):
        length = beams.tokens.shape[-1]
        beams, before = beams.grown(model, search), beams
        ends = beams.newest == config.eos
        beams.collect(ends, done)
        for row in (longest == length).nonzero().flatten().tolist():
            done[row] = done[row] or before.unfinished(row)
        possible = beams.score + max(0.0, search.length_bonus) * (longest[:, None] - length - 1)
        hopeless = possible <= _worst(done, search).to(possible.device)
        beams.score.masked_fill_(ends | hopeless | (length >= longest)[:, None], NEVER)
    return [sorted(found, key=lambda h: -h.score)[: search.nbest] for found in done]


@dataclass
class _Beams:
    """The K open hypotheses of each of B utterances; a score of -inf: none."""

    tokens: Tensor  # (B, K, L), without the eos at the beginning
    newest: Tensor  # (B, K)
    score: Tensor  # (B, K), as the next two
    ctc: Tensor
    attention: Tensor
    cache: Cache
    prefixes: Prefixes

    @classmethod
    def start(cls, model: AVModel, encoded: Tensor, valid: Tensor) -> _Beams:
        assert model.decoder is not None
        zero = torch.zeros(len(encoded), 1, dtype=torch.double, device=encoded.device)
        newest = torch.full_like(zero, model.config.eos, dtype=torch.long)
        prefixes = Prefixes.start(model.head(encoded).log_softmax(-1), valid, model.config.blank)
        cache = model.decoder.begin(encoded, valid)
        return cls(newest[:, :, None][:, :, :0], newest, zero, zero, zero, cache, prefixes)

    def grown(self, model: AVModel, search: Search) -> _Beams:
        """The best of all hypotheses that are one token longer, the eos among the tokens."""
        assert model.decoder is not None
        logits, cache = model.decoder.step(self.newest, self.cache)
        blank, eos = model.config.blank, model.config.eos
        attention = self.attention[..., None] + logits.double().log_softmax(-1)
        ctc = self.prefixes.extended()
        ctc[..., eos] = self.prefixes.whole
        score = (1 - search.ctc_weight) * attention + search.length_bonus * (self.tokens.shape[-1] + 1)
        score[..., eos] -= search.length_bonus
        if search.ctc_weight > 0:
            score = score + search.ctc_weight * ctc
        if blank != eos:
            score[..., blank] = NEVER
        score = score.masked_fill((self.score == NEVER)[..., None], NEVER).flatten(1)
        best, place = score.topk(min(search.beam, score.shape[1]))
        parents, newest = place // ctc.shape[-1], place % ctc.shape[-1]
        history = self.tokens.gather(1, parents[..., None].expand(-1, -1, self.tokens.shape[-1]))
        return _Beams(
            torch.cat([history, newest[..., None]], -1),
            newest,
            best,
            ctc.flatten(1).gather(1, place),
            attention.flatten(1).gather(1, place),
            cache.select(parents),
            self.prefixes.grown(parents, newest),
        )

    def collect(self, ends: Tensor, done: list[list[Hypothesis]]) -> None:
        """Put the hypotheses at `ends` (B, K) into `done`, without their eos."""
        for row, k in (ends & (self.score > NEVER)).nonzero().tolist():
            done[row].append(self._hypothesis(row, k, slice(-1), finished=True))

    def unfinished(self, row: int) -> list[Hypothesis]:
        """The hypotheses of one utterance as they stand."""
        there = (self.score[row] > NEVER).nonzero().flatten().tolist()
        return [self._hypothesis(row, k, slice(None), finished=False) for k in there]

    def _hypothesis(self, row: int, k: int, part: slice, finished: bool) -> Hypothesis:
        score, ctc, attention = (float(x[row, k]) for x in (self.score, self.ctc, self.attention))
        return Hypothesis(tuple(self.tokens[row, k, part].tolist()), score, ctc, attention, finished)


def _worst(done: list[list[Hypothesis]], search: Search) -> Tensor:
    """(B, 1): the score that a hypothesis must pass to be among the n best; -inf while there are fewer."""
    scores = [sorted((h.score for h in found), reverse=True) for found in done]
    worst = [s[search.nbest - 1] if len(s) >= search.nbest else NEVER for s in scores]
    return torch.tensor(worst, dtype=torch.double)[:, None]


def text(tokens: Sequence[int], config: ModelConfig) -> str:
    """What the tokens say; blank, eos and tokens such as <unk> say nothing."""
    silent = {config.blank, config.eos}
    pieces = [config.tokens[token] for token in tokens if token not in silent]
    return " ".join("".join(p for p in pieces if not SPECIAL.fullmatch(p)).replace(WORD_START, " ").split())
