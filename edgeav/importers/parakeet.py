"""Hugging Face `ParakeetForCTC` folders: NVIDIA's Fast Conformer with a CTC head.

Rekesh et al. 2023 (https://arxiv.org/abs/2305.05084). The same networks come as NeMo archives, `nemo.py`.
"""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from edgeav.errors import EdgeavError
from edgeav.importers.fast_conformer import FastConformer, Settings
from edgeav.importers.imported import Imported, fit, placeholders, renamed
from edgeav.importers.reading import read_tensors
from edgeav.models.config import Encoder
from edgeav.runtime.inputs import SAMPLE_RATE_HZ, LogMel

# ours -> theirs
NAMES = {
    "audio": "encoder.subsampling",
    "blocks": "encoder.layers",
    "head": "ctc_head",
    "feed_forward_1.up": "feed_forward1.linear1",
    "feed_forward_1.down": "feed_forward1.linear2",
    "feed_forward_2.up": "feed_forward2.linear1",
    "feed_forward_2.down": "feed_forward2.linear2",
    "attention.query": "self_attn.q_proj",
    "attention.key": "self_attn.k_proj",
    "attention.value": "self_attn.v_proj",
    "attention.out": "self_attn.o_proj",
    "attention.position": "self_attn.relative_k_proj",
    "attention.bias_u": "self_attn.bias_u",
    "attention.bias_v": "self_attn.bias_v",
    "conv.expand": "conv.pointwise_conv1",
    "conv.depthwise": "conv.depthwise_conv",
    "conv.project": "conv.pointwise_conv2",
    "norms.0": "norm_feed_forward1",
    "norms.1": "norm_self_att",
    "norms.2": "norm_conv",
    "norms.3": "norm_feed_forward2",
    "norms.4": "norm_out",
}
# The values config.json leaves out are those of transformers' ParakeetEncoderConfig.
DEFAULTS = {
    "hidden_size": 1024,
    "num_hidden_layers": 24,
    "num_attention_heads": 8,
    "intermediate_size": 4096,
    "conv_kernel_size": 9,
    "subsampling_factor": 8,
    "subsampling_conv_channels": 256,
    "num_mel_bins": 80,
    "attention_bias": True,
    "convolution_bias": True,
    "scale_input": True,
}
# What our model computes; any other value of these is another network.
MODEL = {"architectures": (["ParakeetForCTC"],), "model_type": ("parakeet_ctc",)}
ENCODER = {
    "hidden_act": ("silu", "swish"),
    "subsampling_factor": (4, 8),
    "subsampling_conv_kernel_size": (3,),
    "subsampling_conv_stride": (2,),
}
SOUND = {"sampling_rate": (SAMPLE_RATE_HZ,)}


def read_folder(folder: Path) -> Imported:
    """config.json, model.safetensors (or its shards), and if there tokenizer.json and preprocessor_config.json."""
    path = folder / "config.json"
    if not path.is_file():
        raise EdgeavError(
            f"{folder}: no config.json in it; expected a folder that ParakeetForCTC.save_pretrained wrote"
        )
    settings = Settings.read(path)
    settings.check(MODEL)
    vocabulary, blank = settings.number("vocab_size"), settings.number("pad_token_id", least=0)
    tokens, notes = _tokens(folder, vocabulary, blank)
    config = _network(settings.inner("encoder_config", DEFAULTS), folder).config(tokens, vocabulary, blank)
    weights = fit(config, _weights(folder), lambda name: renamed(name, NAMES), str(folder))
    pieces = folder / "tokenizer.model"
    tokenizer = pieces.read_bytes() if pieces.is_file() else None
    return Imported("Hugging Face ParakeetForCTC", config, weights, notes, tokenizer=tokenizer)


def _network(encoder: Settings, folder: Path) -> FastConformer:
    encoder.check(ENCODER)
    return FastConformer(
        width=encoder.number("hidden_size"),
        heads=encoder.number("num_attention_heads"),
        blocks=encoder.number("num_hidden_layers"),
        feed_forward=encoder.number("intermediate_size"),
        kernel=encoder.number("conv_kernel_size"),
        subsampling=(encoder.number("subsampling_factor"), encoder.number("subsampling_conv_channels")),
        mel=_mel(encoder.number("num_mel_bins"), folder / "preprocessor_config.json"),
        encoder=Encoder(
            bias=encoder.flag("attention_bias"),
            conv_bias=encoder.flag("convolution_bias"),
            scale_input=encoder.flag("scale_input"),
            stream_norm=False,
        ),
    )


def _mel(bands: int, path: Path) -> LogMel:
    """The features that the folder asks for; without the file NeMo's, which are the extractor's defaults too."""
    if not path.is_file():
        return LogMel(mels=bands)
    defaults = {"feature_size": bands, "hop_length": 160, "win_length": 400, "n_fft": 512, "preemphasis": 0.97}
    settings = Settings.read(path, defaults)
    settings.check(SOUND | {"feature_size": (bands,), "hop_length": (160,)})
    return LogMel(
        mels=bands,
        window=settings.number("win_length"),
        n_fft=settings.number("n_fft"),
        pre_emphasis=float(settings.values["preemphasis"] or 0),
    )


def _weights(folder: Path) -> dict[str, Tensor]:
    whole, index = folder / "model.safetensors", folder / "model.safetensors.index.json"
    if whole.is_file():
        return read_tensors(whole)
    if not index.is_file():
        raise EdgeavError(f"{folder}: neither {whole.name} nor {index.name} in it; save the model with safetensors")
    shards = set(Settings.read(index).inner("weight_map").values.values())
    weights = {}
    for shard in sorted(shards):
        path = folder / str(shard)
        if Path(str(shard)).name != shard or not path.is_file():
            raise EdgeavError(f"{index}: names {shard!r}, which is not a file in {folder}")
        weights |= read_tensors(path)
    return weights


def _tokens(folder: Path, vocabulary: int, blank: int) -> tuple[tuple[str, ...], list[str]]:
    """One text for each output (the last may be the blank), from tokenizer.json."""
    path = folder / "tokenizer.json"
    known = {blank: "<blank>"}
    if not path.is_file():
        note = f"no tokenizer.json in {folder.name}: the outputs are named <unit 0> …, so there is no readable text"
        return placeholders(vocabulary, known), [note]
    settings = Settings.read(path)
    pieces = settings.inner("model").values.get("vocab", {})
    found = dict(pieces) if isinstance(pieces, dict) else {row[0]: i for i, row in enumerate(pieces)}
    found |= {row["content"]: row["id"] for row in settings.values.get("added_tokens", [])}
    known = {index: piece for piece, index in found.items()} | known
    gaps = [str(i) for i in range(vocabulary) if i not in known]
    if gaps:
        raise EdgeavError(f"{path}: no token for {len(gaps)} of {vocabulary} outputs: {', '.join(gaps[:8])}")
    return placeholders(vocabulary, known), []
