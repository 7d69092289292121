"""Importance by learned gates: each unit behind a gate that training may close, at a price for every open one.

Louizos et al. 2018, Learning Sparse Neural Networks through L0 Regularization (https://arxiv.org/abs/1712.01312): the
hard concrete gate is 0 or 1 with a probability that has a gradient. The price is a Lagrange multiplier that rises until
the expected cost meets the target (Wang et al. 2020, https://arxiv.org/abs/1910.04732). The weights stay as they are;
what is learned is which units the loss can do without, all together rather than one by one.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from edgeav.data.batch import Batch
from edgeav.losses import CtcTraining
from edgeav.models import AVModel
from edgeav.shrink.cost import Cost
from edgeav.shrink.places import Group, along

TEMPERATURE, LOW, HIGH = 2 / 3, -0.1, 1.1  # of the paper
OPEN = 2.5  # at first: a gate is open with probability 0.99
RATE, PRICE_RATE = 0.1, 10.0


class Gates(nn.Module):
    """One number for each unit of each group."""

    def __init__(self, groups: Sequence[Group]) -> None:
        super().__init__()
        self.groups = groups
        self.log_alpha = nn.ParameterList([nn.Parameter(torch.full((group.units,), OPEN)) for group in groups])

    def open(self) -> dict[str, Tensor]:
        """Name of a group -> (units,) probability that a gate is not 0."""
        shift = TEMPERATURE * math.log(-LOW / HIGH)
        return {g.name: torch.sigmoid(a - shift) for g, a in zip(self.groups, self.log_alpha, strict=True)}

    def drawn(self) -> list[Tensor]:
        """(units,) of each group: gates at random, from 0 to 1."""
        gates = []
        for log_alpha in self.log_alpha:
            noise = torch.rand_like(log_alpha).clamp(1e-6, 1 - 1e-6).logit()
            gates.append((torch.sigmoid((noise + log_alpha) / TEMPERATURE) * (HIGH - LOW) + LOW).clamp(0, 1))
        return gates

    def closed_in(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The weights that read units, times the gates of those units."""
        gated: dict[str, Tensor] = {}
        for group, gate in zip(self.groups, self.drawn(), strict=True):
            for place in group.read:
                weight = gated.get(place.tensor, weights[place.tensor])
                gated[place.tensor] = weight * along(gate, weight, place)
        return gated


def l0(
    model: AVModel, groups: Sequence[Group], batches: Iterable[Batch], cost: Cost, share: float
) -> dict[str, Tensor]:
    """Name of a group -> (units,) probabilities that a gate is open when the expected cost is `share` of the whole.

    One update a batch: some hundred are needed. `cost` must have a gradient: not that of a latency table.
    """
    training, gates = CtcTraining(model).eval().requires_grad_(False), Gates(groups)
    price = torch.zeros(2, requires_grad=True)
    optimizer = torch.optim.Adam(gates.parameters(), lr=RATE)
    whole = cost.total(cost.units)
    weights = {name: weight.detach() for name, weight in model.named_parameters()}
    for batch in batches:
        gated = {f"model.{name}": weight for name, weight in gates.closed_in(weights).items()}
        loss = functional_call(training, gated, (batch, 0.0))["loss"]
        expected = {name: open_.sum() for name, open_ in gates.open().items()}
        beyond = _total(cost, expected) / whole - share
        optimizer.zero_grad()
        (loss + price.detach()[0] * beyond + price.detach()[1] * beyond.square()).backward()
        optimizer.step()
        with torch.no_grad():  # the multipliers climb where the parameters descend
            price += PRICE_RATE * torch.stack([beyond, beyond.square()]).detach()
    return {name: open_.detach().double() for name, open_ in gates.open().items()}


def _total(cost: Cost, expected: Mapping[str, Tensor]) -> Tensor:
    """The cost of expected numbers of units: its formulas take tensors as they take numbers."""
    counts: dict[str, Any] = {**cost.units, **expected}
    return torch.as_tensor(cost.total(counts))
