"""Random Fast Conformers as other projects store them: Hugging Face folders, NeMo archives."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file
from torch import Tensor

from edgeav.runtime.log_mel import mel_filters

SIZES: dict[str, Any] = {
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "intermediate_size": 96,
    "subsampling_conv_channels": 8,
    "num_mel_bins": 80,
}
# Hugging Face -> NeMo, as NVIDIA's converter has it (the one in transformers, backwards)
NEMO = {
    "encoder.subsampling.layers": "encoder.pre_encode.conv",
    "encoder.subsampling.linear": "encoder.pre_encode.out",
    "ctc_head": "decoder.decoder_layers.0",
    ".conv.norm.": ".conv.batch_norm.",
    "q_proj": "linear_q",
    "k_proj": "linear_k",
    "v_proj": "linear_v",
    "o_proj": "linear_out",
    "relative_linear_k": "linear_pos",
    "bias_u": "pos_bias_u",
    "bias_v": "pos_bias_v",
}
PIECES = [f"▁{letter}" for letter in "abcdefghijkl"]


def save_parakeet(folder: Path, shard: str = "1GB", **encoder: Any) -> Path:
    """A folder as save_pretrained writes it; `encoder` changes `SIZES`."""
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.ParakeetCTCConfig(vocab_size=13, pad_token_id=12, encoder_config={**SIZES, **encoder})
    model = transformers.ParakeetForCTC(config)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter)
    model.save_pretrained(folder, max_shard_size=shard)
    return folder


def stored(folder: Path) -> dict[str, Tensor]:
    """What model.safetensors in it holds."""
    return load_file(folder / "model.safetensors")


def nemo_archive(path: Path, weights: dict[str, Tensor], compressed: bool = False, **changes: Any) -> Path:
    """A .nemo file; `changes` replace settings of the encoder, or add top-level ones that are dicts."""
    encoder: dict[str, Any] = {
        "_target_": "nemo.collections.asr.modules.ConformerEncoder", "feat_in": 80, "feat_out": -1, "n_layers": 2,
        "d_model": 24, "subsampling": "dw_striding", "subsampling_factor": 8, "subsampling_conv_channels": 8,
        "causal_downsampling": False, "ff_expansion_factor": 4, "self_attention_model": "rel_pos", "n_heads": 3,
        "att_context_size": [-1, -1], "att_context_style": "regular", "xscaling": True, "untie_biases": True,
        "conv_kernel_size": 9, "conv_norm_type": "batch_norm", "conv_context_size": None,
    }  # fmt: skip
    sound = {"sample_rate": 16000, "normalize": "per_feature", "window_size": 0.025, "window_stride": 0.01,
             "window": "hann", "features": 80, "n_fft": 512, "dither": 1e-5, "pad_to": 0}  # fmt: skip
    config: dict[str, Any] = {"preprocessor": sound, "decoder": {"vocabulary": PIECES, "num_classes": 12}}
    config |= {name: value for name, value in changes.items() if isinstance(value, dict)}
    config["encoder"] = encoder | {name: value for name, value in changes.items() if name not in config}
    checkpoint = io.BytesIO()
    torch.save(weights, checkpoint)
    with tarfile.open(path, "w:gz" if compressed else "w") as archive:
        for name, data in (
            ("./model_config.yaml", yaml.safe_dump(config).encode()),
            ("./model_weights.ckpt", checkpoint.getvalue()),
            ("./0a1b_tokenizer.model", b"pieces"),
        ):
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return path


def nemo_weights(parakeet: Path) -> dict[str, Tensor]:
    """The folder's weights by NeMo's names, with its preprocessor's buffers."""
    weights = {}
    for name, weight in stored(parakeet).items():
        name = name.replace("relative_k_proj", "relative_linear_k")  # which holds "k_proj"
        for theirs, nemo in NEMO.items():
            name = name.replace(theirs, nemo)
        weights[name] = weight
    weights["preprocessor.featurizer.fb"] = torch.from_numpy(mel_filters().copy())[None]
    weights["preprocessor.featurizer.window"] = torch.hann_window(400, periodic=False)
    return weights
