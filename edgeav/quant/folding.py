"""Back from the deployed form to the model folder's: the inverse of edgeav/exporters/rewrites.py.

Quantization-aware training works on the folded network, since a fold after it would change the weights whose grid was
learned (Jacob et al. 2018, section 3.2). What it leaves is a normal model again: the trained weights in the layers, the
batch norms neutral.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils import parametrize

from edgeav.models import AVModel
from edgeav.models.audio import SampleResNet
from edgeav.models.conformer import ConvModule
from edgeav.models.fusion import ConcatMlp
from edgeav.models.low_rank import LowRank
from edgeav.models.resnet import BasicBlock
from edgeav.models.visual import LipFrontend, Stem3d

LAYERS = nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d


def unfolded(model: AVModel) -> AVModel:
    """A new model by `model.config` that computes what the deployable `model` does, with its weights."""
    with torch.device("cpu"):
        plain = AVModel(model.config)
    _copy_rest(model, plain)
    norms = dict(_pairs(plain))
    for source, layer in zip(_layers(model), _layers(plain), strict=True):
        _copy_layer(source, layer, norms.get(layer))
    return plain.eval()


def float_weight(layer: nn.Module) -> Tensor:
    """The weight itself where rounding stands in front of it."""
    if parametrize.is_parametrized(layer, "weight"):
        return layer.get_parameter("parametrizations.weight.original").detach()
    return layer.get_parameter("weight").detach()


def _layers(model: AVModel) -> list[nn.Module]:
    return [module for module in model.modules() if isinstance(module, LAYERS)]


def _copy_rest(model: AVModel, plain: AVModel) -> None:
    """What is neither a folded layer nor a batch norm has the same name in both."""
    found, own = model.state_dict(), plain.state_dict()
    folded = {name for name, module in plain.named_modules() if isinstance(module, LAYERS | _BatchNorm)}
    with torch.no_grad():
        for name, value in own.items():
            if name.rpartition(".")[0] not in folded:
                value.copy_(found[name])


@torch.no_grad()
def _copy_layer(source: nn.Module, layer: nn.Module, norm: _BatchNorm | None) -> None:
    weight, bias = layer.get_parameter("weight"), getattr(layer, "bias", None)
    weight.copy_(float_weight(source).reshape(weight.shape))  # (C, taps, h, w) -> (C, 1, taps, h, w) in the stem
    given = getattr(source, "bias", None)
    if bias is not None:
        bias.copy_(given)
    if norm is None:
        return
    assert norm.running_mean is not None and norm.running_var is not None
    norm.running_mean.zero_()
    norm.running_var.fill_(1.0)
    norm.weight.fill_((1.0 + norm.eps) ** 0.5)
    norm.bias.zero_()
    if bias is None and given is not None:
        norm.bias.copy_(given)


def _pairs(model: AVModel) -> list[tuple[nn.Module, _BatchNorm]]:
    """Each layer that has a batch norm behind it, and that norm."""
    found: list[tuple[nn.Module, nn.Module | None]] = []
    for module in model.modules():
        match module:
            case Stem3d():
                found.append((module.conv, module.norm))
            case ConvModule():
                found.append((module.depthwise, module.norm))
            case SampleResNet():
                found.append((module.stem, module.norm))
            case BasicBlock():
                found += [(module.conv_1, module.norm_1), (module.conv_2, module.norm_2)]
                if isinstance(module.shortcut, nn.Sequential):
                    found.append((module.shortcut[0], module.shortcut[1]))
            case LipFrontend():
                found += zip(module.convs, list(module.convs)[1:], strict=False)
            case ConcatMlp():
                up = module.up
                found.append((up.widen if isinstance(up, LowRank) else up, module.norm))
    return [(layer, norm) for layer, norm in found if isinstance(norm, _BatchNorm)]
