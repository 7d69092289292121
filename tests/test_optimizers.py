"""Muon against PyTorch's own, and which weights it moves."""

from __future__ import annotations

import pytest
import torch
from tiny_av import tiny_model
from torch import nn

from edgeav.losses import CtcTraining
from edgeav.models.dropout import LEVELS, Dropout
from edgeav.optimizers import RMS, Muon, block_matrices

MATCHED = 0.2  # what torch.optim.Muon scales by where ours has RMS


@pytest.mark.parametrize("shape", [(32, 96), (96, 32), (48, 48)])
def test_muon_moves_a_matrix_as_pytorchs_does(shape: tuple[int, int]) -> None:
    torch.manual_seed(0)
    ours, theirs = (nn.Parameter(torch.ones(shape)) for _ in range(2))
    times, decay = RMS / MATCHED, 0.1
    mine = Muon([ours], lr=1e-2, weight_decay=decay)
    other = torch.optim.Muon([theirs], lr=1e-2 * times, weight_decay=decay / times, adjust_lr_fn="match_rms_adamw")
    for _ in range(4):
        ours.grad = torch.randn(shape)
        theirs.grad = ours.grad.clone()
        mine.step()
        other.step()
    torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-5)
    assert not torch.equal(ours, torch.ones(shape))


def test_muon_has_the_matrices_of_the_blocks_and_nothing_else() -> None:
    training = CtcTraining(tiny_model())
    names = {id(p): name for name, p in training.named_parameters()}
    found = [names[id(p)] for p in block_matrices(training)]
    assert found and len(found) == len(set(found))
    assert all(".feed_forward" in n or ".attention" in n or ".conv." in n for n in found)
    assert all(p.ndim == 2 for p in block_matrices(training))
    assert not any(n.startswith(("model.head", "model.audio.", "model.video.", "heads")) for n in found)


def test_dropout_drops_its_share_keeps_the_mean_and_rests_outside_training() -> None:
    torch.manual_seed(0)
    dropout, ones = Dropout(0.1), torch.ones(1_000_003)
    dropped = dropout(ones)
    share = round(0.1 * LEVELS) / LEVELS
    assert (dropped == 0).float().mean().item() == pytest.approx(share, abs=2e-3)
    assert dropped.mean().item() == pytest.approx(1, abs=2e-3)
    assert dropped.unique().tolist() == pytest.approx([0, 1 / (1 - share)])
    assert torch.equal(dropout.eval()(ones), ones)
    assert torch.equal(Dropout(0.0)(ones), ones)


def test_a_mask_of_dropout_is_a_function_of_the_seed() -> None:
    masks = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        masks.append(Dropout(0.3)(torch.ones(7, 9)))
    assert torch.equal(masks[0], masks[1]) and not torch.equal(masks[0], masks[2])
