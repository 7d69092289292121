"""What the browser page measures is a profile of edgeav's, and only one of the right bundle is read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_bundle import make_bundle
from web_tools import ask

from edgeav.device import Device
from edgeav.errors import EdgeavError
from edgeav.fleet import row
from edgeav.measured import read_measured


def browser_profile(folder: Path, off: float = 0.0) -> dict[str, Any]:
    return ask("profile", folder=folder, off=off, workload={"seconds": 1.0, "iterations": 4, "warmup": 1})


def test_the_page_measures_the_profile_that_edgeav_reads(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "bundle")
    path = tmp_path / "profile.json"
    path.write_text(json.dumps(browser_profile(bundle.folder)))
    found = read_measured(path, bundle.folder, Device.load("browser"))
    assert (found.golden.cases, found.n, found.steps, found.cpu_ms, found.peak_rss_mb) == (2, 4, 13, None, None)
    assert found.wall_ms.min <= found.wall_ms.p50 <= found.wall_ms.p90 <= found.wall_ms.p99
    assert {"cpu_ms", "peak_rss_mb", "energy"} <= set(found.not_measured)
    assert row(found)["peak MB"] is None


def test_a_page_that_computes_something_else_measures_nothing(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "bundle")
    assert browser_profile(bundle.folder, off=1.0) == {
        "error": "A golden vector comes out wrong here. Nothing was timed."
    }


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"model_sha256": {"model.onnx": "00"}}, "model_sha256"),
        ({"golden": {"cases": 1, "max_abs": 0.0}}, "golden.cases: 1, expected 2"),
        ({"golden": {"cases": 2, "max_abs": 9.0}}, "golden.max_abs: 9"),
        ({"device": "raspberry-pi-5"}, "device: 'raspberry-pi-5', expected 'browser'"),
        ({"not_measured": {}}, "cpu_ms, peak_rss_mb, runtime_rss_mb: null, and not_measured does not say why"),
        ({"wall_ms": None}, "wall_ms"),
        ({"speed": 1}, "speed"),
    ],
)
def test_a_profile_of_something_else_is_refused(change: dict[str, Any], said: str, tmp_path: Path) -> None:
    bundle, path = make_bundle(tmp_path / "bundle"), tmp_path / "profile.json"
    path.write_text(json.dumps(browser_profile(bundle.folder) | change))
    with pytest.raises(EdgeavError) as error:
        read_measured(path, bundle.folder, Device.load("browser"))
    assert said in str(error.value)


def test_a_device_that_is_reached_from_here_is_measured_from_here(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "bundle")
    with pytest.raises(EdgeavError, match="is measured from here"):
        read_measured(tmp_path / "no.json", bundle.folder, Device.load("this-machine"))


def test_percentiles_are_those_of_numpy() -> None:
    values, percents = np.random.default_rng(3).random(37).tolist(), [0, 50, 90, 99, 100]
    assert ask("percentile", values=values, percents=percents) == pytest.approx(np.percentile(values, percents))
