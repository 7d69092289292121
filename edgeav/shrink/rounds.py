"""One round of pruning: score, choose, cut; and what is to be said about it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from edgeav.models import AVModel
from edgeav.shrink import cost as costs
from edgeav.shrink.budget import Budget
from edgeav.shrink.choice import Rules, choose, kept_units
from edgeav.shrink.cost import Cost
from edgeav.shrink.gates import l0
from edgeav.shrink.groups import groups_of, removable_blocks
from edgeav.shrink.importance import Scores, by_cost, magnitude, taylor
from edgeav.shrink.latency import LatencyTable
from edgeav.shrink.places import Group, block_of
from edgeav.shrink.surgery import cut

if TYPE_CHECKING:
    from edgeav.data.batch import Batch, Batches
    from edgeav.run import Run

Importance = Literal["taylor", "magnitude", "l0"]
QUANTILES = (0.0, 0.25, 0.5, 0.75, 1.0)
PER_BATCH = 4  # clips


@dataclass(frozen=True)
class Clips:
    """Training batches without noise, in every modality that the model may be left with."""

    batches: Batches
    count: int
    seed: int

    def __iter__(self) -> Iterator[Batch]:
        from edgeav.data.disturbance import Disturbance

        quiet = Disturbance(share=0.0, tempo_share=0.0)
        return (self.batches.batch(self.seed, step, 0, quiet) for step in range(self.count))


def training_clips(run: Run, model_folder: Path, model: AVModel, clips: int, passes: int = 1) -> Clips:
    """`clips` training clips of the recipe's corpus, `passes` times over."""
    from edgeav.data.acoustics import Acoustics, NoiseBank
    from edgeav.data.batch import Batches, Source
    from edgeav.data.text import load_tokenizer

    seed = run.recipe.seed
    decoded = run.decoded(run.recipe.corpus, seed, f"calibration-{clips}-{seed}", run.corpus.calibration(clips, seed))
    longest_s = model.config.max_steps / model.config.inputs.steps_per_second
    sources = [Source(decoded, PER_BATCH, longest_s)]
    batches = Batches(sources, load_tokenizer(model_folder), Acoustics(NoiseBank({})), model.config)
    return Clips(batches, -(-clips * passes // PER_BATCH), seed)


def score(
    importance: Importance, model: AVModel, groups: Sequence[Group], clips: Clips | None, share: float
) -> dict[str, Tensor]:
    """What each unit is worth; `share` of the multiply-accumulates is where the gates of `l0` are to end."""
    work = costs.macs(model, groups, removable_blocks(model.config))
    if importance == "magnitude":
        return by_cost(magnitude(model, groups), work)
    assert clips is not None
    if importance == "taylor":
        return taylor(model, groups, clips)
    return by_cost(l0(model, groups, clips, work, share), work)


def cost_of(model: AVModel, budget: Budget, table: LatencyTable | None) -> Cost:
    """The cost that `budget` is about."""
    groups, blocks = groups_of(model), removable_blocks(model.config)
    if budget.timed:
        assert table is not None
        return costs.milliseconds(model, groups, blocks, table)
    return (costs.macs if budget.measure == "macs" else costs.parameters)(model, groups, blocks)


def prune_once(model: AVModel, scores: Scores, cost: Cost, target: float, rules: Rules) -> tuple[AVModel, dict]:
    """The smaller model whose `cost` is at most `target`, and what was removed."""
    groups, blocks = groups_of(model), removable_blocks(model.config)
    counts, excess = choose(groups, blocks, scores, cost, target, rules)
    dropped = [block for block in blocks if counts.get(block) == 0]
    smaller = cut(model, kept_units(scores, counts), dropped)
    return smaller, {
        "cost_before": cost.total(cost.units),
        "cost_after": cost.total({**cost.units, **counts}),
        "excess": excess,
        "dropped_blocks": dropped,
        "groups": [_row(group, counts.get(group.name, group.units), scores, dropped) for group in groups],
    }


def _row(group: Group, count: int, scores: Scores, dropped: Sequence[str]) -> dict[str, Any]:
    points = torch.quantile(scores[group.name], torch.tensor(QUANTILES, dtype=torch.double)).tolist()
    return {
        "group": group.name,
        "kind": group.kind,
        "before": group.units,
        "after": 0 if block_of(group.name) in dropped else count,
        "importance_quantiles": [float(f"{point:.4g}") for point in points],
    }
