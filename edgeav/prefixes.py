"""How probable is it, by CTC alone, that a text begins like this? For many beginnings and all next tokens at once.

Prefix scores: Graves 2012 (Supervised Sequence Labelling, section 7.5), used in joint decoding by Watanabe et al. 2017
(https://doi.org/10.1109/JSTSP.2017.2763455). There a loop over time runs for every candidate. Here all next tokens are
one matrix product over time, and the recursion is run only for the few that are kept, as two cumulative sums. In double
precision: the sums hold differences of numbers as large as the log-probability of the whole utterance.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

NEVER = float("-inf")
FLOOR = -1e4  # instead of the logarithm of 0, whose sums have no differences; its exponential is 0 all the same


@dataclass(frozen=True)
class Prefixes:
    """K beginnings of each of B texts. `label` and `blank` (B, K, N+1): the log-probability that the first t = 0..N
    steps read exactly the beginning, the last of them a token or a blank; `last` (B, K) its last token."""

    log_probs: Tensor  # (B, N, V)
    probs: Tensor  # their exponentials
    blank_index: int
    label: Tensor
    blank: Tensor
    last: Tensor

    @classmethod
    def start(cls, log_probs: Tensor, valid: Tensor, blank_index: int) -> Prefixes:
        """The empty beginning, K = 1. Steps where `valid` (B, N, 1) is 0 count as certainly blank: they say nothing."""
        is_blank = torch.arange(log_probs.shape[-1], device=log_probs.device) == blank_index
        silence = torch.where(is_blank, 0.0, FLOOR).double()
        log_probs = torch.where(valid > 0, log_probs.double(), silence).clamp(min=FLOOR)
        blank = _from_zero(log_probs[:, None, :, blank_index])
        last = torch.full((len(log_probs), 1), blank_index, device=log_probs.device)
        return cls(log_probs, log_probs.exp(), blank_index, torch.full_like(blank, NEVER), blank, last)

    @property
    def whole(self) -> Tensor:
        """(B, K): the log-probability that the text is this beginning and nothing else."""
        return torch.logaddexp(self.label[..., -1], self.blank[..., -1])

    def extended(self) -> Tensor:
        """(B, K, V): the log-probability that the text begins like this and goes on with that token."""
        before = torch.logaddexp(self.label, self.blank)[..., :-1]
        scale = before.amax(-1, keepdim=True).clamp(min=-1e9)  # not -inf: that minus itself is no number
        scores = scale + torch.matmul((before - scale).exp(), self.probs).log()
        again = self._at(self.last)  # the same token once more is a new one only behind a blank
        again = torch.logsumexp(self.blank[..., :-1] + again.masked_fill(again <= FLOOR, NEVER), -1)
        scores = scores.scatter(-1, self.last[..., None], again[..., None])
        scores[..., self.blank_index] = NEVER
        return scores

    def grown(self, parents: Tensor, tokens: Tensor) -> Prefixes:
        """Of the beginnings `parents` (B, K'), each with one of `tokens` (B, K') behind it."""
        pick = parents[..., None].expand(-1, -1, self.label.shape[-1])
        label, blank, last = self.label.gather(1, pick), self.blank.gather(1, pick), self.last.gather(1, parents)
        before = torch.where((last == tokens)[..., None], blank, torch.logaddexp(label, blank))
        new = _run(before, self._at(tokens))
        ended = _run(new, self.log_probs[:, None, :, self.blank_index].expand_as(new[..., 1:]))
        return replace(self, label=new, blank=ended, last=tokens)

    def _at(self, tokens: Tensor) -> Tensor:
        """(B, K) -> (B, K, N) log-probabilities of that token at every step."""
        pick = tokens[:, None].expand(-1, self.log_probs.shape[1], -1)
        return self.log_probs.gather(2, pick).transpose(1, 2)


def _run(entry: Tensor, stay: Tensor) -> Tensor:
    """x[0] = 0 and x[t] = (x[t-1] + entry[t-1]) stay[t], in logarithms: (…, N+1), (…, N) -> (…, N+1).

    Divided by the product of `stay` up to t, it is a cumulative sum.
    """
    product = _from_zero(stay)
    inside = product[..., 1:] + torch.logcumsumexp(entry[..., :-1] - product[..., :-1], -1)
    return torch.cat([torch.full_like(inside[..., :1], NEVER), inside], -1)


def _from_zero(x: Tensor) -> Tensor:
    """(…, N) -> (…, N+1) cumulative sums, the first of them 0."""
    return torch.nn.functional.pad(x.cumsum(-1), (1, 0))
