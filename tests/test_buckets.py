"""The planner's lengths are the best there are: no choice by brute force costs less."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any, cast

import numpy as np
import onnx
import onnxruntime
import pytest
from tiny_av import calibration, clip, tiny_model
from tiny_bundle import OUTPUTS, expected, make_bundle, some_inputs

from edgeav.buckets import plan_buckets, work
from edgeav.errors import EdgeavError
from edgeav.exporters import export
from edgeav.exporters.onnx import INTEGER_KERNELS
from edgeav.run import Run
from edgeav.runtime.bench import Workload, measure
from edgeav.runtime.bundle import read_bundle, with_buckets
from edgeav.runtime.engines import Bucketed, fitting, open_engine
from edgeav.target import Durations, Target
from edgeav.work import bucket_lengths


def padded_work(histogram: Mapping[int, int], buckets: Sequence[int]) -> float:
    """The work of all clips, each padded to the smallest bucket that holds it; infinite if one fits in none."""
    total = 0.0
    for steps, clips in histogram.items():
        bucket = fitting(steps, buckets)
        if bucket is None and clips:
            return float("inf")
        total += clips * work(bucket or 0)
    return total


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_no_other_choice_of_lengths_costs_less(seed: int, count: int) -> None:
    r = np.random.default_rng(seed)
    lengths = r.choice(np.arange(2, 300), 9, replace=False)
    histogram = {int(steps): int(clips) for steps, clips in zip(lengths, r.integers(0, 50, 9), strict=True)}
    there = [steps for steps, clips in histogram.items() if clips]
    others = combinations(there, min(count, len(there)))
    least = min(padded_work(histogram, choice) for choice in others if max(choice) == max(there))
    planned = plan_buckets(histogram, count)
    assert len(planned) <= count
    assert padded_work(histogram, planned) == pytest.approx(least)


def test_one_bucket_for_each_length_wastes_nothing() -> None:
    histogram = {10: 3, 20: 1, 40: 2}
    assert plan_buckets(histogram, 9) == [10, 20, 40]
    assert padded_work(histogram, [10, 20, 40]) == pytest.approx(3 * work(10) + work(20) + 2 * work(40))


def test_a_length_that_no_clip_has_gets_no_bucket() -> None:
    assert plan_buckets({10: 5, 20: 0, 30: 5}, 3) == [10, 30]


def test_a_clip_goes_to_the_smallest_bucket_that_holds_it_and_a_longer_one_to_none() -> None:
    assert [fitting(steps, [10, 20]) for steps in (3, 10, 11, 21)] == [10, 10, 20, None]
    assert padded_work({21: 1}, [10, 20]) == float("inf")


def test_nothing_to_plan_for_is_an_error() -> None:
    with pytest.raises(EdgeavError, match="at least one"):
        plan_buckets({}, 2)


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_a_bundle_with_buckets_answers_as_without_at_every_length(engine: str, tmp_path: Path) -> None:
    plain = make_bundle(tmp_path / "bundle", engine)
    dynamic, fixed = open_engine(plain), open_engine(with_buckets(plain, [12, 5]))
    assert isinstance(fixed, Bucketed)
    for steps in (2, 5, 6, 12, 13, 40):
        inputs = some_inputs(steps, seed=steps)
        found = fixed.run(*inputs)
        assert found.shape == (1, steps, OUTPUTS)
        np.testing.assert_allclose(found, dynamic.run(*inputs), atol=1e-5)
        np.testing.assert_allclose(found, expected(inputs), atol=1e-4)


def test_a_bucket_has_the_integer_kernels_of_the_dynamic_graph(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where ONNX Runtime knows the shapes it makes float Gemm of linear layers that were quantized."""
    export(tiny_model(), Target.load("onnxruntime"), "int8", calibration(), [(None, clip(24))], tmp_path / "bundle")
    optimized, real = [], onnxruntime.InferenceSession

    def watched(path: str, options: onnxruntime.SessionOptions, **settings: Any) -> onnxruntime.InferenceSession:
        options.optimized_model_filepath = str(tmp_path / f"{len(optimized)}.onnx")
        optimized.append(options.optimized_model_filepath)
        return real(path, options, **settings)

    monkeypatch.setattr(onnxruntime, "InferenceSession", watched)
    engine = open_engine(with_buckets(read_bundle(tmp_path / "bundle"), [24]))
    assert isinstance(engine, Bucketed) and len(optimized) == 2
    kernels = [[node.op_type for node in onnx.load(path).graph.node] for path in optimized]
    dynamic, fixed = (Counter(kind for kind in kinds if kind in INTEGER_KERNELS) for kinds in kernels)
    assert dynamic == fixed and dynamic.total() > 10


def test_a_bucket_sees_its_own_length_and_a_longer_clip_the_dynamic_graph() -> None:
    seen = []

    class Spy:
        name, version = "spy", "1"

        def __init__(self, kind: str) -> None:
            self.kind = kind

        def run(self, audio: np.ndarray, video: np.ndarray, presence: np.ndarray) -> np.ndarray:
            seen.append((self.kind, audio.shape[1], video.shape[1], presence.shape[1], int(presence.any(-1).sum())))
            return np.zeros((1, presence.shape[1], 4), np.float32)

    engine = Bucketed(Spy("dynamic"), {5: Spy("5"), 9: Spy("9")})
    for steps in (3, 6, 10):
        assert engine.run(*some_inputs(steps)).shape[1] == steps
    assert seen == [("5", 40, 10, 5, 3), ("9", 72, 18, 9, 6), ("dynamic", 80, 20, 10, 10)]


def test_the_profile_says_which_shape_it_ran_in(tmp_path: Path) -> None:
    bundle = with_buckets(make_bundle(tmp_path / "bundle"), [30, 60])
    workload = Workload(iterations=1, warmup=0)
    assert measure(bundle.folder, workload)["bucket"] == 60
    assert measure(with_buckets(bundle, [30]).folder, workload)["bucket"] is None


@pytest.mark.parametrize("wrong", [[9, 5], [5, 5], [1], [201], ["5"], [True]])
def test_buckets_that_make_no_sense_are_refused(wrong: list, tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "bundle")
    path = bundle.folder / "bundle.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"buckets": wrong}))
    with pytest.raises(EdgeavError, match="buckets"):
        read_bundle(bundle.folder)


def test_a_bundle_without_the_key_has_no_buckets(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "bundle")
    assert "buckets" not in json.loads((bundle.folder / "bundle.json").read_text())
    assert bundle.buckets == ()


def test_lengths_in_seconds_are_steps_of_the_model(tmp_path: Path) -> None:
    bundle, target = make_bundle(tmp_path / "bundle"), Target.load("openvino-fixed")
    assert isinstance(target.buckets, Durations)
    assert bucket_lengths(cast(Run, None), bundle, target.buckets) == [13, 25, 38, 50]
    with pytest.raises(EdgeavError, match="250"):
        bucket_lengths(cast(Run, None), bundle, Durations(seconds=(20.0,)))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("executorch-xnnpack", "2"),
        ("executorch-xnnpack", "{seconds: [1]}"),
        ("openvino", "0"),
        ("openvino", "[5, 5]"),
        ("openvino", "{seconds: [2, 2]}"),
        ("openvino", "{seconds: [0]}"),
    ],
)
def test_a_target_refuses_buckets_that_it_cannot_have(name: str, value: str) -> None:
    with pytest.raises(EdgeavError, match="buckets"):
        Target.load(name, [f"buckets={value}"])
