"""What a model costs for each choice of widths: multiply-accumulates or parameters by formula, milliseconds by table.

A layer between two groups costs by the product of both, so what a unit saves depends on how many are left elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from edgeav.models import AVModel
from edgeav.quant.census import macs_by_module
from edgeav.shrink.geometry import shapes_of
from edgeav.shrink.latency import LatencyTable
from edgeav.shrink.places import Group, block_of

Counts = Mapping[str, int]  # units of each group; blocks: 1, or 0 for one that is dropped


@dataclass(frozen=True)
class Layer:
    """A tensor or layer that costs something. `axes`: group by axis of its weight; `block`: whose end is its end."""

    name: str
    axes: Mapping[int, str]
    block: str | None
    cost: Callable[[float, float], float]
    """(share of its outputs, share of its inputs) -> cost."""


class Cost:
    """Of a whole model: the sum over `layers`. `units`: of each group before anything was removed."""

    def __init__(self, layers: Sequence[Layer], units: Counts) -> None:
        self.layers, self.units = layers, units
        self.touching: dict[str, list[Layer]] = {name: [] for name in units}
        for layer in layers:
            for name in {*layer.axes.values(), *([layer.block] if layer.block in units else [])}:
                self.touching[str(name)].append(layer)

    def total(self, counts: Counts) -> float:
        return sum(self.of(layer, counts) for layer in self.layers)

    def of(self, layer: Layer, counts: Counts) -> float:
        if layer.block is not None and not counts.get(layer.block, 1):
            return 0.0
        return layer.cost(self._share(layer, 0, counts), self._share(layer, 1, counts))

    def change(self, item: str, count: int, counts: Counts) -> float:
        """What is saved when `item` goes from its count to `count`."""
        then = {**counts, item: count}
        return sum(self.of(layer, counts) - self.of(layer, then) for layer in self.touching[item])

    def _share(self, layer: Layer, axis: int, counts: Counts) -> float:
        group = layer.axes.get(axis)
        return 1.0 if group is None else counts[group] / self.units[group]


def parameters(model: AVModel, groups: Sequence[Group], blocks: Sequence[str]) -> Cost:
    """Numbers in all tensors that training changes."""
    axes = _axes(groups)
    sizes = {name: parameter.numel() for name, parameter in model.named_parameters()}
    layers = [Layer(n, axes.get(n, {}), _block(n, blocks), _proportional(size)) for n, size in sizes.items()]
    return Cost(layers, _units(groups, blocks))


def macs(model: AVModel, groups: Sequence[Group], blocks: Sequence[str]) -> Cost:
    """Multiply-accumulates of 4 s."""
    axes = _axes_with_products(groups)
    done = macs_by_module(model)
    layers = [
        Layer(path, axes.get(f"{path}.weight", {}), _block(path, blocks), _proportional(count))
        for path, count in done.items()
    ]
    return Cost(layers, _units(groups, blocks))


def milliseconds(model: AVModel, groups: Sequence[Group], blocks: Sequence[str], table: LatencyTable) -> Cost:
    """Time of the layers that multiply, one after the other, for 4 s; norms and what moves bytes are not in it."""
    axes = _axes_with_products(groups)
    layers = []
    for path, shape in shapes_of(model).items():

        def cost(outputs: float, inputs: float, shape=shape) -> float:
            return table[shape.scaled(round(outputs * shape.outputs), round(inputs * shape.inputs))]

        layers.append(Layer(path, axes.get(f"{path}.weight", {}), _block(path, blocks), cost))
    return Cost(layers, _units(groups, blocks))


def _proportional(whole: float) -> Callable[[float, float], float]:
    return lambda outputs, inputs: whole * outputs * inputs


def _axes(groups: Sequence[Group]) -> dict[str, dict[int, str]]:
    """Tensor -> axis -> the group whose units stand there."""
    axes: dict[str, dict[int, str]] = {}
    for group in groups:
        for place in (*group.made, *group.read):
            axes.setdefault(place.tensor, {})[place.axis] = group.name
    return axes


def _axes_with_products(groups: Sequence[Group]) -> dict[str, dict[int, str]]:
    """The same, and of the products of activations, which have no weight, as if attention itself had one."""
    return _axes(groups) | {f"{group.products}.weight": {0: group.name} for group in groups if group.products}


def _units(groups: Sequence[Group], blocks: Sequence[str]) -> dict[str, int]:
    return {group.name: group.units for group in groups} | dict.fromkeys(blocks, 1)


def _block(name: str, blocks: Sequence[str]) -> str | None:
    return own if (own := block_of(name)) in blocks else None
