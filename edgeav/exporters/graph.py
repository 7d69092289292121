"""The one torch.export that every target starts from: batch 1, N steps dynamic, the three inputs tied to N.

Derived dimensions (8 N mel frames, 2 N video frames) keep the graph free of shape arithmetic and free of guards.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.export import Dim, ExportedProgram

from edgeav.models import AVModel
from edgeav.runtime.features import MEL_FRAMES_PER_STEP, MIN_STEPS, VIDEO_FRAMES_PER_STEP

EXAMPLE_STEPS = 24  # no other dimension of a model has this size, so that nothing ties to N by accident


def trace(model: AVModel, max_steps: int) -> ExportedProgram:
    """`model` as a graph for MIN_STEPS..`max_steps` steps (at most what its position table holds)."""
    return trace_module(model, example_inputs(model), max_steps)


def trace_module(module: torch.nn.Module, example: tuple[Tensor, ...], max_steps: int) -> ExportedProgram:
    """Any module with a model's inputs, for example an already traced and quantized one."""
    steps = Dim("n", min=MIN_STEPS, max=max_steps)
    shapes = ({1: MEL_FRAMES_PER_STEP * steps}, {1: VIDEO_FRAMES_PER_STEP * steps}, {1: steps})
    return torch.export.export(module, example, dynamic_shapes=shapes)


@contextmanager
def quiet() -> Iterator[None]:
    """Without the exporters' notes for their own developers: torchvision absent, deprecations, steps already done."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)


def example_inputs(model: AVModel, steps: int = EXAMPLE_STEPS) -> tuple[Tensor, Tensor, Tensor]:
    """(1, 8N, mels), (1, 2N, crop, crop), (1, N, 2) of the right shapes; the values do not matter."""
    config = model.config
    mel = torch.zeros(1, MEL_FRAMES_PER_STEP * steps, config.inputs.audio.mels)
    video = torch.zeros(1, VIDEO_FRAMES_PER_STEP * steps, config.inputs.video.crop, config.inputs.video.crop)
    return mel, video, torch.ones(1, steps, 2)
