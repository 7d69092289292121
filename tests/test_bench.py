"""The bench measures what it says, on real engines, and times nothing that answers wrongly."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from tiny_bundle import make_bundle, some_inputs

from edgeav.errors import EdgeavError
from edgeav.runtime import bench, operators
from edgeav.runtime.bench import Workload
from edgeav.runtime.bundle import read_bundle
from edgeav.runtime.machine import machine, peak_rss_mb

ROOT = Path(__file__).parent.parent
QUICK = Workload(seconds=1.0, iterations=5, warmup=1)
pytest.importorskip("onnxruntime", reason="the bench is tested on ONNX Runtime: pip install 'edgeav[onnxruntime]'")
pytest.importorskip("onnx", reason="the tiny model is built with onnx: pip install 'edgeav[compress]'")


@pytest.fixture(scope="module")
def fp32(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bundle(tmp_path_factory.mktemp("bundles") / "fp32").folder


@pytest.fixture(scope="module")
def int8(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bundle(tmp_path_factory.mktemp("bundles") / "int8", precision="int8").folder


def run_bench(*arguments: str, code: str | None = None) -> subprocess.CompletedProcess:
    start = ["-c", code] if code else ["-m", "edgeav.runtime.bench"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, *start, *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120)


def test_a_bundle_is_measured_in_a_process_of_its_own(fp32: Path, tmp_path: Path) -> None:
    out = tmp_path / "result.json"
    done = run_bench(str(fp32), "--iterations", "5", "--warmup", "1", "--seconds", "1.2", "--json", str(out))
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    result = json.loads(out.read_text())
    assert (result["n"], result["warmup"], result["threads"], result["steps"]) == (5, 1, 1, 15)
    assert result["model_bytes"] == (fp32 / "model.onnx").stat().st_size
    assert result["golden"]["cases"] == 2
    assert result["wall_ms"]["min"] <= result["wall_ms"]["p50"] <= result["wall_ms"]["p90"] <= result["wall_ms"]["p99"]
    assert result["rtf"] == pytest.approx(result["wall_ms"]["p50"] / 1200)
    assert 10 < result["runtime_rss_mb"] < result["peak_rss_mb"] < 1000


def test_the_bench_loads_neither_torch_nor_pydantic(fp32: Path) -> None:
    code = (
        "import sys; from edgeav.runtime import bench; code = bench.main(sys.argv[1:]); "
        "sys.exit(code or ','.join({'torch', 'pydantic', 'yaml'} & set(sys.modules)) or None)"
    )
    done = run_bench(str(fp32), "--iterations", "1", "--seconds", "1", "--operators", code=code)
    assert done.returncode == 0, done.stderr


def test_a_wrong_answer_is_not_timed(tmp_path: Path) -> None:
    folder = make_bundle(tmp_path / "wrong", off=0.01).folder
    done = run_bench(str(folder))
    assert (done.returncode, done.stdout) == (2, "")
    assert "golden vector 'noise-7' comes out wrong here" in done.stderr
    assert "differ by 0.01, allowed 0.0001" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_changed_model_file_is_not_timed(tmp_path: Path) -> None:
    folder = make_bundle(tmp_path / "bundle").folder
    (folder / "model.onnx").write_bytes(b"something else")
    with pytest.raises(EdgeavError, match=r"model\.onnx"):
        bench.measure(folder, QUICK)


def test_two_bundles_take_turns_and_a_bundle_against_itself_is_about_as_fast(fp32: Path) -> None:
    result = bench.race((fp32, fp32), Workload(seconds=4.0, iterations=30, warmup=3), rounds=5)
    assert result["cpu_ratio_min"] <= result["cpu_ratio"] <= result["cpu_ratio_max"]
    assert result["wall_ratio_min"] <= result["wall_ratio"] <= result["wall_ratio_max"]
    assert result["cpu_ratio"] == pytest.approx(1, abs=0.5)  # wide: the test machine may be busy
    assert len(result["bundles"]) == len(result["cpu_ms"]) == 2


def test_a_ratio_is_the_first_bundles_time_over_the_seconds(
    fp32: Path, int8: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    by_round = iter([3.0, 1.0, 4.0, 1.0, 8.0, 1.0])  # ms of A, B, A, B, A, B

    def pretend(*_: object) -> np.ndarray:
        return np.full((2, 4), next(by_round))

    monkeypatch.setattr(bench, "time_runs", pretend)
    result = bench.race((fp32, int8), QUICK, rounds=3)
    assert [result["cpu_ratio_min"], result["cpu_ratio"], result["cpu_ratio_max"]] == [3, 4, 8]


def test_every_run_after_the_warmup_is_timed() -> None:
    class Counting:
        name, version, runs = "counting", "1", 0

        def run(self, audio: np.ndarray, video: np.ndarray, presence: np.ndarray) -> np.ndarray:
            self.runs += 1
            return audio

    engine = Counting()
    times = bench.time_runs(engine, some_inputs(4), Workload(iterations=6, warmup=2))
    assert (engine.runs, times.shape) == (8, (2, 6))


def test_the_same_seed_gives_the_same_inputs_at_the_length_asked_for(fp32: Path) -> None:
    bundle = read_bundle(fp32)
    first, again = (bench.random_inputs(bundle, Workload(seconds=2.01)) for _ in range(2))
    assert first.steps == 26  # 2.01 s * 12.5 steps/s, rounded up
    assert all(np.array_equal(left, right) for left, right in zip(first, again, strict=True))


@pytest.mark.parametrize("seconds", [0.01, 17.0])
def test_a_length_that_the_model_does_not_take_is_refused(fp32: Path, seconds: float) -> None:
    with pytest.raises(EdgeavError, match=r"takes 0\.16 to 16 s at once"):
        bench.random_inputs(read_bundle(fp32), Workload(seconds=seconds))


def test_percentiles_are_those_of_the_sorted_times() -> None:
    times = bench.summary(np.arange(101.0))
    assert times == {"p50": 50, "p90": 90, "p99": 99, "mean": 50, "min": 0}


def test_the_operator_table_names_the_matrix_products_and_its_shares_sum_to_one(fp32: Path) -> None:
    table = operators.operator_table(read_bundle(fp32), some_inputs(12), threads=1)
    assert sum(row["share"] for row in table["operators"]) == pytest.approx(1)
    assert next(row for row in table["operators"] if row["type"] == "MatMul")["nodes"] == 3
    assert table["integer_share"] == {"time": 0, "nodes": 0}


def test_integer_kernels_are_counted_where_they_really_run(int8: Path) -> None:
    table = operators.operator_table(read_bundle(int8), some_inputs(12), threads=1)
    assert table["integer_share"]["nodes"] == 1
    assert 0 < table["integer_share"]["time"] < 1


def test_openvino_tells_its_operators_too(tmp_path: Path) -> None:
    pytest.importorskip("openvino", reason="pip install 'edgeav[openvino]'")
    folder = make_bundle(tmp_path / "openvino", engine="openvino").folder
    result = bench.measure(folder, QUICK, operators=True)
    assert sum(row["share"] for row in result["operators"]) == pytest.approx(1)
    assert result["integer_share"]["nodes"] == 0
    assert any("MatMul" in row["type"] or "FullyConnected" in row["type"] for row in result["operators"])


@pytest.mark.parametrize(
    ("kind", "kernel", "integer"),
    [
        ("Convolution", "brgconv_avx512_i8", True),
        ("Convolution", "brgconv_avx512_f32", False),
        ("Reorder", "jit_avx512_i8", False),
    ],
)
def test_openvino_computes_in_integers_where_its_kernel_says_so(kind: str, kernel: str, integer: bool) -> None:
    info = SimpleNamespace(node_name="a", node_type=kind, exec_type=kernel, real_time=timedelta(milliseconds=2))
    assert operators._openvino_node(info) == ("a", kind, 2, integer)


def test_executorch_says_why_its_operators_are_missing(fp32: Path) -> None:
    bundle = replace(read_bundle(fp32), engine="executorch")
    table = operators.operator_table(bundle, some_inputs(4), threads=1)
    assert set(table) == {"not_measured"}
    assert "ETDump" in table["not_measured"]["operators"]


def test_peak_memory_is_at_least_what_was_just_allocated() -> None:
    before = peak_rss_mb()
    block = np.ones(40_000_000, np.float64)  # 320 MB
    assert peak_rss_mb() > min(before, 320)
    assert peak_rss_mb() >= block.nbytes / 1e6


def test_the_machine_is_described() -> None:
    facts = machine()
    assert facts["arch"]
    assert facts["cpu"]
    assert set(facts) == {"arch", "cpu", "isa", "governor"}


@pytest.mark.parametrize("flags", [["--threads", "0"], ["--iterations", "0"], ["--rounds", "0"]])
def test_counts_below_one_are_refused(fp32: Path, flags: list[str], capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit):
        bench.main([str(fp32), *flags])
    assert "must be at least 1" in capsys.readouterr().err
