"""Factorized linear layers: W (out, in) as B (out, rank) times A (rank, in)."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn


class LowRank(nn.Module):
    """(…, in) -> (…, out) through `rank` numbers."""

    def __init__(self, inputs: int, outputs: int, rank: int, bias: bool) -> None:
        super().__init__()
        self.narrow, self.widen = nn.Linear(inputs, rank, bias=False), nn.Linear(rank, outputs, bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.widen(self.narrow(x))


def factorize(model: nn.Module, ranks: Mapping[str, int]) -> None:
    """Put an empty `LowRank` in the place of each linear layer that `ranks` names. Changes `model`.

    Raises ValueError for a path that is no linear layer, and for a rank that would save nothing.
    """
    modules = dict(model.named_modules())
    for path, rank in ranks.items():
        layer = modules.get(path)
        if layer is None or not isinstance(layer, nn.Linear):
            raise ValueError(f"ranks: {path!r} is not a linear layer of this model")
        if rank > min(layer.in_features, layer.out_features):
            raise ValueError(f"ranks.{path}: {rank} is more than its {layer.out_features} x {layer.in_features} have")
        parent, _, name = path.rpartition(".")
        setattr(modules[parent], name, LowRank(layer.in_features, layer.out_features, rank, layer.bias is not None))
