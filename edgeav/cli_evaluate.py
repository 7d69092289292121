"""`edgeav evaluate`: how good a model or a bundle is, under which conditions."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from edgeav import console, doctor
from edgeav.cli_options import Json, Readings
from edgeav.progress import TerminalProgress

LANGUAGE = "What the decoders know"
NOISE = "Noise"


def evaluate(
    model: Annotated[
        str, typer.Argument(metavar="MODEL|BUNDLE", help="A model's name or folder, or a bundle's folder.")
    ],
    corpus: Annotated[str, typer.Option(help="`demo`, or the folder of a corpus.")] = "demo",
    split: Annotated[list[str] | None, typer.Option(help="Default: every test split. Can be repeated.")] = None,
    conditions: Annotated[str | None, typer.Option(help="Such as av,a@0dB,v,av+missing50; instead of --grid.")] = None,
    grid: Annotated[Literal["short", "standard"], typer.Option(help="A set of conditions.")] = "short",
    decoder: Annotated[
        list[str] | None, typer.Option(help="greedy (default), lexicon, ngram, grammar. Can be repeated.")
    ] = None,
    words: Annotated[Path | None, typer.Option(help="One word a line.", rich_help_panel=LANGUAGE)] = None,
    grammar: Annotated[str | None, typer.Option(help="`grid`, or a JSON file.", rich_help_panel=LANGUAGE)] = None,
    lm: Annotated[Path | None, typer.Option(help="An ARPA file.", rich_help_panel=LANGUAGE)] = None,
    lm_weight: Annotated[float | None, typer.Option(min=0, rich_help_panel=LANGUAGE)] = None,
    word_bonus: Annotated[float | None, typer.Option(help="For every word.", rich_help_panel=LANGUAGE)] = None,
    beam: Annotated[int | None, typer.Option(min=1, help="Width.", rich_help_panel=LANGUAGE)] = None,
    voices: Annotated[str | None, typer.Option(help="The corpus that babbles.", rich_help_panel=NOISE)] = None,
    recordings: Annotated[Path | None, typer.Option(help="A folder of noise.", rich_help_panel=NOISE)] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of noise and faults.", rich_help_panel=NOISE)] = 0,
    readings: Readings = "one",
    limit: Annotated[int | None, typer.Option(min=1, help="Clips of each split, taken evenly.")] = None,
    drawing: Annotated[int, typer.Option(min=0, help="Of a generated corpus: other sentences, held-out voices.")] = 0,
    out: Annotated[Path | None, typer.Option(help="Default: runs/evaluate-MODEL-CORPUS.")] = None,
    threads: Annotated[int, typer.Option(min=1, max=1024)] = 1,
    as_json: Json = False,
) -> None:
    """Example: edgeav evaluate av-fast-conformer-demo --corpus path/to/grid --conditions av,a@0dB,v,av+frozen

    Word and character error rates with their intervals, by split and condition, and every transcript.
    What is done already is not done again.
    """
    from edgeav.data.conditions import GRIDS, parse

    wanted = parse(conditions.split(",") if conditions else GRIDS[grid])
    folder = out or Path("runs") / f"evaluate-{Path(model).name}-{Path(corpus).name}"
    console.check_writable(folder, "--out")
    doctor.require(["compress"])
    import torch

    from edgeav.decoders import Language
    from edgeav.evaluate import Settings
    from edgeav.evaluate import evaluate as measure
    from edgeav.runtime.lexicon import Beam
    from edgeav.subject import open_subject

    torch.set_num_threads(threads)
    given = {"width": beam, "lm_weight": lm_weight, "word_bonus": word_bonus}
    search = replace(Beam(), **{name: value for name, value in given.items() if value is not None})
    subject, language = open_subject(model, threads, readings), Language((), words, grammar, lm, search)
    settings = Settings(wanted, decoder or ("greedy",), split or (), limit, seed, voices, recordings, language, drawing)
    rows = measure(subject, corpus, settings, folder, TerminalProgress())
    facts = {
        "model": subject.name,
        "engine": subject.engine,
        "corpus": corpus,
        "seed": seed,
        "drawing": drawing,
        "threads": threads,
        "readings": readings,
    }
    _report(facts, rows, folder, as_json)


def _report(facts: dict[str, Any], rows: list[dict[str, Any]], folder: Path, as_json: bool) -> None:
    """Write evaluation.json and evaluation.md, and print one of them."""
    from edgeav.results import provenance
    from edgeav.run import write_json
    from edgeav.verdicts import judge, summary, table

    verdicts = judge(rows)
    facts |= provenance()
    result = facts | {"rows": rows, "verdict": summary(verdicts), "verdicts": [v.as_dict() for v in verdicts]}
    write_json(folder / "evaluation.json", result)
    said = ", ".join(
        f"{key} {facts[key]}" for key in ("model", "engine", "corpus", "seed", "threads", "readings", "commit", "cpu")
    )
    lines = [
        f"# {facts['model']} on {Path(facts['corpus']).name}",
        "",
        said,
        "",
        table(rows),
        "",
        summary(verdicts),
        "",
    ]
    (folder / "evaluation.md").write_text("\n".join([*lines, *(f"- {v.say}" for v in verdicts), ""]), encoding="utf-8")
    if as_json:
        console.print_json(result)
        return
    print("\n".join([table(rows), "", summary(verdicts), f"transcripts: {folder / 'transcripts'}"]))
