"""Where the units of a group stand in a model's tensors, and how to pick some of them.

A unit is a hidden unit, an attention head, a channel: rows of some tensors (what makes it) and columns of others (what
reads it). All of them go together, or the tensors no longer fit: a dependency group, after Fang et al. 2023, DepGraph
(https://arxiv.org/abs/2301.12900). Theirs are found by tracing, which fails at this model's flattened subsampling; ours
are written down, a few lines for each kind of module.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn

from edgeav.models import AVModel
from edgeav.models.low_rank import LowRank

Kind = Literal["feed-forward", "heads", "conv-channels", "cnn-channels", "fusion"]


@dataclass(frozen=True)
class Place:
    """Units along one axis of a tensor, which is (before, units, after) flattened: 2 halves of a gate before them,
    or the pixels of a channel behind them. Fewer units than `least` would be fewer than the rank of a factorized layer.
    """

    tensor: str
    axis: int
    before: int = 1
    after: int = 1
    least: int = 1


@dataclass(frozen=True)
class Group:
    """Units of one kind that can be removed one by one.

    `made`: places of what computes them; `read`: of what multiplies with them, all zero for a unit nobody needs.
    `setting`: where model.json counts them. `products`: path of the attention whose products of activations they do.
    """

    name: str
    kind: Kind
    units: int
    setting: tuple[str | int, ...]
    made: tuple[Place, ...]
    read: tuple[Place, ...]
    products: str | None = None

    @property
    def least(self) -> int:
        """Units that must stay for the model to be one."""
        return max(place.least for place in (*self.made, *self.read))


def block_of(name: str) -> str:
    """The block that a tensor, layer or group is inside of: blocks.0.conv -> blocks.0."""
    return ".".join(name.split(".")[:2])


def rows(model: AVModel, path: str, before: int = 1, after: int = 1) -> list[Place]:
    """The outputs of a linear layer or a convolution, factorized or not."""
    layer, rank = model.get_submodule(path), 1
    if isinstance(layer, LowRank):
        path, layer, rank = f"{path}.widen", layer.widen, layer.rank
    least = -(-rank // (before * after))
    tensors = [f"{path}.weight"] + ([f"{path}.bias"] if layer.bias is not None else [])
    return [Place(tensor, 0, before, after, least) for tensor in tensors]


def columns(model: AVModel, path: str, after: int = 1) -> list[Place]:
    """The inputs of a linear layer or a convolution, factorized or not."""
    layer, rank = model.get_submodule(path), 1
    if isinstance(layer, LowRank):
        path, rank = f"{path}.narrow", layer.rank
    return [Place(f"{path}.weight", 1, 1, after, -(-rank // after))]


def norm(model: AVModel, path: str) -> list[Place]:
    """The channels of a batch norm; none where there is no norm."""
    if not isinstance(model.get_submodule(path), nn.modules.batchnorm._BatchNorm):
        return []
    return [Place(f"{path}.{name}", 0) for name in ("weight", "bias", "running_mean", "running_var")]


def by_unit(tensor: Tensor, place: Place) -> Tensor:
    """(…) -> (units, rest): a view or copy with the units first."""
    return _unflattened(tensor, place).movedim(place.axis + 1, 0).flatten(1)


def along(values: Tensor, tensor: Tensor, place: Place) -> Tensor:
    """(units,) -> one number for each index of the axis, shaped to multiply `tensor`."""
    spread = values[None, :, None].expand(place.before, -1, place.after).flatten()
    return spread.view([-1 if axis == place.axis else 1 for axis in range(tensor.ndim)])


def selected(tensor: Tensor, place: Place, kept: Tensor) -> Tensor:
    """The tensor with the units `kept` (K,) alone, in that order."""
    chosen = _unflattened(tensor, place).index_select(place.axis + 1, kept)
    return chosen.flatten(place.axis, place.axis + 2).contiguous()


def _unflattened(tensor: Tensor, place: Place) -> Tensor:
    """The axis of the units as three: (before, units, after)."""
    return tensor.unflatten(place.axis, (place.before, -1, place.after))
