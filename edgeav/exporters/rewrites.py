"""Exact rewrites of a trained model into the form that runtimes run fastest: the same outputs to float rounding.

- The 3-D stem becomes a 2-D convolution over neighbouring frames stacked as channels: no int8 runtime here has a fast
  integer 3-D kernel (ONNX Runtime's QDQ Conv3d is 5x slower than float, XNNPACK fails at run time).
- For ExecuTorch, that convolution then goes over time and width, with rows stacked instead of frames: every copy of the
  pictures stays in memory there, and rows overlap less.
- For ONNX Runtime in int8, it goes over blocks of pixels: what lies under a kernel is copied there before it is
  multiplied, and long runs copy faster (the stem takes half the time; a float front end would take a quarter more).
- For OpenVINO, that convolution has time where a batch is, and in int8 its frames are copied as bytes
  (openvino_pictures.py): 1.09 times as fast, 1.05 in fixed shapes.
- For ONNX Runtime, a stem that sorts pixels into channels does so by a convolution of constant weights. OpenVINO would
  be slower (1.20 ms instead of 0.57), and pools and transposes as the model says.
- One matrix makes query, key and value, the same to the bit: 1.02 times as fast in float on ONNX Runtime, 1.04 in int8.
- For ONNX Runtime, what follows the front ends goes without the axis of clips: a linear layer is then a Gemm with its
  bias, where three axes need a MatMul and an Add.
- Batch norms fold into the convolutions and linear layers before them, and BEFORE quantization: a fold inside the
  runtime would come after the weight scales were chosen (Jacob et al. 2018, https://arxiv.org/abs/1712.05877, 3.2).
- For ONNX Runtime, weights contain the constant factors of attention and feed-forwards.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import cast

from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval

from edgeav.models import AVModel
from edgeav.models import config as c
from edgeav.models.audio import SampleResNet
from edgeav.models.conformer import (
    Attention,
    ConformerBlock,
    ConvModule,
    FusedAttention,
    LocalAttention,
    RelativeAttention,
)
from edgeav.models.fusion import ConcatMlp
from edgeav.models.low_rank import LowRank
from edgeav.models.resnet import BasicBlock
from edgeav.models.visual import (
    LipFrontend,
    SpaceToDepth,
    SpaceToDepthByConv,
    Stem2d,
    Stem3d,
    StemByBlocks,
    StemByFrames,
    StemByRows,
)


def deployable(model: AVModel) -> AVModel:
    """A frozen copy of `model` in the form that every engine takes. `model` itself is left as it was."""
    rewritten = copy.deepcopy(model).cpu().eval().requires_grad_(False)
    if rewritten.video is not None and isinstance(rewritten.video.stem, Stem3d):
        rewritten.video.stem = stem_to_2d(rewritten.video.stem)
    fold_batch_norms(rewritten)
    return rewritten


def stem_to_2d(stem: Stem3d) -> Stem2d:
    """Kernels (C, 1, taps, h, w) over time -> (C, taps, h, w) over stacked frames; the batch norm stays apart."""
    source = stem.conv
    if source.in_channels != 1 or source.stride[0] != 1 or source.bias is not None:
        raise ValueError(f"expected a gray stem without bias and with stride 1 in time, not {source}")
    taps, height, width = source.kernel_size
    stride, padding = (source.stride[1], source.stride[2]), (int(source.padding[1]), int(source.padding[2]))
    conv = nn.Conv2d(taps, source.out_channels, (height, width), stride, padding, bias=False)
    conv.weight = nn.Parameter(source.weight.detach()[:, 0].clone(), requires_grad=False)
    norm = nn.BatchNorm2d(source.out_channels, eps=stem.norm.eps)
    norm.load_state_dict(stem.norm.state_dict())
    return Stem2d(conv, norm, stem.activation, stem.shrink).eval()


def openvino_form(model: AVModel) -> AVModel:
    """A deployable `model` as OpenVINO runs it fastest, whatever its number format."""
    return with_fused_attention(by_frames(model))


def by_frames(model: AVModel) -> AVModel:
    """A copy of a deployable `model` whose stem has time where a batch is."""
    return _turned(model, stem_by_frames, lambda conv: True)


def stem_by_frames(stem: Stem2d) -> StemByFrames:
    """The same convolution; its batch norm is folded."""
    _bare(stem)
    return StemByFrames(copy.deepcopy(stem.conv), stem.activation, stem.shrink).eval()


def by_rows(model: AVModel) -> AVModel:
    """A copy of a deployable `model` whose stem stacks rows, where that makes fewer copies of the pictures."""
    return _turned(model, stem_by_rows, lambda conv: conv.kernel_size[0] < conv.in_channels * conv.stride[0])


def stem_by_rows(stem: Stem2d) -> StemByRows:
    """Kernels (C, taps, h, w) over stacked frames -> (C, h, taps, w) over stacked rows; its batch norm is folded."""
    source = stem.conv
    _bare(stem)
    (height, width), taps = source.kernel_size, source.in_channels
    conv = nn.Conv2d(
        height, source.out_channels, (taps, width), (1, source.stride[1]), (taps // 2, int(source.padding[1]))
    )
    conv.weight = nn.Parameter(source.weight.detach().transpose(1, 2).contiguous(), requires_grad=False)
    conv.bias = _copy(source.bias)
    return StemByRows(conv, source.stride[0], int(source.padding[0]), stem.activation, stem.shrink).eval()


def by_blocks(model: AVModel) -> AVModel:
    """A copy of a deployable `model` whose stem takes blocks of pixels where its stride is 4, as was measured."""
    return _turned(model, stem_by_blocks, lambda conv: conv.stride == (4, 4) and len({*conv.kernel_size}) == 1)


def stem_by_blocks(stem: Stem2d) -> StemByBlocks:
    """Kernels (C, taps, k, k), filled up with zeros to whole blocks of s x s -> (C, taps s s, k', k') over blocks."""
    source = stem.conv
    _bare(stem)
    block, kernel, padding = source.stride[0], source.kernel_size[0], int(source.padding[0])
    blocks = -(-kernel // block)
    rest = blocks * block - kernel
    weight = nn.functional.pad(source.weight.detach(), (0, rest, 0, rest))
    weight = weight.unflatten(3, (blocks, block)).unflatten(2, (blocks, block))  # (C, taps, k', s, k', s)
    conv = nn.Conv2d(source.in_channels * block**2, source.out_channels, blocks)
    conv.weight = nn.Parameter(weight.permute(0, 1, 3, 5, 2, 4).flatten(1, 3).contiguous(), requires_grad=False)
    conv.bias = _copy(source.bias)
    return StemByBlocks(conv, stem.taps, kernel, padding, stem.activation, stem.shrink).eval()


def onnxruntime_form(model: AVModel) -> AVModel:
    """A deployable `model` as ONNX Runtime runs it fastest, whatever its number format."""
    return by_clip(with_fused_attention(with_folded_factors(by_convolution(model))))


def with_folded_factors(model: AVModel) -> AVModel:
    """A copy of `model` whose weights contain the halves of the feed-forwards and 1/sqrt(W) of the attention."""
    turned = copy.deepcopy(model)
    for block in turned.modules():
        if isinstance(block, ConformerBlock):
            for layer in (block.feed_forward_1.down, block.feed_forward_2.down):
                _scale(layer, 0.5)
            block.halved = True
            _fold_scale(block.attention)
    return turned


def _fold_scale(attention: Attention) -> None:
    """Changes `attention`; a local one computes its scores in more places, and stays."""
    if isinstance(attention, LocalAttention):
        return
    factor = attention.head_width**-0.5
    _scale(attention.query, factor)
    if isinstance(attention, RelativeAttention):
        attention.bias_u.mul_(factor)
        attention.bias_v.mul_(factor)
    attention.scaled = True


def _scale(layer: nn.Module, factor: float) -> None:
    """Changes `layer`, linear or factorized."""
    last = layer.widen if isinstance(layer, LowRank) else layer
    assert isinstance(last, nn.Linear)
    last.weight.mul_(factor)
    if last.bias is not None:
        last.bias.mul_(factor)


def by_clip(model: AVModel) -> AVModel:
    """A copy of a deployable `model` without the axis of clips behind the front ends; `model` if a part needs it."""
    attentions = [block.attention for block in model.modules() if isinstance(block, ConformerBlock)]
    fusion = model.config.fusion
    if any(isinstance(attention, LocalAttention) for attention in attentions) or isinstance(fusion, c.CrossAttention):
        return model
    turned = copy.deepcopy(model)
    turned.one_clip = True
    turned.positions = turned.positions.squeeze(0)
    return turned


def with_fused_attention(model: AVModel) -> AVModel:
    """A copy of `model` in which one matrix makes query, key and value; `model` itself if there are no such three."""
    turned = copy.deepcopy(model)
    blocks = [block for block in turned.modules() if isinstance(block, ConformerBlock) and _fusible(block.attention)]
    for block in blocks:
        block.attention = FusedAttention(cast(RelativeAttention, block.attention)).eval()
    return turned if blocks else model


def _fusible(attention: Attention) -> bool:
    """Whether it is over all steps, by whole matrices: two thin ones each have no common one."""
    if type(attention) is not RelativeAttention:
        return False
    return all(type(layer) is nn.Linear for layer in (attention.query, attention.key, attention.value))


def by_convolution(model: AVModel) -> AVModel:
    """A copy of a deployable `model` whose stem sorts pixels by a convolution; `model` itself if nothing changes."""
    if model.video is None or type(model.video.stem) is not SpaceToDepth:
        return model
    turned = copy.deepcopy(model)
    assert turned.video is not None
    turned.video.stem = SpaceToDepthByConv(model.video.stem).eval()
    return turned


def _turned(model: AVModel, turn: Callable[[Stem2d], nn.Module], where: Callable[[nn.Conv2d], bool]) -> AVModel:
    turned = copy.deepcopy(model)
    if turned.video is not None and isinstance(turned.video.stem, Stem2d) and where(turned.video.stem.conv):
        turned.video.stem = turn(turned.video.stem)
    return turned


def _bare(stem: Stem2d) -> None:
    if not isinstance(stem.norm, nn.Identity) or isinstance(stem.conv.padding, str):
        raise ValueError(f"expected a stem without a batch norm, padded by numbers, not {stem}")


def _copy(bias: Tensor | None) -> nn.Parameter | None:
    return None if bias is None else nn.Parameter(bias.detach().clone(), requires_grad=False)


def fold_batch_norms(model: AVModel) -> None:
    """Fold every batch norm into the layer before it. Changes `model`, which must be in evaluation mode."""
    for module in list(model.modules()):
        match module:
            case Stem2d():
                _fold_pair(module, "conv", "norm")
            case ConvModule():
                _fold_pair(module, "depthwise", "norm")
            case SampleResNet():
                _fold_pair(module, "stem", "norm")
            case BasicBlock():
                _fold_pair(module, "conv_1", "norm_1")
                _fold_pair(module, "conv_2", "norm_2")
                if isinstance(module.shortcut, nn.Sequential):
                    module.shortcut = _fold_sequence(module.shortcut)
            case LipFrontend():
                module.convs = _fold_sequence(module.convs)
            case ConcatMlp() if module.norm is not None:
                _fold_linear(module.up, module.norm)
                module.norm = None


def _fold_pair(module: nn.Module, conv: str, norm: str) -> None:
    setattr(module, conv, _fold(getattr(module, conv), getattr(module, norm)))
    module.register_module(norm, nn.Identity())


def _fold_sequence(layers: nn.Sequential) -> nn.Sequential:
    """[conv, norm, relu, …] -> [conv, relu, …]."""
    folded: list[nn.Module] = []
    for layer in layers:
        if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d):
            folded[-1] = _fold(folded[-1], layer)
        else:
            folded.append(layer)
    return nn.Sequential(*folded)


def _fold(conv: nn.Module, norm: nn.Module) -> nn.Module:
    """Changes a factorized convolution, which takes the norm into its second half."""
    if isinstance(conv, LowRank):
        widen = _fold(conv.widen, norm)
        assert isinstance(widen, nn.Conv2d)
        conv.widen = widen
        return conv
    assert isinstance(conv, nn.Conv1d | nn.Conv2d)
    assert isinstance(norm, nn.BatchNorm1d | nn.BatchNorm2d)
    return fuse_conv_bn_eval(conv, norm)


def _fold_linear(linear: nn.Module, norm: nn.BatchNorm1d) -> None:
    """Changes `linear`; a factorized one takes the norm into its second half."""
    last = linear.widen if isinstance(linear, LowRank) else linear
    assert isinstance(last, nn.Linear)
    folded = fuse_linear_bn_eval(last, norm)
    last.weight, last.bias = folded.weight, folded.bias
