"""What pays in distillation: the same student trained with each option of the `distill` stage, and without a teacher.

    python benchmarks/distillation.py --data ../shared/data --steps 1000 --seeds 1 2 3

Every arm has the clips, noise, steps and seeds of recipes/distill.yaml, and changes one thing. Measured on VALIDATION
clips, since this is what settings are chosen by; `--test` measures the test splits instead, for arms that were chosen.
Medians over the seeds with the range. Adds to benchmarks/results/distillation.json (of the same student and size, else
it begins anew); what is done is not done again: with --processes 1, calls for other arms or seeds fill other cores.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from math import gcd
from pathlib import Path
from statistics import median
from typing import Any

import torch

from edgeav.compress import compress
from edgeav.data.conditions import parse
from edgeav.evaluate import VALID, Settings, evaluate
from edgeav.progress import TerminalProgress
from edgeav.recipe import Recipe
from edgeav.results import provenance
from edgeav.stages.distill import Distill
from edgeav.stages.train import Train
from edgeav.subject import open_subject

RESULTS = Path(__file__).parent / "results"
CONDITIONS = ("av", "a", "v", "av@0dB", "a@0dB")
ALONE = "texts alone"
ARMS: dict[str, dict[str, Any]] = {
    ALONE: {},  # no teacher: the `train` stage
    "frames": {},
    "frames, blank counts fully": {"blank_weight": 1.0},
    "frames, 1 step of tolerance": {"tolerance": 1},
    "frames, loudest of two": {"pooling": "loudest"},
    "frames, teacher alone": {"ctc_weight": 0.1},
    "the teacher's texts": {"kl_weight": 0.0, "sequence_weight": 1.0},
    "frames and its texts": {"sequence_weight": 0.5},
    "frames and hidden layers": {"posteriors": "online", "feature_weight": 1.0, "match": [[5, 5]]},
    "frames, no modality dropout": {"modalities": {"both": 1.0}},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", default="distill")
    parser.add_argument("--student", default="av-student-small", help="a preset")
    parser.add_argument("--arms", nargs="+", choices=list(ARMS), default=list(ARMS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3])
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--batches", type=int, help="of 14 clips in an update; the recipe's if not given")
    parser.add_argument("--processes", type=int, default=2, help="1 or 2 of each training: the same updates")
    parser.add_argument("--data", type=Path, help="a folder that holds grid/; without it: synthetic only")
    parser.add_argument("--test", action="store_true", help="the test splits instead of the validation clips")
    parser.add_argument("--out", type=Path, default=Path("runs/distillation"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = [row for seed in options.seeds for arm in options.arms for row in measured(arm, seed, options)]
    size = {name: getattr(options, name) for name in ("student", "steps", "batches")}
    path = RESULTS / ("distillation_test.json" if options.test else "distillation.json")
    facts = provenance()
    rows = together(path, size, [row | {"commit": facts["commit"]} for row in rows])
    path.write_text(json.dumps(facts | size | {"rows": rows}, indent=1) + "\n")
    print(table(rows, [arm for arm in ARMS if any(row["arm"] == arm for row in rows)]))


def together(path: Path, size: dict[str, Any], rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """These rows, and those of other arms and seeds in the file, if it is of the same size."""
    known = json.loads(path.read_text()) if path.is_file() else {}
    new = {(row["arm"], row["seed"]) for row in rows}
    if any(known.get(name) != value for name, value in size.items()):
        return rows
    return [row for row in known["rows"] if (row["arm"], row["seed"]) not in new] + rows


def measured(arm: str, seed: int, options: argparse.Namespace) -> list[dict[str, Any]]:
    """The student of one arm and seed, trained unless that was done, under every condition."""
    size = f"{options.steps}" + (f"x{options.batches}" if options.batches else "")
    folder = options.out / f"{options.student}-{size}" / f"{arm.replace(' ', '-').replace(',', '')}-{seed}"
    for shared in ("clips", "posteriors"):  # the same for all arms: decoded, altered and answered to once
        (options.out / shared).mkdir(parents=True, exist_ok=True)
        (folder / "work").mkdir(parents=True, exist_ok=True)
        if not (folder / "work" / shared).exists():
            (folder / "work" / shared).symlink_to((options.out / shared).resolve())
    recipe, progress = recipe_of(arm, seed, options), TerminalProgress()
    compress(recipe, folder, progress)
    subject = open_subject(str(folder / f"01-{recipe.stages[0].name}"))
    settings = Settings(parse(CONDITIONS), voices="demo", splits=() if options.test else (VALID,))
    rows = []
    for corpus in ("demo", *([str(options.data / "grid")] if options.data else [])):
        name = Path(corpus).name
        for row in evaluate(subject, corpus, settings, folder / f"evaluated-{name}", progress):
            rows.append({"arm": arm, "seed": seed, "corpus": name} | row)
    return rows


def recipe_of(arm: str, seed: int, options: argparse.Namespace) -> Recipe:
    """The distill stage of the recipe with this arm's change; without a teacher what of it is training."""
    base = Recipe.load(options.recipe)
    stage = next(step.distill for step in base.stages if step.distill is not None)
    settings = stage.model_dump(mode="json") | {"steps": options.steps, "student": {"preset": options.student}}
    batches = options.batches or settings["processes"] * settings["accumulate"]  # by however many processes
    processes = gcd(options.processes, batches)  # each has as many
    settings |= {"processes": processes, "accumulate": batches // processes}
    for item in settings["mix"]:  # of all arms the same, also where nobody teaches
        item["word_times"] = item["word_times"] and base.model
    if arm == ALONE:
        model, settings = {"preset": options.student}, {name: settings[name] for name in Train.model_fields}
        step = {"train": settings}
    else:
        model, step = base.model, {"distill": Distill.model_validate(settings | ARMS[arm]).model_dump(mode="json")}
    return Recipe.model_validate({"name": "arm", "model": model, "corpus": "demo", "seed": seed, "stages": [step]})


def table(rows: list[dict[str, Any]], arms: list[str]) -> str:
    """Markdown: an arm a line, WER in percent, median over the seeds [lowest, highest]."""
    found = defaultdict(list)
    for row in rows:
        found[row["arm"], f"{row['corpus']} {row['split']} {row['condition']}"].append(row["wer"])
    columns = list(dict.fromkeys(column for _, column in found))
    lines = [f"| | {' | '.join(columns)} |", f"|---|{'---:|' * len(columns)}"]
    for arm in arms:
        cells = [found[arm, column] for column in columns]
        texts = [f"{median(c):.1f} [{min(c):.1f}, {max(c):.1f}]" if c else "–" for c in cells]
        lines.append(f"| {arm} | {' | '.join(texts)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
