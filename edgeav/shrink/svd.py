"""The best low-rank linear layer for the inputs that it really gets.

The singular vectors of the weight alone would be best for white inputs. For real ones the error of the OUTPUT counts:
|| (W - W') X ||, which the principal components of the outputs minimize. That is whitening the inputs by their
covariance before the decomposition, as SVD-LLM does by a Cholesky factor (Wang et al. 2024,
https://arxiv.org/abs/2403.07378; before it ASVD, Yuan et al. 2023, https://arxiv.org/abs/2312.05821), in a form that
needs no inverse: with U the leading eigenvectors of W C W^T, W' = U (U^T W). Where there is a bias, C is taken about
the mean, which the new bias restores.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from edgeav.models import AVModel
from edgeav.runtime.features import Inputs
from edgeav.shrink.surgery import rebuilt

SMALLEST = 1e-10  # of the largest variance: what is below is rounding


class Moments:
    """Of the inputs of one layer: how many, their sum (in,) and the sum of their products (in, in)."""

    def __init__(self, width: int) -> None:
        self.count, self.total = 0, torch.zeros(width, dtype=torch.double)
        self.products = torch.zeros(width, width, dtype=torch.double)

    def add(self, x: Tensor) -> None:
        """(…, in)."""
        flat = x.detach().flatten(0, -2).double()
        self.count += len(flat)
        self.total += flat.sum(0)
        self.products.addmm_(flat.T, flat)

    @property
    def mean(self) -> Tensor:
        return self.total / max(1, self.count)

    def second(self, about: Tensor) -> Tensor:
        """(in, in): the mean products of the inputs less `about` (in,), which is their mean or 0."""
        return self.products / max(1, self.count) - torch.outer(about, about)


@dataclass(frozen=True)
class Components:
    """Of the outputs of a linear layer: directions (out, K) and variances (K,), the largest first. `mean` (in,) is what
    the variances are about: zero for a layer without bias."""

    layer: nn.Linear
    mean: Tensor
    variances: Tensor
    directions: Tensor

    def energy(self, rank: int) -> float:
        """0..1: share of the variance that `rank` components carry."""
        whole = float(self.variances.sum())
        return float(self.variances[:rank].sum()) / whole if whole else 1.0

    def factors(self, rank: int) -> dict[str, Tensor]:
        """narrow.weight (rank, in), widen.weight (out, rank), widen.bias (out,) if there is one.

        The numbers between the two halves have variance 1 each, so that 8 bits resolve all of them alike.
        """
        weight, kept = self.layer.weight.detach().double(), self.directions[:, :rank]
        scale = self.variances[:rank].clamp(min=SMALLEST * float(self.variances[0])).sqrt().clamp(min=1e-30)
        narrow, widen = (kept.T @ weight) / scale[:, None], kept * scale
        factors = {"narrow.weight": narrow, "widen.weight": widen}
        if self.layer.bias is not None:
            lost = weight @ self.mean - widen @ (narrow @ self.mean)
            factors["widen.bias"] = self.layer.bias.detach().double() + lost
        return {name: tensor.float().contiguous() for name, tensor in factors.items()}


def components(layer: nn.Linear, moments: Moments) -> Components:
    """The principal components of the outputs that these inputs give."""
    weight = layer.weight.detach().double().cpu()
    mean = moments.mean if layer.bias is not None else torch.zeros_like(moments.total)
    variances, directions = torch.linalg.eigh(weight @ moments.second(mean) @ weight.T)
    kept = min(weight.shape)
    return Components(layer, mean, variances.flip(0)[:kept].clamp(min=0), directions.flip(1)[:, :kept])


@torch.inference_mode()
def record(model: AVModel, paths: Sequence[str], clips: Iterable[Inputs]) -> dict[str, Moments]:
    """Path of a linear layer -> moments of what it is given in `clips`."""
    found, hooks = {}, []
    for path in paths:
        layer = cast(nn.Linear, model.get_submodule(path))
        moments = found[path] = Moments(layer.in_features)

        def note(layer: nn.Module, given: tuple[Tensor, ...], moments: Moments = moments) -> None:
            moments.add(given[0])

        hooks.append(layer.register_forward_pre_hook(note))
    for clip in clips:
        model(*(torch.from_numpy(array) for array in clip))
    for hook in hooks:
        hook.remove()
    return found


def factorized(model: AVModel, found: Mapping[str, Components], ranks: Mapping[str, int]) -> AVModel:
    """A copy of `model` in which the layers that `ranks` names are two: see edgeav/models/low_rank.py."""
    weights = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
    for path, rank in ranks.items():
        for name in (f"{path}.weight", f"{path}.bias"):
            weights.pop(name, None)
        weights |= {f"{path}.{name}": tensor for name, tensor in found[path].factors(rank).items()}
    config = model.config.model_copy(update={"ranks": model.config.ranks | dict(ranks)})
    return rebuilt(config, weights, model.positions)
