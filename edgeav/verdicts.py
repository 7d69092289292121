"""What an evaluation found, as Markdown tables, and whether two modalities are ever worse than one of them.

A model that is worse with lips than without has learned to be misled: at every SNR, and whatever befalls the pictures,
WER(AV) must be at most that of each modality alone under the same disturbance, plus half a point.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from edgeav.data.conditions import parse

MARGIN = 0.5  # points of WER
Row = dict[str, Any]
PLACE = ("corpus", "split", "decoder")


@dataclass(frozen=True)
class Verdict:
    """Of one condition on one split: AV against the better of the modalities that were measured alone."""

    split: str
    decoder: str
    condition: str
    wer: float
    alone: dict[str, float]  # condition -> WER

    @property
    def excess(self) -> float:
        """Points by which AV is worse than the better one; negative: better."""
        return round(self.wer - min(self.alone.values()), 2)

    @property
    def passed(self) -> bool:
        return self.excess <= MARGIN

    @property
    def say(self) -> str:
        others = ", ".join(f"{name} {wer:.1f}" for name, wer in self.alone.items())
        word = "ok" if self.passed else f"WORSE THAN ONE MODALITY by {self.excess:.1f}"
        return f"{self.split} {self.decoder} {self.condition}: {self.wer:.1f} (alone: {others}): {word}"

    def as_dict(self) -> dict[str, Any]:
        facts = {name: getattr(self, name) for name in ("split", "decoder", "condition", "wer", "alone")}
        return facts | {"excess": self.excess, "passed": self.passed}


def judge(rows: Sequence[Row]) -> list[Verdict]:
    """A verdict for every audio-visual row that has a single modality to stand beside, under the same disturbance.

    Clips must be the same: a modality that only some of the clips have is not compared.
    """
    return [verdict for group in _grouped(rows) for verdict in _judged(group)]


def _judged(rows: Sequence[Row]) -> Iterator[Verdict]:
    by_name = {row["condition"]: row for row in rows}
    for row in rows:
        condition = parse([row["condition"]])[0]
        if condition.modality != "av":
            continue
        names = [condition.alone("a").name]
        if not (condition.fault == "missing" and condition.percent == 100):  # nothing is left for lips alone
            names.append(condition.alone("v").name)
        same = {n: by_name[n]["wer"] for n in names if n in by_name and by_name[n]["words"] == row["words"]}
        if same:
            yield Verdict(row["split"], row["decoder"], row["condition"], row["wer"], same)


def summary(verdicts: Sequence[Verdict]) -> str:
    """One line: does it hold everywhere, and if not, where not?"""
    if not verdicts:
        return "never worse than one modality: not checked (needs av beside a or v)"
    broken = [f"{v.split} {v.condition} ({v.decoder}, +{v.excess:.1f})" for v in verdicts if not v.passed]
    rule = f"WER(AV) <= min(WER(A), WER(V)) + {MARGIN}"
    if not broken:
        return f"never worse than one modality: holds in all {len(verdicts)} comparisons ({rule})"
    return f"never worse than one modality: BROKEN in {len(broken)} of {len(verdicts)} ({rule}): {'; '.join(broken)}"


def table(rows: Sequence[Row]) -> str:
    """Markdown: a line a split, condition and decoder, with everything that was measured."""
    head = ["split", "speakers", "clips", "condition", "decoder", "WER, % [95 %]", "sub", "del", "ins"]
    head += ["CER, % [95 %]", "blank, %"]
    several = any("passes" in row for row in rows)
    lines = [f"| {' | '.join(head)} |{' passes |' * several}"]
    lines += [f"|---|---|---:|---|---|---:|---:|---:|---:|---:|---:|{'---:|' * several}"]
    for row in rows:
        cells = [row["split"], _kind(row), row["utterances"], row["condition"], row["decoder"], _interval(row, "wer")]
        cells += [row["substitutions"], row["deletions"], row["insertions"], _interval(row, "cer"), row["blank_rate"]]
        cells += [row.get("passes", 1)] if several else []
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines)


def wide_table(rows: Sequence[Row], names: dict[str, str]) -> str:
    """Markdown for model cards: a line a split, a column a condition, called by `names`; rows of one decoder."""
    lines = [
        f"| corpus, split | speakers | clips | {' | '.join(names.values())} |",
        f"|---|---|---:|{'---:|' * len(names)}",
    ]
    for group in _grouped(rows):
        by_name, first = {row["condition"]: row for row in group}, group[0]
        cells = [_interval(by_name[name], "wer") if name in by_name else "–" for name in names]
        place = f"{first['corpus']} {first['split']}"
        lines.append(f"| {place} | {_kind(first)} | {first['utterances']} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _grouped(rows: Sequence[Row]) -> list[list[Row]]:
    """Of each corpus, split and decoder apart."""
    groups: dict[tuple[str | None, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault(tuple(row.get(key) for key in PLACE), []).append(row)
    return list(groups.values())


def _kind(row: Row) -> str:
    return f"{'synthetic' if row['synthetic'] else 'real'}, {row['speakers']}"


def _interval(row: Row, rate: str) -> str:
    low, high = ("low", "high") if rate == "wer" else (f"{rate}_low", f"{rate}_high")
    return f"{row[rate]:.1f} [{row[low]:.1f}, {row[high]:.1f}]"
