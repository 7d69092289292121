"""Parameter counts of the published models, from the shapes alone: on the meta device, which holds no numbers."""

from __future__ import annotations

from typing import get_args

import pytest
import torch

from edgeav.macs import gmac_per_second
from edgeav.models import AVModel, ModelConfig
from edgeav.models.presets import FAST_CONFORMERS, STUDENTS, Modalities, Size, auto_avsr, fast_conformer, student
from edgeav.new_model import Preset
from edgeav.recipe import Recipe

ESPNET_TOKENS = ("<blank>", *(f"▁{n}" for n in range(5047)), "<eos>")


def count(config: ModelConfig, *without: str) -> int:
    """All parameters but those of the modules that begin with one of `without`."""
    with torch.device("meta"):
        model = AVModel(config)
    return sum(p.numel() for name, p in model.named_parameters() if not name.startswith(without))


@pytest.mark.parametrize(
    ("size", "parameters"),
    [("S", 12_600_240), ("M", 26_128_640), ("L", 108_762_112), ("L18", 115_074_560), ("XL", 607_749_120)],
)
def test_a_fast_conformer_encoder_has_as_many_parameters_as_published(size: Size, parameters: int) -> None:
    assert count(fast_conformer(size), "head.") == parameters


def test_a_ctc_head_adds_one_linear_layer() -> None:
    width, outputs = 176, 3 + 1  # three tokens and the blank
    config = fast_conformer("S", tokens=("a", "b", "c"))
    assert count(config) == 12_600_240 + (width + 1) * outputs


@pytest.mark.parametrize(
    ("modalities", "parameters"),
    [("audio-visual", 443_977_138), ("video", 250_383_410), ("audio", 243_049_202)],
)
def test_auto_avsr_has_as_many_parameters_as_its_reference(modalities: Modalities, parameters: int) -> None:
    assert count(auto_avsr(modalities, ESPNET_TOKENS)) == parameters


@pytest.mark.parametrize("modalities", ["audio", "video", "audio-visual"])
def test_every_fast_conformer_can_be_built_for_every_modality(modalities: Modalities) -> None:
    config = fast_conformer("S", modalities, tokens=("a",))
    assert [name for name in config.inputs.names if name != "presence"] == {
        "audio": ["mel"],
        "video": ["video"],
        "audio-visual": ["mel", "video"],
    }[modalities]
    assert count(config, "audio.", "video.", "fusion.", "no_", "head.", "audio_norm.", "video_norm.") == count(
        fast_conformer("S"), "audio.", "head."
    )


def test_recipes_may_name_every_preset_that_there_is() -> None:
    assert set(get_args(Preset)) == {f"fast-conformer-{size}" for size in FAST_CONFORMERS} - {
        "fast-conformer-L18"
    } | set(STUDENTS)


def test_the_medium_student_computes_at_most_a_tenth_of_what_the_demo_teacher_does() -> None:
    recipe = Recipe.load("train-teacher")
    assert not isinstance(recipe.model, str)
    teacher, medium = recipe.model.described("recipe"), student("av-student-medium", "audio-visual")
    assert gmac_per_second(AVModel(medium).eval()) <= gmac_per_second(AVModel(teacher).eval()) / 10
    assert count(teacher) >= 20e6
