"""The agent is one torch-free file; over SSH it measures what the bench measures here, and it trusts no wall clock."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import ssh_server
from ssh_server import Sshd
from tiny_bundle import make_bundle

from edgeav import agent
from edgeav.agent import write_agent
from edgeav.device import Device
from edgeav.errors import EdgeavError
from edgeav.fleet import survey
from edgeav.profiling import compare_pair, profile
from edgeav.runtime import health, instructions
from edgeav.runtime.bench import Workload
from edgeav.runtime.bundle import read_bundle
from edgeav.runtime.transcriber import Transcriber

pytest.importorskip("onnxruntime", reason="pip install 'edgeav[onnxruntime]'")
pytest.importorskip("onnx", reason="the tiny model is built with onnx: pip install 'edgeav[compress]'")
QUICK = Workload(seconds=1.0, iterations=3, warmup=1, parts=False)


@pytest.fixture(scope="module")
def fp32(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bundle(tmp_path_factory.mktemp("bundles") / "fp32").folder


@pytest.fixture
def board(sshd: Sshd, tmp_path: Path) -> Device:
    where = {"connect": f"ssh:127.0.0.1:{sshd.port}", "key": sshd.key, "known_hosts": sshd.known_hosts}
    facts = {"name": "board", "description": "for tests", "arch": "native", "engines": ["onnxruntime"]}
    return Device.model_validate({**facts, **where, "folder": str(tmp_path / "board"), "python": sys.executable})


def run_agent(folder: Path, *words: str, site: str | None = None) -> subprocess.CompletedProcess[str]:
    """The agent alone: no edgeav on the path. `site`: a sitecustomize module for it."""
    place = folder / "site"
    place.mkdir(exist_ok=True)
    (place / "sitecustomize.py").write_text(site or "")
    environment = {**os.environ, "PYTHONPATH": str(place), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(write_agent(folder / "agent.pyz")), *words]
    return subprocess.run(command, capture_output=True, text=True, env=environment, cwd=folder, timeout=120)


def test_the_agent_is_one_small_file_and_the_same_bytes_every_time(tmp_path: Path) -> None:
    first, second = (write_agent(tmp_path / name).read_bytes() for name in ("a.pyz", "b.pyz"))
    assert first == second
    assert len(first) < 200_000
    names = zipfile.ZipFile(tmp_path / "a.pyz").namelist()
    assert all(
        name in ("__main__.py", "edgeav/__init__.py", "edgeav/errors.py") or "/runtime/" in name for name in names
    )


def test_the_agent_needs_numpy_and_an_engine_alone(fp32: Path, tmp_path: Path) -> None:
    blocked = (
        "import sys\nclass Block:\n    def find_spec(self, name, path=None, target=None):\n"
        "        if name.split('.')[0] in {'torch', 'pydantic', 'yaml', 'typer', 'rich', 'cv2', 'av'}:\n"
        "            raise ImportError(f'{name} is not on a device')\n"
        "sys.meta_path.insert(0, Block())\n"
    )
    done = run_agent(tmp_path, "bench", str(fp32), "--iterations", "2", "--seconds", "1", "--operators", site=blocked)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["golden"]["cases"] == 2


def test_the_agent_says_what_a_device_is(tmp_path: Path) -> None:
    found = json.loads(run_agent(tmp_path, "facts").stdout)
    assert found["arch"] == os.uname().machine
    assert found["versions"]["onnxruntime"] and found["python"].startswith("3.")
    assert found["emulated_here"] is False
    assert {"board", "cores", "memory_mb", "temperature_c", "throttling", "isa"} <= set(found)


def test_a_clock_that_jumps_changes_no_measurement(fp32: Path, tmp_path: Path) -> None:
    jumping = (
        "import itertools, time\nhours = itertools.cycle([0, -7200, 86400])\nreal = time.time\n"
        "time.time = lambda: real() + next(hours)\ntime.time_ns = lambda: int(time.time() * 1e9)\n"
    )
    words = ("bench", str(fp32), "--iterations", "5", "--seconds", "1", "--at-least-s", "0.2", "--sustained-s", "0.2")
    result = json.loads(run_agent(tmp_path, *words, site=jumping).stdout)
    times = [*result["wall_ms"].values(), result["load_ms"], result["first_ms"], *result["parts_ms"].values()]
    times += [row["p50_ms"] for row in result["sustained"]["windows"]]
    assert all(0 <= ms < 60_000 for ms in times)
    assert 0.2 <= result["sustained"]["seconds"] < 60


def test_nothing_that_measures_or_waits_reads_the_wall_clock() -> None:
    package = agent.PACKAGE
    files = [*(package / "runtime").glob("*.py"), *(package / "connect").glob("*.py")]
    files += [package / name for name in ("agent.py", "measuring.py", "profiling.py", "fleet.py", "runner.py")]
    for path in files:
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                called = f"{node.value.id}.{node.attr}"
                assert called not in ("time.time", "time.time_ns", "datetime.now", "time.clock"), path


def test_a_bundle_is_measured_over_ssh_and_the_profile_is_complete(fp32: Path, board: Device) -> None:
    measured = profile(fp32, board, QUICK)
    assert (measured.device, measured.n, measured.golden.cases, measured.emulated) == ("board", 3, 2, False)
    assert measured.operators
    assert not list(Path(board.place).glob("result-*")), "results stay on the device"


def test_two_bundles_race_over_ssh(fp32: Path, board: Device) -> None:
    assert compare_pair(fp32, fp32, board, rounds=2, workload=QUICK)["rounds"] == 2


def test_a_device_that_computes_wrongly_is_not_timed(board: Device, tmp_path: Path) -> None:
    with pytest.raises(
        EdgeavError, match=r"on board failed \(exit 2\):(.|\n)*comes out wrong here(.|\n)*Nothing was timed"
    ):
        profile(make_bundle(tmp_path / "wrong", off=0.5).folder, board, QUICK)


def test_an_agent_that_is_killed_is_told_and_the_next_run_works(fp32: Path, board: Device, tmp_path: Path) -> None:
    killed = tmp_path / "python"
    killed.write_text(f'#!/bin/sh\n[ -e {tmp_path}/spared ] || kill -9 $$\nexec {sys.executable} "$@"\n')
    killed.chmod(0o755)
    fragile = board.model_copy(update={"python": str(killed)})
    with pytest.raises(
        EdgeavError, match=r"python on board was killed \(SIGKILL; Linux does that when memory runs out"
    ):
        profile(fp32, fragile, QUICK)
    assert read_bundle(fp32).name, "what is here is kept"
    (tmp_path / "spared").touch()
    assert profile(fp32, fragile, QUICK, operators=False).n == 3


def test_another_architecture_is_refused_before_a_bundle_travels(fp32: Path, board: Device) -> None:
    with pytest.raises(EdgeavError, match=r"board \(ssh:.*\) is not what its file says:\n  arch: .*, expected armv7"):
        profile(fp32, board.model_copy(update={"arch": "armv7"}), QUICK)
    assert not (Path(board.place) / "bundles").exists()


def test_instructions_are_counted_by_a_program_of_the_device(fp32: Path, board: Device, tmp_path: Path) -> None:
    """A stand-in that counts 1,000,000 for a process and 500 for each inference it is asked for."""
    counter = tmp_path / "count"
    counter.write_text(
        f"#!{sys.executable}\nimport subprocess, sys\nout, *command = sys.argv[1:]\n"
        "runs = int(command[command.index('--iterations') + 1])\n"
        "open(out, 'w').write(str(1_000_000 + 500 * runs))\nsys.exit(subprocess.run(command).returncode)\n"
    )
    counter.chmod(0o755)
    counting = board.model_copy(update={"instruction_counter": str(counter)})
    found = profile(fp32, counting, Workload(seconds=2.0, iterations=2, warmup=0, parts=False), operators=False)
    assert found.instructions is not None and found.instructions.per_second == 250


def test_devices_are_surveyed_in_parallel_and_say_why_they_cannot_be_reached(board: Device) -> None:
    silent = board.model_copy(update={"name": "silent", "connect": f"ssh:127.0.0.1:{ssh_server.free_port()}"})
    wrong = board.model_copy(update={"name": "wrong", "arch": "armv7", "folder": f"{board.folder}-2"})
    rows = survey([board, wrong, silent])
    assert [row["reachable"] for row in rows] == [True, False, False]
    assert rows[0]["state"].startswith("yes: ") and "onnxruntime 1." in rows[0]["state"]
    assert "is not what its file says" in rows[1]["state"]
    assert "no connection" in rows[2]["state"]


def test_clips_are_recognized_on_the_device_as_here(fp32: Path, board: Device, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    sound = (0.1 * random.standard_normal(20_000)).astype(np.float32)
    mouth = random.integers(0, 256, (40, 96, 96), np.uint8)
    np.savez(tmp_path / "clips.npz", **{"sound-0": sound, "mouth-0": mouth, "sound-1": sound, "mouth-2": mouth})

    from edgeav.fleet import recognize

    texts = recognize(fp32, tmp_path / "clips.npz", board)["texts"]

    here = Transcriber(fp32)
    assert texts == [here.transcribe_arrays(*pair).text for pair in ((sound, mouth), (sound, None), (None, mouth))]


@pytest.mark.parametrize(
    ("kernel", "version", "machine", "expected"),
    [
        ("aarch64\n", "", "aarch64", False),
        ("x86_64\n", "", "aarch64", True),
        ("aarch64\n", "", "armv7l", False),
        (None, "Linux version 5.10 (x86_64-linux-gnu-gcc)", "aarch64", True),
        (None, "Linux version 5.10 (aarch64-linux-gnu-gcc)", "aarch64", False),
    ],
)
def test_an_emulator_is_recognized_by_its_kernel(
    kernel: str | None, version: str, machine: str, expected: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sys/kernel").mkdir(parents=True)
    (tmp_path / "version").write_text(version)
    if kernel:
        (tmp_path / "sys/kernel/arch").write_text(kernel)
    monkeypatch.setattr(health, "PROC", tmp_path)
    monkeypatch.setattr(health.platform, "machine", lambda: machine)
    assert health.emulated() is expected


def test_a_raspberry_pis_throttling_is_read_from_its_bits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tool = tmp_path / "vcgencmd"
    tool.write_text("#!/bin/sh\necho throttled=0x50005\n")  # then and now: under-voltage, throttled
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert health.throttling() == ["under-voltage", "throttled"]


def test_temperature_and_clock_are_the_highest_and_absent_ones_are_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health, "SYS", tmp_path)
    assert (health.temperature_c(), health.frequency_mhz()) == (None, None)
    for number, value in enumerate(("41000\n", "62500\n")):
        zone = tmp_path / f"class/thermal/thermal_zone{number}"
        zone.mkdir(parents=True)
        (zone / "temp").write_text(value)
    clock = tmp_path / "devices/system/cpu/cpu0/cpufreq"
    clock.mkdir(parents=True)
    (clock / "scaling_cur_freq").write_text("1800000\n")
    assert (health.temperature_c(), health.frequency_mhz()) == (62.5, 1800)


def test_a_count_of_instructions_grows_with_the_work_or_says_why_there_is_none() -> None:
    def work(times: int) -> int | str:
        return instructions.count(lambda: sum(range(times)))

    few, many = work(10_000), work(1_000_000)
    if isinstance(few, str):
        assert few.startswith(("the kernel gives no instruction counter (", "no system call number"))
        assert "no_instructions" in instructions.counted(lambda: None, 1.0)
    else:
        assert isinstance(many, int) and many > 10 * few > 0
