"""Costs equal what the smaller model really has; the choice keeps to its rules and finds what can be spared."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping

import pytest
import torch
from test_prune_surgery import config_of, kept, model_of, parameters
from torch import Tensor

from edgeav.models import AVModel
from edgeav.quant.census import macs_by_module
from edgeav.shrink import cost as costs
from edgeav.shrink.choice import Rules, choose, kept_units, levels_of
from edgeav.shrink.geometry import Shape, shapes_of
from edgeav.shrink.greedy import descend
from edgeav.shrink.groups import groups_of, removable_blocks
from edgeav.shrink.latency import LatencyTable, graph_of, session
from edgeav.shrink.surgery import cut

EVERYTHING = frozenset({"feed-forward", "heads", "conv-channels", "cnn-channels", "fusion", "blocks"})


class Table(LatencyTable):
    """As if every layer took as long as its products: a formula in the place of a clock."""

    def __getitem__(self, shape: Shape) -> float:
        self.measured[shape] = 1.0
        return products(shape)


def products(shape: Shape) -> float:
    if shape.kind == "attention":
        return shape.outputs * shape.inputs * shape.rows * (2 * shape.rows + 2 * shape.rows - 1)
    out = math.prod(-(-size // stride) for size, stride in zip(shape.size, shape.stride, strict=True))
    return shape.rows * out * shape.inputs * shape.outputs // shape.groups * math.prod(shape.kernel)


@pytest.mark.parametrize(
    ("audio", "video", "fusion"),
    [("dw-striding", "conv3d-dense", "concat-mlp with norm"), ("resnet1d", "resnet18", "cross-attention")],
)
def test_costs_are_those_of_the_model_that_surgery_leaves(audio: str, video: str, fusion: str) -> None:
    model = model_of(config_of(audio, video, fusion))
    groups, blocks = groups_of(model), removable_blocks(model.config)
    units = {group.name: kept(group) for group in groups}
    smaller = cut(model, units, ["blocks.1"])
    counts = {name: len(some) for name, some in units.items()} | dict.fromkeys(blocks, 1) | {"blocks.1": 0}
    by_parameters, by_macs = costs.parameters(model, groups, blocks), costs.macs(model, groups, blocks)
    by_time = costs.milliseconds(model, groups, blocks, Table())
    assert by_parameters.total(by_parameters.units) == parameters(model)
    assert by_parameters.total(counts) == parameters(smaller)
    assert by_macs.total(by_macs.units) == sum(macs_by_module(model).values())
    assert by_macs.total(counts) == sum(macs_by_module(smaller).values())
    assert by_time.total(counts) == sum(products(shape) for shape in shapes_of(smaller).values())


def test_shapes_multiply_as_often_as_pytorch_counts() -> None:
    """But for a convolution's edges, where PyTorch counts the padding as well, as the formula does."""
    model = AVModel(config_of("dw-striding", "conv3d-dense", "concat-mlp"))
    done = macs_by_module(model)
    assert {path: products(shape) for path, shape in shapes_of(model).items()} == {
        path: count for path, count in done.items() if count
    }


def test_a_change_is_the_difference_of_the_totals() -> None:
    model = AVModel(config_of("dw-striding", "conv3d-dense", "concat-mlp"))
    groups, blocks = groups_of(model), removable_blocks(model.config)
    cost = costs.macs(model, groups, blocks)
    counts = {**cost.units, "video.convs.0": 8, "blocks.1.conv": 8}
    for item, count in (("video.stem", 8), ("blocks.1.attention", 1), ("blocks.1", 0), ("fusion", 8)):
        expected = cost.total(counts) - cost.total({**counts, item: count})
        assert cost.change(item, count, counts) == pytest.approx(expected)


def scores_of(model: AVModel) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {g.name: torch.rand(g.units, generator=generator, dtype=torch.double) for g in groups_of(model)}


@pytest.mark.parametrize("share", [0.9, 0.6, 0.45])
def test_the_choice_meets_the_budget_and_keeps_to_its_rules(share: float) -> None:
    model = AVModel(config_of("dw-striding", "conv3d-dense", "concat-mlp"))
    groups, blocks, scores = groups_of(model), removable_blocks(model.config), scores_of(model)
    cost, rules = costs.macs(model, groups, blocks), Rules(EVERYTHING, multiple=8, floor=0.3)
    target = share * cost.total(cost.units)
    counts, excess = choose(groups, blocks, scores, cost, target, rules)
    assert excess == 0 and cost.total({**cost.units, **counts}) <= target
    for group in groups:
        assert counts[group.name] in levels_of(group, rules)
        assert counts[group.name] >= 0.3 * group.units - 0.5


def test_what_is_not_allowed_is_not_removed_and_what_cannot_be_reached_is_said() -> None:
    model = AVModel(config_of("dw-striding", "conv3d-dense", "concat-mlp"))
    groups, blocks, scores = groups_of(model), removable_blocks(model.config), scores_of(model)
    cost = costs.parameters(model, groups, blocks)
    counts, excess = choose(groups, blocks, scores, cost, 0.01, Rules(frozenset({"feed-forward"}), 8, 0.0))
    assert set(counts) == {group.name for group in groups if group.kind == "feed-forward"}
    assert set(counts.values()) == {8}
    assert excess == pytest.approx(cost.total({**cost.units, **counts}) - 0.01)


def test_the_least_important_units_go_and_the_rest_keep_their_order() -> None:
    scores = {"a": torch.tensor([0.3, 0.1, 0.9, 0.2, 0.8]), "b": torch.tensor([1.0, 2.0])}
    units = kept_units(scores, {"a": 3, "b": 2})
    assert units.keys() == {"a"} and units["a"].tolist() == [0, 2, 4]


def test_a_block_goes_when_its_units_together_are_worth_the_least() -> None:
    model = AVModel(config_of("dw-striding", None, "sum"))
    groups, blocks, scores = groups_of(model), removable_blocks(model.config), scores_of(model)
    scores = {name: score * (1e-6 if name.startswith("blocks.1.") else 1) for name, score in scores.items()}
    cost = costs.parameters(model, groups, blocks)
    target = cost.total({**cost.units, "blocks.1": 0}) + 1
    counts, _ = choose(groups, blocks, scores, cost, target, Rules(EVERYTHING, 8, 0.0))
    assert counts["blocks.1"] == 0
    assert all(counts[group.name] == group.units for group in groups if not group.name.startswith("blocks.1."))


class Knapsack:
    """Independent items: count -> (what is lost, what is left to pay), by a table."""

    def __init__(self, lost: dict[str, list[float]], price: dict[str, list[float]]) -> None:
        self.lost, self.price = lost, price

    def loss(self, item: str, count: int, counts: Mapping[str, int]) -> float:
        return self.lost[item][count] - self.lost[item][counts[item]]

    def saving(self, item: str, count: int, counts: Mapping[str, int]) -> float:
        return self.price[item][counts[item]] - self.price[item][count]

    def neighbours(self, item: str) -> list[str]:
        return []


def test_the_greedy_choice_is_the_best_one_where_losses_grow_evenly() -> None:
    """Convex losses and equal prices: the case in which the greedy solution of the knapsack is exact."""
    lost = {name: [k * (5 - count) ** 2 for count in range(6)] for name, k in (("a", 1.0), ("b", 2.0), ("c", 5.0))}
    price = {name: [float(count) for count in range(6)] for name in lost}
    levels = {name: [5, 4, 3, 2, 1, 0] for name in lost}
    for excess in range(1, 15):
        counts, left = descend(Knapsack(lost, price), levels, float(excess))
        assert left == 0 and sum(counts.values()) == 15 - excess
        every = itertools.product(range(6), repeat=3)
        best = min(sum(lost[n][c] for n, c in zip(lost, row, strict=True)) for row in every if sum(row) == 15 - excess)
        assert sum(lost[name][count] for name, count in counts.items()) == pytest.approx(best)


def test_a_plateau_of_the_price_is_crossed_in_one_step() -> None:
    lost, price = {"a": [3.0, 2.0, 1.0, 0.0], "b": [99.0, 0.0]}, {"a": [1.0, 5.0, 5.0, 5.0], "b": [0.0, 5.0]}
    counts, left = descend(Knapsack(lost, price), {"a": [3, 2, 1, 0], "b": [1, 0]}, 2.0)
    assert (counts, left) == ({"a": 0, "b": 1}, 0)


def test_a_step_that_saves_more_than_is_needed_is_not_preferred_for_it() -> None:
    lost, price = {"a": [10.0, 0.0], "b": [2.0, 0.0]}, {"a": [0.0, 100.0], "b": [0.0, 3.0]}
    counts, _ = descend(Knapsack(lost, price), {"a": [1, 0], "b": [1, 0]}, 2.0)
    assert counts == {"a": 1, "b": 0}


SHAPES = [
    Shape("linear", 5, 12, 7),
    Shape("linear", 5, 12, 7, rank=3),
    Shape("conv", 2, 4, 6, (9, 9), (3, 3), (2, 2)),
    Shape("conv", 1, 8, 8, (11,), (5,), (1,), groups=8),
    Shape("attention", 6, 4, 2),
]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_a_layer_is_timed_as_the_graph_that_its_shape_says(shape: Shape) -> None:
    graph, feed = graph_of(shape)
    (y,) = session(graph, "onnxruntime", feed)()
    out = tuple(-(-size // stride) for size, stride in zip(shape.size, shape.stride, strict=True))
    if shape.kind == "attention":
        assert y.shape == (1, shape.outputs, shape.rows, shape.inputs)
    elif shape.kind == "conv":
        assert y.shape == (shape.rows, shape.outputs, *out)
    else:
        assert y.shape == (1, shape.rows, shape.outputs)
    assert (
        len([node for node in graph.graph.node if node.op_type == "MatMul"])
        == ({"linear": 1 + bool(shape.rank), "conv": 0, "attention": 3}[shape.kind])
    )


def test_a_shape_is_measured_once() -> None:
    table = LatencyTable(turns=1)
    first = table[SHAPES[0]]
    assert first > 0 and table[SHAPES[0]] == first and list(table.measured) == [SHAPES[0]]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_both_runtimes_time_the_same_layer(shape: Shape) -> None:
    graph, feed = graph_of(shape)
    (ours,), theirs = session(graph, "onnxruntime", feed)(), session(graph, "openvino", feed)()
    torch.testing.assert_close(torch.from_numpy(theirs[0]), torch.from_numpy(ours), atol=1e-4, rtol=1e-4)
