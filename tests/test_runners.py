"""The tiny programs that run a bundle without edgeav, on bundles whose answer is known."""

from __future__ import annotations

import ast
import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import wave
from collections.abc import Callable
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path

import numpy as np
import pytest
from tiny_bundle import make_bundle

from edgeav.runtime.bundle import read_bundle, write_bundle, write_golden
from edgeav.runtime.features import hear
from edgeav.runtime.inputs import Features, LogMel, Samples, settings
from edgeav.runtime.transcriber import Transcriber

RUNNERS = Path(__file__).parents[1] / "export" / "runners"
PYTHON_RUNNER = RUNNERS / "python" / "run_bundle.py"
Result = subprocess.CompletedProcess[str]
LOG_MELS = [
    LogMel(),
    LogMel(mels=64, window=512, window_function="hann-periodic", mel_scale="htk", mel_norm="none"),
    LogMel(low_hz=40, high_hz=7600, padding="reflect", pre_emphasis=0.0, normalize="none", log_guard="clamp"),
    LogMel(mels=40, mel_corners="bins", hop=320),
    LogMel(n_fft=400),  # no power of two
]


def run_python(*args: str | Path) -> Result:
    command = [sys.executable, str(PYTHON_RUNNER), *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bundle(tmp_path_factory.mktemp("bundle") / "tiny").folder


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_the_python_runner_finds_the_golden_vectors_reproduced(engine: str, tmp_path: Path) -> None:
    result = run_python(make_bundle(tmp_path / "tiny", engine=engine).folder)

    assert result.returncode == 0, result.stderr
    differences = [float(text) for text in re.findall(r"max abs diff (\S+)", result.stdout)]
    assert len(differences) == 2
    assert max(differences) < 1e-4


def test_the_python_runner_runs_a_model_that_hears_only(tmp_path: Path) -> None:
    from tiny_av import AUDIO, clip, target, tiny_audio_model

    from edgeav.exporters import export

    folder = tmp_path / "bundle"
    export(tiny_audio_model(), target("onnxruntime"), "fp32", [], [(None, clip(16, features=AUDIO))], folder)
    samples = (3000 * np.random.default_rng(0).standard_normal(40_000)).clip(-32768, 32767).astype("<i2")
    with wave.open(str(tmp_path / "a.wav"), "wb") as file:
        file.setparams((1, 2, 16_000, len(samples), "NONE", ""))
        file.writeframes(samples.tobytes())

    checked, heard = run_python(folder), run_python(folder, "--wav", tmp_path / "a.wav")

    assert checked.returncode == 0, checked.stderr
    expected = Transcriber(folder).transcribe_arrays(samples.astype(np.float32) / np.float32(32768), None).text
    assert heard.stdout.strip() == expected != ""


def test_the_python_runner_reports_a_damaged_file_and_a_wrong_output(tiny: Path, tmp_path: Path) -> None:
    damaged = Path(shutil.copytree(tiny, tmp_path / "damaged"))
    file = damaged / "golden" / "noise-7.presence.f32"
    file.write_bytes(bytes(file.stat().st_size))

    damaged_result = run_python(damaged)
    wrong_result = run_python(make_bundle(tmp_path / "wrong", off=0.01).folder)

    assert damaged_result.returncode == wrong_result.returncode == 1
    assert "golden/noise-7.presence.f32: hash differs" in damaged_result.stdout
    assert "max abs diff 1.00e-02" in wrong_result.stdout


def test_the_python_runner_hears_what_edgeav_hears(tiny: Path, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    samples = (3000 * random.standard_normal(40_000)).clip(-32768, 32767).astype("<i2")
    with wave.open(str(tmp_path / "a.wav"), "wb") as file:
        file.setparams((1, 2, 16_000, len(samples), "NONE", ""))
        file.writeframes(samples.tobytes())

    result = run_python(tiny, "--wav", tmp_path / "a.wav")

    sound = samples.astype(np.float32) / np.float32(32768)
    expected = Transcriber(tiny).transcribe_arrays(sound, None).text
    assert result.stdout.strip() == expected != ""


@pytest.mark.parametrize("audio", [*LOG_MELS, Samples()])
def test_the_python_runner_computes_the_features_of_any_model(audio: LogMel | Samples) -> None:
    spec = spec_from_file_location("run_bundle", PYTHON_RUNNER)
    assert spec is not None and spec.loader is not None
    runner = module_from_spec(spec)
    spec.loader.exec_module(runner)
    takes = Features(audio=audio, video=None)
    sound = (0.1 * np.random.default_rng(0).standard_normal(17_000)).astype(np.float32)

    heard = runner.hear(sound, json.loads(json.dumps(settings(takes))))

    expected = hear(sound, takes)
    assert expected is not None
    np.testing.assert_allclose(heard, expected, atol=1e-3)


def test_the_python_runner_imports_numpy_and_engines_only() -> None:
    tree = ast.walk(ast.parse(PYTHON_RUNNER.read_text("utf-8")))
    names = {
        name.split(".")[0]
        for node in tree
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in ([node.module or ""] if isinstance(node, ast.ImportFrom) else [a.name for a in node.names])
    }

    assert names - set(sys.stdlib_module_names) == {"numpy", "onnxruntime", "openvino", "executorch", "torch"}


@pytest.fixture(scope="module")
def cpp_runner(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built C++ runner; skips where the tools for it are missing."""
    return build_cpp_runner(tmp_path_factory.mktemp("build"))


@pytest.mark.slow
@pytest.mark.parametrize("arch", ["x86_64", "aarch64"])
def test_the_cpp_runner_is_built_by_its_script_with_all_that_it_needs(
    arch: str, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    if find_spec("executorch") is None or (
        arch != platform.machine() and shutil.which(f"{arch}-linux-gnu-g++") is None
    ):
        pytest.skip(f"needs the executorch wheel, and g++-{arch}-linux-gnu for another machine's")
    command, before = ["sh", str(RUNNERS / "cpp" / "build.sh"), arch, str(tmp_path / "out")], os.times()
    result = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHON": sys.executable})
    cpu_s = sum(now - then for now, then in zip(os.times()[2:4], before[2:4], strict=True))  # of ended children
    record_property("s of CPU to build", round(cpu_s, 1))
    assert result.returncode == 0, result.stderr
    assert cpu_s < 60
    program = (tmp_path / "out" / "run_bundle").read_bytes()
    assert int.from_bytes(program[18:20], "little") == {"x86_64": 62, "aarch64": 183}[arch]  # e_machine of ELF
    assert {"libexecutorch.so", "libexecutorch_backend_xnnpack.so"} <= {
        path.name for path in (tmp_path / "out").iterdir()
    }


@pytest.mark.slow
def test_the_cpp_runner_builds_and_reproduces_the_golden_vectors(cpp_runner: Path, tmp_path: Path) -> None:
    from tiny_executorch import make_executorch_bundle

    bundle, runner = make_executorch_bundle(tmp_path / "tiny"), cpp_runner

    result = subprocess.run([runner, bundle.folder], capture_output=True, text=True, check=False)

    assert result.returncode == 0, result.stderr
    differences = [float(text) for text in re.findall(r"max abs diff (\S+)", result.stdout)]
    assert max(differences) < 1e-4
    for case in read_bundle(bundle.folder).golden:
        assert f": {case['transcript']}\n" in result.stdout
    assert "usage" in subprocess.run([runner], capture_output=True, text=True, check=False).stderr


def build_cpp_runner(build: Path) -> Path:
    """The built program; the test skips where the tools for it are missing."""
    places = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])  # PyPI's cmake lies beside python
    cmake, package = shutil.which("cmake", path=places), find_spec("executorch")
    if cmake is None or shutil.which("c++") is None or package is None:
        pytest.skip("needs cmake, a C++ compiler and the executorch wheel")
    version = subprocess.run([cmake, "--version"], capture_output=True, text=True, check=True).stdout
    if tuple(map(int, re.findall(r"\d+", version)[:2])) < (3, 28):
        pytest.skip(f"needs cmake 3.28 (pip install cmake); found {version.splitlines()[0]}")
    prefix = next(iter(package.submodule_search_locations or []))
    configure = [cmake, "-S", RUNNERS / "cpp", "-B", build, f"-DCMAKE_PREFIX_PATH={prefix}"]
    for command in (configure, [cmake, "--build", build]):
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        assert result.returncode == 0, result.stdout + result.stderr
    return build / "run_bundle"


@pytest.mark.slow
def test_the_cpp_runner_measures_what_a_profile_needs_and_times_no_wrong_answer(
    cpp_runner: Path, tmp_path: Path
) -> None:
    from tiny_executorch import make_executorch_bundle

    from edgeav.device import Device
    from edgeav.errors import EdgeavError
    from edgeav.profiling import compare_pair, profile
    from edgeav.runtime.bench import Workload

    facts = {"name": "desk", "description": "for tests", "connect": "local", "arch": "x86_64", "runner": "cpp"}
    device = Device.model_validate({**facts, "engines": ["executorch"], "folder": str(tmp_path / "desk")})
    bundle = make_executorch_bundle(tmp_path / "tiny")
    quick = Workload(seconds=1.0, iterations=4, warmup=1, sustained_s=0.2)

    measured = profile(bundle.folder, device, quick)
    assert (measured.n, measured.warmup, measured.golden.cases) == (4, 1, 2)
    assert measured.model_sha256["model.pte"] == bundle.files["model.pte"]["sha256"]
    assert measured.runtime.endswith("(C++)") and (measured.peak_rss_mb or 1000) < 60
    assert measured.sustained is not None and measured.sustained.windows
    assert measured.parts_ms is not None and set(measured.parts_ms) == {"mel", "encode", "decode"}
    assert measured.operators and sum(row.share for row in measured.operators) == pytest.approx(1)
    products = [row for row in measured.operators if row.type.startswith("Fully Connected")]
    assert sum(row.nodes for row in products) == 3 and not any(row.integer for row in products)
    assert measured.integer_share is not None and measured.integer_share.nodes == 0
    assert compare_pair(bundle.folder, bundle.folder, device, rounds=2, workload=quick)["rounds"] == 2

    golden = next((bundle.folder / "golden").glob("*.log_probs.f32"))
    golden.write_bytes((np.fromfile(golden, "<f4") + 0.01).tobytes())
    spec = json.loads((bundle.folder / "bundle.json").read_text())
    spec["files"][f"golden/{golden.name}"]["sha256"] = hashlib.sha256(golden.read_bytes()).hexdigest()
    (bundle.folder / "bundle.json").write_text(json.dumps(spec))
    with pytest.raises(EdgeavError, match=r"comes out wrong here.*Nothing was timed"):
        profile(bundle.folder, device, quick)


@pytest.fixture(scope="module")
def for_executorch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny bundle for ExecuTorch."""
    from tiny_executorch import make_executorch_bundle

    return make_executorch_bundle(tmp_path_factory.mktemp("executorch") / "tiny").folder


@pytest.mark.slow
@pytest.mark.parametrize("audio", LOG_MELS)
def test_the_cpp_runner_computes_the_log_mel_of_any_model(
    audio: LogMel, cpp_runner: Path, for_executorch: Path, tmp_path: Path
) -> None:
    takes = Features(audio=audio)
    sound = (0.1 * np.random.default_rng(0).standard_normal(17_000)).astype("<f4")
    sound.tofile(tmp_path / "sound")
    bundle = Path(shutil.copytree(for_executorch, tmp_path / "tiny"))
    spec = json.loads((bundle / "bundle.json").read_text()) | {"features": settings(takes)}
    (bundle / "bundle.json").write_text(json.dumps(spec))

    command = [cpp_runner, "mel", bundle, tmp_path / "sound", tmp_path / "mel"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)

    assert result.returncode == 0, result.stderr
    expected = hear(sound, takes)
    assert expected is not None
    np.testing.assert_allclose(np.fromfile(tmp_path / "mel", "<f4").reshape(expected.shape), expected, atol=1e-4)


@pytest.mark.slow
def test_the_cpp_runner_notices_a_log_mel_that_is_not_that_of_the_sound(
    cpp_runner: Path, for_executorch: Path, tmp_path: Path
) -> None:
    bundle = read_bundle(Path(shutil.copytree(for_executorch, tmp_path / "tiny")))
    case = bundle.golden_cases()[0]
    sound = (0.1 * np.random.default_rng(0).standard_normal(case.arrays["mel"].shape[1] * 160)).astype(np.float32)
    arrays = case.arrays | {"waveform": sound}  # its log-mel is noise
    golden = [write_golden(bundle.folder, case.name, arrays, transcript=case.transcript, tolerance=case.tolerance)]
    spec = json.loads((bundle.folder / "bundle.json").read_text()) | {"golden": golden}
    write_bundle(bundle.folder, spec={key: spec[key] for key in spec if key not in ("schema", "files")})

    result = subprocess.run([cpp_runner, bundle.folder], capture_output=True, text=True, check=False)

    assert result.returncode == 1, result.stderr
    assert re.search(r"log-mel of its sound: max abs diff [1-9]", result.stdout)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_cpp_runner_needs_at_most_60_mb_for_the_demo_model_and_multiplies_in_integers(
    cpp_runner: Path, demo_bundle: Callable[[str, str], Path], record_property: Callable[[str, object], None]
) -> None:
    folder = demo_bundle("executorch-xnnpack", "int8")
    command = [cpp_runner, "bench", folder, "--iterations", "2", "--warmup", "0", "--operators"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)

    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout)
    record_property("MB at most, int8, 4 s", round(found["peak_rss_mb"], 1))
    assert found["peak_rss_mb"] <= 60
    assert found["integer_share"]["nodes"] > 0.75  # attention's products stay in float
