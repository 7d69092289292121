"""What pruning and factorizing did, in numbers for the stage's JSON and in words for people."""

from __future__ import annotations

from typing import Any

from edgeav.models import AVModel
from edgeav.quant.census import macs_by_module
from edgeav.shrink.latency import Runtime


def sizes(model: AVModel, runtime: Runtime | None) -> dict[str, Any]:
    """Parameters, and for 4 s multiply-accumulates and, unless `runtime` is None, milliseconds on one thread here."""
    size: dict[str, Any] = {
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "macs": sum(macs_by_module(model).values()),
    }
    if runtime is not None:
        from edgeav.shrink.whole import whole_ms

        size |= {"milliseconds": round(whole_ms(model, runtime), 3), "runtime": runtime}
    return size


def prune_text(report: dict[str, Any]) -> str:
    """prune.json as lines: the model before and after, then each group with what is left of it."""
    first = {row["group"]: row for row in report["rounds"][0]["groups"]}
    last = {row["group"]: row for row in report["rounds"][-1]["groups"]}
    lines = _sizes(report["model"])
    dropped = [block for one in report["rounds"] for block in one["dropped_blocks"]]
    if dropped:
        lines.append(f"blocks removed: {', '.join(dropped)} (counted as they were in their round)")
    names = first if not dropped else last  # after a block went, the others have moved up
    for name in names:
        before, after = first.get(name, last[name])["before"], last.get(name, first[name])["after"]
        lines.append(f"{name:<34} {before:>5} -> {after:>5}  {after / before:>4.0%} left  {last[name]['kind']}")
    return "\n".join(lines)


def low_rank_text(report: dict[str, Any]) -> str:
    """low_rank.json as lines: the model before and after, then each layer with its rank or why it has none."""
    lines = _sizes(report["model"])
    for row in report["layers"]:
        what = f"rank {row['rank']}" if row["rank"] else row["why"]
        times = f", {row['dense_ms']:.3f} -> {row['ms']:.3f} ms" if row.get("ms") else ""
        kept = f", {row['energy']:.1%} of its energy" if row["rank"] else ""
        lines.append(f"{row['layer']:<34} {row['outputs']:>5} x {row['inputs']:<5} {what}{kept}{times}")
    return "\n".join(lines)


def _sizes(model: dict[str, Any]) -> list[str]:
    before, after = model["before"], model["after"]
    rows = [("parameters", "{:,}"), ("macs", "{:,}"), ("milliseconds", "{:.2f}")]
    return [
        f"{name}: {form.format(before[name])} -> {form.format(after[name])} ({after[name] / before[name]:.0%})"
        for name, form in rows
        if name in before
    ]
