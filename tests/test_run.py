"""A run does each step once, survives being killed, and redoes exactly what a change touches."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from edgeav.recipe import Recipe
from edgeav.run import Run, Step, model_hash, read_json, write_json

RECIPE = Recipe.model_validate({"name": "test", "model": "none"})


def a_step(log: list[str], name: str, value: int = 1, needs: tuple[Step, ...] = ()) -> Step:
    def work(out: Path) -> None:
        log.append(name)
        write_json(out / "result.json", value)

    return Step(name, {"value": value}, work, needs)


def test_a_model_is_another_when_its_grids_change_and_the_same_when_its_card_does(tmp_path: Path) -> None:
    for name in ("model.json", "model.safetensors", "tokenizer.model", "quantization.json", "README.md"):
        (tmp_path / name).write_text(name)
    before = model_hash(tmp_path)
    (tmp_path / "README.md").write_text("reworded")
    assert model_hash(tmp_path) == before
    for name in ("model.json", "model.safetensors", "tokenizer.model", "quantization.json"):
        (tmp_path / name).write_text("other")
        assert model_hash(tmp_path) != before
        before = model_hash(tmp_path)


def test_a_step_is_done_once_and_its_result_kept(tmp_path: Path) -> None:
    log: list[str] = []
    folder = Run(tmp_path, RECIPE).once(a_step(log, "one"))
    Run(tmp_path, RECIPE).once(a_step(log, "one"))
    assert log == ["one"]
    assert read_json(folder / "result.json") == 1


def test_a_changed_setting_redoes_the_step_and_what_follows_but_nothing_before(tmp_path: Path) -> None:
    log: list[str] = []
    for value in (1, 2):
        run, first = Run(tmp_path, RECIPE), a_step(log, "first")
        second = a_step(log, "second", value, (first,))
        for step in (first, second, a_step(log, "third", needs=(second,))):
            run.once(step)
    assert log == ["first", "second", "third", "second", "third"]


def test_the_reason_names_what_changed(tmp_path: Path) -> None:
    run = Run(tmp_path, RECIPE)
    assert run.why_missing(a_step([], "one")) == "not done yet"
    run.once(a_step([], "one"))
    assert run.why_missing(a_step([], "one", value=7)) == "changed: setting value"


def test_a_step_that_fails_leaves_nothing_that_looks_done(tmp_path: Path) -> None:
    def fail(out: Path) -> None:
        (out / "half").write_text("half")
        raise RuntimeError("no")

    run = Run(tmp_path, RECIPE)
    with pytest.raises(RuntimeError):
        run.once(Step("one", {}, fail))
    assert not (tmp_path / "one").exists()
    assert [p.name for p in run.once(a_step([], "one")).iterdir() if p.name != "done.json"] == ["result.json"]


KILLED = """
import os, signal, sys
from pathlib import Path
from edgeav.recipe import Recipe
from edgeav.run import Run, Step
def work(out):
    (out / "half").write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
Run(Path(sys.argv[1]), Recipe.model_validate({"name": "test", "model": "none"})).once(Step("a/one", {}, work))
"""


def test_a_run_killed_in_a_step_does_that_step_again_from_nothing(tmp_path: Path) -> None:
    here = Path(__file__).resolve().parent.parent
    env = {**os.environ, "PYTHONPATH": str(here)}
    done = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], env=env)
    assert done.returncode == -signal.SIGKILL
    assert not (tmp_path / "a" / "one").exists()
    folder = Run(tmp_path, RECIPE).once(a_step([], "a/one"))
    assert sorted(p.name for p in folder.iterdir()) == ["done.json", "result.json"]
    assert sorted(p.name for p in (tmp_path / "a").iterdir()) == ["one"]


NOISY = """
import os, sys
from pathlib import Path
from edgeav.recipe import Recipe
from edgeav.run import Run, Step
def work(out):
    print("a quantizer's bar")
    os.system("echo from another language")
print("before")
Run(Path(sys.argv[1]), Recipe.model_validate({"name": "test", "model": "none"})).once(Step("noisy", {}, work))
print("after")
"""


def test_what_a_step_prints_on_stdout_goes_to_stderr(tmp_path: Path) -> None:
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parent.parent)}
    shown = subprocess.run(
        [sys.executable, "-c", NOISY, str(tmp_path)], env=env, capture_output=True, text=True, check=True
    )
    assert shown.stdout == "before\nafter\n"
    assert "a quantizer's bar" in shown.stderr and "from another language" in shown.stderr
