"""The command line: one short function per command. Heavy imports stand inside, so that --help stays instant.

Results go to stdout (`--json` for programs), progress and messages to stderr.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgeav import __version__, catalog, cli_data, cli_devices, cli_evaluate, cli_explain, console, doctor, show, spec
from edgeav.cli_options import Json, Overrides, Readings
from edgeav.progress import TerminalProgress
from edgeav.recipe import Recipe
from edgeav.target import Precision, Target

RUNS = Path("runs")
app = typer.Typer(
    name="edgeav",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Example: edgeav compress recipes/int8.yaml\n\n"
    "Compress audio-visual speech recognition models and run them on small devices.",
)

models_app = typer.Typer(pretty_exceptions_enable=False)
app.add_typer(models_app, name="models", short_help="The models that a recipe can name; import others.")
app.add_typer(cli_data.app, name="data", short_help="Corpora: prepare one for training, look at one.")
app.command("evaluate", short_help="WER and CER of a model or bundle, by condition.")(cli_evaluate.evaluate)
app.command("explain", short_help="What a run chose: candidates, widths, ranks, formats, and why.")(cli_explain.explain)
app.command("join", short_help="Work along at the search of a run.")(cli_explain.join)
app.command("profile", short_help="Measure a bundle on one device, or on many.")(cli_devices.profile)
app.command("devices", short_help="What is declared, and what can be reached.")(cli_devices.devices)
app.command("diff", short_help="What changed between two profiles or reports.")(cli_devices.diff)

RecipeName = Annotated[str, typer.Argument(metavar="RECIPE", help="A shipped recipe's name, or a YAML file.")]
RunDir = Annotated[Path | None, typer.Option(help="Where the run is kept; default runs/NAME.")]


def main() -> None:
    """The entry point: `app` with the exit codes of `console`."""
    console.run(app)


@app.command(short_help="Run a recipe: compress, export, measure, judge.")
def compress(recipe: RecipeName, overrides: Overrides = None, run_dir: RunDir = None, as_json: Json = False) -> None:
    """Example: edgeav compress recipes/int8.yaml --set corpus=path/to/grid

    Run a recipe: its stages, its exports, the measurements on its devices and the verdict of its budget.
    What an earlier run has finished is not done again. Exit code 1: the budget is broken.
    """
    chosen = Recipe.load(recipe, overrides or [])
    folder = _ready_run(chosen, run_dir)
    from edgeav.compress import compress

    report = compress(chosen, folder, TerminalProgress())
    show.report(report, folder, as_json)
    if not report.verdict.passed:
        raise typer.Exit(console.EXIT_BUDGET_BROKEN)


@app.command(short_help="Show what a run would do, and what is done already.")
def plan(recipe: RecipeName, overrides: Overrides = None, run_dir: RunDir = None, as_json: Json = False) -> None:
    """Example: edgeav plan recipes/int8.yaml

    Show the steps of a run before any work: which are cached, which are missing, and why.
    """
    chosen = Recipe.load(recipe, overrides or [])
    folder = _ready_run(chosen, run_dir)
    from edgeav.compress import plan

    rows = plan(chosen, folder)
    console.print_json(rows) if as_json else console.print_table(rows, ["step", "state", "why"])


@app.command(short_help="Clips in, text out, with a bundle.")
def transcribe(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="Video or audio files.")],
    bundle: Annotated[Path | None, typer.Option(help="Default: the newest under runs/.")] = None,
    threads: Annotated[int, typer.Option(min=1, max=1024)] = 1,
    face_model: Annotated[Path | None, typer.Option(help="YuNet ONNX file, for a better face search.")] = None,
    readings: Readings = "one",
    as_json: Json = False,
) -> None:
    """Example: edgeav transcribe clip.mp4 --bundle runs/int8/bundles/onnxruntime-int8

    Recognize the speech in clips: from the file to the text, with sound, with pictures, or with both.
    """
    console.check_files([*files, *([face_model] if face_model else [])])
    from edgeav.transcribe import newest_bundle, transcribe_files

    folder = bundle or newest_bundle(RUNS)
    rows = transcribe_files(files, folder, TerminalProgress(), threads, face_model, readings)
    console.print_json(rows) if as_json else show.transcripts(rows)
    if any("error" in row for row in rows):
        raise typer.Exit(console.EXIT_USER_ERROR)


@app.command(short_help="Make one bundle of a model, without a recipe.")
def export(
    model: Annotated[str, typer.Argument(help="A name from `edgeav models`, or a model folder.")],
    target: Annotated[str, typer.Option(help="A shipped target's name, or a YAML file.")] = "onnxruntime",
    precision: Annotated[Precision, typer.Option()] = "fp32",
    corpus: Annotated[str, typer.Option(help="Where calibration and golden clips come from.")] = "demo",
    out: Annotated[Path | None, typer.Option(help="Default: bundles/MODEL-TARGET-PRECISION.")] = None,
    overrides: Overrides = None,
    as_json: Json = False,
) -> None:
    """Example: edgeav export av-fast-conformer-demo --target openvino --precision int8

    Export a model to one runtime, reload the artifact and compare it with the original.
    --set changes the target's settings.
    """
    chosen = Target.load(target, overrides or [])
    folder = out or Path("bundles") / f"{Path(model).name}-{chosen.name}-{precision}"
    console.check_writable(folder, "--out")
    from edgeav.runtime.engines import extra_of

    doctor.require(["compress", extra_of(chosen.engine)])
    from edgeav.compress import export_one

    bundle = export_one(model, chosen, precision, corpus, folder)
    console.print_json({"bundle": str(folder), "size_mb": bundle.size_bytes / 1e6}) if as_json else print(folder)


@app.command(short_help="Show the report of a run again.")
def report(
    run: Annotated[Path, typer.Argument(help="The folder of a run.")] = RUNS / "int8", as_json: Json = False
) -> None:
    """Example: edgeav report runs/int8

    Show the table of a finished run and write its report.html and report.md anew.
    """
    from edgeav.report import load, write

    found = load(run)
    write(found, run)
    show.report(found, run, as_json)


@models_app.callback(invoke_without_command=True)
def models(context: typer.Context, as_json: Json = False) -> None:
    """Example: edgeav models

    List the models that come with edgeav. For those of others: edgeav models import --help
    """
    if context.invoked_subcommand is not None:
        return
    rows = catalog.list_models()
    console.print_json(rows) if as_json else console.print_table(rows, list(rows[0]) if rows else ["name"])


@models_app.command("import", short_help="Another project's weights -> a model folder.")
def import_(
    source: Annotated[
        str,
        typer.Argument(metavar="SOURCE", help="A .pth, .ckpt, .safetensors, .nemo or .hama file, a folder, or hama."),
    ],
    out: Annotated[Path | None, typer.Option(help="Default: models/NAME, after the source.")] = None,
    units: Annotated[Path | None, typer.Option(help="Token list of an Auto-AVSR checkpoint.")] = None,
    as_json: Json = False,
) -> None:
    """Example: edgeav models import vsr_trlrs3_base.pth --units unigram5000_units.txt --out models/teacher

    Read a model of Auto-AVSR, NeMo, Hugging Face's Parakeet or hama into a model folder. None of its code is run.
    """
    folder = out or catalog.import_folder(source)
    console.check_writable(folder, "--out")
    doctor.require(["compress"])
    from edgeav.importers import import_model

    with TerminalProgress().busy(f"importing {source}"):
        result = import_model(source, folder, units)
    console.print_json(result) if as_json else show.imported(result)


@app.command(short_help="The recipes, targets and devices that come with edgeav.")
def recipes(
    name: Annotated[str | None, typer.Argument(help="Print this recipe's YAML.")] = None,
    overrides: Overrides = None,
    schema: Annotated[bool, typer.Option(help="Print the JSON schema of a recipe, for editors.")] = False,
    as_json: Json = False,
) -> None:
    """Example: edgeav recipes int8 > my-recipe.yaml

    List the shipped recipes, or print one to start from. With --set or --json it is checked and resolved.
    """
    if schema:
        console.print_json(spec.json_schema(Recipe))
    elif name is None:
        rows = [{"recipe": key, "for": show.purpose(path)} for key, path in spec.shipped("recipes").items()]
        console.print_json(rows) if as_json else console.print_table(rows, ["recipe", "for"])
    elif as_json:
        console.print_json(Recipe.load(name, overrides or []).model_dump(mode="json", exclude_none=True))
    elif overrides:
        print(spec.dump(Recipe.load(name, overrides)), end="")
    else:
        print(spec.read_text(spec.find("recipes", name)), end="")


@app.command("doctor", short_help="What works on this machine, and what to type for the rest.")
def check(as_json: Json = False) -> None:
    """Example: edgeav doctor

    Versions, the CPU's instruction sets, and which engines and extras work here.
    """
    with TerminalProgress().busy("importing every extra"):
        found = doctor.examine()
    console.print_json(found) if as_json else show.health(found)


@app.command(short_help="The version of edgeav.")
def version(as_json: Json = False) -> None:
    """Example: edgeav version"""
    console.print_json({"edgeav": __version__}) if as_json else print(__version__)


def _ready_run(recipe: Recipe, run_dir: Path | None) -> Path:
    """The run's folder, after a look at what would stop the run later: extras, engines, the disk."""
    from edgeav.runtime.engines import extra_of

    searches = [item.search for item in recipe.stages if item.search]
    targets = [*recipe.targets, *(Target.load(search.target) for search in searches)]
    doctor.require(["compress", *["search"][: len(searches)], *(extra_of(target.engine) for target in targets)])
    folder = run_dir or RUNS / recipe.name
    console.check_writable(folder, "--run-dir")
    return folder
