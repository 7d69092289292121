"""Front ends: their sizes, against the formula or an independent form, and no row of a batch knows of another."""

from __future__ import annotations

import pytest
import torch
from tiny_models import AUDIO, CROP, SLIM, VIDEO, model_config, padded
from torch import Tensor, nn
from torch.nn import functional as F

from edgeav.models import config as c
from edgeav.models import random_model
from edgeav.models.audio import MelConv, audio_frontend
from edgeav.models.visual import LipFrontend, Shrink, SpaceToDepth, visual_frontend
from edgeav.runtime.inputs import Features, Mouth, Samples

STEPS = (3, 7, 5)


def eyes(name: str, step_ms: int = 80) -> LipFrontend:
    video = random_model(config=model_config(video=name, step_ms=step_ms)).video
    assert isinstance(video, LipFrontend)
    return video


def ears(name: str) -> nn.Module:
    audio = random_model(config=model_config(audio=name)).audio
    assert audio is not None
    return audio


def parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def test_the_teachers_front_ends_have_as_many_parameters_as_in_auto_avsr() -> None:
    inputs = Features(40, Samples(), Mouth())
    config = c.ModelConfig(inputs=inputs, width=768, audio=c.ResNet1d(), video=c.ResNet18(), tokens=("a",))
    with torch.device("meta"):
        video, audio = visual_frontend(config), audio_frontend(config)
    projection = 512 * 768 + 768
    assert parameters(video) - projection == 11_182_784
    assert parameters(audio) - projection == 3_848_576


@pytest.mark.parametrize("step_ms", [40, 80])
@pytest.mark.parametrize("name", VIDEO)
def test_lips_come_out_at_the_models_rate_and_a_padded_row_equals_the_row_alone(name: str, step_ms: int) -> None:
    frontend = eyes(name, step_ms)
    torch.manual_seed(1)
    rows = [torch.randn(step_ms // 40 * steps, CROP, CROP) for steps in STEPS]
    with torch.inference_mode():
        together = frontend(padded(rows))
        assert together.shape == (3, max(STEPS), 16)
        for steps, row, out in zip(STEPS, rows, together, strict=True):
            torch.testing.assert_close(out[:steps], frontend(row[None])[0], atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", AUDIO)
def test_sound_comes_out_at_the_models_rate_and_a_padded_row_equals_the_row_alone(name: str) -> None:
    frontend, features = ears(name), model_config(audio=name).inputs
    tail = (20,) if features.names[0] == "mel" else ()
    torch.manual_seed(1)
    rows = [torch.randn(features.audio_frames * steps, *tail) for steps in STEPS]
    valid = padded([torch.ones(steps, 1) for steps in STEPS])
    with torch.inference_mode():
        together = frontend(padded(rows), valid)
        assert together.shape == (3, max(STEPS), 16)
        for steps, row, out in zip(STEPS, rows, together, strict=True):
            alone = frontend(row[None], torch.ones(1, steps, 1))
            torch.testing.assert_close(out[:steps], alone[0], atol=1e-5, rtol=0)


def test_resnet18_equals_auto_avsrs_layer_by_layer() -> None:
    frontend = eyes("resnet18", step_ms=40)
    weights = frontend.state_dict()
    video = torch.randn(2, 5, CROP, CROP)
    x = F.conv3d(video[:, None], weights["stem.conv.weight"], stride=(1, 2, 2), padding=(2, 3, 3))
    x = F.max_pool3d(F.silu(normed(x, weights, "stem.norm")), (1, 3, 3), (1, 2, 2), (0, 1, 1))
    x = x.transpose(1, 2).reshape(10, SLIM[0], 6, 6)
    x = trunk(x, weights, "convs", first=1).mean((2, 3))
    expected = F.linear(x, weights["linear.weight"], weights["linear.bias"]).view(2, 5, 16)
    with torch.inference_mode():
        torch.testing.assert_close(frontend(video), expected, atol=1e-5, rtol=1e-5)


def test_the_audio_resnet_equals_auto_avsrs_layer_by_layer_for_a_complete_utterance() -> None:
    frontend = ears("resnet1d")
    weights = frontend.state_dict()
    samples = torch.randn(2, 640 * 4)
    x = F.silu(normed(F.conv1d(samples[:, None], weights["stem.weight"], stride=4, padding=38), weights, "norm"))
    x = F.avg_pool1d(trunk(x, weights, "layers", first=0), 20, 20).transpose(1, 2)
    expected = F.linear(x, weights["linear.weight"], weights["linear.bias"])
    with torch.inference_mode():
        torch.testing.assert_close(frontend(samples, torch.ones(2, 4, 1)), expected, atol=1e-5, rtol=1e-5)


def trunk(x: Tensor, weights: dict[str, Tensor], name: str, first: int) -> Tensor:
    """ResNet18's eight blocks as formulas, in one or two dimensions."""
    conv = F.conv1d if x.dim() == 3 else F.conv2d
    for place, stride in enumerate((1, 1, 2, 1, 2, 1, 2, 1)):
        block = f"{name}.{first + place}"
        y = F.silu(
            normed(conv(x, weights[f"{block}.conv_1.weight"], stride=stride, padding=1), weights, f"{block}.norm_1")
        )
        y = normed(conv(y, weights[f"{block}.conv_2.weight"], padding=1), weights, f"{block}.norm_2")
        if f"{block}.shortcut.0.weight" in weights:
            x = normed(conv(x, weights[f"{block}.shortcut.0.weight"], stride=stride), weights, f"{block}.shortcut.1")
        x = F.silu(x + y)
    return x


def normed(x: Tensor, weights: dict[str, Tensor], name: str) -> Tensor:
    """(x - mean) / deviation * weight + bias of each channel."""
    weight, bias, mean, variance = (
        weights[f"{name}.{part}"].view(1, -1, *[1] * (x.dim() - 2))
        for part in ("weight", "bias", "running_mean", "running_var")
    )
    return (x - mean) / (variance + 1e-5).sqrt() * weight + bias


def test_a_halved_picture_is_the_mean_of_2x2_pixels() -> None:
    video = torch.randn(2, 3, 8, 6)
    expected = video.view(2, 3, 4, 2, 3, 2).mean((3, 5))
    torch.testing.assert_close(Shrink(2)(video), expected)
    whole, halved = eyes("linear", 40), eyes("linear halved", 40)
    assert whole.linear.in_features == CROP**2
    assert halved.linear.in_features == (CROP // 2) ** 2


def test_space_to_depth_equals_pixel_unshuffle_of_each_frame_and_its_neighbours() -> None:
    video = torch.randn(2, 5, 12, 8)
    around = torch.cat([torch.zeros(2, 1, 12, 8), video, torch.zeros(2, 1, 12, 8)], dim=1)
    triples = torch.stack([around[:, t : t + 3] for t in range(5)], dim=1).flatten(0, 1)  # (10, 3, 12, 8)
    torch.testing.assert_close(SpaceToDepth(4)(video), F.pixel_unshuffle(triples, 4))
    halved = F.avg_pool2d(triples, 2)
    torch.testing.assert_close(SpaceToDepth(2, Shrink(2))(video), F.pixel_unshuffle(halved, 2))


def test_the_linear_front_end_is_one_matrix_times_the_pixels() -> None:
    frontend, video = eyes("linear", 40), torch.randn(2, 3, CROP, CROP)
    expected = video.flatten(2) @ frontend.linear.weight.T + frontend.linear.bias
    with torch.inference_mode():
        torch.testing.assert_close(frontend(video), expected, atol=1e-5, rtol=1e-5)


def test_conv1d_is_a_matrix_over_each_steps_frames_and_the_one_before() -> None:
    conv = MelConv(c.Conv1d(), mels=5, frames_per_step=2, width=8)
    mel = torch.randn(1, 6, 5)
    before = torch.cat([torch.zeros(1, 1, 5), mel], dim=1)
    expected = [(before[:, t : t + 3] * conv.conv.weight.transpose(1, 2)[:, None]).sum((2, 3)).T for t in (0, 2, 4)]
    assert conv.conv.bias is not None
    out = (torch.stack(expected, dim=1) + conv.conv.bias).relu()
    torch.testing.assert_close(conv(mel, torch.ones(1, 3, 1)), out, atol=1e-6, rtol=1e-5)


def test_sound_before_a_gap_is_heard_as_if_it_ended_there() -> None:
    frontend = ears("resnet1d")
    there = torch.ones(1, 9, 1)
    there[:, 4:] = 0
    samples = torch.randn(1, 640 * 4)
    with torch.inference_mode():
        gap = frontend(F.pad(samples, (0, 640 * 5)), there)
        torch.testing.assert_close(gap[:, :4], frontend(samples, torch.ones(1, 4, 1)), atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("problem", "settings"),
    [
        ("resnet1d.*40 ms, not 80", {"inputs": Features(80, Samples(), None), "audio": c.ResNet1d()}),
        ("conv1d looks at 30 ms.*80", {"inputs": Features(80, video=None), "audio": c.Conv1d()}),
        ("space-to-depth.*88 pixels.*16", {"inputs": Features(80, None), "video": c.SpaceToDepth(block=16)}),
        ("space-to-depth.*88 pixels.*24", {"inputs": Features(80, None), "video": c.SpaceToDepth(block=8, pool=3)}),
    ],
)
def test_a_front_end_that_does_not_fit_its_inputs_is_refused(problem: str, settings: dict) -> None:
    with pytest.raises(ValueError, match=problem):
        c.ModelConfig(**{"audio": None, "video": None, "fusion": None, **settings})
