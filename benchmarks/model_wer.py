"""WER of models by corpus split, modality, noise and fault: the tables of their cards.

    python benchmarks/model_wer.py av-teacher av-student-medium --data ../shared/data
    python benchmarks/model_wer.py av-student-small --data ../shared/data --grid standard --corpora demo grid
    … --grid standard --readings surest       where it is unsure, by sound alone and by lips alone too

`edgeav evaluate` on several corpora, greedy, in PyTorch; AN4 also with a lexicon of its training words, and with a
trigram of its training texts beside it. Babble of the demo corpus's training voices, SNR over ACTIVE speech. Writes
benchmarks/results/wer_MODEL.json and prints the table of the card; else wer_MODEL_GRID[_surest].json and all rows.
What is done already is not done again.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any, get_args

import torch

from edgeav.data.conditions import GRIDS, parse
from edgeav.evaluate import Settings, evaluate
from edgeav.progress import TerminalProgress
from edgeav.results import provenance
from edgeav.runtime.inputs import Readings
from edgeav.subject import open_subject
from edgeav.verdicts import judge, summary, table, wide_table

RESULTS = Path(__file__).parent / "results"
CORPORA = ("demo", "grid", "an4")
NAMES = ("sound and lips", "sound", "lips", "sound and lips, 0 dB", "sound, 0 dB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", help="names or model folders")
    parser.add_argument("--data", type=Path, help="a folder that holds grid/ and an4/; without it: synthetic only")
    parser.add_argument("--grid", choices=list(GRIDS), default="short")
    parser.add_argument("--readings", choices=get_args(Readings), default="one")
    parser.add_argument("--corpora", nargs="+", choices=CORPORA, default=CORPORA)
    parser.add_argument("--out", type=Path, default=Path("runs/wer"), help="where transcripts are kept")
    options = parser.parse_args()
    torch.set_num_threads(1)
    again = "" if options.readings == "one" else f"_{options.readings}"
    for model in options.models:
        rows = measured(model, options)
        facts = provenance() | {"threads": 1, "readings": options.readings, "rows": rows}
        name = Path(model).name
        card = (options.grid, options.readings) == ("short", "one")
        path = RESULTS / (f"wer_{name}.json" if card else f"wer_{name}_{options.grid}{again}.json")
        path.write_text(json.dumps({"model": name, **facts}, indent=1) + "\n")
        greedy = [row for row in rows if row["decoder"] == "greedy"]
        shown = wide_table(greedy, dict(zip(GRIDS["short"], NAMES, strict=True))) if card else table(rows)
        print(f"\n{name}\n\n{shown}\n\n{summary(judge(rows))}")


def measured(model: str, options: argparse.Namespace) -> list[dict[str, Any]]:
    """A row for every corpus, split, condition and decoder."""
    subject, progress, rows = open_subject(model, readings=options.readings), TerminalProgress(), []
    for name in options.corpora if options.data else ("demo",):
        corpus = name if name == "demo" else str(options.data / name)
        decoders = ("greedy", "lexicon", "ngram") if name == "an4" else ("greedy",)
        settings = Settings(parse(GRIDS[options.grid]), decoders, voices="demo")
        out = options.out / Path(model).name / (name if options.readings == "one" else f"{name}-{options.readings}")
        rows += [{"corpus": name} | row for row in evaluate(subject, corpus, settings, out, progress)]
    return rows


if __name__ == "__main__":
    main()
