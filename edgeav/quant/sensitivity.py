"""Which roles of a model suffer in fewer bits, and the fewest that must stay in float for a WER budget to hold.

Each role is quantized alone, then roles are kept in float, the worst first, until validation clips keep the budget, and
given back one by one where it holds without them. Test clips have no part in it. What is measured is the real artifact
of ONNX Runtime: a simulation is only as right as its model of the kernels. One role at a time: Wu et al. 2020
(https://arxiv.org/abs/2004.09602), section 6.

The drift (Kullback-Leibler, float to quantized, mean over steps) decides the order: it is far less noisy than WER.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeav.errors import EdgeavError
from edgeav.quant.plan import Plan, Role
from edgeav.quant.support import check

if TYPE_CHECKING:
    from edgeav.run import Run

FILE = "sensitivity.json"  # beside quantization.json
SCHEMA = "edgeav-sensitivity/1"


@dataclass(frozen=True)
class Effect:
    """What a set of quantized roles does to validation clips. WER in points, with its 95 % interval, over float."""

    drift: float
    wer: float
    low: float
    high: float


@dataclass(frozen=True)
class RoleRow:
    """One role quantized alone. `saved_ms` of a 4 s clip, float minus quantized, by the engine's own profiler."""

    role: Role
    format: str
    effect: Effect
    saved_ms: float
    kept: bool


@dataclass(frozen=True)
class Sensitivity:
    """What sensitivity.json holds."""

    engine: str
    utterances: int
    budget: float
    everything: Effect
    chosen: Effect
    rows: list[RoleRow]
    other_ms: float
    """Saved, or if negative lost, by operators that belong to no role."""
    always_float: tuple[Role, ...] = ()
    """The plan kept them before anything was measured."""

    @property
    def keep_float(self) -> tuple[Role, ...]:
        return (*self.always_float, *(row.role for row in self.rows if row.kept))

    def save(self, folder: Path) -> None:
        from edgeav.run import write_json

        write_json(folder / FILE, {"schema": SCHEMA, **asdict(self)})


def load_sensitivity(folder: Path) -> Sensitivity:
    """What `save` wrote; EdgeavError if it cannot be read."""
    from edgeav.run import read_json

    data = read_json(folder / FILE)
    try:
        if data.pop("schema") != SCHEMA:
            raise ValueError(f"expected {SCHEMA}")
        rows = [RoleRow(**{**row, "effect": Effect(**row["effect"])}) for row in data.pop("rows")]
        effects = {name: Effect(**data.pop(name)) for name in ("everything", "chosen")}
        return Sensitivity(rows=rows, always_float=tuple(data.pop("always_float")), **effects, **data)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise EdgeavError(f"{folder / FILE}: cannot be read ({error}). Delete its folder and run again") from None


def scan_model(folder: Path, plan: Plan, limits: tuple[float, int], run: Run) -> Sensitivity:
    """Scan the model in `folder` on the corpus's validation clips; `limits` are the budget and how many clips."""
    from edgeav.models import load_model
    from edgeav.quant.rod import Rod
    from edgeav.work import calibration_inputs

    check("keep_float: auto (it measures with ONNX Runtime)", "onnxruntime", plan)
    model, (budget, most) = load_model(folder), limits
    valid = run.corpus.valid[:most]
    if not valid:
        raise EdgeavError(
            f"keep_float: auto: corpus {run.corpus.name} has no validation clips; name the roles yourself"
        )
    clips = run.decoded(run.recipe.corpus, run.recipe.seed, f"valid-{len(valid)}", valid)
    shown = plan.calibration if plan.needs_calibration else None
    calibration = calibration_inputs(run, shown, model.config.inputs) if shown else []
    with tempfile.TemporaryDirectory() as place:
        rod = Rod(model, plan, calibration, clips, Path(place))
        run.progress.say(f"sensitivity: {len(clips)} validation clips, at most {2 * len(rod.roles) + 1} artifacts")
        return scan(rod.roles, rod.effect, rod.saved_ms, budget).described(plan, len(clips), budget)


@dataclass(frozen=True)
class Found:
    """What `scan` found out, before it is described."""

    everything: Effect
    chosen: Effect
    alone: dict[Role, Effect]
    kept: tuple[Role, ...]
    saved: Mapping[str, float]

    def described(self, plan: Plan, utterances: int, budget: float) -> Sensitivity:
        rows = [
            RoleRow(role, plan.format_of_role(role), effect, round(self.saved.get(role, 0.0), 3), role in self.kept)
            for role, effect in sorted(self.alone.items(), key=lambda item: -item[1].drift)
        ]
        return Sensitivity(
            engine="onnxruntime",
            utterances=utterances,
            budget=budget,
            everything=self.everything,
            chosen=self.chosen,
            rows=rows,
            other_ms=round(self.saved.get("", 0.0), 3),
            always_float=plan.formats.get("fp32", ()),
        )


def scan(
    roles: Sequence[Role],
    effect: Callable[[tuple[Role, ...]], Effect],
    saved_ms: Callable[[], Mapping[str, float]],
    budget: float,
) -> Found:
    """One role at a time, then greedy. `effect` measures a set of quantized roles; with none it must lose nothing.

    The budget is held against the measured difference, not its interval's end: on few clips no set would pass.
    """
    everything = effect(tuple(roles))
    alone: dict[Role, Effect] = {role: effect((role,)) for role in roles}
    worst_first: list[Role] = sorted(roles, key=lambda role: -alone[role].drift)
    kept: list[Role] = []
    now = everything
    while now.wer > budget and len(kept) < len(roles):
        kept.append(worst_first[len(kept)])
        now = effect(_others(roles, kept))
    for role in reversed(kept[:-1]):  # the last one was needed, or it would not have been kept
        without: list[Role] = [other for other in kept if other != role]
        then = effect(_others(roles, without))
        if then.wer <= budget:
            kept, now = without, then
    return Found(everything, now, alone, tuple(kept), saved_ms())


def _others(roles: Sequence[Role], kept: Sequence[Role]) -> tuple[Role, ...]:
    return tuple(role for role in roles if role not in kept)


def markdown(found: Sensitivity) -> str:
    """The table for people, and what was decided."""
    lines = [
        "| role | format | drift, KL | WER change, points [95 %] | saves, ms | |",
        "|---|---|---:|---:|---:|---|",
        *(_line(row) for row in found.rows),
        f"| no role | | | | {found.other_ms:+.2f} | |",
        "",
        f"All of them quantized: {_points(found.everything)}; as decided: {_points(found.chosen)}; "
        f"budget {found.budget:g}, {found.utterances} validation clips, {found.engine}.",
    ]
    kept = ", ".join(found.keep_float) or "nothing"
    return "\n".join([*lines, f"Stays in float: {kept}."])


def _line(row: RoleRow) -> str:
    kept = "stays in float" if row.kept else ""
    return (
        f"| {row.role} | {row.format} | {row.effect.drift:.5f} | {_points(row.effect)} | {row.saved_ms:+.2f} | {kept} |"
    )


def _points(effect: Effect) -> str:
    return f"{effect.wer:+.2f} [{effect.low:+.2f}, {effect.high:+.2f}]"


def rows(found: Sensitivity) -> list[dict[str, Any]]:
    """The table as plain data, for consoles."""
    return [
        {
            "role": row.role,
            "format": "fp32" if row.kept else row.format,
            "drift": f"{row.effect.drift:.5f}",
            "WER change": _points(row.effect),
            "saves ms": f"{row.saved_ms:+.2f}",
            "": "stays in float" if row.kept else "",
        }
        for row in found.rows
    ]
