"""Factorized layers: W (out, in) as B (out, rank) times A (rank, in); a convolution as a narrow one and a 1x1 behind it
(Zhang et al. 2015, https://arxiv.org/abs/1411.4229)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

from torch import Tensor, nn

Whole = nn.Linear | nn.Conv2d


class LowRank(nn.Module):
    """(…, in) -> (…, out), or pictures of these channels, through `rank` numbers."""

    def __init__(self, layer: Whole, rank: int) -> None:
        super().__init__()
        bias = layer.bias is not None
        if isinstance(layer, nn.Linear):
            self.narrow: Whole = nn.Linear(layer.in_features, rank, bias=False)
            self.widen: Whole = nn.Linear(rank, layer.out_features, bias)
        else:
            kernel, stride, padding = (
                cast(tuple[int, int], pair) for pair in (layer.kernel_size, layer.stride, layer.padding)
            )
            self.narrow = nn.Conv2d(layer.in_channels, rank, kernel, stride, padding, bias=False)
            self.widen = nn.Conv2d(rank, layer.out_channels, 1, bias=bias)
        self.rank = rank

    def forward(self, x: Tensor) -> Tensor:
        return self.widen(self.narrow(x))


def factorizable(layer: nn.Module | None) -> bool:
    """Whether it is a linear layer, or a 2-D convolution in which all channels meet."""
    return isinstance(layer, nn.Linear) or (isinstance(layer, nn.Conv2d) and layer.groups == 1)


def factorize(model: nn.Module, ranks: Mapping[str, int]) -> None:
    """Put an empty `LowRank` in the place of each layer that `ranks` names. Changes `model`.

    Raises ValueError for a path that is no such layer, and for a rank that it cannot have.
    """
    modules = dict(model.named_modules())
    for path, rank in ranks.items():
        layer = modules.get(path)
        if not factorizable(layer):
            raise ValueError(f"ranks: {path!r} is not a linear layer or full 2-D convolution of this model")
        layer = cast(Whole, layer)
        outputs, inputs = layer.weight.flatten(1).shape
        if rank > min(inputs, outputs):
            raise ValueError(f"ranks.{path}: {rank} is more than its {outputs} x {inputs} have")
        parent, _, name = path.rpartition(".")
        setattr(modules[parent], name, LowRank(layer, rank))
