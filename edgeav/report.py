"""What a run found out: rows -> report.json, report.md (tables) and report.html (one page, works offline).

WER and its differences are in points (12.3 = 12.3 %). Ratios of time are fp32 / int8 (above 1: int8 is
faster), ratios of size are int8 / fp32 (below 1: int8 is smaller).
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Literal

from pydantic import Field, JsonValue, ValidationError

from edgeav.errors import EdgeavError
from edgeav.profiling import Profile
from edgeav.render import print_table as print_table
from edgeav.render import render
from edgeav.search.result import SearchRow
from edgeav.spec import Strict
from edgeav.target import Precision

SCHEMA = "edgeav-report/1"


class ModelRow(Strict):
    name: str
    params: int
    gmac_per_second: float
    """Billion multiply-adds for one second of sound and picture."""


class StageRow(Strict):
    name: str
    seconds: float
    """When it was done: a resumed run keeps the figure."""


class SplitRow(Strict):
    utterances: int
    words: int
    synthetic: bool
    """Generated speech and rendered mouths; false: recordings of people."""
    speakers: Literal["seen", "unseen", "mixed", "unknown"]
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
    """Word error rate in points with its 95 % interval, and the counts behind it: edgeav.measure.Wer."""

    wer: float
    low: float
    high: float
    utterances: int
    words: int
    substitutions: int
    deletions: int
    insertions: int


class BundleRow(Strict):
    target: str
    engine: str
    precision: Precision
    size_mb: float
    parity: ParityRow | None = None
    wer: dict[str, WerRow] = Field(default_factory=dict)
    """By split."""
    profile: dict[str, Profile] = Field(default_factory=dict)
    """By device."""
    integer_share: float | None = None
    """Of the operators' time, 0..1."""
    arithmetic: dict[str, str] = Field(default_factory=dict)
    """By format: real, or emulated, which is rounded to it and multiplied in float32."""


class Increase(Strict):
    """int8's WER minus fp32's on the same utterances, in points, with its interval (the recipe's ci)."""

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
    cpu_ms: tuple[float, float] | None = Field(default=None, strict=False)
    """Of fp32 and of int8."""
    precision: str = "int8"
    """What stands beside fp32."""
    chosen: str = "int8"
    """Which bundle to use there: fp32 where the other was measured slower."""


class StartRow(Strict):
    """The model that the recipe began with, where its stages left another one."""

    model: ModelRow
    wer: dict[str, WerRow]
    """In PyTorch, by split."""


class RaceRow(Strict):
    """Two bundles in turn in one process, one thread."""

    cpu_ratio: float
    cpu_ratio_min: float
    cpu_ratio_max: float
    cpu_ms: tuple[float, float] = Field(strict=False)
    """Of the start and of the bundle."""


class GainRow(Strict):
    """One bundle against the start, in float for the same target."""

    target: str
    precision: Precision
    wer_increase: dict[str, Increase]
    """By split, and over all of them, on the same clips."""
    start_mb: float | None
    size_ratio: float | None
    """Of its bytes to the start's."""
    races: dict[str, RaceRow]
    """By device."""
    missing: str = ""
    """Why the start is no bundle for this target."""


class BucketRow(Strict):
    """One kind of clips (short, long, longer, noisy), int8 against fp32 on the same ones."""

    target: str
    bucket: str
    clips: int
    wer: float
    """Of fp32, in points."""
    increase: float
    low: float
    high: float
    blank_fp32: float
    """Percent of the steps at which the blank is best."""
    blank: float


class ChoiceRow(Strict):
    """The bundle that one device should get: the fastest there within the WER budget."""

    device: str
    target: str
    precision: str
    by: str
    """p50_ms, or instructions on an emulated device."""
    value: float
    say: str


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
    schema_: Literal["edgeav-report/1"] = Field(default=SCHEMA, alias="schema")
    recipe: dict[str, JsonValue]
    """As resolved; has at least `name`."""
    model: ModelRow
    corpus: CorpusRow
    environment: Environment
    verdict: Verdict
    stages: list[StageRow] = Field(default_factory=list)
    bundles: list[BundleRow] = Field(default_factory=list)
    pairs: list[PairRow] = Field(default_factory=list)
    buckets: list[BucketRow] = Field(default_factory=list)
    choices: list[ChoiceRow] = Field(default_factory=list)
    """By device."""
    eager: dict[str, WerRow] = Field(default_factory=dict)
    """The PyTorch model itself, by split: what an export can at best be."""
    start: StartRow | None = None
    """What the recipe began with, and in `gains` each bundle beside it."""
    gains: list[GainRow] = Field(default_factory=list)
    search: SearchRow | None = None
    """What the last `search` stage tried."""
    notes: list[str] = Field(default_factory=list)

    @property
    def name(self) -> str:
        return str(self.recipe.get("name", "unnamed"))

    @property
    def devices(self) -> list[str]:
        """Those whose times are times: an emulated device has no latency to show."""
        return [device for device, emulated in self._emulated.items() if not emulated]

    @property
    def imitations(self) -> list[str]:
        """The emulated devices."""
        return [device for device, emulated in self._emulated.items() if emulated]

    @property
    def _emulated(self) -> dict[str, bool]:
        return {device: found.emulated for bundle in self.bundles for device, found in bundle.profile.items()}

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


def _replace(path: Path, text: str) -> None:
    """Write beside `path`, then rename: a reader, or a killed run, never meets half a file."""
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(text, encoding="utf-8")
        os.replace(partial, path)
    except OSError as error:
        _discard(partial)
        raise EdgeavError(f"cannot write {path}: {error.strerror}. Free some space or choose another --out.") from error


def _discard(partial: Path) -> None:
    with contextlib.suppress(OSError):  # the error that led here is the one to tell
        partial.unlink()
