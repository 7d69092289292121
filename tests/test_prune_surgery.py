"""Pruning is surgery: what nobody reads leaves no trace, and what is left rebuilds from model.json."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tiny_models import AUDIO, FUSION, VIDEO, model_config
from torch import Tensor, nn

from edgeav.exporters.rewrites import deployable
from edgeav.models import AVModel, ModelConfig, load_model, noise, random_model, save_model
from edgeav.models.config import AttentionDecoder, Encoder
from edgeav.models.fusion import CrossAttention
from edgeav.quant.plan import role_of
from edgeav.shrink.groups import groups_of, removable_blocks
from edgeav.shrink.places import Group
from edgeav.shrink.surgery import cut

COMBINATIONS = [
    *((audio, None, "sum", "relative") for audio in AUDIO),
    *((None, video, "sum", "plain") for video in VIDEO),
    *(("dw-striding", "linear", fusion, "local") for fusion in FUSION),
    ("resnet1d", "resnet18", "concat-mlp with norm", "relative"),
]
ENCODERS = {
    "relative": Encoder(),
    "plain": Encoder(positions="none", bias=False, conv_bias=False),
    "local": Encoder(window=3, global_tokens=1, activation="relu"),
}


def config_of(audio: str | None, video: str | None, fusion: str, encoder: str = "relative") -> ModelConfig:
    """Two blocks in every stack, and channels of which half are still as many as model.json asks for."""
    settings = model_config(audio, video, fusion).model_dump(mode="json")
    for part in filter(None, (settings["audio"], settings["video"])):
        for name in {"channels", "stem_channels"} & set(part):
            part[name] = [2 * n for n in part[name]] if isinstance(part[name], list) else 2 * part[name]
    blocks = settings["blocks"]
    settings |= {"audio_blocks": blocks if audio else [], "video_blocks": blocks if video else [], "blocks": blocks * 2}
    return ModelConfig.model_validate(settings | {"encoder": ENCODERS[encoder].model_dump()})


def model_of(config: ModelConfig) -> AVModel:
    model = random_model(config=config)
    if isinstance(model.fusion, CrossAttention):
        nn.init.constant_(model.fusion.attention_gate, 0.7)
        nn.init.constant_(model.fusion.feed_forward_gate, -0.4)
    return model


def silence(model: AVModel, group: Group, units: list[int]) -> None:
    """Nothing multiplies with these units any more. Changes `model`."""
    for place in group.read:
        mask = torch.ones_like(model.get_parameter(place.tensor))
        shaped = mask.unflatten(place.axis, (place.before, group.units, place.after))
        shaped.index_fill_(place.axis + 1, torch.tensor(units), 0.0)
        model.get_parameter(place.tensor).data.mul_(shaped.flatten(place.axis, place.axis + 2))


def removed(group: Group) -> list[int]:
    """Every other unit, the first among them, so that an offset by one would show."""
    return list(range(0, group.units, 2))


def kept(group: Group) -> Tensor:
    return torch.tensor([unit for unit in range(group.units) if unit not in removed(group)])


def outputs(model: AVModel) -> Tensor:
    torch.manual_seed(3)
    inputs = noise(model.config, steps=6, batch=2)
    inputs[2][1, 4:] = 0  # padding
    with torch.inference_mode():
        return model(*inputs)


def parameters(model: AVModel) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize(("audio", "video", "fusion", "encoder"), COMBINATIONS)
def test_units_that_nobody_reads_leave_without_a_trace(
    audio: str | None, video: str | None, fusion: str, encoder: str
) -> None:
    model = model_of(config_of(audio, video, fusion, encoder))
    groups = groups_of(model)
    for group in groups:
        silence(model, group, removed(group))
    smaller = cut(model, {group.name: kept(group) for group in groups})
    assert parameters(smaller) < 0.8 * parameters(model)
    torch.testing.assert_close(outputs(smaller), outputs(model), atol=1e-6, rtol=1e-6)
    assert all(
        group.units - len(removed(group)) == now.units for group, now in zip(groups, groups_of(smaller), strict=True)
    )


def test_units_of_every_group_that_are_read_do_leave_a_trace() -> None:
    model = model_of(config_of("dw-striding", "conv3d-dense", "concat-mlp"))
    expected = outputs(model)
    for group in groups_of(model):
        assert (outputs(cut(model, {group.name: kept(group)})) - expected).abs().max() > 1e-5, group.name


def test_every_layer_that_multiplies_belongs_to_a_group_but_for_the_shared_width() -> None:
    """All but the convolution that brings lips to 12.5 steps, and the head: (D -> D) and (D -> V)."""
    for video in ("conv3d-dense", "resnet18", "space-to-depth"):
        model = AVModel(config_of("dw-striding", video, "concat-mlp"))
        known = {place.tensor for group in groups_of(model) for place in (*group.made, *group.read)}
        paths = [path for path, _ in model.named_modules() if role_of(path)]
        weights = [f"{path}.weight" for path in paths if hasattr(model.get_submodule(path), "weight")]
        assert set(weights) - known == {"video.downsample.weight", "head.weight"}


def test_what_is_left_rebuilds_from_its_folder_and_deploys(tmp_path: Path) -> None:
    model = model_of(config_of("resnet1d", "resnet18", "concat-mlp with norm"))
    smaller = cut(model, {group.name: kept(group) for group in groups_of(model)}, removable_blocks(model.config))
    save_model(smaller, tmp_path)
    again = load_model(tmp_path)
    assert again.config == smaller.config
    assert torch.equal(outputs(again), outputs(smaller))
    torch.testing.assert_close(outputs(deployable(again)), outputs(smaller), atol=1e-5, rtol=1e-5)


def test_a_block_that_adds_nothing_leaves_without_a_trace_and_takes_its_neighbours_norm_along() -> None:
    """Its norm is applied to what the norm before it has just made: the second takes the place of the first."""
    config = config_of("dw-striding", "linear", "concat-mlp")
    model = model_of(config.model_copy(update={"blocks": config.blocks[:1] * 4, "inter_ctc": (1, 2, 3)}))
    dropped = ["blocks.1", "blocks.3"]
    for path in dropped:
        block = model.get_submodule(path)
        for layer in ("feed_forward_1.down", "attention.out", "conv.project", "feed_forward_2.down"):
            nn.init.zeros_(block.get_parameter(f"{layer}.weight"))
            nn.init.zeros_(block.get_parameter(f"{layer}.bias"))
        nn.init.normal_(block.get_parameter("norms.4.weight"))
        nn.init.normal_(block.get_parameter("norms.4.bias"))
    smaller = cut(model, {}, dropped)
    assert (len(smaller.config.blocks), smaller.config.inter_ctc) == (2, (1,))
    torch.testing.assert_close(outputs(smaller), outputs(model), atol=2e-5, rtol=2e-5)


def test_factorized_layers_and_a_decoder_come_along() -> None:
    config = config_of("dw-striding", "conv3d-dense", "concat-mlp")
    ranks = {"blocks.0.feed_forward_1.up": 5, "blocks.1.conv.expand": 4, "blocks.1.attention.out": 7, "video.linear": 9}
    decoder = AttentionDecoder(blocks=1, heads=2, feed_forward=16)
    model = model_of(config.model_copy(update={"ranks": ranks, "decoder": decoder}))
    groups = {group.name: group for group in groups_of(model)}
    units = {name: kept(groups[name]) for name in ("blocks.0.feed_forward_1", "blocks.1.conv", "blocks.1.attention")}
    for name in units:
        silence(model, groups[name], removed(groups[name]))
    smaller = cut(model, units)
    assert smaller.config.ranks == ranks
    torch.testing.assert_close(outputs(smaller), outputs(model), atol=1e-6, rtol=1e-6)
    gone = cut(model, {}, ["blocks.1"])
    assert gone.config.ranks == {name: ranks[name] for name in ("blocks.0.feed_forward_1.up", "video.linear")}


def test_a_group_stays_as_wide_as_the_rank_of_its_factorized_layers() -> None:
    config = config_of("dw-striding", "conv3d-dense", "concat-mlp")
    ranks = {"blocks.0.feed_forward_1.up": 13, "blocks.1.attention.out": 9, "video.linear": 10}
    groups = {group.name: group for group in groups_of(AVModel(config.model_copy(update={"ranks": ranks})))}
    assert groups["blocks.0.feed_forward_1"].least == 13
    assert groups["blocks.1.attention"].least == 2  # heads of 8 numbers, rank 9
    assert groups["blocks.0.attention"].least == 1


def test_a_group_or_block_that_is_not_there_is_named() -> None:
    model = AVModel(config_of("dw-striding", None, "sum"))
    with pytest.raises(ValueError, match=r"no blocks\.0, blocks\.7\.conv to remove"):
        cut(model, {"blocks.7.conv": torch.arange(8)}, ["blocks.0"])
