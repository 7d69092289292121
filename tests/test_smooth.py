"""Rescaled weights compute the same in float32, and make 8 bits' work easier where there are outliers."""

from __future__ import annotations

import copy

import pytest
import torch
from tiny_av import CONFIG, calibration, clip, tiny_model
from tiny_models import AUDIO, FUSION, VIDEO, model_config

from edgeav.models import AVModel, noise, random_model
from edgeav.models.config import Encoder
from edgeav.models.conformer import ConformerBlock
from edgeav.quant.smooth import Place, _equalizable, _smoothable, equalize, smooth

TEACHERS = CONFIG.model_copy(update={"encoder": Encoder(activation="relu")})


def outputs(model: AVModel) -> torch.Tensor:
    torch.manual_seed(5)
    with torch.no_grad():
        return model(*noise(model.config, steps=11, batch=1))


def clips(model: AVModel) -> list:
    return [clip(9, seed=seed, features=model.config.inputs) for seed in range(2)]


COMBINATIONS = [(audio, video, "concat-mlp") for audio in ("dw-striding",) for video in VIDEO]
COMBINATIONS += [("dw-striding", "conv3d-dense", fusion) for fusion in FUSION]
COMBINATIONS += [(audio, None, "sum") for audio in AUDIO]


@pytest.mark.parametrize(("audio", "video", "fusion"), COMBINATIONS)
def test_smoothing_and_equalizing_change_nothing_that_is_computed(audio: str, video: str | None, fusion: str) -> None:
    model = random_model(1, model_config(audio, video, fusion))
    before, weights = outputs(model), copy.deepcopy(model.state_dict())
    equalize(model)
    smooth(model, clips(model), 0.5)
    assert any((weights[name] != value).any() for name, value in model.state_dict().items())
    assert (outputs(model) - before).abs().max() < 1e-5


def test_factorized_layers_are_rescaled_at_the_half_that_counts() -> None:
    linear = [path for path, m in AVModel(TEACHERS).named_modules() if isinstance(m, torch.nn.Linear)]
    model = random_model(2, TEACHERS.model_copy(update={"ranks": dict.fromkeys(linear, 4)}))
    before = outputs(model)
    equalize(model)
    smooth(model, clips(model), 0.7)
    assert (outputs(model) - before).abs().max() < 1e-5


def test_learned_vectors_for_what_is_missing_are_rescaled_too() -> None:
    model = tiny_model()
    assert model.no_audio is not None
    with torch.no_grad():
        model.no_audio.normal_()
    unheard = [torch.from_numpy(array) for array in clip(9, sound=False)]
    with torch.no_grad():
        before = model(*unheard)
        smooth(model, calibration(), 0.5)
        assert (model(*unheard) - before).abs().max() < 1e-5


def test_equal_reach_on_both_sides_of_a_relu_to_within_the_power_of_two() -> None:
    model = random_model(3, TEACHERS)
    block = model.blocks[0]
    assert isinstance(block, ConformerBlock)
    with torch.no_grad():
        block.feed_forward_1.up.weight[3] *= 40
    equalize(model)
    for place in _equalizable(model):
        if isinstance(place.source.layer, torch.nn.Linear) and place.uses[0].repeat == 1:
            ratio = place.source.reach() / place.uses[0].reach()
            assert ratio.max() <= 2.01 and ratio.min() >= 1 / 2.01  # a factor moves the ratio by its square


def test_a_loud_channel_of_an_activation_becomes_as_loud_as_the_formula_says() -> None:
    model = tiny_model()
    block = model.blocks[0]
    assert isinstance(block, ConformerBlock)
    norm, up = block.norms[0], block.feed_forward_1.up
    assert isinstance(norm, torch.nn.LayerNorm)
    with torch.no_grad():
        norm.weight[7] *= 100
        up.weight[:, 7] /= 100
    before = seen(model, up)
    weight = up.weight.detach().abs().amax(dim=0)
    expected = before**0.5 * weight**0.5  # a / s with s = a^0.5 / w^0.5
    smooth(model, calibration(), 0.5)
    after = seen(model, up)
    assert before.max() / before.median() > 30
    assert after.max() / after.median() < 5
    assert (after / expected).log2().abs().max() <= 0.5 + 1e-4  # s is rounded to a power of two


def test_only_the_largest_value_of_each_channel_is_kept_of_all_clips() -> None:
    place = next(_smoothable(tiny_model()))
    for count in range(3):
        place.see(place.uses[0].layer, (torch.full((1, 5 + count, 48), float(count)),))
        assert place.largest is not None
        assert place.largest.shape == (48,)
    assert isinstance(place, Place)
    assert (place.largest == 2).all()


def seen(model: AVModel, layer: torch.nn.Module) -> torch.Tensor:
    """(C,): the largest magnitude of each channel that `layer` is given."""
    found = []
    hook = layer.register_forward_pre_hook(lambda _, given: found.append(given[0].abs().flatten(0, -2).amax(dim=0)))
    with torch.no_grad():
        for inputs in calibration():
            model(*(torch.from_numpy(array) for array in inputs))
    hook.remove()
    return torch.stack(found).amax(dim=0)
