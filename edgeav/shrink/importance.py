"""What each unit is worth: by how much the loss would grow without it, or how large its weights are.

- taylor: (sum of w * dL/dw)^2 over the weights that read the unit, which is the squared derivative of the loss by a
  factor in front of the unit; the mean over training clips (Molchanov et al. 2019, https://arxiv.org/abs/1906.10771).
  All groups are measured in the same unit, that of the loss. Tried and dropped: the sum of |w * dL/dw|, which empties
  few groups altogether. Demo model, half of the multiplications, no training: a loss of 0.91 against 0.77 on other
  clips, 0.49 before.
- magnitude: the sum of its squared weights (Han et al. 2015, https://arxiv.org/abs/1506.02626; for whole filters Li et
  al. 2017, https://arxiv.org/abs/1608.08710), each tensor by its own mean: layers of different scale are comparable
  only in this.
- l0: see gates.py.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor

from edgeav.data.batch import Batch
from edgeav.losses import CtcTraining
from edgeav.models import AVModel
from edgeav.shrink.cost import Cost
from edgeav.shrink.places import Group, by_unit

Scores = Mapping[str, Tensor]  # name of a group -> (units,), double


def taylor(model: AVModel, groups: Sequence[Group], batches: Iterable[Batch]) -> dict[str, Tensor]:
    """Means over `batches` of the loss on the text, without dropout. Leaves `model` in evaluation mode."""
    training = CtcTraining(model).eval().requires_grad_(False)
    model.requires_grad_(True)
    scores = {group.name: torch.zeros(group.units, dtype=torch.double) for group in groups}
    count = 0
    for batch in batches:
        model.zero_grad(set_to_none=True)
        training(batch, 0.0)["loss"].backward()
        for group in groups:
            scores[group.name] += _by_factor(model, group).square()
        count += 1
    model.zero_grad(set_to_none=True)
    return {name: score / max(1, count) for name, score in scores.items()}


def magnitude(model: AVModel, groups: Sequence[Group]) -> dict[str, Tensor]:
    """Squared weights of each unit by the means of their tensors; 1 on average in every group."""
    scores, weights = {}, dict(model.named_parameters())
    for group in groups:
        places = [place for place in (*group.made, *group.read) if place.tensor in weights]
        squares = [by_unit(weights[p.tensor].detach().double(), p).square() for p in places]
        score = torch.stack([square.sum(1) / square.mean().clamp(min=1e-30) for square in squares]).sum(0)
        scores[group.name] = score / score.mean()
    return scores


def by_cost(scores: Scores, cost: Cost) -> dict[str, Tensor]:
    """Scores that know nothing of the loss -> the same, weighed by what a unit of the group costs.

    Otherwise the greedy choice would empty the dearest group first, whatever its scores.
    """
    return {name: score * (cost.change(name, 0, cost.units) / len(score)) for name, score in scores.items()}


def _by_factor(model: AVModel, group: Group) -> Tensor:
    """(units,) derivative of the loss by a factor of 1 in front of each unit."""
    total = torch.zeros(group.units, dtype=torch.double)
    for place in group.read:
        weight = model.get_parameter(place.tensor)
        if weight.grad is not None:
            total += by_unit((weight * weight.grad).detach(), place).sum(1).double()
    return total
