"""What a model costs to run, counted by PyTorch on its own operators."""

from __future__ import annotations

import torch
from torch.utils.flop_counter import FlopCounterMode

from edgeav.models import AVModel, ModelConfig
from edgeav.runtime.features import empty_inputs

SECONDS = 4.0  # attention grows with the square of the length: the figure is for an utterance of this length


def typical_steps(config: ModelConfig) -> int:
    """Of an utterance of that length, or of the longest one that the model takes."""
    return min(round(SECONDS * config.inputs.steps_per_second), config.max_steps)


def gmac_per_second(model: AVModel) -> float:
    """Billion multiply-accumulates for one second of sound and picture, within an utterance of 4 s."""
    features, steps = model.config.inputs, typical_steps(model.config)
    inputs = empty_inputs(features, steps)
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        model(*(torch.from_numpy(array) for array in inputs))
    return round(counter.get_total_flops() / 2 / (steps / features.steps_per_second) / 1e9, 4)
