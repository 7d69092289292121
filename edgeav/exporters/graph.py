"""The one torch.export that every target starts from: batch 1, N steps dynamic, all inputs tied to N.

Derived dimensions (8 N log-mel frames, 2 N video frames) keep the graph free of shape arithmetic and free of guards.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from edgeav.models import AVModel
from edgeav.quant.plan import Plan
from edgeav.runtime.features import Inputs, empty_inputs
from edgeav.runtime.inputs import MIN_STEPS, Features

EXAMPLE_STEPS = 24  # of whatever clock; nothing else that varies has this size unless it is N itself


class Deployed(nn.Module):
    """A model with the inputs that it has: AVModel's forward takes both modalities, a graph must not.

    One forward for each case, because torch.export reads the names of its arguments.
    """

    def __init__(self, model: AVModel) -> None:
        super().__init__()
        self.model = model


class Hears(Deployed):
    def forward(self, audio: Tensor, presence: Tensor) -> Tensor:
        return self.model(audio, presence, presence)  # the second is not looked at


class Sees(Deployed):
    def forward(self, video: Tensor, presence: Tensor) -> Tensor:
        return self.model(presence, video, presence)  # the first is not looked at


def clips_to_run(plan: Plan, calibration: Sequence[Inputs], features: Features) -> Sequence[Inputs]:
    """`calibration`; an empty clip where no range is to be measured: quantizers want to see one all the same."""
    return calibration if plan.needs_calibration else [empty_inputs(features, MIN_STEPS)]


def module_path(path: str) -> str:
    """The path inside the AVModel, whether or not it was wrapped: "model.blocks.0" -> "blocks.0"."""
    return "" if path == "model" else path.removeprefix("model.")


def trace(model: AVModel, max_steps: int) -> ExportedProgram:
    """`model` as a graph for MIN_STEPS..`max_steps` steps (at most what its position table holds)."""
    inputs = model.config.inputs
    module = Hears(model) if inputs.video is None else Sees(model) if inputs.audio is None else model
    return trace_module(module, inputs, max_steps)


def trace_module(module: nn.Module, features: Features, max_steps: int, device: str = "cpu") -> ExportedProgram:
    """Any module with the inputs `features.names`, for example an already traced and quantized one."""
    steps = Dim("n", min=MIN_STEPS, max=max_steps)
    frames = {"mel": features.audio_frames, "samples": features.audio_frames, "video": features.video_frames}
    counts = [frames.get(name, 1) for name in features.names]
    shapes = tuple({1: steps if count == 1 else count * steps} for count in counts)
    example = tuple(x.to(device) for x in example_inputs(features))
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


def example_inputs(features: Features, steps: int = EXAMPLE_STEPS) -> tuple[Tensor, ...]:
    """What `features.names` lists, of the right shapes; the values do not matter."""
    audio, video, presence = empty_inputs(features, steps)
    feed = Inputs(audio, video, np.ones_like(presence)).named(features.names)
    return tuple(torch.from_numpy(array) for array in feed.values())
