"""`edgeav data …`: corpora that users have. Heavy imports stand inside."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from edgeav import console, doctor
from edgeav.cli_options import Json
from edgeav.progress import TerminalProgress

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Example: edgeav data prepare path/to/lrs3 --out data/lrs3\n\nMake a corpus ready for training; look at one.",
)


@app.command(short_help="Clips and transcripts -> mouths, sound and a manifest.")
def prepare(
    source: Annotated[Path, typer.Argument(metavar="SOURCE", help="A corpus's folder, or a list of clips.")],
    out: Annotated[Path, typer.Option(help="The folder to fill; the same command goes on with it.")],
    workers: Annotated[int, typer.Option(min=1, max=1024, help="Processes.")] = 1,
    face_model: Annotated[Path | None, typer.Option(help="YuNet ONNX file, for a better face search.")] = None,
    units: Annotated[Path | None, typer.Option(help="Token list of Auto-AVSR's lists.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Prepare so many clips, in turn from each split.")] = None,
    seed: Annotated[int, typer.Option(help="Chooses the speakers held out.")] = 0,
    as_json: Json = False,
) -> None:
    """Example: edgeav data prepare path/to/grid --out data/grid --workers 4

    Read GRID, LRS2, LRS3, Auto-AVSR, AV-HuBERT or NeMo lists, or a folder of clips with .txt files; find the face, cut
    96x96 mouths at 25 a second, resample the sound to 16 kHz. Clips that cannot be used are listed in rejected.jsonl.
    """
    console.check_files([path for path in (face_model, units) if path])
    console.check_writable(out, "--out")
    doctor.require(["video", "compress", *(["onnxruntime"] if face_model else [])])
    from edgeav.data.facts import corpus_facts
    from edgeav.data.prepare import Settings
    from edgeav.data.prepare import prepare as prepare_corpus

    settings = Settings(face_model, units, limit, seed, workers)
    result = prepare_corpus(source, out, settings, TerminalProgress())
    _print(corpus_facts(out) | result, as_json)


@app.command(short_help="What a corpus is: splits, speakers, hours, words.")
def show(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="A folder with manifest.jsonl.")],
    as_json: Json = False,
) -> None:
    """Example: edgeav data show data/grid

    Splits, speakers (seen or unseen in training), hours, vocabulary, modalities, examples.
    """
    doctor.require(["video", "compress"])
    from edgeav.data.facts import corpus_facts

    _print(corpus_facts(folder), as_json)


def _print(facts: dict[str, Any], as_json: bool) -> None:
    """The facts as a table of splits, examples below; or as JSON."""
    if as_json:
        console.print_json(facts)
        return
    columns = ["split", "clips", "hours", "speakers", "known", "tracks", "words", "new"]  # fit 80 letters
    console.print_table(facts["splits"], columns)
    for row in facts["splits"]:
        for text in row["examples"]:
            print(f"{row['split']}: {text}")
    print("{folder}: {clips} clips, {hours} hours, {speakers} speakers, {vocabulary} words".format(**facts))
    for reason, count in facts["rejected"].items():
        print(f"rejected: {count} {reason}")
    for note in facts.get("notes", []):
        print(note)
