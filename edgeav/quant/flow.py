"""Which layers share an activation: whose output, moved or rectified at most, is whose input.

An engine has one grid for one tensor. Query, key and value are given the same one, and a convolution is given what the
one before put out; to round twice, or to learn two ranges for one tensor, would simulate what nobody computes.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from edgeav.models import AVModel
from edgeav.runtime.features import empty_inputs

STEPS = 8  # of the example: what is connected does not depend on the length
MOVES = {
    "transpose", "permute", "reshape", "view", "flatten", "unflatten", "unsqueeze", "squeeze", "contiguous", "float",
    "dropout",
}  # fmt: skip
RECTIFIES = {"relu", "relu_"}


@dataclass(eq=False)
class Source:
    """One activation. `path` is the layer that puts it out, None if it is no layer's output."""

    path: str | None = None
    rectified: bool = False
    readers: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Flow:
    """Of every layer by its path: what it is given, and what it puts out."""

    inputs: dict[str, Source]
    outputs: dict[str, Source]


def flow_of(model: AVModel, paths: Iterable[str]) -> Flow:
    """Run an empty clip through `model` (in evaluation mode) and watch the layers at `paths`."""
    follow, modules, hooks = _Follow(), dict(model.named_modules()), []
    for path in paths:
        hooks.append(modules[path].register_forward_pre_hook(follow.reader(path)))
        hooks.append(modules[path].register_forward_hook(follow.writer(path)))
    device = model.positions.device
    example = [torch.from_numpy(array).to(device) for array in empty_inputs(model.config.inputs, STEPS)]
    try:
        with torch.no_grad(), follow:
            model(*example)
    finally:
        for hook in hooks:
            hook.remove()
    return Flow(follow.inputs, follow.outputs)


class _Follow(TorchFunctionMode):
    """Keeps every tensor alive, or another one might get its number."""

    def __init__(self) -> None:
        super().__init__()
        self.sources: dict[int, Source] = {}
        self.alive: list[Tensor] = []
        self.inputs: dict[str, Source] = {}
        self.outputs: dict[str, Source] = {}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        name = getattr(func, "__name__", "")
        if isinstance(out, Tensor) and args and isinstance(args[0], Tensor) and name in MOVES | RECTIFIES:
            source = self._source(args[0])
            source.rectified |= name in RECTIFIES
            self._name(out, source)
        return out

    def reader(self, path: str) -> Any:
        def note(module: nn.Module, args: tuple[Tensor, ...]) -> None:
            self.inputs[path] = self._source(args[0])
            self.inputs[path].readers.append(path)

        return note

    def writer(self, path: str) -> Any:
        def note(module: nn.Module, args: tuple[Tensor, ...], out: Tensor) -> None:
            self.outputs[path] = Source(path)
            self._name(out, self.outputs[path])

        return note

    def _source(self, x: Tensor) -> Source:
        if id(x) not in self.sources:
            self._name(x, Source())
        return self.sources[id(x)]

    def _name(self, x: Tensor, source: Source) -> None:
        self.alive.append(x)
        self.sources[id(x)] = source
