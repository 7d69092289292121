"""A profile says everything a number needs to be a result, and a failing device is a clear error."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny_bundle import make_bundle

from edgeav.agent import THREAD_VARIABLES
from edgeav.device import Device, Limits
from edgeav.errors import EdgeavError
from edgeav.fleet import Load, profile_all, row
from edgeav.measuring import environment
from edgeav.profiling import SINGLE_STREAM, Profile, compare_pair, profile
from edgeav.runtime.bench import Workload
from edgeav.show import without_emulated_times

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


def test_a_profile_says_what_it_could_not_measure_and_why(fp32: Path) -> None:
    measured = profile(fp32, a_device(), QUICK, operators=False)
    assert measured.parts_ms is not None and set(measured.parts_ms) == {"mel", "crop", "encode", "decode"}
    assert measured.condition is not None
    assert {"energy", "stream"} <= set(measured.not_measured)
    assert measured.instructions is not None or "counter" in measured.not_measured["instructions"]


def test_single_stream_keeps_asking_for_as_long_and_as_often_as_it_must(fp32: Path) -> None:
    measured = profile(fp32, a_device(), Workload(seconds=0.5, iterations=20, at_least_s=0.3), operators=False)
    assert measured.single_stream is not None
    assert measured.single_stream.queries == measured.n >= 20
    assert measured.single_stream.seconds == pytest.approx(measured.n * measured.wall_ms.mean / 1000)
    assert measured.single_stream.p90_ms == measured.wall_ms.p90
    assert (SINGLE_STREAM.iterations, SINGLE_STREAM.at_least_s) == (1024, 60)  # MLPerf's rule


def test_sustained_work_is_told_window_by_window(fp32: Path) -> None:
    found = profile(fp32, a_device(), Workload(seconds=0.5, iterations=2, sustained_s=0.4), operators=False).sustained
    assert found is not None and found.seconds >= 0.4
    assert [row.at_s for row in found.windows] == sorted(row.at_s for row in found.windows)
    assert sum(row.n for row in found.windows) >= len(found.windows) > 1
    assert found.slowdown > 0


def test_an_emulated_device_has_no_latency(fp32: Path, int8: Path) -> None:
    measured = profile(fp32, a_device(emulated=True))
    assert "say nothing about the device" in measured.not_measured["latency"]
    assert row(measured)["p50 ms"] == row(measured)["RTF"] == "emulated"
    assert "wall_ms" not in without_emulated_times(measured.model_dump(mode="json"))
    with pytest.raises(EdgeavError, match="a ratio of its times means nothing"):
        compare_pair(fp32, int8, a_device(emulated=True))


def test_more_memory_than_a_device_allows_is_an_error(fp32: Path) -> None:
    small = a_device().model_copy(update={"limits": Limits(memory_mb=1)})
    with pytest.raises(EdgeavError, match=r"peak memory \d+ MB, allowed are 1"):
        profile(fp32, small, QUICK, operators=False)


def test_a_machine_of_another_architecture_or_without_an_instruction_set_is_refused(fp32: Path) -> None:
    other = a_device().model_copy(update={"arch": "armv7", "isa": ["dotprod9"]})
    with pytest.raises(
        EdgeavError, match=r"is not what its file says:\n  arch: .*, expected armv7\n  isa: no dotprod9"
    ):
        profile(fp32, other, QUICK, operators=False)


def test_several_devices_are_measured_and_one_that_fails_costs_its_own_row(fp32: Path) -> None:
    good, bad = a_device(), a_device().model_copy(update={"name": "gone", "arch": "armv7"})
    found = profile_all(fp32, [good, bad], Load(seconds=0.5, queries=3))
    assert [one.device for one in found.profiles] == ["a-desk"] and found.profiles[0].n == 3
    assert list(found.errors) == ["gone"] and "expected armv7" in found.errors["gone"]
    assert [line["device"] for line in found.table()] == ["a-desk", "gone"]
    with pytest.raises(EdgeavError, match="a-desk stands there twice"):
        profile_all(fp32, [good, good], Load())


def test_a_bench_that_hangs_is_stopped(fp32: Path) -> None:
    hurried = a_device().model_copy(update={"limits": Limits(seconds=1)})
    with pytest.raises(EdgeavError, match=r"did not end in 1 s"):
        profile(fp32, hurried, Workload(iterations=10**9))


def test_every_thread_pool_gets_the_devices_size() -> None:
    found = environment(a_device(threads=3))
    assert {found[name] for name in THREAD_VARIABLES} == {"3"}
