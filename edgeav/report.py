"""What a run found out: rows -> report.json, report.md (tables) and report.html (one page, works offline).

The page is plain HTML, CSS and inline SVG, no script and no request: plotly's bundle alone would be 4.5 MB,
does not print and is hard to read on a phone. The charts are drawn by templates/charts.html.j2.

WER and its differences are in points (12.3 = 12.3 %). Ratios of time are fp32 / int8 (above 1: int8 is
faster), ratios of size are int8 / fp32 (below 1: int8 is smaller).
"""

from __future__ import annotations

import contextlib
import json
import math
import os
from functools import lru_cache
from pathlib import Path
from typing import Literal

from jinja2 import Environment as Jinja
from jinja2 import PackageLoader, StrictUndefined
from pydantic import Field, JsonValue, ValidationError
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from edgeav.errors import EdgeavError
from edgeav.profiling import Profile
from edgeav.spec import Strict

SCHEMA = "edgeav-report/1"


class ModelRow(Strict):
    name: str
    params: int
    gmac_per_second: float
    """Billion multiply-adds for one second of sound and picture."""


class StageRow(Strict):
    name: str
    cached: bool
    """An earlier run had finished it."""
    seconds: float


class SplitRow(Strict):
    utterances: int
    words: int
    synthetic: bool
    """Generated speech and rendered mouths; false: recordings of people."""
    speakers: Literal["seen", "unseen"]
    """Whether training had other clips of the same speakers."""


class CorpusRow(Strict):
    name: str
    splits: dict[str, SplitRow]


class ParityRow(Strict):
    """The reloaded artifact against eager torch."""

    max_abs: float
    transcripts_equal: bool
    lengths: list[int]
    """Steps of 80 ms."""


class WerRow(Strict):
    """Word error rate in points with its 95 % interval, and the counts behind it."""

    wer: float
    low: float
    high: float
    n: int
    """Utterances."""
    words: int
    sub: int
    del_: int = Field(alias="del")
    ins: int


class BundleRow(Strict):
    target: str
    engine: str
    precision: Literal["fp32", "int8"]
    size_mb: float
    parity: ParityRow | None = None
    wer: dict[str, WerRow] = Field(default_factory=dict)
    """By split."""
    profile: dict[str, Profile] = Field(default_factory=dict)
    """By device."""
    integer_share: float | None = None
    """Of the operators' time, 0..1."""


class Increase(Strict):
    """int8's WER minus fp32's on the same utterances, in points, with its 95 % interval."""

    abs: float
    low: float
    high: float


class PairRow(Strict):
    """int8 against fp32 of the same graph on the same runtime and device."""

    target: str
    device: str
    cpu_ratio: float
    """Of process CPU time: the one to trust on a busy machine."""
    wall_ratio: float
    size_ratio: float
    cpu_ratio_min: float | None = None
    """Over the rounds of the comparison, as cpu_ratio_max."""
    cpu_ratio_max: float | None = None
    wer_increase: dict[str, Increase] = Field(default_factory=dict)


class Check(Strict):
    name: str
    target: str
    value: float
    limit: float
    passed: bool
    say: str


class Verdict(Strict):
    passed: bool
    checks: list[Check] = Field(default_factory=list)


class Environment(Strict):
    versions: dict[str, str]
    cpu: str
    isa: list[str]
    threads: int
    commit: str | None
    date: str


class Report(Strict):
    schema_: Literal["edgeav-report/1"] = Field(SCHEMA, alias="schema")
    recipe: dict[str, JsonValue]
    """As resolved; has at least `name`."""
    model: ModelRow
    corpus: CorpusRow
    environment: Environment
    verdict: Verdict
    stages: list[StageRow] = Field(default_factory=list)
    bundles: list[BundleRow] = Field(default_factory=list)
    pairs: list[PairRow] = Field(default_factory=list)
    notes: list[str] = Field(default_factory=list)

    @property
    def name(self) -> str:
        return str(self.recipe.get("name", "unnamed"))

    @property
    def devices(self) -> list[str]:
        return list(dict.fromkeys(device for bundle in self.bundles for device in bundle.profile))

    def pair(self, target: str, device: str) -> PairRow | None:
        return next((row for row in self.pairs if (row.target, row.device) == (target, device)), None)


def write(report: Report, folder: Path) -> Path:
    """Write report.json, report.md and report.html, each whole or not at all; return the page's path."""
    _replace(folder / "report.json", report.model_dump_json(indent=2) + "\n")
    _replace(folder / "report.md", render("report.md.j2", report))
    _replace(folder / "report.html", render("report.html.j2", report))
    return folder / "report.html"


def load(folder: Path) -> Report:
    """Read folder/report.json back. EdgeavError when it is absent, damaged or of another version."""
    path = folder / "report.json"
    if not path.is_file():
        raise EdgeavError(f"{path} does not exist. `edgeav compress <recipe>` writes it.")
    try:
        return Report.model_validate_json(path.read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"])) or "the file"
        raise EdgeavError(
            f"{path} is not a readable report ({error.error_count()} problems; {field}: {first['msg']}). "
            "Run `edgeav compress <recipe>` again: what is finished is not redone."
        ) from error


def render(template: str, report: Report) -> str:
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
    for bundle in report.bundles:
        table.add_row(*_cells(report, bundle, splits, device), end_section=bundle.precision == "int8")
    console.print(table)
    for check in report.verdict.checks:
        console.print(
            f"{'[green]kept[/]  ' if check.passed else '[red]broken[/]'} {escape(check.say)}", highlight=False
        )
    console.print(f"[bold]{verdict_text(report)}[/]", highlight=False)


def verdict_text(report: Report) -> str:
    broken = sum(not check.passed for check in report.verdict.checks)
    if broken or not report.verdict.passed:
        return f"budget broken: {broken} of {len(report.verdict.checks)} checks"
    return f"budget kept: {len(report.verdict.checks)} checks" if report.verdict.checks else "no budget set"


def _cells(report: Report, bundle: BundleRow, splits: list[str], device: str | None) -> list[str]:
    profile = bundle.profile.get(device) if device else None
    pair = report.pair(bundle.target, device) if device and bundle.precision == "int8" else None
    return [
        bundle.target,
        bundle.precision,
        f"{bundle.size_mb:.1f}",
        *(_wer(bundle.wer.get(split)).replace(" [", "\n").replace(", ", "–").rstrip("]") for split in splits),
        f"{profile.wall_ms.p50:.1f}" if profile else "–",
        f"{profile.rtf:.3f}" if profile else "–",
        f"{pair.cpu_ratio:.2f}" if pair else "–",
    ]


def _wer(row: WerRow | None) -> str:
    return "–" if row is None else f"{row.wer:.1f} [{row.low:.1f}, {row.high:.1f}]"


def _cell(text: object) -> str:
    """Text that may stand between two bars of a Markdown table."""
    return str(text).replace("|", "\\|").replace("\n", " ")


def _ceiling(value: float) -> float:
    """Where an axis ends: the first round number not below `value` whose quarters are round too."""
    if value <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    return next(
        step * power for step in (1, 1.2, 1.6, 2, 2.4, 3.2, 4, 6, 8, 10) if step * power >= value * (1 - 1e-9)
    )


@lru_cache
def _jinja() -> Jinja:
    jinja = Jinja(
        loader=PackageLoader("edgeav"),
        autoescape=lambda name: bool(name) and ".html" in name,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    jinja.filters |= {"cell": _cell, "wer": _wer, "ceiling": _ceiling, "verdict": verdict_text}
    jinja.filters["json"] = lambda value: json.dumps(value, indent=2, ensure_ascii=False)
    return jinja


def _replace(path: Path, text: str) -> None:
    """Write beside `path`, then rename: a reader, or a killed run, never meets half a file."""
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(text, encoding="utf-8")
        os.replace(partial, path)
    except OSError as error:
        _discard(partial)
        raise EdgeavError(
            f"cannot write {path}: {error.strerror}. Free some space or choose another --out."
        ) from error


def _discard(partial: Path) -> None:
    with contextlib.suppress(OSError):  # the error that led here is the one to tell
        partial.unlink()
