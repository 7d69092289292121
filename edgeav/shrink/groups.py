"""The dependency groups of an AVModel: what can be narrowed, unit by unit.

- feed-forward: hidden units of both feed-forwards of each block, and of a cross-attention fusion
- heads: of each block's attention, and of a cross-attention fusion
- conv-channels: of each block's convolution module, both halves of its gate
- cnn-channels: of the front ends' convolutions. In a ResNet all that meets in a residual sum is one group; the channels
  between the two convolutions of a block are another.
- fusion: hidden units of a concat-mlp

The width D that everything shares stays: it is a design choice, and every layer of the model would have to change.
"""

from __future__ import annotations

from typing import cast

from torch import nn

from edgeav.models import AVModel, ModelConfig
from edgeav.models import config as c
from edgeav.models.conformer import Attention
from edgeav.models.fusion import NearAttention
from edgeav.models.low_rank import LowRank
from edgeav.models.resnet import BLOCKS_PER_STAGE
from edgeav.shrink.places import Group, Place, columns, norm, rows

STACKS = ("audio_blocks", "video_blocks", "blocks")


def groups_of(model: AVModel) -> list[Group]:
    """All groups of the model, in the order of its modules."""
    return [*_audio(model), *_video(model), *_fusion(model), *_blocks(model)]


def removable_blocks(config: ModelConfig) -> list[str]:
    """Paths of the blocks that can go as a whole: all but the first of each stack, whose norm the others rely on."""
    return [f"{stack}.{index}" for stack in STACKS for index in range(1, len(getattr(config, stack)))]


def spelled_out(config: ModelConfig) -> ModelConfig:
    """The same model with a number of its own for everything that is a group."""
    update = {}
    if isinstance(config.audio, c.DwStriding):
        halvings = config.inputs.audio_frames.bit_length() - 1
        update["audio"] = config.audio.model_copy(update={"channels": config.audio.widths(halvings)})
    for name, part in (("audio", config.audio), ("video", config.video)):
        if isinstance(part, c.ResNet18 | c.ResNet1d) and part.inner is None:
            inner = tuple(channels for channels in part.channels for _ in range(BLOCKS_PER_STAGE))
            update[name] = part.model_copy(update={"inner": inner})
    return config.model_copy(update=update)


def _blocks(model: AVModel) -> list[Group]:
    groups = []
    for stack in STACKS:
        for index, block in enumerate(getattr(model.config, stack)):
            path, at = f"{stack}.{index}", (stack, index)
            groups += [
                _hidden(model, f"{path}.feed_forward_1", block.feed_forward, (*at, "feed_forward")),
                _heads(model, f"{path}.attention", (*at, "heads")),
                _conv_module(model, f"{path}.conv", block.conv_channels, (*at, "conv_channels")),
                _hidden(model, f"{path}.feed_forward_2", block.feed_forward_2, (*at, "feed_forward_2")),
            ]
    return groups


def _hidden(model: AVModel, path: str, units: int, setting: tuple[str | int, ...]) -> Group:
    made, read = rows(model, f"{path}.up"), columns(model, f"{path}.down")
    return Group(path, "feed-forward", units, setting, tuple(made), tuple(read))


def _heads(model: AVModel, path: str, setting: tuple[str | int, ...]) -> Group:
    attention = cast(Attention, model.get_submodule(path))
    names = [name for name in ("query", "key", "value", "position") if hasattr(attention, name)]
    own = [name for name in ("bias_u", "bias_v") if hasattr(attention, name)]
    own += ["slopes"] if isinstance(attention, NearAttention) else []
    made = [place for name in names for place in rows(model, f"{path}.{name}", after=attention.head_width)]
    made += [Place(f"{path}.{name}", 0) for name in own]
    read = columns(model, f"{path}.out", after=attention.head_width)
    return Group(path, "heads", attention.heads, setting, tuple(made), tuple(read), products=path)


def _conv_module(model: AVModel, path: str, units: int, setting: tuple[str | int, ...]) -> Group:
    made = rows(model, f"{path}.expand", before=2) + rows(model, f"{path}.depthwise") + norm(model, f"{path}.norm")
    return Group(path, "conv-channels", units, setting, tuple(made), tuple(columns(model, f"{path}.project")))


def _fusion(model: AVModel) -> list[Group]:
    match model.config.fusion:
        case c.ConcatMlp() as settings:
            made = rows(model, "fusion.up") + (norm(model, "fusion.norm") if settings.norm else [])
            read = columns(model, "fusion.down")
            return [Group("fusion", "fusion", settings.hidden, ("fusion", "hidden"), tuple(made), tuple(read))]
        case c.CrossAttention() as settings:
            hidden = ("fusion", "feed_forward")
            return [
                _heads(model, "fusion.attention", ("fusion", "heads")),
                _hidden(model, "fusion.feed_forward", settings.feed_forward, hidden),
            ]
    return []


def _audio(model: AVModel) -> list[Group]:
    match spelled_out(model.config).audio:
        case c.DwStriding(channels=tuple() as widths):
            return [_mel_layer(model, widths, place) for place in range(len(widths))]
        case c.ResNet1d() as settings:
            return _resnet(model, "audio", ("stem", "norm"), settings)
    return []


def _mel_layer(model: AVModel, widths: tuple[int, ...], place: int) -> Group:
    """Layers 0, (2, 3), (5, 6), …: a convolution, then pairs of a depthwise and a pointwise one."""
    made = rows(model, f"audio.layers.{3 * place}")
    if place + 1 < len(widths):
        made += rows(model, f"audio.layers.{3 * place + 2}")
        read = columns(model, f"audio.layers.{3 * place + 3}")
    else:
        read = columns(model, "audio.linear", after=_after(model, "audio.linear", widths[-1]))
    setting = ("audio", "channels", place)
    return Group(f"audio.layers.{3 * place}", "cnn-channels", widths[place], setting, tuple(made), tuple(read))


def _video(model: AVModel) -> list[Group]:
    match spelled_out(model.config).video:
        case c.Conv3dDense() as settings:
            made = rows(model, "video.stem.conv") + norm(model, "video.stem.norm")
            read = columns(model, "video.convs.0")
            at, units = ("video", "stem_channels"), settings.stem_channels
            return [Group("video.stem", "cnn-channels", units, at, tuple(made), tuple(read)), *_dense(model, settings)]
        case c.SpaceToDepth() as settings:
            return _dense(model, settings)
        case c.ResNet18() as settings:
            return _resnet(model, "video", ("stem.conv", "stem.norm"), settings)
    return []


def _dense(model: AVModel, settings: c.DenseConvs) -> list[Group]:
    groups, last = [], len(settings.channels) - 1
    for place, units in enumerate(settings.channels):
        name = f"video.convs.{3 * place}"
        made = rows(model, name) + norm(model, f"video.convs.{3 * place + 1}")
        following = "video.linear" if place == last else f"video.convs.{3 * place + 3}"
        read = columns(model, following, after=_after(model, following, units) if place == last else 1)
        groups.append(Group(name, "cnn-channels", units, ("video", "channels", place), tuple(made), tuple(read)))
    return groups


def _resnet(model: AVModel, side: str, stem: tuple[str, str], settings: c.ResNet18 | c.ResNet1d) -> list[Group]:
    """`stem`: the names of the first convolution and its norm. A max-pool stands before the blocks of pictures."""
    first = "video.convs.1" if side == "video" else "audio.layers.0"
    place, count = first.rpartition(".")[0], BLOCKS_PER_STAGE * len(settings.channels)
    paths = [f"{place}.{int(first[-1]) + block}" for block in range(count)]
    groups = []
    for block, path in enumerate(paths):
        made, read = rows(model, f"{path}.conv_1") + norm(model, f"{path}.norm_1"), columns(model, f"{path}.conv_2")
        at_inner = (side, "inner", block)
        units = (settings.inner or ())[block]
        groups.append(Group(f"{path}.conv_1", "cnn-channels", units, at_inner, tuple(made), tuple(read)))
    for stage, units in enumerate(settings.channels):
        made, read = _residual(model, side, stem, paths, stage)
        name, at_stage = f"{side}.stage_{stage + 1}", (side, "channels", stage)
        groups.append(Group(name, "cnn-channels", units, at_stage, tuple(made), tuple(read)))
    return groups


def _residual(
    model: AVModel, side: str, stem: tuple[str, str], paths: list[str], stage: int
) -> tuple[list[Place], list[Place]]:
    """Everything that writes into, and reads from, the residual sums of a stage."""
    first, second = paths[BLOCKS_PER_STAGE * stage], paths[BLOCKS_PER_STAGE * stage + 1]
    pairs = [(f"{path}.conv_2", f"{path}.norm_2") for path in (first, second)]
    read = columns(model, f"{second}.conv_1")
    if stage == 0:
        pairs.append((f"{side}.{stem[0]}", f"{side}.{stem[1]}"))
        read += columns(model, f"{first}.conv_1")
    else:
        pairs.append((f"{first}.shortcut.0", f"{first}.shortcut.1"))
    if BLOCKS_PER_STAGE * (stage + 1) < len(paths):
        following = paths[BLOCKS_PER_STAGE * (stage + 1)]
        read += columns(model, f"{following}.conv_1") + columns(model, f"{following}.shortcut.0")
    else:
        read += columns(model, f"{side}.linear")
    return [place for conv, bn in pairs for place in rows(model, conv) + norm(model, bn)], read


def _after(model: AVModel, path: str, units: int) -> int:
    """Numbers that a linear layer reads of each channel: its pixels, or its bands."""
    layer = model.get_submodule(path)
    layer = layer.narrow if isinstance(layer, LowRank) else layer
    assert isinstance(layer, nn.Linear)
    return layer.in_features // units
