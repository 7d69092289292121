"""The command line as a user meets it: exit codes, what goes where, and no traceback for a mistake."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer.main

from edgeav import __version__, cli, console, transcribe
from edgeav.errors import EdgeavError, needs
from edgeav.progress import Progress, TerminalProgress

Run = Callable[..., subprocess.CompletedProcess[str]]
COMMANDS = typer.main.get_command(cli.app).commands  # type: ignore[attr-defined]


def refused(result: subprocess.CompletedProcess[str]) -> str:
    """The message of a command that must have refused: exit 2, nothing on stdout, no traceback."""
    assert result.returncode == 2, result
    assert result.stdout == ""
    assert "Traceback" not in result.stderr
    return result.stderr


@pytest.mark.parametrize("name", COMMANDS)
def test_the_help_of_every_command_opens_with_an_example_of_that_command(name: str) -> None:
    assert COMMANDS[name].help.startswith(f"Example: edgeav {name}")


def test_every_promised_command_exists_and_speaks_json() -> None:
    promised = ["compress", "plan", "transcribe", "profile", "export", "devices", "diff"]
    promised += ["report", "models", "recipes", "doctor"]
    assert set(promised) <= set(COMMANDS)
    for name in promised:
        assert "--json" in {option for param in COMMANDS[name].params for option in param.opts}, name


@pytest.mark.parametrize("words", [["plan", "--help"], ["--help"]])
def test_help_prints_the_example_first(edgeav: Run, words: list[str]) -> None:
    lines = [line.strip() for line in edgeav(*words).stdout.splitlines() if line.strip()]
    assert lines[0].startswith("Usage:")
    assert lines[1].startswith("Example: edgeav ")


def test_version_and_recipes_print_json_that_programs_can_read(edgeav: Run) -> None:
    assert json.loads(edgeav("version", "--json").stdout) == {"edgeav": __version__}
    rows = json.loads(edgeav("recipes", "--json").stdout)
    assert "int8" in {row["recipe"] for row in rows}
    assert "stages" in json.loads(edgeav("recipes", "--schema").stdout)["properties"]


def test_a_shipped_recipe_printed_to_a_file_is_a_recipe(edgeav: Run, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(edgeav("recipes", "int8").stdout)
    result = edgeav("recipes", "mine.yaml", "--json", "--set", "seed=3")
    assert json.loads(result.stdout)["seed"] == 3


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["compress", "int9"], "no recipe named 'int9'; did you mean 'int8'?"),
        (["compress", "none.yaml"], "none.yaml: no such file"),
        (["plan", "int8", "--set", "seeed=1"], "--set seeed: seeed: unknown key; did you mean 'seed'?"),
        (["plan", "int8", "--set", "seed"], "--set seed: expected KEY.KEY=VALUE"),
        (["plan", "int8", "--set", "export=[openvno]"], "did you mean 'openvino'?"),
        (["plan", "int8", "--set", "profile=[moon]"], "no device named 'moon'"),
        (["profile", "x", "--device", "moon"], "no device named 'moon'"),
        (["profile", "x", "--set", "threads=0"], "threads = 0: must be greater than or equal to 1"),
        (["export", "m", "--target", "onnx"], "did you mean 'onnxruntime'?"),
        (["transcribe", "a.mp4", "b.mp4"], "b.mp4: no such file"),
        (["transcribe", "."], ".: is a folder; expected a file"),
        (["report", "runs/none"], "report.json does not exist"),
        (["recipes", "int9"], "no recipe named 'int9'"),
        (["compres"], "compres"),
        (["export", "m", "--precision", "int4"], "int4"),
    ],
)
def test_a_mistake_is_explained_and_nothing_is_written(
    edgeav: Run, tmp_path: Path, words: list[str], said: str
) -> None:
    assert said in refused(edgeav(*words))
    assert list(tmp_path.iterdir()) == []


def test_all_mistakes_of_a_recipe_are_on_stderr_at_once(edgeav: Run, tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text("schema: edgeav/1\nname: bad\nseed: -1\nbugdet: {}\nexport: [onnx]\n")
    lines = refused(edgeav("compress", "bad.yaml")).splitlines()
    assert [line.split(": ")[1] for line in lines[:3]] == ["bad.yaml:3", "bad.yaml:4", "bad.yaml:5"]
    assert "model: is missing" in lines[3]


def test_a_run_folder_below_a_file_is_refused_before_any_work(edgeav: Run, tmp_path: Path) -> None:
    (tmp_path / "occupied").write_text("mine")
    assert "is a file" in refused(edgeav("compress", "int8", "--run-dir", "occupied/run"))
    assert (tmp_path / "occupied").read_text() == "mine"


def test_an_output_folder_that_cannot_be_written_is_refused(edgeav: Run) -> None:
    said = refused(edgeav("compress", "int8", "--run-dir", "/proc/edgeav"))
    assert "/proc: cannot be written to" in said
    assert "--run-dir" in said


def test_without_a_bundle_the_command_that_makes_one_is_named(edgeav: Run, tmp_path: Path) -> None:
    (tmp_path / "clip.wav").write_bytes(b"")
    assert "edgeav compress recipes/int8.yaml" in refused(edgeav("transcribe", "clip.wav"))


def test_the_newest_int8_bundle_for_onnx_runtime_is_chosen_and_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = [("a", "onnxruntime", "int8", 10), ("b", "onnxruntime", "int8", 20), ("c", "openvino", "int8", 30)]
    for run, engine, precision, age in [*made, (".tmp", "onnxruntime", "int8", 40)]:
        folder = tmp_path / run / "bundles" / f"{engine}-{precision}"
        folder.mkdir(parents=True)
        declared = folder / "bundle.json"
        declared.write_text(json.dumps({"engine": engine, "precision": precision}))
        os.utime(declared, (age, age))
    chosen = transcribe.newest_bundle(tmp_path)
    assert chosen == tmp_path / "b" / "bundles" / "onnxruntime-int8"
    assert str(chosen) in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (EdgeavError("speak up"), "speak up"),
        (OSError(errno.ENOSPC, "No space left on device", "runs/x"), "runs/x: the disk is full"),
        (OSError(errno.EROFS, "Read-only file system", "runs/x"), "runs/x: the file system is read-only"),
        (PermissionError(errno.EACCES, "Permission denied", "runs/x"), "runs/x: permission denied"),
        (RuntimeError("write: No space left on device (os error 28)"), "the disk is full"),
        (ModuleNotFoundError("No module named 'nncf'", name="nncf"), str(needs("openvino", "nncf"))),
        (ModuleNotFoundError("No module named 'torch'", name="torch._C"), "pip install 'edgeav[compress]'"),
        (ModuleNotFoundError("No module named 'edgeav.oops'", name="edgeav.oops"), None),
        (ZeroDivisionError("a bug"), None),
    ],
)
def test_mistakes_get_a_message_and_bugs_do_not(error: Exception, said: str | None) -> None:
    message = console.user_message(error)
    assert message is None if said is None else said in (message or "")


def test_a_full_disk_below_another_error_is_still_named() -> None:
    error = RuntimeError("could not save")
    error.__cause__ = OSError(errno.ENOSPC, "No space left on device", "x")
    assert "the disk is full" in (console.user_message(error) or "")


@pytest.mark.parametrize(("error", "code"), [(EdgeavError("x"), 2), (KeyboardInterrupt(), 130)])
def test_the_exit_code_tells_what_happened(error: BaseException, code: int) -> None:
    def command() -> None:
        raise error

    with pytest.raises(SystemExit) as caught:
        console.run(command)
    assert caught.value.code == code


def test_a_bug_keeps_its_traceback() -> None:
    with pytest.raises(ZeroDivisionError):
        console.run(lambda: 1 / 0)


def test_a_broken_budget_exits_with_1(monkeypatch: pytest.MonkeyPatch) -> None:
    import types

    verdict = types.SimpleNamespace(verdict=types.SimpleNamespace(passed=False))
    fake: Any = types.ModuleType("edgeav.compress")
    fake.compress = lambda recipe, folder, progress: verdict
    monkeypatch.setitem(sys.modules, "edgeav.compress", fake)
    monkeypatch.setattr(cli.show, "report", lambda *arguments: None)
    monkeypatch.setattr(sys, "argv", ["edgeav", "compress", "int8"])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    assert caught.value.code == 1


def test_an_interrupt_ends_quietly_with_130(tmp_path: Path, repository: Path) -> None:
    code = (
        "import time, edgeav.cli as c, edgeav.doctor as d\n"
        "d.examine = lambda: (print('ready', flush=True), time.sleep(60))\n"
        "import signal, sys; sys.argv = ['edgeav', 'doctor']\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # a shell's background jobs ignore it
        "c.main()"
    )
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, cwd=repository, stdout=-1, stderr=-1, text=True) as process:
        assert process.stdout
        assert process.stderr
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 130
        said = process.stderr.read()
    assert "the same command continues" in said
    assert "Traceback" not in said


def test_checking_a_folder_leaves_no_trace(tmp_path: Path) -> None:
    console.check_writable(tmp_path / "a" / "b", "--out")
    assert list(tmp_path.iterdir()) == []


def test_progress_goes_to_stderr_and_yields_every_item(capsys: pytest.CaptureFixture[str]) -> None:
    for progress in (Progress(), TerminalProgress()):
        assert list(progress.track(iter("abc"), "letters", total=3)) == ["a", "b", "c"]
        with progress.busy("thinking"):
            time.sleep(0)
        progress.say("[done]")
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "letters: 3 in" in captured.err
    assert "[done]" in captured.err
