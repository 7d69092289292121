"""Fake quantization: a model that computes in float on the grids of a format, as a deployed one does in its own.

Simulation serves three ends: what a format costs in accuracy is known before anything is exported, training can adapt
to it (edgeav/stages/qat.py), and formats without kernels on this machine can be judged at all.

Rounded are the inputs and weights of every layer that the plan quantizes, and the outputs of convolutions, which leave
ONNX Runtime's kernels in 8 bits; other sums of products go on in float. Jacob et al. 2018
(https://arxiv.org/abs/1712.05877).
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils import parametrize
from torch.overrides import TorchFunctionMode

from edgeav.errors import EdgeavError
from edgeav.exporters.rewrites import deployable
from edgeav.models import AVModel
from edgeav.models.conformer import Attention, LocalAttention
from edgeav.quant.activations import Activation
from edgeav.quant.flow import Flow, flow_of
from edgeav.quant.grids import HALVES, WEIGHTS_ONLY, quantizes_here, round_weight, step_u8, weight_scales
from edgeav.quant.plan import CALIBRATED, Format, Plan
from edgeav.runtime.features import Inputs

LAYERS = nn.Linear | nn.Conv1d | nn.Conv2d
PRODUCTS = 3  # of two activations in attention: by content, by distance, weights times values


def simulate(model: AVModel, plan: Plan, calibration: Sequence[Inputs]) -> AVModel:
    """A copy of `model`, as it is deployed, that computes on the plan's grids; `model` is left as it was.

    The ranges of activations are the smallest and largest values in `calibration`. EdgeavError if there is no clip.
    """
    ready = deployed(model)
    return simulate_formats(ready, formats_of(ready, plan), calibration)


def simulate_formats(model: AVModel, formats: Mapping[str, Format], calibration: Sequence[Inputs]) -> AVModel:
    """As `simulate`, with a format for each module by its path in the deployed form."""
    simulated = deployed(model)
    activations = round_activations(simulated, formats)
    observe(simulated, activations, calibration)
    for path, layer in _layers(simulated, formats):
        _round_bias(layer, formats[path])
        layer.weight = nn.Parameter(round_weight(layer.weight.detach(), formats[path]), requires_grad=False)
    return simulated


def deployed(model: AVModel) -> AVModel:
    """A frozen copy of `model` in its deployed form, which it may have already."""
    rewritten = not any(isinstance(module, _BatchNorm | nn.Conv3d) for module in model.modules())
    return copy.deepcopy(model).requires_grad_(False) if rewritten else deployable(model)


def formats_of(model: AVModel, plan: Plan) -> dict[str, Format]:
    """Path -> format of every module of `model` that has a role and leaves float32."""
    found = dict[str, Format]()
    for path, _ in model.named_modules():
        format = plan.format_of(path)
        if format is not None and format != "fp32":
            found[path] = format
    return found


def round_activations(model: AVModel, formats: Mapping[str, Format]) -> list[Activation]:
    """Put an `Activation` at every place that is rounded. Changes `model`; returns them, each once.

    A layer gets `given`, shared by all that read the same tensor, and `put_out`, which only notes its range where the
    engine does not round or the next layer does.
    """
    layers = dict(_layers(model, formats))
    flow, made = flow_of(model, layers), dict[tuple[int, Format], Activation]()
    for path, layer in layers.items():
        source, one = flow.inputs[path], formats[path]
        given = made.setdefault((id(source), one), Activation(one, rectified=source.rectified))
        layer.add_module("given", given)
        layer.register_forward_pre_hook(_round_given)
        if one not in WEIGHTS_ONLY:
            _round_output(path, layer, flow, formats)
    _round_products(model, formats)
    model.train(model.training)  # the new modules too
    return [module for module in model.modules() if isinstance(module, Activation)]


def round_weights_in_training(model: AVModel, formats: Mapping[str, Format]) -> None:
    """Round the weights anew in every forward pass, from float ones that are trained. Changes `model`."""
    for path, layer in _layers(model, formats):
        parametrize.register_parametrization(layer, "weight", _Rounded(formats[path]))


def observe(model: AVModel, activations: Iterable[Activation], calibration: Sequence[Inputs]) -> None:
    """Set the ranges of `activations` to what `calibration` has there while nothing is rounded."""
    activations = [activation for activation in activations if activation.number_format in CALIBRATED]
    if not activations:
        return
    if not len(calibration):
        raise EdgeavError("simulate: the ranges of activations need calibration clips, none were given")
    for activation in activations:
        activation.observing = True
    with torch.no_grad():
        for inputs in calibration:
            model(*(torch.from_numpy(array).to(model.positions.device) for array in inputs))
    for activation in activations:
        activation.observing = False


def _layers(model: AVModel, formats: Mapping[str, Format]) -> list[tuple[str, nn.Linear | nn.Conv1d | nn.Conv2d]]:
    """What has weights and a format that means something for it."""
    named = [(path, module) for path, module in model.named_modules() if isinstance(module, LAYERS) and path in formats]
    return [(path, layer) for path, layer in named if quantizes_here(formats[path], layer)]


def _round_output(path: str, layer: nn.Module, flow: Flow, formats: Mapping[str, Format]) -> None:
    one, source = formats[path], flow.outputs[path]
    rounded = one in HALVES or (one == "int8" and not isinstance(layer, nn.Linear))
    put_out = Activation(one, rectified=source.rectified)
    put_out.integers = rounded
    if not rounded or one in {formats[reader] for reader in source.readers}:
        put_out.watch()
    layer.add_module("put_out", put_out)
    layer.register_forward_hook(_round_put_out)


def _round_bias(layer: nn.Linear | nn.Conv1d | nn.Conv2d, number_format: Format) -> None:
    """A bias is a 32-bit integer in steps of input times weight. It matters little, but it moves some sums across the
    edge of a step, which deeper layers make visible."""
    if number_format != "int8" or layer.bias is None:
        return
    given = layer.get_submodule("given")
    assert isinstance(given, Activation)
    steps = weight_scales(layer.weight) * step_u8(*given.ends())
    layer.bias = nn.Parameter((layer.bias.detach() / steps).round() * steps, requires_grad=False)


def _round_products(model: AVModel, formats: Mapping[str, Format]) -> None:
    for path, module in model.named_modules():
        one = formats.get(path)
        if not isinstance(module, Attention) or one not in (*CALIBRATED, "int8-dynamic", *HALVES):
            continue
        if isinstance(module, LocalAttention) and one in CALIBRATED:
            raise EdgeavError(
                f"{path}: the products of local attention have no fixed ranges; keep attention-matmul fp32"
            )
        module.add_module("factors", nn.ModuleList([Activation(one) for _ in range(2 * PRODUCTS)]))
        module.register_forward_pre_hook(_enter_products)
        module.register_forward_hook(_leave_products, always_call=True)


class _Rounded(nn.Module):
    """A weight on its grid."""

    def __init__(self, number_format: Format) -> None:
        super().__init__()
        self.number_format: Format = number_format

    def forward(self, weight: Tensor) -> Tensor:
        return round_weight(weight, self.number_format)


class _Products(TorchFunctionMode):
    """Rounds both factors of every torch.matmul inside."""

    def __init__(self, factors: nn.ModuleList) -> None:
        super().__init__()
        self.factors, self.count = factors, 0

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func is torch.matmul:
            place, self.count = self.count % len(self.factors), self.count + 2
            args = self.factors[place](args[0]), self.factors[place + 1](args[1])
        return func(*args, **(kwargs or {}))


# Plain functions, so that a deep copy of the model is hooked to itself.
def _round_given(layer: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return layer.get_submodule("given")(args[0]), *args[1:]


def _round_put_out(layer: nn.Module, args: tuple[Tensor, ...], out: Tensor) -> Tensor:
    return layer.get_submodule("put_out")(out)


def _enter_products(attention: nn.Module, args: tuple[Tensor, ...]) -> None:
    factors = attention.get_submodule("factors")
    assert isinstance(factors, nn.ModuleList)
    mode = _Products(factors)
    mode.__enter__()
    object.__setattr__(attention, "_products", mode)


def _leave_products(attention: nn.Module, args: tuple[Tensor, ...], out: Tensor) -> None:
    attention.__dict__.pop("_products").__exit__(None, None, None)
