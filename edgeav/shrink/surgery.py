"""Remove units and blocks: a smaller AVModel whose model.json rebuilds it. The weights that stay are not changed."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from edgeav.models import AVModel, ModelConfig
from edgeav.shrink.groups import STACKS, groups_of, removable_blocks, spelled_out
from edgeav.shrink.places import Group, block_of, selected


def cut(model: AVModel, kept: Mapping[str, Tensor], dropped: Collection[str] = ()) -> AVModel:
    """A copy of `model` with the units `kept` (name of a group -> (K,) sorted) and without the blocks `dropped`.

    Groups that are not named stay whole. ValueError for a name that the model does not have.
    """
    groups = {group.name: group for group in groups_of(model)}
    unknown = (set(kept) - set(groups)) | (set(dropped) - set(removable_blocks(model.config)))
    if unknown:
        raise ValueError(f"this model has no {', '.join(sorted(unknown))} to remove units from")
    weights = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
    for name, units in kept.items():
        for place in (*groups[name].made, *groups[name].read):
            weights[place.tensor] = selected(weights[place.tensor], place, units)
    config = _narrowed(model.config, [(groups[name], len(units)) for name, units in kept.items()])
    return rebuilt(*_without(config, weights, dropped), model.positions)


def rebuilt(config: ModelConfig, weights: dict[str, Tensor], positions: Tensor) -> AVModel:
    """The model of `config` with these weights and this table of positions, in evaluation mode."""
    with torch.device("meta"):  # no random numbers for what is replaced here
        model = AVModel(config)
    model.load_state_dict(weights, assign=True)
    model.positions = positions.detach().clone()
    return model.eval()


def _narrowed(config: ModelConfig, counts: Sequence[tuple[Group, int]]) -> ModelConfig:
    settings = spelled_out(config).model_dump(mode="json")
    for group, count in counts:
        node: Any = settings
        for key in group.setting[:-1]:
            node = node[key]
        node[group.setting[-1]] = count
    return ModelConfig.model_validate(settings)


def _without(
    config: ModelConfig, weights: dict[str, Tensor], dropped: Collection[str]
) -> tuple[ModelConfig, dict[str, Tensor]]:
    """The last norm of a dropped block takes the place of that of the block before.

    With nothing between them the two norms are one: the second normalizes again what the first had normalized.
    """
    for path in sorted(dropped, key=lambda path: int(path.rpartition(".")[2]), reverse=True):
        stack, _, number = path.rpartition(".")
        for name in ("weight", "bias"):
            weights[f"{stack}.{int(number) - 1}.norms.4.{name}"] = weights[f"{path}.norms.4.{name}"]
    moves = {old: new for stack in STACKS for old, new in _numbers(config, stack, dropped)}
    renamed = {_renamed(name, moves): weight for name, weight in weights.items()}
    settings = config.model_dump(mode="json")
    for stack in STACKS:
        settings[stack] = [block for place, block in enumerate(settings[stack]) if f"{stack}.{place}" not in dropped]
    settings["ranks"] = {new: rank for old, rank in config.ranks.items() if (new := _renamed(old, moves))}
    settings["inter_ctc"] = _places(config, dropped)
    return ModelConfig.model_validate(settings), {name: weight for name, weight in renamed.items() if name}


def _numbers(config: ModelConfig, stack: str, dropped: Collection[str]) -> list[tuple[str, str]]:
    """(path of each block, its path afterwards or "")."""
    paths = [f"{stack}.{index}" for index in range(len(getattr(config, stack)))]
    stay = [path for path in paths if path not in dropped]
    return [(path, f"{stack}.{stay.index(path)}" if path in stay else "") for path in paths]


def _renamed(name: str, moves: Mapping[str, str]) -> str:
    """The name of a tensor or layer afterwards; "" if it is gone."""
    block = block_of(name)
    if block not in moves:
        return name
    return moves[block] + name.removeprefix(block) if moves[block] else ""


def _places(config: ModelConfig, dropped: Collection[str]) -> list[int]:
    """Behind which blocks the CTC head is applied too; behind a dropped one: behind the one before it."""
    gone = [f"blocks.{index}" in dropped for index in range(len(config.blocks))]
    moved = {place - sum(gone[:place]) for place in config.inter_ctc}
    return sorted(place for place in moved if 1 <= place < len(gone) - sum(gone))
