"""`edgeav explain` and `edgeav join`: what a run decided by measuring, and more hands for its search."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

import typer

from edgeav import console
from edgeav.cli_options import Json
from edgeav.errors import EdgeavError

RUN = Path("runs") / "int8"
FIRST_TURN = 256  # the numbers below are those of the workers that a recipe starts


def explain(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a run.")] = RUN,
    as_json: Json = False,
) -> None:
    """Example: edgeav explain runs/int8

    After a `search` the candidates that no other dominates, and which of them goes on. The number format of each role;
    after `keep_float: auto` also what each role costs in drift and WER, the
    milliseconds it saves, and which of them stay in float.
    """
    from edgeav.quant.plan import FILE as PLAN
    from edgeav.quant.sensitivity import FILE, load_sensitivity, markdown, rows

    searched = _search(run, as_json)
    found = sorted(run.glob(f"*/{PLAN}"))
    if searched and (as_json or not found):
        return
    if not found:
        raise EdgeavError(f"{run}: no stage of this run has quantized anything; run a recipe with `quantize` first")
    folder = found[-1].parent
    if not (folder / FILE).is_file():
        _print(formats(folder), as_json)
        return
    measured = load_sensitivity(folder)
    if as_json:
        console.print_json(rows(measured))
    else:
        console.print_table(rows(measured), list(rows(measured)[0]) if measured.rows else ["role"])
        print("\n".join(markdown(measured).splitlines()[-2:]))


def join(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a run whose search goes on.")],
    turn: Annotated[int | None, typer.Option(min=1, help="A number that no other worker of this search has.")] = None,
) -> None:
    """Example: edgeav join runs/small

    Do some of the trials of a search that `edgeav compress` has begun, in this process, until none is left. The run's
    folder may be shared by several machines, if they have the same processor and find the corpus at the same path.
    """
    from edgeav.progress import TerminalProgress
    from edgeav.search.job import find_job
    from edgeav.search.worker import join

    job, place = find_job(run)
    print(f"{join(job, place, run, turn or FIRST_TURN + os.getpid(), TerminalProgress())} trials done here")


def _search(run: Path, as_json: bool) -> bool:
    """Print what a search of this run found; whether there was one."""
    from edgeav.search.result import load_search, table

    loaded = load_search(run)
    if loaded is None:
        return False
    found, _ = loaded
    if as_json:
        console.print_json(found.model_dump(mode="json"))
        return True
    if found.front:
        console.print_table(table(found), list(table(found)[0]))
    print("\n".join(found.summary))
    return True


def formats(folder: Path) -> list[dict[str, str]]:
    """Role by role, what the plan in `folder` says."""
    from edgeav.quant.plan import ROLES, load_plan

    plan = load_plan(folder)
    return [{"role": role, "format": plan.format_of_role(role)} for role in ROLES]


def _print(data: list[dict[str, Any]], as_json: bool) -> None:
    if as_json:
        console.print_json(data)
        return
    console.print_table(data, list(data[0]))
    print("Nothing was measured; `keep_float: auto` with `wer_budget_abs` in the recipe measures each role.")
