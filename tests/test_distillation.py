"""What a teacher says, put into the student's terms: nearby frames, fewer steps, the best texts; against numpy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from edgeav.data.resample import fitted, pool, ratio
from edgeav.distillation import frame_kl
from edgeav.errors import EdgeavError
from edgeav.teacher import nbest


def some(*shape: int, seed: int = 0) -> Tensor:
    return (3 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))).log_softmax(-1)


@pytest.mark.parametrize("tolerance", [0, 1, 3, 9])
def test_the_divergence_of_a_frame_is_that_from_the_cheapest_frame_nearby(tolerance: int) -> None:
    teacher, student = some(2, 6, 5), some(2, 6, 5, seed=1)
    real = torch.tensor([[True] * 6, [True] * 4 + [False] * 2])
    found = frame_kl(teacher, student, real, tolerance).numpy()
    for row, steps in enumerate((6, 4)):
        for n in range(6):
            near = [m for m in range(steps) if abs(m - n) <= tolerance]
            p, logs = np.exp(teacher[row, n].numpy()), [student[row, m].numpy() for m in near]
            costs = [float((p * (teacher[row, n].numpy() - q)).sum()) for q in logs]
            assert found[row, n] == pytest.approx(min(costs) if n < steps else 0.0, abs=1e-5)


def test_a_student_that_says_the_same_a_step_later_costs_nothing_within_the_tolerance() -> None:
    teacher, real = some(1, 8, 5), torch.ones(1, 8, dtype=torch.bool)
    late = torch.cat([teacher[:, :1], teacher[:, :-1]], 1)
    assert float(frame_kl(teacher, teacher, real).abs().max()) < 1e-6
    assert float(frame_kl(teacher, late, real)[0, :-1].max()) > 0.1
    assert float(frame_kl(teacher, late, real, 1)[0, :-1].abs().max()) < 1e-6


def test_a_spike_in_one_of_two_steps_survives_and_a_mean_would_halve_it() -> None:
    spike, silence, half = (torch.tensor(p).log() for p in ([0.98, 0.01, 0.01], [0.01, 0.01, 0.98], [0.4, 0.1, 0.5]))
    pairs = torch.stack([spike, silence, silence, spike, silence, silence, half, half])
    either, loudest, mean = (pool(pairs, 2, 2, how).exp() for how in ("either", "loudest", "mean"))
    for pooled in (either, loudest, mean):
        torch.testing.assert_close(pooled.sum(-1), torch.ones(4))
    assert bool((either[:2, 0] > 0.95).all()) and bool((loudest[:2, 0] > 0.97).all())
    assert bool((mean[:2, 0] < 0.5).all())
    assert float(either[2, 2]) == pytest.approx(0.98**2, abs=1e-5)
    np.testing.assert_allclose(either[3].numpy(), [0.75 * 0.8, 0.75 * 0.2, 0.25], atol=1e-5)


def test_pooling_one_step_changes_nothing_and_what_is_missing_is_blank() -> None:
    own = some(5, 4)
    torch.testing.assert_close(pool(own, 1, 3), own)
    longer = fitted(own, 7, 3)
    torch.testing.assert_close(longer[:5], own)
    assert longer[5:].argmax(-1).tolist() == [3, 3] and fitted(own, 3, 3).shape == (3, 4)
    assert ratio(40, 80) == 2
    with pytest.raises(EdgeavError, match="every 40 ms"):
        ratio(80, 40)


def test_the_texts_are_the_most_probable_ones_and_their_shares_add_up() -> None:
    log_probs = torch.tensor([[0.6, 0.1, 0.3], [0.1, 0.2, 0.7]]).log()
    found = nbest(log_probs, blank=2, count=2)
    # every alignment of two steps: "0" is 0·blank, blank·0 and 0·0
    zero, nothing = 0.6 * 0.7 + 0.3 * 0.1 + 0.6 * 0.1, 0.3 * 0.7
    assert [text for text, _ in found] == [[0], []]
    assert [share for _, share in found] == pytest.approx([zero / (zero + nothing), nothing / (zero + nothing)])
