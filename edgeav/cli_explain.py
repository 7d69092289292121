"""`edgeav explain`: which role of a run's model has which number format, and what was measured to decide it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from edgeav import console
from edgeav.errors import EdgeavError

RUN = Path("runs") / "int8"


def explain(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a run.")] = RUN,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Example: edgeav explain runs/int8

    The number format of each role; after `keep_float: auto` also what each role costs in drift and WER, the
    milliseconds it saves, and which of them stay in float.
    """
    from edgeav.quant.plan import FILE as PLAN
    from edgeav.quant.sensitivity import FILE, load_sensitivity, markdown, rows

    found = sorted(run.glob(f"*/{PLAN}"))
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
