"""WER of a model by corpus split, modality and noise: the table of a model card.

    python benchmarks/demo_wer.py --model av-fast-conformer-demo --data ../shared/data

`edgeav evaluate` on several corpora, greedy, in PyTorch; babble of the demo corpus's training voices, 0 dB over ACTIVE
speech. Writes benchmarks/results/demo_wer.json and prints a Markdown table. What is done already is not done again.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch

from edgeav.data.conditions import GRIDS, parse
from edgeav.evaluate import Settings, evaluate
from edgeav.progress import TerminalProgress
from edgeav.results import commit
from edgeav.run import versions
from edgeav.runtime.machine import machine
from edgeav.subject import open_subject
from edgeav.verdicts import judge, summary, wide_table

RESULT = Path(__file__).parent / "results" / "demo_wer.json"
NAMES = ("sound and lips", "sound", "lips", "sound and lips, 0 dB", "sound, 0 dB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="av-fast-conformer-demo", help="a name or a model folder")
    parser.add_argument("--data", type=Path, help="a folder that holds grid/ and an4/; without it: synthetic only")
    parser.add_argument("--out", type=Path, default=Path("runs/demo-wer"), help="where transcripts are kept")
    options = parser.parse_args()
    torch.set_num_threads(1)
    subject, progress = open_subject(options.model), TerminalProgress()
    corpora = ["demo", *(str(options.data / name) for name in ("grid", "an4") if options.data)]
    settings = Settings(parse(GRIDS["short"]), voices="demo")
    rows = []
    for corpus in corpora:
        name = Path(corpus).name
        rows += [{"corpus": name} | row for row in evaluate(subject, corpus, settings, options.out / name, progress)]
    facts = {"commit": commit(), "versions": versions(), "cpu": machine()["cpu"], "threads": 1, "rows": rows}
    RESULT.write_text(json.dumps({"model": options.model, **facts}, indent=1) + "\n")
    print(wide_table(rows, dict(zip(GRIDS["short"], NAMES, strict=True))))
    print(f"\n{summary(judge(rows))}")


if __name__ == "__main__":
    main()
