"""A teacher's answers on the disk: what is kept, how wrong it may be, and that it is asked once."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from edgeav.data import posteriors
from edgeav.data.posteriors import Nbest, Origin, Posteriors, cache_posteriors, expand, shorten
from edgeav.errors import EdgeavError
from edgeav.progress import Progress

VOCABULARY = 40
ORIGIN = Origin(teacher="t", clips="c", given="av", vocabulary=VOCABULARY, kept=6, nbest=2)


def some(index: int) -> Tensor:
    """(5 + index, V), as peaky as a trained model."""
    torch.manual_seed(index)
    return (4 * torch.randn(5 + index, VOCABULARY)).log_softmax(-1)


def kl(teacher: Tensor, student: Tensor) -> Tensor:
    return (teacher.exp() * (teacher - student)).sum(-1)


@pytest.mark.parametrize("kept", [1, 6, 39, 40])
def test_the_divergence_from_what_is_kept_is_within_the_stated_bound(kept: int) -> None:
    teacher, student = some(200).double(), some(201)[:205].double()
    back = expand(*shorten(teacher, kept), VOCABULARY).double()
    best = teacher.topk(kept, -1)
    rest, others = 1 - best.values.exp().sum(-1), VOCABULARY - kept
    wrong = (kl(back, student) - kl(teacher, student)).abs()
    bound = torch.full_like(wrong, 0.01)  # the rounding: 0.0005 times log-probabilities of at most 20
    if others:
        unkept = student.scatter(1, best.indices, torch.nan)
        spread = torch.tensor([np.nanmax(row) - np.nanmin(row) for row in unkept.numpy()])
        bound = bound + rest * (math.log(others) + spread)
    assert bool((wrong <= bound).all())


def test_more_tokens_bring_the_divergence_closer_to_that_of_all() -> None:
    teacher, student = some(200), some(201)[:205]
    wrong = [
        float((kl(expand(*shorten(teacher, kept), VOCABULARY), student) - kl(teacher, student)).abs().mean())
        for kept in (1, 4, 16, 39)
    ]
    assert wrong == sorted(wrong, reverse=True) and wrong[-1] < 1e-3


def test_what_is_kept_comes_back_as_probabilities_with_the_rest_spread_evenly() -> None:
    teacher = some(3)
    back = expand(*shorten(teacher, 6), VOCABULARY)
    torch.testing.assert_close(back.exp().sum(-1), torch.ones(len(back)))
    best = teacher.topk(6, -1)
    torch.testing.assert_close(back.gather(1, best.indices).exp(), best.values.exp(), atol=1e-3, rtol=0)
    left = back.scatter(1, best.indices, torch.nan).numpy()
    np.testing.assert_allclose(np.nanmax(left, 1), np.nanmin(left, 1))


class Asked:
    """A teacher that counts, and may die."""

    def __init__(self, dies_at: int | None = None) -> None:
        self.clips: list[int] = []
        self.dies_at = dies_at

    def __call__(self, index: int) -> tuple[Tensor, Nbest]:
        if index == self.dies_at:
            raise KeyboardInterrupt
        self.clips.append(index)
        return some(index), [([index, 1], 0.75), ([], 0.25)]


def test_a_killed_teacher_goes_on_behind_its_last_shard_and_is_then_asked_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(posteriors, "SHARD", 3)
    with pytest.raises(KeyboardInterrupt):
        cache_posteriors(Asked(dies_at=5), 8, ORIGIN, tmp_path, Progress())
    again, later = Asked(), Asked()
    cache_posteriors(again, 8, ORIGIN, tmp_path, Progress())
    cache_posteriors(later, 8, ORIGIN, tmp_path, Progress())
    assert again.clips == [3, 4, 5, 6, 7] and later.clips == []
    found = Posteriors(tmp_path)
    for index in range(8):
        torch.testing.assert_close(found.log_probs(index), expand(*shorten(some(index), 6), VOCABULARY))
        assert found.texts(index) == [([index, 1], 0.75), ([], 0.25)]


def test_the_answers_of_another_teacher_are_not_taken_for_this_one_s(tmp_path: Path) -> None:
    cache_posteriors(Asked(), 2, ORIGIN, tmp_path, Progress())
    with pytest.raises(EdgeavError, match="another teacher"):
        cache_posteriors(Asked(), 2, replace(ORIGIN, teacher="u"), tmp_path, Progress())
