"""The ExecuTorch artifact. Lowering takes most of a minute even for one block, so all of this is slow."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from executorch.exir._serialize._program import deserialize_pte_binary
from tiny_av import all_kinds, calibration, clip, target, tiny_model

from edgeav.exporters import export
from edgeav.exporters.parity import compare
from edgeav.guards.pte import read_graphs
from edgeav.models import AVModel
from edgeav.runtime.bundle import Bundle
from edgeav.runtime.engines import open_engine

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def model() -> AVModel:
    return tiny_model()


@pytest.fixture(scope="module", params=["fp32", "int8"])
def bundle(model: AVModel, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    folder = tmp_path_factory.mktemp(request.param)
    ranges = calibration() if request.param == "int8" else []
    return export(model, target("executorch-xnnpack"), request.param, ranges, [(None, clip(16))], folder)


def test_answers_are_those_of_pytorch_from_the_shortest_to_the_longest_input(model: AVModel, bundle: Bundle) -> None:
    parity = compare(bundle, model, [*all_kinds(), clip(200)])
    assert parity.max_abs < (1e-3 if bundle.precision == "fp32" else 0.5)


def test_a_length_may_follow_any_other(model: AVModel, bundle: Bundle) -> None:
    engine, clips = open_engine(bundle), {steps: clip(steps, seed=steps) for steps in (2, 40, 200)}
    alone = {steps: open_engine(bundle).run(*inputs) for steps, inputs in clips.items()}
    for steps in (2, 200, 40, 2, 40, 200):
        np.testing.assert_array_equal(engine.run(*clips[steps]), alone[steps])


def test_xnnpack_reserves_for_the_shortest_input(bundle: Bundle) -> None:
    tensors = [
        value.get("tensor_value", value) for _, part in read_graphs(bundle.model_path) for value in part.values.values()
    ]
    sides = {side for tensor in tensors if tensor["constant_buffer_idx"] == 0 for side in tensor["dims"]}
    assert sides >= {factor * bundle.steps.min for factor in (1, 8)}
    assert not sides & {factor * bundle.steps.max for factor in (1, 8)}


def test_inputs_are_used_where_they_lie(bundle: Bundle) -> None:
    plan = deserialize_pte_binary(bundle.model_path.read_bytes()).program.execution_plan[0]
    inputs = [plan.values[index].val for index in plan.inputs]
    assert [getattr(tensor, "allocation_info", "none is no tensor") for tensor in inputs] == [None] * 3


def test_nothing_is_copied_to_the_shape_that_it_has(bundle: Bundle) -> None:
    program = deserialize_pte_binary(bundle.model_path.read_bytes()).program
    assert "aten::expand_copy" not in {operator.name for operator in program.execution_plan[0].operators}


def test_nearly_all_work_is_integer_and_the_bundle_says_so(bundle: Bundle) -> None:
    if bundle.precision == "fp32":
        assert bundle.quality == {}
    else:
        assert bundle.quality["integer_mac_share"] > 0.95


def test_the_length_limit_of_the_target_is_in_the_bundle_and_holds(model: AVModel, tmp_path: Path) -> None:
    short = export(model, target("executorch-xnnpack", "options.max_seconds=3.2"), "fp32", [], [], tmp_path)
    assert short.steps.max == 40
    engine = open_engine(short)
    assert engine.run(*clip(40)).shape[1] == 40
    with pytest.raises(RuntimeError):
        engine.run(*clip(48))


def test_lowering_leaves_pytorchs_settings_alone(bundle: Bundle) -> None:
    assert torch.backends.mkldnn.enabled  # type: ignore[attr-defined]
