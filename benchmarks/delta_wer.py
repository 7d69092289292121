"""What a compressed model loses in WER against the one it was made from, on the same clips, and how much faster it is.

    python benchmarks/delta_wer.py runs/int8/bundles/onnxruntime-fp32 runs/int8/bundles/onnxruntime-int8 --drawings 2
    python benchmarks/delta_wer.py av-fast-conformer-demo runs/pruned/01-prune --data ../shared/data

Both are bundles, or models in PyTorch. All test clips together: two drawings of the generated corpus are 600 clips of
its held-out voices; with --data the clips of GRID follow as rows of their own. Paired bootstrap over utterances, 95 %.
Two bundles of one engine are also timed in turn. Adds to benchmarks/results/delta_wer.json; the rest of it stays.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from edgeav.data.conditions import parse
from edgeav.device import Device
from edgeav.evaluate import Settings, evaluate
from edgeav.measure import wer_increase, word_error_rate
from edgeav.profiling import compare_pair
from edgeav.progress import TerminalProgress
from edgeav.results import provenance
from edgeav.runtime.bench import Workload
from edgeav.runtime.bundle import read_bundle
from edgeav.subject import open_subject

RESULTS = Path(__file__).parent / "results" / "delta_wer.json"
CONDITIONS = ("av", "av@0dB")
ROUNDS = 5


@dataclass(frozen=True)
class Clip:
    """One clip, read by both."""

    reference: str
    before: str
    after: str


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("before", help="a model's name, its folder, or a bundle's")
    parser.add_argument("after", nargs="+")
    parser.add_argument("--drawings", type=int, default=2, help="of the corpus demo, 300 test clips each")
    parser.add_argument("--data", type=Path, help="a folder that holds grid/")
    parser.add_argument("--out", type=Path, default=Path("runs/delta"), help="where transcripts are kept")
    options = parser.parse_args()
    torch.set_num_threads(1)
    known = json.loads(RESULTS.read_text()) if RESULTS.is_file() else {}
    for after in options.after:
        row = provenance() | {"before": options.before, "rows": compared(options.before, after, options)}
        known[after] = row | {"speed": timed(Path(options.before), Path(after))}
        RESULTS.write_text(json.dumps(known, indent=1) + "\n")
        print(table(after, known[after]))


def compared(before: str, after: str, options: argparse.Namespace) -> list[dict[str, Any]]:
    """A row for each set of clips and condition."""
    sets = [("demo", range(options.drawings))] + ([(str(options.data / "grid"), range(1))] if options.data else [])
    rows = []
    for corpus, drawings in sets:
        found: dict[tuple[str, str], list[Clip]] = {}
        for drawing in drawings:
            for place, clips in pairs(before, after, corpus, drawing, options.out).items():
                found.setdefault(place, []).extend(clips)
        rows += [{"corpus": Path(corpus).name} | row(*place, clips) for place, clips in found.items()]
    return rows


def pairs(before: str, after: str, corpus: str, drawing: int, out: Path) -> dict[tuple[str, str], list[Clip]]:
    """(split, condition) -> its clips, transcribed by both unless that was done."""
    settings, texts = Settings(parse(CONDITIONS), voices="demo", drawing=drawing), []
    for name in (before, after):
        subject = open_subject(name)
        folder = out / f"{Path(corpus).name}-{drawing}" / f"{Path(name).name}-{subject.key[:8]}"
        rows = evaluate(subject, corpus, settings, folder, TerminalProgress())
        places = [(row["split"], row["condition"]) for row in rows]
        texts.append({place: transcripts(folder, *place) for place in places})
    first, second = texts
    return {
        place: [Clip(reference, text, second[place][clip][1]) for clip, (reference, text) in clips.items()]
        for place, clips in first.items()
    }


def transcripts(folder: Path, split: str, condition: str) -> dict[str, tuple[str, str]]:
    """Clip -> (reference, text)."""
    path = folder / "transcripts" / split / f"{condition}-greedy" / "transcripts.jsonl"
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return {line["id"]: (line["reference"], line["texts"]["greedy"]) for line in lines}


def row(split: str, condition: str, clips: list[Clip]) -> dict[str, Any]:
    references, before, after = ([getattr(clip, name) for clip in clips] for name in ("reference", "before", "after"))
    rates = {name: word_error_rate(references, texts).wer for name, texts in (("before", before), ("after", after))}
    difference, low, high = wer_increase(references, before, after)
    facts = {"split": split, "condition": condition, "utterances": len(clips)}
    return facts | rates | {"difference": difference, "low": low, "high": high}


def timed(before: Path, after: Path) -> dict[str, Any] | None:
    """Both bundles in turn in one process on one thread; None unless both are bundles of one engine."""
    if not all((folder / "bundle.json").is_file() for folder in (before, after)):
        return None
    if read_bundle(before).engine != read_bundle(after).engine:
        return None
    workload = Workload(seconds=4.0, iterations=10, warmup=3)
    return compare_pair(before, after, Device.load("this-machine"), ROUNDS, workload)


def table(name: str, found: dict[str, Any]) -> str:
    """Markdown."""
    lines = [f"\n{name}, against {found['before']}\n", "| clips | condition | n | before | after | difference |"]
    lines.append("|---|---|---:|---:|---:|---:|")
    for one in found["rows"]:
        span = f"{one['difference']:+.2f} [{one['low']:+.2f}, {one['high']:+.2f}]"
        place = f"| {one['corpus']} {one['split']} | {one['condition']} | {one['utterances']} "
        lines.append(f"{place}| {one['before']:.2f} | {one['after']:.2f} | {span} |")
    if found["speed"]:
        (before, after), ratio = found["speed"]["cpu_ms"], found["speed"]["cpu_ratio"]
        lines.append(f"\n{before:.1f} -> {after:.1f} ms for 4 s, 1 thread, process CPU time: {ratio:.2f}x")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
