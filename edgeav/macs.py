"""What a model costs to run, counted by PyTorch on its own operators."""

from __future__ import annotations

import torch
from torch.utils.flop_counter import FlopCounterMode

from edgeav.models import AVModel
from edgeav.runtime.features import STEPS_PER_SECOND, empty_inputs

SECONDS = 4.0  # attention grows with the square of the length: the figure is for an utterance of this length


def gmac_per_second(model: AVModel) -> float:
    """Billion multiply-accumulates for one second of sound and picture, within an utterance of 4 s."""
    inputs = empty_inputs(round(SECONDS * STEPS_PER_SECOND))
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        model(*(torch.from_numpy(array) for array in inputs))
    return round(counter.get_total_flops() / 2 / SECONDS / 1e9, 4)
