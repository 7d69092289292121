"""Factorized layers: exact at full rank, the best there is below it, and only where they are smaller and faster."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import numpy as np
import pytest
import torch
from test_prune_surgery import config_of, model_of, outputs, parameters
from torch import Tensor, nn

from edgeav.errors import EdgeavError
from edgeav.exporters.rewrites import deployable
from edgeav.models import AVModel, load_model, noise, save_model
from edgeav.models.low_rank import LowRank, Whole
from edgeav.quant.census import macs_by_module
from edgeav.quant.plan import role_of
from edgeav.runtime.features import Inputs
from edgeav.shrink.budget import Budget
from edgeav.shrink.geometry import Shape
from edgeav.shrink.latency import LatencyTable
from edgeav.shrink.ranks import Candidate, by_budget, by_energy, candidates, described, price, whole_layers
from edgeav.shrink.svd import Components, Moments, components, factorized, record
from edgeav.stages.low_rank import ROLES


def correlated(rows: int, width: int, mean: float = 0.0) -> Tensor:
    """Inputs of which a few directions carry nearly everything."""
    torch.manual_seed(1)
    return torch.randn(rows, width) @ torch.diag(0.6 ** torch.arange(width)) @ torch.randn(width, width) + mean


def of(layer: nn.Linear, x: Tensor) -> Components:
    moments = Moments(layer.out_features)
    moments.add(layer(x))
    return components(layer, moments)


def through(part: Components, rank: int, x: Tensor) -> Tensor:
    factors = part.factors(rank)
    y = x @ factors["narrow.weight"].T @ factors["widen.weight"].T
    return y + factors["widen.bias"] if "widen.bias" in factors else y


def layer_of(inputs: int, outputs: int, bias: bool = True) -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(inputs, outputs, bias).requires_grad_(False)


@pytest.mark.parametrize(("inputs", "outs"), [(12, 20), (20, 12)])
@pytest.mark.parametrize("bias", [True, False])
def test_at_full_rank_nothing_is_lost(inputs: int, outs: int, bias: bool) -> None:
    layer, x = layer_of(inputs, outs, bias), correlated(500, inputs, mean=2.0)
    torch.testing.assert_close(through(of(layer, x), min(inputs, outs), x), layer(x), atol=1e-4, rtol=1e-4)


def test_a_convolution_loses_the_tail_of_the_variances_edges_included() -> None:
    torch.manual_seed(0)
    layer, x = nn.Conv2d(6, 12, 3, 2, 1).requires_grad_(False), torch.randn(20, 6, 9, 9).cumsum(2) + 1
    y, moments = layer(x), Moments(12)
    moments.add(y.movedim(1, -1).flatten(0, -2))
    part = components(layer, moments)
    for rank in (3, 12):
        halves = LowRank(layer, rank)
        halves.load_state_dict(part.factors(rank))
        error = (halves(x) - y).square().sum(1).mean().double()
        torch.testing.assert_close(error, part.variances[rank:].sum(), atol=1e-5, rtol=1e-2)


def test_for_white_inputs_it_is_the_truncated_svd_of_the_weight() -> None:
    layer, moments = layer_of(16, 24, bias=False), Moments(24)
    moments.count, moments.products = 1, (layer.weight @ layer.weight.T).double()
    u, s, v = torch.linalg.svd(layer.weight.double(), full_matrices=False)
    part = components(layer, moments)
    for rank in (1, 5, 15):
        factors = part.factors(rank)
        product = factors["widen.weight"].double() @ factors["narrow.weight"].double()
        torch.testing.assert_close(product, (u[:, :rank] * s[:rank]) @ v[:rank], atol=1e-6, rtol=1e-5)
        assert part.energy(rank) == pytest.approx(float(s[:rank].square().sum() / s.square().sum()))


@pytest.mark.parametrize("bias", [True, False])
def test_for_correlated_inputs_the_error_is_the_tail_of_the_variances_and_less_than_plain_svds(bias: bool) -> None:
    layer, x = layer_of(24, 16, bias), correlated(400, 24, mean=1.0)
    part = of(layer, x)
    u, s, v = torch.linalg.svd(layer.weight, full_matrices=False)
    for rank in (2, 4, 8):
        ours = (through(part, rank, x) - layer(x)).square().sum(1).mean()
        plain = (x @ ((u[:, :rank] * s[:rank]) @ v[:rank] - layer.weight).T).square().sum(1).mean()
        assert ours < 0.5 * plain
        torch.testing.assert_close(ours.double(), part.variances[rank:].sum(), atol=1e-5, rtol=1e-2)


def test_no_other_factors_of_that_rank_have_a_smaller_error() -> None:
    """Gradient descent from the found factors finds nothing better."""
    layer, x = layer_of(12, 10), correlated(300, 12)
    found = {name: tensor.requires_grad_() for name, tensor in of(layer, x).factors(3).items()}
    optimizer = torch.optim.Adam(found.values(), lr=1e-3)
    errors = []
    for _ in range(100):
        y = x @ found["narrow.weight"].T @ found["widen.weight"].T + found["widen.bias"]
        error = (y - layer(x)).square().sum(1).mean()
        optimizer.zero_grad()
        error.backward()
        optimizer.step()
        errors.append(error.item())
    assert min(errors) > 0.999 * errors[0]


def test_the_numbers_between_both_halves_vary_alike() -> None:
    layer, x = layer_of(24, 16), correlated(400, 24)
    between = x @ of(layer, x).factors(6)["narrow.weight"].T
    torch.testing.assert_close(between.var(0), torch.ones(6), atol=0.02, rtol=0)


def inputs_of(model: AVModel, count: int) -> list[Inputs]:
    torch.manual_seed(2)
    return [Inputs(*(x.numpy() for x in noise(model.config, 5 + place))) for place in range(count)]


@pytest.fixture(scope="module")
def model() -> AVModel:
    return model_of(config_of("dw-striding", "conv3d-dense", "concat-mlp with norm"))


@pytest.fixture(scope="module")
def parts(model: AVModel) -> dict[str, Components]:
    paths = whole_layers(model, ROLES)
    moments = record(model, paths, inputs_of(model, 40))
    return {path: components(cast(Whole, model.get_submodule(path)), moments[path]) for path in paths}


def test_moments_are_those_of_all_rows_that_a_layer_makes(model: AVModel) -> None:
    seen: list[Tensor] = []
    layer = model.get_submodule("blocks.1.conv.expand")
    hook = layer.register_forward_hook(lambda module, given, output: seen.append(output.detach().flatten(0, -2)))
    moments = record(model, ["blocks.1.conv.expand"], inputs_of(model, 3))["blocks.1.conv.expand"]
    hook.remove()
    x = torch.cat(seen).double()
    torch.testing.assert_close(moments.mean, x.mean(0))
    torch.testing.assert_close(moments.second(moments.mean), torch.cov(x.T, correction=0), atol=1e-6, rtol=1e-5)
    assert not layer._forward_hooks


def test_a_factorized_model_rebuilds_has_its_roles_and_at_full_rank_the_same_outputs(
    model: AVModel, parts: dict[str, Components], tmp_path: Path
) -> None:
    full = {path: min(part.layer.weight.flatten(1).shape) for path, part in parts.items()}
    whole = factorized(model, parts, full)
    torch.testing.assert_close(outputs(whole), outputs(model), atol=2e-4, rtol=2e-4)
    save_model(whole, tmp_path)
    assert torch.equal(outputs(load_model(tmp_path)), outputs(whole))
    assert whole.config.ranks == full
    torch.testing.assert_close(outputs(deployable(whole)), outputs(whole), atol=1e-5, rtol=1e-5)
    assert {"video.convs.0", "audio.layers.3", "fusion.up", "blocks.1.conv.project"} <= set(full)
    for path in full:
        assert role_of(f"{path}.narrow") == role_of(path) == role_of(f"{path}.widen")
    assert whole_layers(whole, ROLES) == []


def test_only_layers_of_the_asked_roles_are_candidates(model: AVModel) -> None:
    assert whole_layers(model, ["fusion"]) == ["fusion.up", "fusion.down"]
    assert "head" not in whole_layers(model, ROLES) and "head" in whole_layers(model, ["head"])


class Clock(LatencyTable):
    """A layer in two halves costs one call more: 150 microseconds beside its products."""

    def __getitem__(self, shape: Shape) -> float:
        products = shape.rank * (shape.window + shape.outputs) or shape.window * shape.outputs
        return 1e-6 * shape.places * products + (0.15 if shape.rank else 0.0)


def test_ranks_are_multiples_that_make_a_layer_smaller_and_faster(model: AVModel) -> None:
    smaller = candidates(model, ["video.linear", "blocks.0.attention.query"], 8, None)
    inputs = smaller[0].shape.inputs
    assert smaller[0].ranks and all(rank % 8 == 0 and rank * (inputs + 16) < inputs * 16 for rank in smaller[0].ranks)
    assert smaller[1].ranks == () and "no multiple of 8" in smaller[1].why  # 16 x 16: half its numbers at rank 4
    one = Candidate("a", Shape("linear", 100, 64, 64), (24, 16, 8))
    timed = {rank: Clock()[one.at(rank)] for rank in one.ranks}
    dense = Clock()[one.shape]
    assert timed[24] > dense > timed[16]  # by the formula: 0.457, 0.410, 0.355 ms


def test_a_layer_that_gets_no_faster_stays_whole_and_the_report_says_so(
    model: AVModel, parts: dict[str, Components]
) -> None:
    found = candidates(model, list(parts), 8, Clock())
    slow = [one for one in found if not one.ranks]
    assert slow and all(one.why for one in slow)
    ranks = by_energy(found, parts, 0.3)
    assert not set(ranks) & {one.path for one in slow}
    rows = {row["layer"]: row for row in described(found, parts, ranks, Clock())}
    assert all(rows[one.path]["rank"] is None and rows[one.path]["why"] for one in slow)


def test_the_rank_for_an_energy_is_the_least_that_keeps_it(model: AVModel, parts: dict[str, Components]) -> None:
    found = candidates(model, list(parts), 8, None)
    ranks = by_energy(found, parts, 0.9)
    assert ranks
    for path, rank in ranks.items():
        assert parts[path].energy(rank) >= 0.9 and (rank == 8 or parts[path].energy(rank - 8) < 0.9)


@pytest.mark.parametrize("measure", ["parameters", "macs"])
def test_a_budget_for_the_whole_model_is_met_by_the_model_that_comes_out(
    model: AVModel, parts: dict[str, Components], measure: str
) -> None:
    def size(some: AVModel) -> int:
        return parameters(some) if measure == "parameters" else sum(macs_by_module(some).values())

    found = candidates(model, list(parts), 8, None)
    least = size(factorized(model, parts, {one.path: one.ranks[-1] for one in found if one.ranks})) / size(model)
    budget = Budget.model_validate({measure: (1 + least) / 2})
    ranks = by_budget(found, parts, budget, price(model, budget, None))
    assert least <= size(factorized(model, parts, ranks)) / size(model) <= (1 + least) / 2
    impossible = Budget.model_validate({measure: 0.9 * least})
    with pytest.raises(EdgeavError, match=rf"cannot be reached.*{measure}"):
        by_budget(found, parts, impossible, price(model, impossible, None))


def test_a_budget_takes_the_layer_apart_that_loses_less() -> None:
    layers = {name: layer_of(64, 64) for name in ("flat", "steep")}
    given = {"flat": torch.randn(2000, 64), "steep": correlated(2000, 64)}
    parts = {name: of(layer, given[name]) for name, layer in layers.items()}
    found = [Candidate(name, Shape("linear", 10, 64, 64), (24, 16, 8)) for name in layers]
    model = AVModel(config_of("dw-striding", None, "sum"))
    budget = Budget(parameters=(parameters(model) - 900) / parameters(model))
    assert set(by_budget(found, parts, budget, price(model, budget, None))) == {"steep"}
    assert np.isclose(parts["steep"].energy(64), 1)
