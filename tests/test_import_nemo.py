"""Fast Conformers from NeMo archives, made here: the same weights as from a Hugging Face folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from parakeet_files import PIECES, nemo_archive, nemo_weights, save_parakeet, stored

from edgeav.errors import EdgeavError
from edgeav.importers import import_model
from edgeav.models import load_model


@pytest.fixture(scope="module")
def parakeet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of random weights, as save_pretrained writes it."""
    return save_parakeet(tmp_path_factory.mktemp("hf") / "parakeet-0.1b")


@pytest.mark.parametrize("compressed", [False, True])
def test_a_nemo_archive_makes_the_same_weights_as_the_hugging_face_folder(
    compressed: bool, parakeet: Path, tmp_path: Path
) -> None:
    import_model(parakeet, tmp_path / "hf")
    archive = nemo_archive(tmp_path / "model.nemo", nemo_weights(parakeet), compressed)
    found = import_model(archive, tmp_path / "nemo")
    hf, nemo = stored(tmp_path / "hf"), stored(tmp_path / "nemo")
    assert all(torch.equal(hf[name], nemo[name]) for name in hf.keys() | nemo.keys())
    assert (found["notes"], found["left_out"], found["tokens"]) == ([], [], 12)
    assert load_model(tmp_path / "nemo").config.tokens == tuple(PIECES)
    assert (tmp_path / "nemo" / "tokenizer.model").read_bytes() == b"pieces"


def test_of_a_hybrid_archive_the_transducer_is_left_out_and_said_so(parakeet: Path, tmp_path: Path) -> None:
    weights = {
        name.replace("decoder.decoder_layers", "ctc_decoder.decoder_layers"): w
        for name, w in nemo_weights(parakeet).items()
    }
    weights |= {"joint.enc.weight": torch.zeros(4, 24), "decoder.prediction.embed.weight": torch.zeros(13, 4)}
    archive = nemo_archive(
        tmp_path / "hybrid.nemo", weights, joint={"a": 1}, aux_ctc={"decoder": {"vocabulary": PIECES}}
    )
    found = import_model(archive, tmp_path / "model")
    assert found["left_out"] == ["decoder (1 tensors)", "joint (1 tensors)"]
    head = stored(tmp_path / "model")["head.weight"]
    assert torch.equal(head, stored(parakeet)["ctc_head.weight"].squeeze(-1))


def test_local_attention_with_a_global_token_is_taken_over(parakeet: Path, tmp_path: Path) -> None:
    local = {"self_attention_model": "rel_pos_local_attn", "att_context_size": [16, 16], "global_tokens": 1}
    import_model(nemo_archive(tmp_path / "m.nemo", nemo_weights(parakeet), **local), tmp_path / "model")
    encoder = load_model(tmp_path / "model").config.encoder
    assert (encoder.window, encoder.global_tokens) == (16, 1)


def test_other_mel_filters_are_noted(parakeet: Path, tmp_path: Path) -> None:
    weights = nemo_weights(parakeet)
    weights["preprocessor.featurizer.fb"] = weights["preprocessor.featurizer.fb"] * 1.01
    found = import_model(nemo_archive(tmp_path / "m.nemo", weights), tmp_path / "model")
    assert "mel filters differ from ours by" in found["notes"][0]


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("conv_norm_type", "layer_norm"),
        ("causal_downsampling", True),
        ("att_context_size", [70, 13]),
        ("att_context_style", "chunked_limited"),
        ("subsampling", "striding"),
        ("self_attention_model", "abs_pos"),
    ],
)
def test_what_our_encoder_does_not_compute_is_refused_by_field_value_and_what_is_allowed(
    setting: str, value: Any, parakeet: Path, tmp_path: Path
) -> None:
    archive = nemo_archive(tmp_path / "m.nemo", nemo_weights(parakeet), **{setting: value})
    with pytest.raises(EdgeavError) as caught:
        import_model(archive, tmp_path / "model")
    assert f"encoder.{setting}: {value!r} is not supported" in str(caught.value) and "allowed: " in str(caught.value)
    assert not (tmp_path / "model").exists()


def test_a_pure_transducer_has_no_head_for_us(parakeet: Path, tmp_path: Path) -> None:
    archive = nemo_archive(tmp_path / "rnnt.nemo", nemo_weights(parakeet), joint={"jointnet": {}})
    with pytest.raises(EdgeavError, match="transducer without a CTC head"):
        import_model(archive, tmp_path / "model")
