"""How a report looks: the HTML page, the Markdown tables, and the table at the end of a run.

The page is plain HTML, CSS and inline SVG, no script and no request: plotly's bundle alone would be 4.5 MB,
does not print and is hard to read on a phone. templates/charts.html.j2 draws the charts in percent of the
width, so that text keeps its size.
"""

from __future__ import annotations

import json
import math
from functools import lru_cache
from typing import TYPE_CHECKING

from jinja2 import Environment, PackageLoader, StrictUndefined
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from edgeav.search.result import plain

if TYPE_CHECKING:  # report.py writes what this file renders
    from edgeav.report import BundleRow, Report, WerRow


def render(template: str, report: Report) -> str:
    """One of templates/*.j2 filled in."""
    return _jinja().get_template(template).render(report=report)


def print_table(report: Report, console: Console | None = None) -> None:
    """The end of `edgeav compress`, to stdout: one row per bundle, then the verdict."""
    console = console or Console()
    device = report.devices[0] if report.devices else None
    title = " · ".join(filter(None, [report.name, report.model.name, device]))
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    splits = list(report.corpus.splits)
    table.add_column("target", overflow="fold", min_width=11)
    table.add_column("", no_wrap=True)
    # Spaces, not underscores: a narrow terminal may break a heading there.
    wers = [f"WER {split.replace('_', ' ')}" for split in splits]
    for heading in ("MB", *wers, "p50 ms", "RTF", "× fp32"):
        table.add_column(heading, justify="right")
    if report.eager:
        rates = [_split_wer(report.eager.get(split)) for split in splits]
        table.add_row("PyTorch", "fp32", "", *rates, "", "", "", end_section=True)
    for bundle in report.bundles:
        table.add_row(*_cells(report, bundle, splits, device), end_section=bundle.precision != "fp32")
    console.print(table)
    for check in report.verdict.checks:
        console.print(
            f"{'[green]kept[/]  ' if check.passed else '[red]broken[/]'} {escape(check.target)}: {escape(check.say)}",
            highlight=False,
        )
    console.print(f"[bold]{verdict_text(report)}[/]", highlight=False)


def fewer(now: float, before: float) -> str:
    """How many there are now, in words: what `qat` leaves has as many as its start."""
    return "as many" if now == before else f"{before / now:.1f} times fewer"


def verdict_text(report: Report) -> str:
    broken = sum(not check.passed for check in report.verdict.checks)
    if broken or not report.verdict.passed:
        return f"budget broken: {broken} of {len(report.verdict.checks)} checks"
    return f"budget kept: {len(report.verdict.checks)} checks" if report.verdict.checks else "no budget set"


def _cells(report: Report, bundle: BundleRow, splits: list[str], device: str | None) -> list[str]:
    profile = bundle.profile.get(device) if device else None
    pair = report.pair(bundle.target, device) if device and bundle.precision != "fp32" else None
    return [
        bundle.target,
        bundle.precision,
        f"{bundle.size_mb:.1f}",
        *(_split_wer(bundle.wer.get(split)) for split in splits),
        f"{profile.wall_ms.p50:.1f}" if profile else "–",
        f"{profile.rtf:.3f}" if profile else "–",
        f"{pair.cpu_ratio:.2f}" if pair else "–",
    ]


def _wer(row: WerRow | None) -> str:
    return "–" if row is None else f"{row.wer:.1f} [{row.low:.1f}, {row.high:.1f}]"


def _split_wer(row: WerRow | None) -> str:
    """The interval under the rate, where a terminal has no room beside it."""
    return _wer(row).replace(" [", "\n").replace(", ", "–").rstrip("]")


def _cell(text: object) -> str:
    """Text that may stand between two bars of a Markdown table."""
    return str(text).replace("|", "\\|").replace("\n", " ")


def _ceiling(value: float) -> float:
    """Where an axis ends: the first round number not below `value` whose quarters are round too."""
    if value <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    return next(step * power for step in (1, 1.2, 1.6, 2, 2.4, 3.2, 4, 6, 8, 10) if step * power >= value * (1 - 1e-9))


@lru_cache
def _jinja() -> Environment:
    jinja = Environment(
        loader=PackageLoader("edgeav"),
        autoescape=lambda name: bool(name) and ".html" in name,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    jinja.filters |= {"cell": _cell, "wer": _wer, "ceiling": _ceiling, "plain": plain, "verdict": verdict_text}
    jinja.filters |= {"fewer": fewer, "json": lambda value: json.dumps(value, indent=2, ensure_ascii=False)}
    return jinja
