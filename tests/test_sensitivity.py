"""The scan finds a smallest set of roles, whatever the roles do to the WER; its file and its table read back."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import pytest

from edgeav.cli_explain import explain
from edgeav.errors import EdgeavError
from edgeav.quant.plan import Plan, Role
from edgeav.quant.sensitivity import Effect, Found, load_sensitivity, markdown, scan

ROLES: tuple[Role, ...] = ("visual-cnn", "feed-forward", "conv-depthwise", "head")
HARM: dict[str, float] = {"visual-cnn": 0.1, "feed-forward": 0.6, "conv-depthwise": 0.9, "head": 0.05}


def added_up(roles: tuple[Role, ...]) -> Effect:
    """Each role does its own harm; drift goes with it."""
    harm = sum(HARM[role] for role in roles)
    return Effect(harm / 10, harm, harm - 0.5, harm + 0.5)


def found(budget: float, effect=added_up) -> Found:  # type: ignore[no-untyped-def]
    return scan(ROLES, effect, lambda: {"head": 0.5, "": -0.25}, budget)


@pytest.mark.parametrize("budget", [0.0, 0.04, 0.1, 0.16, 0.7, 0.8, 1.5, 2.0])
def test_as_few_roles_stay_in_float_as_any_choice_needs(budget: float) -> None:
    kept = found(budget).kept
    fits = [
        len(ROLES) - len(some)
        for count in range(len(ROLES) + 1)
        for some in itertools.combinations(ROLES, count)
        if added_up(some).wer <= budget + 1e-9
    ]
    assert len(kept) == min(fits)
    assert added_up(tuple(role for role in ROLES if role not in kept)).wer <= budget


def test_a_role_that_only_seemed_harmful_is_given_back() -> None:
    """feed-forward drifts most, but only conv-depthwise costs words."""

    def misleading(roles: tuple[Role, ...]) -> Effect:
        drift = sum({"feed-forward": 9.0, "conv-depthwise": 5.0}.get(role, 1.0) for role in roles)
        return Effect(drift, 2.0 * ("conv-depthwise" in roles), 0.0, 3.0)

    assert found(1.0, misleading).kept == ("conv-depthwise",)


def test_nothing_stays_in_float_where_the_budget_holds_anyway() -> None:
    assert found(5.0).kept == ()
    assert found(5.0).chosen == found(5.0).everything


def test_the_file_and_the_table_say_what_was_measured(tmp_path: Path) -> None:
    plan = Plan()
    measured = found(0.2).described(plan, utterances=100, budget=0.2)
    measured.save(tmp_path)
    assert load_sensitivity(tmp_path) == measured
    assert measured.keep_float == ("attention-matmul", "conv-depthwise", "feed-forward")
    table = markdown(measured)
    assert table.index("conv-depthwise") < table.index("feed-forward") < table.index("| head")
    assert "| head | int8 | 0.00500 | +0.05 [-0.45, +0.55] | +0.50 |  |" in table
    assert "Stays in float: attention-matmul, conv-depthwise, feed-forward." in table


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "sensitivity.json").write_text('{"schema": "edgeav-sensitivity/1", "rows": 3}')
    with pytest.raises(EdgeavError, match=r"sensitivity\.json: cannot be read"):
        load_sensitivity(tmp_path)


def test_explain_prints_the_plan_and_what_was_measured_for_it(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(EdgeavError, match="no stage of this run has decided anything"):
        explain(tmp_path)
    stage = tmp_path / "01-quantize"
    stage.mkdir()
    Plan(roles={"head": "int4-weights"}).save(stage)
    explain(tmp_path, as_json=True)
    assert {"role": "head", "format": "int4-weights"} in json.loads(capsys.readouterr().out)["formats"]
    explain(tmp_path)
    assert "Nothing was measured" in capsys.readouterr().out
    found(0.2).described(Plan(), utterances=100, budget=0.2).save(stage)
    explain(tmp_path)
    said = capsys.readouterr().out
    assert "Stays in float: attention-matmul, conv-depthwise, feed-forward." in said
    assert all(role in said for role in ROLES)
