"""The rewrites before an export change the form of a model, never its outputs."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from tiny_models import AUDIO, FUSION, VIDEO, model_config
from torch import nn

from edgeav.exporters.rewrites import (
    by_blocks,
    by_clip,
    by_convolution,
    by_frames,
    by_rows,
    deployable,
    fold_batch_norms,
    onnxruntime_form,
    openvino_form,
    stem_by_blocks,
    stem_by_rows,
    stem_to_2d,
    with_folded_factors,
    with_fused_attention,
)
from edgeav.models import AVModel, ModelConfig, noise, random_model
from edgeav.models.config import Encoder
from edgeav.models.conformer import FusedAttention, RelativeAttention
from edgeav.models.fusion import CrossAttention
from edgeav.models.visual import (
    Shrink,
    SpaceToDepth,
    SpaceToDepthByConv,
    Stem2d,
    Stem3d,
    StemByBlocks,
    StemByRows,
)
from edgeav.quant.census import macs_by_module

BATCH_NORM = nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d


@pytest.mark.parametrize(
    ("kernel", "stride", "crop"), [((5, 7, 7), 4, 88), ((3, 5, 5), 2, 44), ((1, 3, 3), 1, 24), ((5, 7, 7), 2, 48)]
)
def test_the_2d_stem_equals_the_3d_stem(kernel: tuple[int, int, int], stride: int, crop: int) -> None:
    torch.manual_seed(0)
    stem = Stem3d(8, kernel, stride, nn.ReLU()).eval()
    nn.init.uniform_(stem.norm.weight, 0.5, 2)
    stem.norm.running_mean = torch.randn(8)
    video = torch.randn(2, 6, crop, crop)
    torch.testing.assert_close(stem_to_2d(stem)(video), stem(video), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("kernel", "stride", "crop", "frames"),
    [((5, 7, 7), 4, 88, 6), ((3, 5, 5), 2, 45, 2), ((5, 7, 3), 3, 50, 3), ((7, 3, 5), 1, 24, 9)],
)
def test_the_stem_by_rows_equals_the_stem_by_frames(
    kernel: tuple[int, int, int], stride: int, crop: int, frames: int
) -> None:
    torch.manual_seed(0)
    taps, padding = kernel[0], (kernel[1] // 2, kernel[2] // 2)
    conv = nn.Conv2d(taps, 8, kernel[1:], stride, padding)
    stem = Stem2d(conv, nn.Identity(), nn.SiLU(), Shrink(2))
    video = torch.randn(1, frames, 2 * crop, 2 * crop)
    torch.testing.assert_close(stem_by_rows(stem)(video), stem(video), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("block", "pool", "crop", "batch"), [(4, 2, 88, 1), (4, 1, 88, 2), (2, 3, 24, 2)])
def test_pixels_sorted_by_a_convolution_are_the_pixels_sorted_by_hand(
    block: int, pool: int, crop: int, batch: int
) -> None:
    torch.manual_seed(0)
    stem, video = SpaceToDepth(block, Shrink(pool)), torch.randn(batch, 5, crop, crop)
    torch.testing.assert_close(SpaceToDepthByConv(stem)(video), stem(video), atol=1e-6, rtol=1e-5)


def test_a_model_is_turned_once_and_one_that_sorts_no_pixels_is_left_alone() -> None:
    plain, sorting = deployable(random_model()), deployable(random_model())
    assert by_convolution(plain) is plain
    assert sorting.video is not None
    sorting.video.stem = SpaceToDepth(4, Shrink(2))
    turned = by_convolution(sorting)
    assert turned.video is not None and isinstance(turned.video.stem, SpaceToDepthByConv)
    assert by_convolution(turned) is turned and type(sorting.video.stem) is SpaceToDepth


def test_query_key_and_value_by_one_matrix_are_the_same_numbers() -> None:
    plain = deployable(random_model())
    fused, inputs = with_fused_attention(plain), noise(plain.config, steps=7, batch=2)
    assert {type(block.attention) for block in fused.blocks} == {FusedAttention}
    assert {type(block.attention) for block in plain.blocks} == {RelativeAttention}
    with torch.inference_mode():
        torch.testing.assert_close(fused(*inputs), plain(*inputs), atol=1e-5, rtol=1e-5)
    assert with_fused_attention(fused) is fused
    assert sum(macs_by_module(fused).values()) == sum(macs_by_module(plain).values())


@pytest.mark.parametrize("ranks", [{}, {"blocks.0.attention.query": 8, "blocks.0.feed_forward_1.down": 8}])
@pytest.mark.parametrize("turn", [with_folded_factors, by_clip, by_frames, onnxruntime_form, openvino_form])
def test_an_engine_s_form_gives_the_same_numbers_and_leaves_the_model_as_it_was(
    turn: Callable[[AVModel], AVModel], ranks: dict[str, int]
) -> None:
    plain = deployable(random_model(config=ModelConfig(tokens=("a", "b"), ranks=ranks)))
    inputs = noise(plain.config, steps=7)
    with torch.inference_mode():
        before = plain(*inputs)
        turned = turn(plain)
        torch.testing.assert_close(turned(*inputs), before, atol=1e-5, rtol=1e-5)
        assert turned is not plain and torch.equal(plain(*inputs), before)


def test_parts_that_need_the_axis_of_clips_keep_it() -> None:
    local = ModelConfig(tokens=("a", "b"), blocks=ModelConfig().blocks[:1], encoder=Encoder(window=4))
    ready = deployable(random_model(config=local))
    assert by_clip(ready) is ready


def test_factorized_matrices_and_local_attention_are_not_fused() -> None:
    blocks = ModelConfig().blocks[:1]
    local = ModelConfig(tokens=("a", "b"), blocks=blocks, encoder=Encoder(window=4))
    thin = ModelConfig(tokens=("a", "b"), blocks=blocks, ranks={"blocks.0.attention.key": 8})
    for config in (local, thin):
        ready = deployable(random_model(config=config))
        assert with_fused_attention(ready) is ready


def test_rows_are_stacked_where_that_makes_fewer_copies_and_the_deployed_model_stays_as_it_is() -> None:
    ready, few = deployable(random_model()), deployable(random_model())
    assert ready.video is not None and few.video is not None
    few.video.stem.conv = nn.Conv2d(2, 8, 7, 2, 3)  # 3.5 copies by rows, 2 by frames
    turned, same = by_rows(ready), by_rows(few)
    assert turned.video is not None and isinstance(turned.video.stem, StemByRows)
    assert isinstance(ready.video.stem, Stem2d)
    assert same.video is not None and isinstance(same.video.stem, Stem2d)
    inputs = noise(ready.config, steps=5)
    with torch.inference_mode():
        torch.testing.assert_close(turned(*inputs), ready(*inputs), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("taps", "kernel", "stride", "padding", "crop"),
    [(5, 7, 4, 3, 88), (5, 7, 4, 3, 90), (3, 3, 4, 1, 48), (1, 7, 2, 3, 45), (3, 8, 4, 0, 41)],
)
def test_the_stem_by_blocks_equals_the_stem_by_frames(
    taps: int, kernel: int, stride: int, padding: int, crop: int
) -> None:
    torch.manual_seed(0)
    stem = Stem2d(nn.Conv2d(taps, 8, kernel, stride, padding), nn.Identity(), nn.SiLU(), Shrink(2))
    video = torch.randn(1, 6, 2 * crop, 2 * crop)
    torch.testing.assert_close(stem_by_blocks(stem)(video), stem(video), atol=1e-5, rtol=1e-5)


def test_blocks_are_cut_where_the_stride_is_four() -> None:
    ready, other = deployable(random_model()), deployable(random_model())
    assert ready.video is not None and other.video is not None
    other.video.stem.conv = nn.Conv2d(5, 8, 7, 2, 3)
    cut, same = by_blocks(ready), by_blocks(other)
    assert cut.video is not None and isinstance(cut.video.stem, StemByBlocks)
    assert same.video is not None and isinstance(same.video.stem, Stem2d)
    inputs = noise(ready.config, steps=5)
    with torch.inference_mode():
        torch.testing.assert_close(cut(*inputs), ready(*inputs), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("turn", [stem_by_rows, stem_by_blocks])
def test_a_batch_norm_is_folded_before_a_stem_is_turned(turn: Callable[[Stem2d], nn.Module]) -> None:
    stem = stem_to_2d(Stem3d(8, (5, 7, 7), 4, nn.ReLU()))
    with pytest.raises(ValueError, match="without a batch norm"):
        turn(stem)


def test_folding_batch_norms_changes_no_output() -> None:
    model, folded = random_model(seed=1), random_model(seed=1)
    fold_batch_norms(folded)
    assert not [m for m in folded.modules() if isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d)]
    _assert_same(model, folded)


def test_a_deployable_copy_gives_the_same_answers_and_leaves_the_model_alone() -> None:
    model = random_model()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    _assert_same(model, deployable(model))
    assert model.state_dict().keys() == before.keys()
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("fused", FUSION)
@pytest.mark.parametrize("video", VIDEO)
@pytest.mark.parametrize("audio", [name for name, (_, step_ms) in AUDIO.items() if step_ms >= 40])  # video at 25 fps
def test_every_front_end_and_fusion_deploys_without_a_batch_norm_and_says_the_same(
    audio: str, video: str, fused: str
) -> None:
    _assert_deploys(model_config(audio, video, fused))


@pytest.mark.parametrize(("audio", "video"), [*((name, None) for name in AUDIO), *((None, name) for name in VIDEO)])
def test_a_model_of_one_modality_deploys_without_a_batch_norm_and_says_the_same(
    audio: str | None, video: str | None
) -> None:
    _assert_deploys(model_config(audio, video))


def test_a_batch_norm_folds_into_a_factorized_linear_layer() -> None:
    _assert_deploys(model_config("dw-striding", "linear", "concat-mlp with norm", ranks={"fusion.up": 5}))


def _assert_deploys(config: ModelConfig) -> None:
    model = random_model(config=config)
    if isinstance(model.fusion, CrossAttention):
        nn.init.constant_(model.fusion.attention_gate, 0.7)
        nn.init.constant_(model.fusion.feed_forward_gate, -0.4)
    ready = deployable(model)
    assert not [name for name, module in ready.named_modules() if isinstance(module, BATCH_NORM)]
    inputs = noise(config, steps=5, batch=2)
    inputs[2][1, 3:] = 0  # padding
    inputs[2][0, :, 1] = 0 if config.audio else 1
    with torch.inference_mode():
        torch.testing.assert_close(ready(*inputs), model(*inputs), atol=1e-5, rtol=1e-5)


def test_a_stem_that_strides_in_time_is_refused() -> None:
    stem = Stem3d(8, (5, 7, 7), 4, nn.ReLU())
    stem.conv.stride = (2, 4, 4)
    with pytest.raises(ValueError, match="stride 1 in time"):
        stem_to_2d(stem)


def _assert_same(model: nn.Module, other: nn.Module) -> None:
    torch.manual_seed(2)
    presence = torch.ones(2, 7, 2)
    presence[0, 5:], presence[1, 3:, 0] = 0, 0
    inputs = torch.randn(2, 56, 80), torch.randn(2, 14, 88, 88), presence
    with torch.no_grad():
        torch.testing.assert_close(other(*inputs), model(*inputs), atol=1e-5, rtol=1e-5)
