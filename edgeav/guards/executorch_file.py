"""An int8 ExecuTorch file against the PyTorch model that it was made from.

XNNPACK's graph has no names: a layer of the file is the module whose weight it comes nearest to, and it must come as
near as rounding allows. Ranges are those of the model's own activations in eager PyTorch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import get_symmetric_quantization_config
from numpy.typing import NDArray
from torch import Tensor, nn
from torchao.quantization.pt2e.observer import MinMaxObserver

from edgeav.exporters.parity import eager_log_probs
from edgeav.exporters.rewrites import by_rows, deployable
from edgeav.guards.emulation import emulate
from edgeav.guards.numbers import (
    STEPS,
    Inspection,
    Range,
    Stored,
    constant_findings,
    few,
    range_findings,
    take_learned,
    weight_findings,
)
from edgeav.guards.pte import Grid, PteLayer, read_layers
from edgeav.models import AVModel
from edgeav.quant.flow import flow_of
from edgeav.quant.plan import Ends, Plan
from edgeav.runtime.bundle import Bundle
from edgeav.runtime.engines import open_engine
from edgeav.runtime.features import Inputs

WIRING_LIMIT = 3.0  # healthy files: about 1
DECIMALS = 1e-6  # of a scale in the text form of a flatbuffer
LOWEST = -128  # of the 256 levels
MULTIPLIES = nn.Linear | nn.Conv1d | nn.Conv2d


@dataclass(frozen=True)
class Matched:
    """A layer of the file and the module that it is."""

    path: str
    module: nn.Linear | nn.Conv1d | nn.Conv2d
    layer: PteLayer


@dataclass
class Site:
    """One side of a layer, watched by the kind of observer that the exporter's quantizer uses."""

    found: Matched
    side: Literal["input", "output"]
    grid: Grid

    def __post_init__(self) -> None:
        self.observer = new_observer()

    def look(self, module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        value = inputs[0] if self.side == "input" else output
        rectified = self.side == "output" and self.grid.zero_point == LOWEST  # a ReLU, in the grid itself
        self.observer(value.relu() if rectified else value)

    def range(self) -> Range:
        low = self.grid.scale * (LOWEST - self.grid.zero_point)
        name, high = f"{self.found.path} {self.side}", low + STEPS * self.grid.scale
        return Range(name, low, high, _span(self.observer), resolution=DECIMALS)


def new_observer() -> Any:
    """Of a quantized activation, as `edgeav.exporters.executorch` asks for it."""
    activation = get_symmetric_quantization_config(is_per_channel=True).input_activation
    assert activation is not None
    wanted = {name: getattr(activation, name) for name in ("dtype", "quant_min", "quant_max", "qscheme")}
    return MinMaxObserver.with_args(eps=2**-12, **wanted)()


def inspect_executorch(bundle: Bundle, model: AVModel, plan: Plan, clips: Sequence[Inputs]) -> Inspection:
    """Numbers and kernels of the bundle's int8 file; its wiring by running it beside an emulation of itself."""
    ready = by_rows(deployable(model))
    matched = [*match(read_layers(bundle.model_path), ready)]
    integer = [m for m in matched if isinstance(m.layer.weight, Stored) and m.layer.input is not None]
    wrong = [text for found in matched for text in _layer_findings(found)]
    ranges = _ranges(integer, ready, clips)
    if plan.learned:
        wrong += take_learned(ranges, _learned(ready, plan))
    wrong += range_findings(ranges)
    planned = {path for path, _ in _multiplying(ready) if plan.quantizes(path)}
    not_integer = tuple(sorted(planned - {found.path for found in integer}))
    wiring = _wiring(bundle, ready, matched, few(clips))
    if not wiring <= WIRING_LIMIT:
        wrong.append(f"wiring: {wiring:.1f} times as far from an emulation of the file as rounding takes it")
    return Inspection(2 * len(integer), len(ranges), wiring, WIRING_LIMIT, not_integer, tuple(wrong))


def match(layers: Sequence[PteLayer], model: nn.Module) -> Iterator[Matched]:
    """Each layer with the module of its shape whose weight is nearest, each module once, the nearest pairs first."""
    modules = dict(_multiplying(model))
    pairs = [
        (_distance(layer, module), number, path)
        for number, layer in enumerate(layers)
        for path, module in modules.items()
        if _numbers(layer.weight).shape == _weight(module).shape
    ]
    taken: set[int | str] = set()
    for _, number, path in sorted(pairs):
        if number not in taken and path not in taken:
            taken |= {number, path}
            yield Matched(path, modules[path], layers[number])


def _wiring(bundle: Bundle, model: AVModel, matched: Sequence[Matched], clips: Sequence[Inputs]) -> float:
    """How far the file is from its emulation, in multiples of how far the emulation is from the float model."""
    engine, emulated = open_engine(bundle), emulate(model, [(found.path, found.layer) for found in matched])
    errors = np.zeros(2)
    for clip in clips:
        there, right = clip.presence.any(axis=-1), eager_log_probs(emulated, clip)
        errors += [((other - right)[there] ** 2).sum() for other in (engine.run(*clip), eager_log_probs(model, clip))]
    return float(np.sqrt(errors[0] / max(errors[1], 1e-12)))


def _layer_findings(found: Matched) -> Iterator[str]:
    layer, bias = found.layer, found.module.bias
    if not isinstance(layer.weight, Stored) or layer.input is None:
        yield from constant_findings(f"{found.path} weight", _numbers(layer.weight), _weight(found.module))
        return
    yield from weight_findings(f"{found.path} weight", layer.weight, _weight(found.module))
    if bias is None or not bias.any():
        return
    if not isinstance(layer.bias, Stored) or not layer.bias.integers.any():
        yield f"{found.path}: its bias is gone"
        return
    yield from weight_findings(f"{found.path} bias", layer.bias, bias.detach().numpy())
    expected = layer.input.scale * layer.weight.scale.ravel()
    if not np.allclose(layer.bias.scale.ravel(), expected, rtol=0.005 + DECIMALS / layer.input.scale):
        yield f"{found.path}: the scale of its input is not the one that its bias was quantized with"


def _ranges(matched: Sequence[Matched], model: AVModel, clips: Sequence[Inputs]) -> list[Range]:
    """Inputs and outputs of every layer, each with the span that PyTorch's observer chooses for it over all clips."""
    sites = [Site(found, "input", found.layer.input) for found in matched if found.layer.input is not None]
    sites += [Site(found, "output", found.layer.output) for found in matched if found.layer.output is not None]
    hooks = [site.found.module.register_forward_hook(site.look) for site in sites]
    with torch.inference_mode():
        for clip in clips:
            model(*(torch.from_numpy(array) for array in clip))
    for hook in hooks:
        hook.remove()
    return [site.range() for site in sites]


def _learned(model: AVModel, plan: Plan) -> dict[str, Ends]:
    """By the name of a `Site`. An output that another layer is given has that layer's range."""
    learned = plan.learned or {}
    flow, found = flow_of(model, learned), dict[str, Ends]()
    for path, own in learned.items():
        readers = flow.outputs[path].readers
        found[f"{path} input"] = own.given
        found[f"{path} output"] = learned[readers[0]].given if readers else own.put_out
    return found


def _span(observer: Any) -> tuple[float, float]:
    """The smallest and largest value that an observer saw."""
    return float(observer.min_val), float(observer.max_val)


def _multiplying(model: nn.Module) -> Iterator[tuple[str, nn.Linear | nn.Conv1d | nn.Conv2d]]:
    for path, module in model.named_modules():
        if isinstance(module, MULTIPLIES):
            yield path, module


def _weight(module: nn.Linear | nn.Conv1d | nn.Conv2d) -> NDArray:
    """(O, I, taps)."""
    weight = module.weight.detach().numpy()
    return weight.reshape(*weight.shape[:2], -1)


def _numbers(weight: Stored | NDArray) -> NDArray:
    return weight.values if isinstance(weight, Stored) else weight


def _distance(layer: PteLayer, module: nn.Linear | nn.Conv1d | nn.Conv2d) -> float:
    expected = _weight(module)
    return float(np.linalg.norm(_numbers(layer.weight) - expected) / np.linalg.norm(expected))
