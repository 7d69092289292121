"""The best low-rank layer for the inputs that it really gets.

The singular vectors of the weight alone would be best for white inputs. For real ones the error of the OUTPUT counts:
|| (W - W') X ||, which the principal components of the outputs minimize. That is whitening the inputs by their
covariance before the decomposition, as SVD-LLM does by a Cholesky factor (Wang et al. 2024,
https://arxiv.org/abs/2403.07378; before it ASVD, Yuan et al. 2023, https://arxiv.org/abs/2312.05821), in a form that
needs no inverse: with U the leading eigenvectors of the outputs' covariance W C W^T, W' = U (U^T W). It holds for
convolutions too (Zhang et al. 2015, https://arxiv.org/abs/1411.4229). Where there is a bias, the covariance is taken
about the mean, which the new bias restores.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from edgeav.models import AVModel
from edgeav.models.low_rank import Whole
from edgeav.runtime.features import Inputs
from edgeav.shrink.surgery import rebuilt

SMALLEST = 1e-10  # of the largest variance: what is below is rounding


class Moments:
    """Of the outputs of one layer: how many, their sum (out,) and the sum of their products (out, out)."""

    def __init__(self, width: int) -> None:
        self.count, self.total = 0, torch.zeros(width, dtype=torch.double)
        self.products = torch.zeros(width, width, dtype=torch.double)

    def add(self, y: Tensor) -> None:
        """(rows, out)."""
        y = y.double()  # in float32 the smallest variances would drown in the rounding of the largest
        self.count += len(y)
        self.total += y.sum(0)
        self.products.addmm_(y.T, y)

    @property
    def mean(self) -> Tensor:
        return self.total / max(1, self.count)

    def second(self, about: Tensor) -> Tensor:
        """(out, out): the mean products of the outputs less `about` (out,), which is their mean or 0."""
        return self.products / max(1, self.count) - torch.outer(about, about)


@dataclass(frozen=True)
class Components:
    """Of the outputs of a layer: directions (out, K) and variances (K,), the largest first. `mean` (out,) is what the
    variances are about: zero for a layer without bias."""

    layer: Whole
    mean: Tensor
    variances: Tensor
    directions: Tensor

    def energy(self, rank: int) -> float:
        """0..1: share of the variance that `rank` components carry."""
        whole = float(self.variances.sum())
        return float(self.variances[:rank].sum()) / whole if whole else 1.0

    def factors(self, rank: int) -> dict[str, Tensor]:
        """narrow.weight (rank, in, …), widen.weight (out, rank, …), widen.bias (out,) if there is one.

        The numbers between the two halves have variance 1 each, so that 8 bits resolve all of them alike.
        """
        weight, kept = self.layer.weight.detach().double(), self.directions[:, :rank]
        scale = self.variances[:rank].clamp(min=SMALLEST * float(self.variances[0])).sqrt().clamp(min=1e-30)
        narrow = ((kept.T @ weight.flatten(1)) / scale[:, None]).unflatten(1, weight.shape[1:])
        factors = {"narrow.weight": narrow, "widen.weight": kept * scale}
        if isinstance(self.layer, nn.Conv2d):
            factors["widen.weight"] = factors["widen.weight"][:, :, None, None]
        if self.layer.bias is not None:
            factors["widen.bias"] = self.mean + kept @ (kept.T @ (self.layer.bias.detach().double() - self.mean))
        return {name: tensor.float().contiguous() for name, tensor in factors.items()}


def components(layer: Whole, moments: Moments) -> Components:
    """The principal components of these outputs of the layer."""
    mean = moments.mean if layer.bias is not None else torch.zeros_like(moments.total)
    variances, directions = torch.linalg.eigh(moments.second(mean))
    kept = min(layer.weight.flatten(1).shape)
    return Components(layer, mean, variances.flip(0)[:kept].clamp(min=0), directions.flip(1)[:, :kept])


@torch.inference_mode()
def record(model: AVModel, paths: Sequence[str], clips: Iterable[Inputs]) -> dict[str, Moments]:
    """Path of a layer -> moments of what it makes of `clips`."""
    found, hooks = {}, []
    for path in paths:
        layer = cast(Whole, model.get_submodule(path))
        moments = found[path] = Moments(len(layer.weight))

        def note(layer: nn.Module, given: object, output: Tensor, moments: Moments = moments) -> None:
            channels = output.movedim(1, -1) if isinstance(layer, nn.Conv2d) else output
            moments.add(channels.flatten(0, -2))

        hooks.append(layer.register_forward_hook(note))
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
