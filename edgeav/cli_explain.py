"""`edgeav explain` and `edgeav join`: what a run decided by measuring, and more hands for its search."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from edgeav import console
from edgeav.cli_options import Json
from edgeav.errors import EdgeavError

RUN = Path("runs") / "int8"
FIRST_TURN = 256  # the numbers below are those of the workers that a recipe starts


@dataclass(frozen=True)
class Finding:
    """What one stage decided: for programs, and for people as a table and lines under it."""

    data: Any
    table: list[dict[str, Any]]
    lines: Sequence[str]


def explain(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a run.")] = RUN,
    as_json: Json = False,
) -> None:
    """Example: edgeav explain runs/int8

    After a `search` the candidates that no other dominates, and which of them goes on. What `prune` left of each group,
    and the rank of each layer after `low_rank`. The number format of each role; after `keep_float: auto` also what each
    role costs in drift and WER, the milliseconds it saves, and which of them stay in float.
    """
    found = _search(run) | _shrunk(run) | _formats(run)
    if not found:
        raise EdgeavError(
            f"{run}: no stage of this run has decided anything; run a recipe with `search`, `prune`, `low_rank` or"
            " `quantize` first"
        )
    if as_json:
        console.print_json({name: one.data for name, one in found.items()})
        return
    for one in found.values():
        if one.table:
            console.print_table(one.table, list(one.table[0]))
        print("\n".join(one.lines))


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


def _search(run: Path) -> dict[str, Finding]:
    from edgeav.search.result import load_search, table

    loaded = load_search(run)
    if loaded is None:
        return {}
    found, _ = loaded
    return {"search": Finding(found.model_dump(mode="json"), table(found) if found.front else [], found.summary)}


def _shrunk(run: Path) -> dict[str, Finding]:
    """Of every such stage, by the name of its folder."""
    from edgeav.run import read_json
    from edgeav.shrink.describe import low_rank_text, prune_text

    found = {}
    for name, text in (("prune", prune_text), ("low_rank", low_rank_text)):
        for path in sorted(run.glob(f"[0-9][0-9]-*/{name}.json")):
            data = read_json(path)
            found[path.parent.name] = Finding(data, [], [f"{path.parent.name}:", *text(data).splitlines()])
    return dict(sorted(found.items()))


def _formats(run: Path) -> dict[str, Finding]:
    """Role by role, what the last plan says, and what was measured for it."""
    from edgeav.quant.plan import FILE as PLAN
    from edgeav.quant.plan import ROLES, load_plan
    from edgeav.quant.sensitivity import FILE, load_sensitivity, markdown, rows

    found = sorted(run.glob(f"*/{PLAN}"))
    if not found:
        return {}
    folder = found[-1].parent
    if (folder / FILE).is_file():
        measured = load_sensitivity(folder)
        table = rows(measured)
        return {"formats": Finding(table, table, markdown(measured).splitlines()[-2:])}
    plan = load_plan(folder)
    table = [{"role": role, "format": plan.format_of_role(role)} for role in ROLES]
    hint = "Nothing was measured; `keep_float: auto` with `wer_budget_abs` in the recipe measures each role."
    return {"formats": Finding(table, table, [hint])}
