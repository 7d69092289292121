"""Parameter counts of the published models, from the shapes alone: on the meta device, which holds no numbers."""

from __future__ import annotations

import pytest
import torch

from edgeav.models import AVModel, ModelConfig
from edgeav.models.presets import Modalities, Size, auto_avsr, fast_conformer

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
