"""From what the guard steps left to lines of the verdict: a check for each thing that compression may break."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from edgeav.recipe import Budget
from edgeav.report import BucketRow, Check, PairRow
from edgeav.run import Run, Step, read_json

DEFAULT_INCREASE = 1.0  # points, where the recipe has no budget for WER
SHOWN = 3  # findings in a line of the verdict; the others are in inspection.json


def file_checks(run: Run, target: str, step: Step) -> Iterator[Check]:
    """The int8 file itself: numbers and wiring, then integer kernels."""
    found = read_json(run.folder / step.name / "inspection.json")
    wrong, least = found["findings"], run.recipe.budget.guards.min_integer_share
    looked = f"{found['weights']} weights and {found['ranges']} ranges are the float model's, rounded"
    listed = "; ".join(wrong[:SHOWN]) + (f"; and {len(wrong) - SHOWN} more" if len(wrong) > SHOWN else "")
    say = listed or f"{looked}; wired alike ({found['wiring']:.1e}, limit {found['wiring_limit']:g})"
    yield Check(name="file", target=target, value=len(wrong), limit=0, passed=not wrong, say=say)
    share, names = found["integer_share"], found["not_integer"]
    say = f"{100 * share:.1f} % of what the plan wants in integers runs so" + (
        f"; in float: {', '.join(names)}" if names else ""
    )
    yield Check(name="kernels", target=target, value=share, limit=least, passed=share >= least, say=say)


def speed_check(budget: Budget, pair: PairRow) -> Check:
    """Compressed is not slower, or fp32 is kept. A limit of the recipe's own must hold either way."""
    limit = budget.speed.min_ratio_vs_fp32 if budget.speed else 1.0
    ms = "" if pair.cpu_ms is None else f" ({pair.cpu_ms[0]:.1f} ms against {pair.cpu_ms[1]:.1f} ms)"
    say = f"int8 runs {pair.cpu_ratio:.2f}x as fast as fp32 on {pair.device}{ms}, process CPU time, in turn"
    if pair.chosen == "fp32":
        say += ": slower, so fp32 is kept there"
    passed = pair.cpu_ratio >= limit if budget.speed else True
    return Check(name="speed", target=pair.target, value=pair.cpu_ratio, limit=limit, passed=passed, say=say)


def slower(ratio: float, low: float, high: float) -> bool:
    """Whether `ratio` (above 1: faster) is below 1 by more than half of what it varied by between rounds."""
    return ratio + (high - low) / 2 < 1


def bucket_rows(run: Run, target: str, before: Step, after: Step, ci: int) -> list[BucketRow]:
    """fp32 against compressed, clip by clip, in every bucket."""
    from edgeav.measure import blank_rate, wer_increase, word_error_rate

    pairs = list(zip(_rows(run.folder / before.name), _rows(run.folder / after.name), strict=True))
    rows = []
    for bucket in dict.fromkeys(row["bucket"] for row, _ in pairs):
        chosen = [(a, b) for a, b in pairs if a["bucket"] == bucket]
        references, was, now = zip(*((a["reference"], a["text"], b["text"]) for a, b in chosen), strict=True)
        rate = word_error_rate(references, was, run.recipe.seed).wer
        difference, low, high = wer_increase(references, was, now, ci, run.recipe.seed)
        blanks = [blank_rate(pair[side] for pair in chosen) for side in (0, 1)]
        rows.append(
            BucketRow(
                target=target, bucket=bucket, clips=len(chosen), wer=rate, increase=difference,
                low=low, high=high, blank_fp32=blanks[0], blank=blanks[1],
            )
        )  # fmt: skip
    return rows


def bucket_checks(budget: Budget, rows: list[BucketRow]) -> Iterator[Check]:
    """A bucket is broken that loses more than it may, and not by chance: its interval excludes zero."""
    wanted = budget.guards.bucket_increase_abs
    limit = wanted if wanted is not None else budget.wer.max_increase_abs if budget.wer else DEFAULT_INCREASE
    for row in rows:
        say = f"{row.bucket}: int8 {row.increase:+.2f} points of WER [{row.low:+.2f}, {row.high:+.2f}], n = {row.clips}"
        passed = not (row.increase > limit and row.low > 0)
        yield Check(name="bucket", target=row.target, value=row.increase, limit=limit, passed=passed, say=say)
    if rows:
        yield _blank_check(budget.guards.blank_shift_abs, rows)


def _blank_check(limit: float, rows: list[BucketRow]) -> Check:
    worst = max(rows, key=lambda row: abs(row.blank - row.blank_fp32))
    shift = worst.blank - worst.blank_fp32
    say = (
        f"blank at {worst.blank:.1f} % of the steps, fp32 {worst.blank_fp32:.1f} % ({worst.bucket}, the largest shift)"
    )
    return Check(name="blanks", target=worst.target, value=abs(shift), limit=limit, passed=abs(shift) <= limit, say=say)


def _rows(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "transcripts.jsonl").read_text("utf-8").splitlines()]
