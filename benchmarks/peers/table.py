"""Rows of measured int8 models -> a Markdown table, and whether the bars hold. What failed stands in it too."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

BARS = {"onnxruntime": 1.5, "openvino": 1.3}  # times faster than the best peer
HEAD = (
    "| runtime | int8 by | from | MB | x fp32 [lowest, highest] | ours is faster | int8 MACs "
    "| WER, % [95 %] | over fp32 | drift, KL | |\n|---|---|---|---:|---:|---:|---:|---:|---:|---:|---|"
)
Row = dict[str, Any]


def table(rows: Sequence[Row]) -> str:
    return "\n".join([HEAD, *map(_line, rows)])


def verdicts(rows: Sequence[Row]) -> list[Row]:
    """For each runtime: the fastest peer that gave answers at all, how much faster ours is, and whose WER is lower."""
    return [verdict for engine in BARS for verdict in _verdict(engine, [r for r in rows if r["engine"] == engine])]


def sentence(verdict: Row) -> str:
    met = "met" if verdict["fast_enough"] and verdict["wer_no_worse"] else "NOT met"
    abs_, low, high = verdict["wer_difference"]
    return (
        f"{verdict['engine']}: ours is {verdict['times_faster']:.2f}x as fast as the fastest peer ({verdict['peer']}), "
        f"asked for {verdict['bar']:g}x; WER {abs_:+.2f} points [{low:+.2f}, {high:+.2f}] from that peer's; {met}"
    )


def unanswered(rows: Sequence[Row]) -> list[str]:
    """A line for each runtime for which no peer made a model that works: a bar that nobody stands at is not met."""
    there = {verdict["engine"] for verdict in verdicts(rows)}
    return [f"{engine}: no peer made a model that works on every clip" for engine in BARS if engine not in there]


def _verdict(engine: str, rows: Sequence[Row]) -> list[Row]:
    peers = [row for row in rows if not row["error"] and not row["is_ours"]]
    if not peers:
        return []
    best = min(peers, key=lambda row: row["ours_over_it"])
    faster, difference = best["ours_over_it"][0], best["ours_increase"]
    return [
        {
            "engine": engine,
            "peer": f"{best['name']}, from {best['source']}",
            "times_faster": faster,
            "bar": BARS[engine],
            "fast_enough": faster >= BARS[engine],
            "wer_difference": difference,
            "wer_no_worse": difference[1] <= 0,  # the interval does not lie above zero
        }
    ]


def _line(row: Row) -> str:
    cells = [row["engine"], row["name"], row["source"], *_speed(row), *_quality(row), remark(row)]
    return "| " + " | ".join(cells) + " |"


def _speed(row: Row) -> list[str]:
    if "over_fp32" not in row:
        return ["", "", "", ""]
    middle, low, high = row["over_fp32"]
    ours = "" if row["is_ours"] else f"{row['ours_over_it'][0]:.2f}x"
    share = "" if row["integer_mac_share"] is None else f"{100 * row['integer_mac_share']:.1f} %"
    return [f"{row['mb']:.1f}", f"{middle:.2f} [{low:.2f}, {high:.2f}]", ours, share]


def _quality(row: Row) -> list[str]:
    if "wer" not in row:
        return ["", "", ""]
    wer, (abs_, low, high) = row["wer"], row["increase"]
    rate = f"{wer['wer']:.1f} [{wer['low']:.1f}, {wer['high']:.1f}]"
    return [rate, f"{abs_:+.2f} [{low:+.2f}, {high:+.2f}]", f"{row['drift']:.4f}"]


def remark(row: Row) -> str:
    """What a reader must not overlook."""
    said = [f"FAILED: {row['error']}"] if row["error"] else []
    said += ["slower than float"] if "over_fp32" in row and row["over_fp32"][0] < 1 else []
    said += ["WER worse than float"] if "increase" in row and row["increase"][1] > 0 else []
    return "; ".join(said).replace("|", "/")
