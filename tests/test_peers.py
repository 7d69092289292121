"""The comparison with peers: what can be wrong in it without their environments. They themselves: by running it."""

from __future__ import annotations

import json
import stat
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks.peers.defaults import METHODS
from benchmarks.peers.environment import ENVIRONMENTS, OUTCOME, PEERS, PINS, Failed, last_line, python_of, quantize
from benchmarks.peers.measurement import times_faster
from benchmarks.peers.table import HEAD, Row, sentence, table, unanswered, verdicts

WER = {"wer": 11.5, "low": 10.4, "high": 12.7}


def row(name: str, over_fp32: float, ours: float, lost: tuple[float, float, float], **other: Any) -> Row:
    """A measured peer on ONNX Runtime: its speed over fp32, ours over it, our WER minus its."""
    facts = {"engine": "onnxruntime", "source": "ours", "name": name, "is_ours": False, "error": None, "mb": 6.3}
    speed = {"over_fp32": [over_fp32] * 3, "ours_over_it": [ours] * 3, "integer_mac_share": 0.99}
    quality = {"wer": WER, "increase": (0.1, -0.1, 0.3), "ours_increase": lost, "drift": 0.01}
    return facts | speed | quality | other


def failed(name: str, error: str) -> Row:
    return {"engine": "onnxruntime", "source": "ours", "name": name, "is_ours": False, "error": error}


def test_the_verdict_is_about_the_fastest_peer_that_works() -> None:
    rows = [
        row("slow", 0.3, 8.0, (0.0, -1.0, 1.0)),
        row("fast", 1.6, 1.55, (-0.5, -1.0, 0.0)),
        row("refuses long clips", 9.0, 0.1, (0.0, 0.0, 0.0), error="refuses a clip of 50 steps"),
        failed("absent", "No module named x"),
    ]
    (verdict,) = verdicts(rows)
    assert verdict["peer"] == "fast, from ours" and verdict["times_faster"] == 1.55
    assert verdict["fast_enough"] and verdict["wer_no_worse"]
    assert sentence(verdict).endswith("; met")


@pytest.mark.parametrize(
    ("ours", "lost"), [(1.49, (0.0, -0.5, 0.5)), (3.0, (0.6, 0.1, 1.1))], ids=["too slow", "WER surely worse"]
)
def test_a_broken_bar_is_said(ours: float, lost: tuple[float, float, float]) -> None:
    (verdict,) = verdicts([row("peer", 1.6, ours, lost)])
    assert sentence(verdict).endswith("NOT met")


def test_our_own_row_is_no_peer_and_nothing_to_compare_gives_no_verdict() -> None:
    rows = [row("edgeav", 2.3, 1.0, (0.0, 0.0, 0.0), is_ours=True), failed("x", "y")]
    assert verdicts(rows) == []
    assert [line.split(":")[0] for line in unanswered(rows)] == ["onnxruntime", "openvino"]


def test_every_row_of_the_table_has_a_cell_for_every_head_and_failures_stand_in_it() -> None:
    rows = [
        row("edgeav", 2.3, 1.0, (0.0, 0.0, 0.0), is_ours=True),
        row("slower", 0.5, 4.6, (0.0, 0.0, 0.0), increase=(2.0, 1.5, 2.5)),
        failed("broken", "KeyError: 'a|b'"),
    ]
    head, rule, *lines = table(rows).split("\n")
    assert f"{head}\n{rule}" == HEAD
    assert {line.count("|") for line in lines} == {head.count("|")}
    assert "slower than float; WER worse than float" in lines[1]
    assert "FAILED: KeyError: 'a/b'" in lines[2]


def test_times_faster_is_the_median_of_the_rounds_and_not_the_ratio_of_medians() -> None:
    assert times_faster([10.0, 20.0, 90.0], [10.0, 5.0, 30.0]) == [3.0, 1.0, 4.0]


def test_every_peer_has_an_environment_and_a_method() -> None:
    assert {peer.environment for peer in PEERS} == set(ENVIRONMENTS)
    assert tuple(peer.method for peer in PEERS) == METHODS


def program(path: Path, script: str) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


def outcome(tmp_path: Path, script: str) -> dict[str, Any]:
    out = tmp_path / "out"
    out.mkdir()
    quantize(PEERS[0], program(tmp_path / "python", script), (tmp_path / "a.onnx", tmp_path / "clips"), out)
    return json.loads((out / OUTCOME).read_text())


def test_a_peer_that_breaks_is_an_outcome_with_its_last_words(tmp_path: Path) -> None:
    found = outcome(tmp_path, "echo 'Traceback' >&2; echo 'ValueError: no /home/me/x/model.onnx' >&2; echo >&2; exit 1")
    assert found["error"] == "ValueError: no …/model.onnx"


def test_a_peer_that_ends_well_but_leaves_no_model_has_failed(tmp_path: Path) -> None:
    assert outcome(tmp_path, "exit 0")["error"] == "it ended without an error and without a model"


def test_what_a_peer_made_is_recorded_with_the_versions_that_made_it(tmp_path: Path) -> None:
    found = outcome(tmp_path, """echo '{"olive-ai": "1"}' > "$5/versions.json"; touch "$5/model.onnx" """)
    assert found["error"] is None and found["versions"] == {"olive-ai": "1"}


def test_a_peer_gets_none_of_our_modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", "ours")
    found = outcome(tmp_path, 'echo "path: <$PYTHONPATH>" >&2; exit 1')
    assert found["error"] == "path: <>"


def test_an_environment_that_is_there_is_taken_and_an_unfinished_one_is_installed_again(tmp_path: Path) -> None:
    assert python_of("olive", tmp_path, {"olive": sys.executable}) == sys.executable
    python = program(tmp_path / "nncf" / "bin" / "python", "echo 'ERROR: no matching distribution' >&2; exit 1")
    with pytest.raises(Failed, match="no matching distribution"):
        python_of("nncf", tmp_path, {})
    (tmp_path / "nncf" / PINS).write_text("\n".join(ENVIRONMENTS["nncf"]))
    assert python_of("nncf", tmp_path, {}) == python


def test_the_last_line_is_the_last_that_says_something() -> None:
    assert last_line("first\n  RuntimeError: x\n\n") == "RuntimeError: x"
    assert last_line(" \n") == ""
