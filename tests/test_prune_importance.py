"""What a unit is worth: Taylor by the formula and against the loss itself, magnitudes free of scale, learned gates."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from test_prune_surgery import config_of, silence

from edgeav.data.batch import Batch, collate
from edgeav.losses import CtcTraining
from edgeav.models import AVModel, noise, random_model
from edgeav.runtime.features import Inputs
from edgeav.shrink import cost as costs
from edgeav.shrink.gates import Gates, l0
from edgeav.shrink.groups import groups_of, removable_blocks
from edgeav.shrink.importance import by_cost, magnitude, taylor
from edgeav.shrink.places import by_unit, selected


class Letters:
    """A tokenizer for texts of a, b and c."""

    def encode(self, text: str) -> list[int]:
        return ["abc".index(letter) for letter in text]


def batches(model: AVModel, count: int) -> list[Batch]:
    torch.manual_seed(5)
    made = []
    for _ in range(count):
        clips = [Inputs(*(x.numpy() for x in noise(model.config, steps))) for steps in (9, 6)]
        items = [(clip, np.zeros(clip.steps, np.int64), text) for clip, text in zip(clips, ("abc", "ca"), strict=True)]
        made.append(collate(items, Letters(), model.config.inputs))  # pyright: ignore[reportArgumentType]
    return made


@pytest.fixture(scope="module")
def model() -> AVModel:
    return random_model(config=config_of("dw-striding", "conv3d-dense", "concat-mlp"))


def test_taylor_is_the_squared_derivative_by_a_factor_in_front_of_each_unit(model: AVModel) -> None:
    """By a hook that really multiplies, in the convolution module and with attention heads."""
    groups, given = {group.name: group for group in groups_of(model)}, batches(model, 2)
    found = taylor(model, list(groups.values()), given)
    for name, reader, after in (("blocks.1.conv", "project", 1), ("blocks.0.attention", "out", 8)):
        expected, layer = torch.zeros(groups[name].units, dtype=torch.double), model.get_submodule(f"{name}.{reader}")
        for batch in given:
            factor = torch.ones(groups[name].units, requires_grad=True)
            spread = factor.repeat_interleave(after)
            hook = layer.register_forward_pre_hook(lambda module, given, spread=spread: (given[0] * spread,))
            loss = CtcTraining(model).eval()(batch, 0.0)["loss"]
            expected += torch.autograd.grad(loss, factor)[0].double().square()
            hook.remove()
        torch.testing.assert_close(found[name], expected / 2, atol=1e-9, rtol=1e-3)


def test_a_unit_that_nobody_reads_is_worth_nothing(model: AVModel) -> None:
    silenced = random_model(config=model.config)
    groups = groups_of(silenced)
    for group in groups:
        silence(silenced, group, [0, 3] if group.units > 3 else [0])
    for name, score in taylor(silenced, groups, batches(silenced, 1)).items():
        assert score[0] == 0 and score[1:].max() > 0, name


def test_taylor_leaves_no_gradients_behind(model: AVModel) -> None:
    taylor(model, groups_of(model), batches(model, 1))
    assert all(parameter.grad is None for parameter in model.parameters())


def test_magnitudes_rank_within_a_group_and_do_not_know_the_scale_of_layers(model: AVModel) -> None:
    louder = random_model(config=model.config)
    groups = groups_of(louder)
    before = magnitude(louder, groups)
    louder.get_parameter("blocks.0.feed_forward_1.up.weight").data *= 100
    group = next(group for group in groups if group.name == "blocks.0.feed_forward_2")
    louder.get_parameter("blocks.0.feed_forward_2.down.weight").data[:, 5] *= 50
    after = magnitude(louder, groups)
    torch.testing.assert_close(after["blocks.0.feed_forward_1"], before["blocks.0.feed_forward_1"])
    assert after[group.name].argmax() == 5
    assert all(score.mean() == pytest.approx(1) for score in after.values())


def test_scores_by_cost_add_up_to_what_the_group_costs(model: AVModel) -> None:
    groups = groups_of(model)
    cost = costs.parameters(model, groups, removable_blocks(model.config))
    for name, score in by_cost(magnitude(model, groups), cost).items():
        assert score.sum() == pytest.approx(cost.change(name, 0, cost.units))


def test_closed_gates_compute_what_surgery_would_leave(model: AVModel, monkeypatch: pytest.MonkeyPatch) -> None:
    groups = groups_of(model)
    gates = Gates(groups)
    monkeypatch.setattr(gates, "drawn", lambda: [(torch.arange(g.units) % 2).float() for g in groups])
    gated = gates.closed_in(dict(model.named_parameters()))
    silenced = random_model(config=model.config)
    for group in groups:
        silence(silenced, group, list(range(0, group.units, 2)))
    for name, weight in gated.items():
        assert torch.equal(weight, silenced.get_parameter(name)), name
    assert set(gated) == {place.tensor for group in groups for place in group.read}


def test_gates_close_until_the_expected_cost_meets_its_share_and_first_where_nothing_is_lost() -> None:
    config = config_of("dw-striding", None, "sum")
    model = random_model(config=config)
    groups = groups_of(model)
    with torch.no_grad():
        for group in groups:
            silence(model, group, list(range(group.units // 2)))  # the first half can go at no loss
    cost = costs.macs(model, groups, removable_blocks(config))
    given = batches(model, 1)
    torch.manual_seed(0)
    found = l0(model, groups, given * 100, cost, 0.5)
    expected = cost.total({**cost.units, **{name: round(float(score.sum())) for name, score in found.items()}})
    assert expected / cost.total(cost.units) < 0.75
    wide = [name for name, score in found.items() if len(score) >= 16]
    idle = torch.cat([found[name][: len(found[name]) // 2] for name in wide]).mean()
    busy = torch.cat([found[name][len(found[name]) // 2 :] for name in wide]).mean()
    assert busy > idle + 0.1


def test_selected_units_are_those_that_by_unit_shows(model: AVModel) -> None:
    units = torch.tensor([1, 4, 6])
    for group in groups_of(model):
        for place in (*group.made, *group.read):
            tensor = model.state_dict()[place.tensor]
            some = units if group.units > 6 else torch.tensor([1])
            assert torch.equal(by_unit(selected(tensor, place, some), place), by_unit(tensor, place)[some])
