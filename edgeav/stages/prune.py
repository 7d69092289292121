"""Prune: remove the units, heads, channels and blocks that matter least, until a budget holds.

The model is really smaller afterwards: no masks, no zeros; model.json counts what is left. An example:

    stages:
      - prune:
          budget: {macs: 0.5}                # or {parameters: 0.5}, {time: 0.6}, {milliseconds: 12}
          rounds: 2                          # each scored anew, then finetuned
          finetune: {teacher: before, mix: [{corpus: demo, per_batch: 8}], steps: 1000}

What depends on what: edgeav/shrink/groups.py; what a unit is worth: importance.py, gates.py; what goes: choice.py.
Little by little with training in between loses less than all at once (Han et al. 2015,
https://arxiv.org/abs/1506.02626). docs/shrink.md explains the settings.
"""

from __future__ import annotations

import shutil
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, model_validator

from edgeav.errors import EdgeavError
from edgeav.shrink.budget import Budget
from edgeav.stages.recovery import Recovery, facts_of, once, recover, scratch
from edgeav.stages.stage import Stage, copy_files

if TYPE_CHECKING:
    from edgeav.models import AVModel
    from edgeav.run import Run

REPORT = "prune.json"
Prunable = Literal["feed-forward", "heads", "conv-channels", "cnn-channels", "fusion", "blocks"]
ALL: tuple[Prunable, ...] = ("feed-forward", "heads", "conv-channels", "cnn-channels", "fusion", "blocks")


class Prune(Stage):
    """Structured pruning of whole units to one budget for the whole model."""

    budget: Budget
    """What may be left, by one measure: macs, parameters, time or milliseconds."""
    importance: Literal["taylor", "magnitude", "l0"] = "taylor"
    """Taylor: what the loss would grow by, to first order. Magnitude: needs no clips. L0: learned gates."""
    clips: int = Field(64, ge=1, le=100_000)
    """Training clips for `taylor` and `l0`."""
    passes: int = Field(1, ge=1, le=1000)
    """How often they are gone through; `l0` learns something in each batch of 4 and needs some hundred."""
    rounds: int = Field(1, ge=1, le=100)
    """Steps on the way to the budget, each removing the same share of what is left."""
    multiple: Literal[8, 16, 32] = 8
    """Widths are multiples of this, as kernels like them; numbers of heads are free."""
    floor: float = Field(0.1, ge=0, le=1)
    """Share of each group that stays in every round, whatever it is worth."""
    kinds: tuple[Prunable, ...] = Field(default=ALL, strict=False)
    """What may be removed."""
    runtime: Literal["onnxruntime", "openvino"] | None = "onnxruntime"
    """Where milliseconds are measured, on one thread; null: nowhere."""
    finetune: Recovery | None = None
    """After each round: settings of `train`, or with a `teacher` of `distill`; nothing: no training."""

    @model_validator(mode="after")
    def _time_needs_a_runtime(self) -> Prune:
        if self.budget.timed and self.runtime is None:
            raise ValueError("a budget in time needs a runtime: onnxruntime or openvino")
        return self

    def facts(self) -> dict[str, str]:
        return facts_of(self.finetune)

    def apply(self, model_folder: Path, out: Path, run: Run) -> None:
        from edgeav.run import read_json

        work, folder, rows = scratch("prune", self, model_folder, run), model_folder, []
        table = self._table()  # one for all rounds: a shape is measured once
        for number in range(1, self.rounds + 1):
            cut = partial(self._cut, number, model_folder, folder, table, run=run)
            folder = self._round(once(work / f"{number}-cut", cut), model_folder, run)
            rows.append(read_json(folder / REPORT))
        copy_files(folder, out)
        self._report(model_folder, out, rows)

    def _round(self, cut: Path, first: Path, run: Run) -> Path:
        """The folder of the model after a round, made once: a killed run goes on with the next."""
        if self.finetune is None:
            return cut
        trained = cut.with_name(cut.name.replace("cut", "finetuned"))
        return once(trained, lambda part: self._recover(cut, first, part, run))

    def _recover(self, smaller: Path, first: Path, out: Path, run: Run) -> None:
        assert self.finetune is not None
        recover(self.finetune, smaller, first, out, run)
        shutil.copy2(smaller / REPORT, out / REPORT)

    def _cut(self, number: int, first: Path, before: Path, table: Any, out: Path, run: Run) -> None:
        from edgeav.models import load_model, save_model
        from edgeav.run import write_json
        from edgeav.shrink.rounds import cost_of, prune_once

        model = load_model(before)
        whole, fixed = self._whole(load_model(first), table)
        share = self.budget.share_of(whole) ** (number / self.rounds)
        cost, target = cost_of(model, self.budget, table), share * whole - fixed
        scores = self._scores(model, before, target / cost.total(cost.units), run)
        smaller, row = prune_once(model, scores, cost, target, self._rules())
        _check_reached(row, number)
        copy_files(before, out)
        save_model(smaller, out)
        write_json(out / REPORT, {"round": number, "share": round(share, 4)} | row)

    def _whole(self, model: AVModel, table: Any) -> tuple[float, float]:
        """What the first model costs, and how much of it no pruning changes: what is not in the table."""
        from edgeav.shrink.rounds import cost_of
        from edgeav.shrink.whole import whole_ms

        cost = cost_of(model, self.budget, table)
        layers = cost.total(cost.units)
        if not self.budget.timed:
            return layers, 0.0
        whole = whole_ms(model, table.runtime)
        return whole, max(0.0, whole - layers)

    def _scores(self, model: AVModel, folder: Path, share: float, run: Run) -> dict:
        from edgeav.shrink.groups import groups_of
        from edgeav.shrink.rounds import score, training_clips

        needs = self.importance != "magnitude"
        clips = training_clips(run, folder, model, self.clips, self.passes) if needs else None
        return score(self.importance, model, groups_of(model), clips, min(1.0, max(0.0, share)))

    def _rules(self) -> Any:
        from edgeav.shrink.choice import Rules

        return Rules(frozenset(self.kinds), self.multiple, self.floor)

    def _table(self) -> Any:
        from edgeav.shrink.latency import LatencyTable

        return LatencyTable(self.runtime) if self.budget.timed and self.runtime else None

    def _report(self, before: Path, out: Path, rounds: list[dict]) -> None:
        from edgeav.models import load_model
        from edgeav.run import write_json
        from edgeav.shrink.describe import sizes

        whole = {"before": sizes(load_model(before), self.runtime), "after": sizes(load_model(out), self.runtime)}
        settings = self.model_dump(mode="json", include={"budget", "importance", "multiple", "floor", "kinds"})
        write_json(out / REPORT, {"settings": settings, "model": whole, "rounds": rounds})


def _check_reached(row: dict, number: int) -> None:
    left = row["cost_after"] / row["cost_before"]
    if row["excess"] > 0:
        raise EdgeavError(
            f"prune: round {number}: the budget cannot be reached: with everything removed that may be, {left:.1%} of"
            " the cost is left. Raise the budget, lower `floor` or `multiple`, or allow more `kinds`"
        )
