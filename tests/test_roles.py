"""Every module that multiplies has a role in the quantization plan, whatever the model is made of."""

from __future__ import annotations

import pytest
from tiny_models import AUDIO, FUSION, VIDEO, model_config
from torch import nn

from edgeav.exporters.rewrites import deployable
from edgeav.models import AVModel, ModelConfig
from edgeav.models.config import AttentionDecoder
from edgeav.quant.plan import role_of

MULTIPLIES = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
COMBINATIONS = [
    *((audio, video, "sum") for audio in AUDIO for video in VIDEO if AUDIO[audio][1] >= 40),
    *(("dw-striding", "linear", fusion) for fusion in FUSION),
    *((audio, None, "sum") for audio in AUDIO),
    *((None, video, "sum") for video in VIDEO),
]


@pytest.mark.parametrize(("audio", "video", "fusion"), COMBINATIONS)
def test_every_module_that_multiplies_has_a_role(audio: str | None, video: str | None, fusion: str) -> None:
    config = model_config(audio, video, fusion)
    own = {"audio_blocks": config.blocks if audio else (), "video_blocks": config.blocks if video else ()}
    model = deployable(AVModel(config.model_copy(update=own)))
    assert not _without_role(model)


@pytest.mark.parametrize("fusion", FUSION)
def test_both_halves_of_a_factorized_layer_have_the_role_of_the_whole(fusion: str) -> None:
    config = model_config("dw-striding", "linear", fusion)
    linear = [path for path, module in AVModel(config).named_modules() if isinstance(module, nn.Linear)]
    model = AVModel(model_config("dw-striding", "linear", fusion, ranks=dict.fromkeys(linear, 2)))
    assert not _without_role(model)
    for path in linear:
        assert role_of(path) == role_of(f"{path}.narrow") == role_of(f"{path}.widen")


def test_the_attention_decoder_has_no_role_for_it_is_not_exported() -> None:
    config = model_config("dw-striding", "linear")
    decoder = AttentionDecoder(blocks=1, heads=2, feed_forward=16)
    model = AVModel(ModelConfig.model_validate({**config.model_dump(), "decoder": decoder.model_dump()}))
    missing = _without_role(model)
    assert missing
    assert all(path.startswith("decoder.") for path in missing)


def _without_role(model: AVModel) -> list[str]:
    paths = [path for path, module in model.named_modules() if isinstance(module, MULTIPLIES)]
    return [path for path in paths if role_of(path) is None]
