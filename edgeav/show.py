"""Results for people, on stdout: what each command prints without `--json`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeav import console, doctor

if TYPE_CHECKING:
    from edgeav.report import Report


def report(found: Report, folder: Path, as_json: bool) -> None:
    """The table, the verdict and where the page is; or the whole report as JSON."""
    from edgeav.report import print_table

    if as_json:
        console.print_json(found.model_dump(mode="json"))
        return
    print_table(found)
    print(f"report: {folder / 'report.html'}")


def transcripts(rows: list[dict[str, Any]]) -> None:
    """One line of text per clip, its name first where there are several; what was odd about it below."""
    for row in rows:
        if "error" in row:
            continue  # said on stderr when it happened
        print(f"{row['file']}: {row['text']}" if len(rows) > 1 else row["text"])
        for note in row["notes"]:
            print(f"  ({note})")


def facts(data: dict[str, Any]) -> None:
    """A flat record as two columns; tables inside it are left to --json."""
    rows = [{"what": key, "value": _short(value)} for key, value in data.items() if _fits(value)]
    console.print_table(rows, ["what", "value"])


def profile(found: dict[str, Any]) -> None:
    """A profile of one device: its facts, and the stages of its stream."""
    shown = without_emulated_times(found)
    streamed = shown.pop("stream", None)
    facts(shown)
    if streamed:
        stages = {**streamed["stages_ms"], "until the words": streamed["waited_ms"]}
        rows = [{"stage of the stream": name, "n": ms["n"]} | _milliseconds(ms) for name, ms in stages.items()]
        console.print_table(rows, list(rows[0]))
        played = f"streamed {streamed['seconds']:.1f} s, RTF {streamed['rtf']:.2f}, {streamed['readings']} readings"
        print(f"{played}; the longest wait for the thread {streamed['behind_ms']:.0f} ms")


def without_emulated_times(profile: dict[str, Any]) -> dict[str, Any]:
    """A profile for people: the times of an emulated device are left out, for they would be read as latency."""
    times = (
        "import_ms",
        "load_ms",
        "first_ms",
        "wall_ms",
        "cpu_ms",
        "rtf",
        "parts_ms",
        "stream",
        "operators",
        "peak_rss_mb",
        "runtime_rss_mb",
    )
    shown = {key: value for key, value in profile.items() if value is not None}
    return {key: value for key, value in shown.items() if key not in times} if profile["emulated"] else shown


def health(found: dict[str, Any]) -> None:
    """What `edgeav doctor` found: the machine, versions, each extra with what to type when it is missing."""
    cpu = found["cpu"]
    print(f"edgeav {found['edgeav']}, Python {found['python']}, {found['system']}")
    print(f"{cpu['cpu']}, {cpu['cores']} cores: {' '.join(cpu['isa']) or 'no known instruction sets'}")
    print(f"int8 in hardware: {' '.join(found['int8_instructions']) or 'no; int8 models may be slow here'}")
    print(", ".join(f"{name} {version}" for name, version in found["versions"].items()))
    rows = [_extra_row(name, extra) for name, extra in found["extras"].items()]
    console.print_table(rows, ["extra", "kind", "works", "problem"])
    for name, extra in found["extras"].items():  # below the table, which would fold what is to be copied
        if extra["fix"]:
            print(f"{name}: {extra['fix']}")


def imported(summary: dict[str, Any]) -> None:
    """What an import wrote, what it left out and what the user should know."""
    texts = ("left_out", "notes")
    facts({key: value for key, value in summary.items() if key not in texts})
    for key in texts:
        for line in summary[key]:
            print(f"{key.replace('_', ' ')}: {line}")


def purpose(path: Path) -> str:
    """What a YAML file says first about itself: its opening comment."""
    first = path.read_text(encoding="utf-8").partition("\n")[0]
    return first.lstrip("# ") if first.startswith("#") else ""


def _extra_row(name: str, extra: dict[str, Any]) -> dict[str, Any]:
    return {
        "extra": name,
        "kind": "engine" if name in doctor.ENGINES else "",
        "works": "yes" if extra["works"] else "NO",
        "problem": "; ".join(f"{module}: {why}" for module, why in extra["problems"].items()),
    }


def _milliseconds(ms: dict[str, float]) -> dict[str, str]:
    return {f"{name} ms": f"{ms[name]:.1f}" for name in ("p50", "p90", "p99")}


def _fits(value: Any) -> bool:
    return not (isinstance(value, list) and value and isinstance(value[0], dict))


def _short(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, dict):
        return ", ".join(f"{key} {_short(item)}" for key, item in value.items())
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)
