"""A profile says everything a number needs to be a result, and a failing device is a clear error."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny_bundle import make_bundle

from edgeav import profiling
from edgeav.device import Device
from edgeav.errors import EdgeavError
from edgeav.profiling import Profile, compare_pair, profile
from edgeav.runtime.bench import Workload

QUICK = Workload(seconds=1.0, iterations=4, warmup=1)
pytest.importorskip("onnxruntime", reason="profiles are tested on ONNX Runtime: pip install 'edgeav[onnxruntime]'")
pytest.importorskip("onnx", reason="the tiny model is built with onnx: pip install 'edgeav[compress]'")


def a_device(threads: int = 1, emulated: bool = False) -> Device:
    facts = {"name": "a-desk", "description": "for tests", "connect": "local", "arch": "native"}
    return Device.model_validate({**facts, "threads": threads, "engines": ["onnxruntime"], "emulated": emulated})


@pytest.fixture(scope="module")
def fp32(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bundle(tmp_path_factory.mktemp("bundles") / "fp32").folder


@pytest.fixture(scope="module")
def int8(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bundle(tmp_path_factory.mktemp("bundles") / "int8", precision="int8").folder


def test_a_profile_knows_its_device_versions_and_counts_and_survives_json(fp32: Path) -> None:
    measured = profile(fp32, a_device(emulated=True), QUICK)
    assert (measured.device, measured.emulated, measured.threads) == ("a-desk", True, 1)
    assert (measured.n, measured.warmup, measured.seconds) == (4, 1, 1.0)
    assert measured.runtime.startswith("onnxruntime ")
    assert measured.operators
    assert measured.integer_share is not None
    assert "energy" in measured.not_measured
    text = measured.model_dump_json()
    assert '"schema":"edgeav-profile/1"' in text
    assert Profile.model_validate_json(text) == measured


def test_operators_that_nobody_asked_for_are_listed_as_not_measured(fp32: Path) -> None:
    measured = profile(fp32, a_device(), QUICK, operators=False)
    assert measured.operators is None
    assert measured.not_measured["operators"] == "not asked for"


def test_a_relative_path_and_a_shadowing_file_in_the_users_folder_do_no_harm(
    fp32: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "numpy.py").write_text("raise SystemExit('the wrong numpy')")
    (tmp_path / "bundle").symlink_to(fp32)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PYTHONPATH", raising=False)  # with "." in it, that file is what the user asked for
    assert profile(Path("bundle"), a_device(), QUICK, operators=False).n == 4


def test_a_pair_is_compared_in_one_process_with_the_spread_of_its_rounds(fp32: Path, int8: Path) -> None:
    result = compare_pair(fp32, int8, a_device(), rounds=3, workload=QUICK)
    assert (result["rounds"], result["n"], result["threads"]) == (3, 4, 1)
    assert 0 < result["cpu_ratio_min"] <= result["cpu_ratio"] <= result["cpu_ratio_max"]
    assert [bundle["precision"] for bundle in result["bundles"]] == ["fp32", "int8"]


def test_a_failing_bench_ends_in_its_last_lines_and_no_traceback(tmp_path: Path) -> None:
    folder = make_bundle(tmp_path / "wrong", off=0.5).folder
    with pytest.raises(EdgeavError) as failure:
        profile(folder, a_device(), QUICK)
    assert "the bench on a-desk failed (exit 2)" in str(failure.value)
    assert "comes out wrong here" in str(failure.value)


def test_an_engine_that_the_device_lacks_is_named(tmp_path: Path) -> None:
    pytest.importorskip("openvino", reason="pip install 'edgeav[openvino]'")
    folder = make_bundle(tmp_path / "openvino", engine="openvino").folder
    with pytest.raises(EdgeavError, match="needs openvino, but a-desk has onnxruntime"):
        profile(folder, a_device(), QUICK)


def test_a_bench_that_hangs_is_stopped(fp32: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(profiling, "TIME_LIMIT_S", 0.01)
    with pytest.raises(EdgeavError, match="did not end in"):
        profile(fp32, a_device(), QUICK)


def test_every_thread_pool_gets_the_devices_size() -> None:
    environment = profiling._environment(a_device(threads=3))
    assert {environment[name] for name in profiling.THREAD_VARIABLES} == {"3"}
