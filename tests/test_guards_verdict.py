"""What the guards found becomes a verdict: who is broken, by how much, and which bundle to use."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from edgeav.data.cache import DecodedClips
from edgeav.data.corpus import Media
from edgeav.errors import EdgeavError
from edgeav.guards.buckets import joinable, joined, length_cases
from edgeav.guards.verdict import bucket_checks, bucket_rows, file_checks, slower, speed_check
from edgeav.recipe import Budget, Recipe
from edgeav.report import BucketRow, PairRow
from edgeav.runtime.inputs import Features


def pair(ratio: float, chosen: str = "int8") -> PairRow:
    times = {"cpu_ratio": ratio, "wall_ratio": ratio, "size_ratio": 0.3, "cpu_ms": (30.0, 30.0 / ratio)}
    return PairRow.model_validate({"target": "openvino", "device": "pi", "chosen": chosen, **times})


@pytest.mark.parametrize(
    ("ratio", "low", "high", "expected"),
    [(2.0, 1.9, 2.1, False), (0.9, 0.89, 0.91, True), (0.98, 0.9, 1.1, False), (1.01, 0.99, 1.02, False)],
)
def test_slower_means_by_more_than_the_rounds_vary(ratio: float, low: float, high: float, expected: bool) -> None:
    assert slower(ratio, low, high) is expected


def test_where_int8_is_slower_fp32_is_kept_and_both_times_are_said() -> None:
    check = speed_check(Budget(), pair(0.5, "fp32"))
    assert check.passed
    assert "30.0 ms against 60.0 ms" in check.say and "fp32 is kept" in check.say


def test_a_speed_that_the_recipe_asks_for_must_be_reached_whatever_is_kept() -> None:
    budget = Budget.model_validate({"speed": {"min_ratio_vs_fp32": 1.5}})
    assert not speed_check(budget, pair(0.5, "fp32")).passed
    assert not speed_check(budget, pair(1.4)).passed
    assert speed_check(budget, pair(1.6)).passed


def row(increase: float, low: float, high: float, blank: float = 50.0) -> BucketRow:
    facts = {"increase": increase, "low": low, "high": high, "blank_fp32": 50.0, "blank": blank}
    return BucketRow.model_validate({"target": "openvino", "bucket": "long", "clips": 60, "wer": 10.0, **facts})


@pytest.mark.parametrize(
    ("found", "expected"),
    [(row(0.5, 0.2, 0.9), True), (row(1.5, -0.3, 3.0), True), (row(1.5, 0.2, 3.0), False), (row(-3, -4, -2), True)],
)
def test_a_bucket_is_broken_when_it_loses_too_much_and_not_by_chance(found: BucketRow, expected: bool) -> None:
    assert next(bucket_checks(Budget(), [found])).passed is expected


def test_the_limit_of_a_bucket_is_that_of_the_wer_budget_unless_it_has_its_own() -> None:
    wer = {"wer": {"max_increase_abs": 0.3}}
    assert next(bucket_checks(Budget.model_validate(wer), [row(0.4, 0.1, 0.9)])).limit == 0.3
    own = Budget.model_validate(wer | {"guards": {"bucket_increase_abs": 0.5}})
    assert next(bucket_checks(own, [row(0.4, 0.1, 0.9)])).limit == 0.5


@pytest.mark.parametrize(("blank", "expected"), [(51.9, True), (52.1, False), (47.0, False)])
def test_a_share_of_blanks_that_moved_is_broken_in_either_direction(blank: float, expected: bool) -> None:
    *_, check = bucket_checks(Budget(), [row(0, 0, 0), row(0, 0, 0, blank)])
    assert (check.name, check.passed) == ("blanks", expected)


def run_in(folder: Path, **guards: object) -> SimpleNamespace:
    recipe = Recipe.model_validate({"name": "r", "model": "m", "budget": {"guards": guards}})
    return SimpleNamespace(folder=folder, recipe=recipe)


def step(folder: Path, name: str, file: str, content: str) -> SimpleNamespace:
    (folder / name).mkdir(parents=True)
    (folder / name / file).write_text(content)
    return SimpleNamespace(name=name)


def test_an_inspection_with_findings_is_broken_and_shows_them(tmp_path: Path) -> None:
    facts = {"weights": 9, "ranges": 8, "wiring": 1e-6, "wiring_limit": 1e-3}
    found = facts | {"not_integer": ["head"], "findings": ["a: b", "c: d", "e: f", "g: h"], "integer_share": 0.97}
    inspected = step(tmp_path, "wrong", "inspection.json", json.dumps(found))
    file, kernels = file_checks(run_in(tmp_path), "openvino", inspected)  # type: ignore[arg-type]
    assert not file.passed and "a: b; c: d; e: f; and 1 more" in file.say
    assert not kernels.passed and "in float: head" in kernels.say
    *_, allowed = file_checks(run_in(tmp_path, min_integer_share=0.95), "openvino", inspected)  # type: ignore[arg-type]
    assert allowed.passed


def test_buckets_are_compared_clip_by_clip(tmp_path: Path) -> None:
    def lines(*texts: str) -> str:
        rows = zip(("short", "short", "long"), ("a b", "c d", "e f"), texts, strict=True)
        more = {"steps": 10, "blanks": 4}
        return "\n".join(json.dumps({"bucket": b, "reference": r, "text": t} | more) for b, r, t in rows)

    before = step(tmp_path, "fp32", "transcripts.jsonl", lines("a b", "c x", "e f"))
    after = step(tmp_path, "int8", "transcripts.jsonl", lines("a b", "c d", "e x"))
    short, long = bucket_rows(run_in(tmp_path), "openvino", before, after, 95)  # type: ignore[arg-type]
    assert (short.bucket, short.clips, short.wer, short.increase) == ("short", 2, 25.0, -25.0)
    assert (long.bucket, long.clips, long.wer, long.increase) == ("long", 1, 0.0, 50.0)
    assert (short.blank_fp32, short.blank) == (40.0, 40.0)


class Clips:
    """Of 1 to 6 s, of two speakers; no lips in the third."""

    def __init__(self) -> None:  # a: 1, 3, 5 s; b: 2, 4, 6 s
        self.rows = [SimpleNamespace(text=f"t{i}", speaker="ab"[i % 2], duration_s=i + 1.0) for i in range(6)]

    def __len__(self) -> int:
        return len(self.rows)

    def media(self, index: int) -> Media:
        seconds = index + 1
        mouth = None if index == 2 else np.zeros((25 * seconds, 96, 96), np.uint8)
        return Media(np.full(16_000 * seconds, index, np.float32), mouth)


def clips() -> DecodedClips:
    return Clips()  # type: ignore[return-value]


def test_clips_are_joined_within_a_speaker_until_they_are_long_enough_and_never_too_long() -> None:
    assert joinable(clips(), 4.0, 100.0) == [[0, 2], [4], [1, 3], [5]]
    assert joinable(clips(), 9.0, 9.0) == [[0, 2, 4]]  # b: 2 + 4 + 6 = 12 s is too long, 2 + 4 too short
    assert joinable(clips(), 50.0, 100.0) == []


def test_a_joined_clip_is_one_behind_the_other_without_what_a_part_lacks() -> None:
    both = joined([clips().media(1), clips().media(0)])
    assert both.waveform is not None and both.mouth is not None
    assert (both.waveform == [1.0] * 32_000 + [0.0] * 16_000).all()
    assert len(both.mouth) == 75
    assert joined([clips().media(0), clips().media(2)]).mouth is None


def test_lengths_are_short_long_and_longer_than_any() -> None:
    cases = [*length_cases(clips(), Features(), 2, 100.0)]
    steps = {bucket: [case.inputs.steps for case in cases if case.bucket == bucket] for bucket in ("short", "long")}
    assert steps["short"] == [13, 25] and steps["long"] == [63, 75]
    longer = [case for case in cases if case.bucket == "longer"]
    assert [case.text for case in longer] == ["t1 t3 t5"]
    assert min(case.inputs.steps for case in longer) > 75


def test_a_wrong_limit_is_refused_where_it_stands() -> None:
    with pytest.raises(EdgeavError, match=r"budget\.guards\.blank_shift_abs"):
        Recipe.load("int8", ["budget.guards.blank_shift_abs=-1"])
