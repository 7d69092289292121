"""`edgeav diff` tells causes from effects, and rows by their names rather than their places."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from edgeav.difference import difference
from edgeav.errors import EdgeavError

PROFILE: dict[str, Any] = {
    "schema": "edgeav-profile/1", "bundle": "b", "device": "pi", "isa": ["neon"], "governor": "ondemand",
    "runtime": "onnxruntime 1.31.1", "wall_ms": {"p50": 40.0, "p90": 50.0}, "seconds": 4.0,
    "operators": [{"type": "Conv", "ms": 3.0}, {"type": "MatMul", "ms": 2.0}],
}  # fmt: skip
REPORT: dict[str, Any] = {
    "schema": "edgeav-report/1",
    "recipe": {"name": "int8", "stages": [{"quantize": {"format": "int8"}}]},
    "corpus": {"name": "demo"},
    "environment": {"versions": {"onnxruntime": "1.31.1"}, "cpu": "A", "date": "2020-01-01"},
    "bundles": [{"target": "onnxruntime", "precision": "int8", "size_mb": 5.0, "profile": {"pi": {"isa": ["neon"]}}}],
}


def compared(tmp_path: Path, a: Any, b: Any) -> list[dict[str, Any]]:
    paths = tmp_path / "a.json", tmp_path / "b.json"
    for path, data in zip(paths, (a, b), strict=True):
        path.write_text(json.dumps(data))
    return difference(*paths)


def test_the_same_profile_does_not_differ_from_itself(tmp_path: Path) -> None:
    assert compared(tmp_path, PROFILE, PROFILE) == []


def test_causes_stand_before_numbers_and_numbers_say_by_how_much(tmp_path: Path) -> None:
    other = PROFILE | {"wall_ms": {"p50": 50.0, "p90": 50.0}, "governor": "performance", "runtime": "onnxruntime 1.32"}
    rows = compared(tmp_path, PROFILE, other)
    assert [(row["what"], row["field"], row["change"]) for row in rows] == [
        ("versions", "runtime", None),
        ("device", "governor", None),
        ("numbers", "wall_ms.p50", "+25.0 %"),
    ]


def test_rows_that_changed_places_do_not_differ_and_new_ones_do(tmp_path: Path) -> None:
    assert compared(tmp_path, PROFILE, PROFILE | {"operators": PROFILE["operators"][::-1]}) == []
    more = [*PROFILE["operators"], {"type": "Add", "ms": 1.0}]
    assert [
        (row["field"], row["a"], row["b"]) for row in compared(tmp_path, PROFILE, PROFILE | {"operators": more})
    ] == [
        ("operators.Add.type", None, "Add"),
        ("operators.Add.ms", None, 1.0),
    ]


def test_a_report_says_whether_recipe_data_versions_device_or_numbers_changed(tmp_path: Path) -> None:
    other = json.loads(json.dumps(REPORT))
    other["recipe"]["stages"][0]["quantize"]["format"] = "int4"
    other["corpus"]["name"] = "grid"
    other["environment"] |= {"versions": {"onnxruntime": "1.32"}, "cpu": "B", "date": "2021-01-01"}
    other["bundles"][0] |= {"size_mb": 6.0, "profile": {"pi": {"isa": ["neon", "dotprod"]}}}
    rows = compared(tmp_path, REPORT, other)
    assert [row["what"] for row in rows] == ["recipe", "data", "versions", "device", "device", "numbers"]
    assert rows[-1] == {
        "what": "numbers", "field": "bundles.onnxruntime/int8.size_mb", "a": 5.0, "b": 6.0, "change": "+20.0 %"
    }  # fmt: skip


@pytest.mark.parametrize(
    ("text", "said"), [("{", "is not JSON"), ("[]", "schema is None"), ('{"schema": "x"}', "schema is 'x'; only")]
)
def test_what_cannot_be_compared_is_said(text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(EdgeavError, match=said):
        difference(tmp_path / "a.json", tmp_path / "a.json")
    with pytest.raises(EdgeavError, match="No such file"):
        difference(tmp_path / "none.json", tmp_path / "a.json")
    (tmp_path / "p.json").write_text(json.dumps(PROFILE))
    (tmp_path / "r.json").write_text(json.dumps(REPORT))
    with pytest.raises(EdgeavError, match="only two of a kind"):
        difference(tmp_path / "p.json", tmp_path / "r.json")
