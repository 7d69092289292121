"""Is what a search finds better than each method alone, and were its predictions right?

    python benchmarks/search_front.py runs/search

Reads the search.json of a finished run whose space has every stage alone as well (`vary: {prune: [true, false], …}`). A
candidate of one method alone is beaten if another one, of several methods, is at least as good in WER, milliseconds and
megabytes and better in one. Writes benchmarks/results/search.json.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from edgeav.results import provenance
from edgeav.search.result import FILE, SearchRow, TrialRow
from edgeav.spec import load

RESULTS = Path(__file__).parent / "results" / "search.json"
METHODS = ("prune", "low_rank", "quantize")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    run = parser.parse_args().run
    found = load(SearchRow, next(run.glob(f"*-search/{FILE}")))
    trials = [row for row in found.trials if row.measured]
    result = {
        **provenance(),
        "search_cpu": found.cpu,
        "target": found.target,
        "seconds": found.seconds,
        "utterances": found.utterances,
        "reference": found.reference.model_dump() if found.reference else None,
        "prediction": {unit: row.model_dump() for unit, row in found.prediction.items()},
        "front": found.front,
        "trials": [described(row) for row in trials],
        "alone": [verdict(row, trials, found) for row in trials if len(methods(row)) == 1],
    }
    RESULTS.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(table(result))


def methods(row: TrialRow) -> list[str]:
    return [name for name in METHODS if row.settings.get(name, True)]


def described(row: TrialRow) -> dict[str, Any]:
    assert row.measured is not None
    named = {name: row.settings[f"{name}.budget.macs"] for name in METHODS if f"{name}.budget.macs" in row.settings}
    label = " + ".join(f"{name} {named[name]}" if name in named else name for name in methods(row)) or "nothing"
    return {"number": row.number, "label": label, **row.measured.model_dump()}


def verdict(row: TrialRow, trials: list[TrialRow], found: SearchRow) -> dict[str, Any]:
    """Which joint candidates beat `row` in everything."""
    beaten_by = [
        other.number
        for other in trials
        if len(methods(other)) > 1 and found.measured[other.number].dominates(found.measured[row.number])
    ]
    return described(row) | {"beaten_by": beaten_by}


def table(result: dict[str, Any]) -> str:
    lines = ["| candidate | WER, % | ms | MB | on the front |", "|---|---:|---:|---:|:-:|"]
    for row in sorted(result["trials"], key=lambda row: row["ms"]):
        front = "yes" if row["number"] in result["front"] else ""
        lines.append(f"| {row['label']} | {row['wer']:.2f} | {row['ms']:.2f} | {row['mb']:.2f} | {front} |")
    for unit, row in result["prediction"].items():
        lines.append(f"\nPredicted {unit}, {row['n']} candidates: {row['calibrated_mape']} % (each by the others)")
    for row in result["alone"]:
        beaten = f"beaten by {row['beaten_by']}" if row["beaten_by"] else "not beaten"
        lines.append(f"\n{row['label']} alone: {beaten}")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
