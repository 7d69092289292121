"""The Conformer-CTC inside the PyPI package hama (Apache-2.0): 2 M parameters, IPA phonemes, trained on real speech.

Its file is an exported graph's constants without the graph: `.hama`, a table of (name, type, shape, place), then the
data. Batch norms are folded into the convolutions before them, q, k, v are one matrix. Of the package nothing is run:
the weights and the token list are read from where it is installed.
"""

from __future__ import annotations

import json
import struct
from dataclasses import replace
from importlib.util import find_spec
from math import prod, sqrt
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import BatchNorm1d

from edgeav.errors import EdgeavError, needs
from edgeav.importers.imported import MAX_S, Imported, fit, listed, placeholders, renamed
from edgeav.models import ModelConfig
from edgeav.models.config import Block, Conv1d, Encoder
from edgeav.runtime.ctc import WORD_START
from edgeav.runtime.inputs import Features, LogMel
from edgeav.runtime.log_mel import mel_filters, window

WEIGHTS, TOKENS = "asr_waveform.hama", "g2p_vocab.json"
MAGIC = b"HAMAPK\x01\x02"
ALIGNMENT = 16  # bytes, of the data behind the table
DTYPES = {0: np.dtype("<f4"), 1: np.dtype("<f2")}
STEP_MS, HEADS = 20, 4  # neither is in the file
PREFIX = "acoustic_model.model."
# The features that its constants compute, found by comparing them: `_check_filters`.
MEL = LogMel(
    window=400,
    n_fft=400,
    window_function="hann-periodic",
    low_hz=40.0,
    high_hz=7600.0,
    mel_corners="bins",
    pre_emphasis=0.0,
    padding="reflect",
    log_floor=1e-10,
    log_guard="clamp",
    normalize="none",
)
# theirs -> ours, inside a block
NAMES = {
    "ffn1.norm": "norms.0",
    "attn_norm": "norms.1",
    "conv.norm": "norms.2",
    "ffn2.norm": "norms.3",
    "norm": "norms.4",
    "ffn1.fc1.bias": "feed_forward_1.up.bias",
    "ffn1.fc2.bias": "feed_forward_1.down.bias",
    "ffn2.fc1.bias": "feed_forward_2.up.bias",
    "ffn2.fc2.bias": "feed_forward_2.down.bias",
    "attn.out_proj.bias": "attention.out.bias",
    "conv.pointwise1": "conv.expand",
    "conv.pointwise2": "conv.project",
}


def read_package() -> Imported:
    """The model of the installed package, with its tokens."""
    spec = find_spec("hama")
    if spec is None or spec.origin is None:
        raise needs("hama", "hama")
    return read_file(Path(spec.origin).parent / "assets" / WEIGHTS)


def read_file(path: Path) -> Imported:
    """A .hama file; its tokens are looked for beside it, as the package has them."""
    theirs = {name.removeprefix(PREFIX): w for name, w in _read(path).items()}
    _check_filters(theirs, path)
    ours = _ours(theirs, path)
    outputs = ours["head.weight"].shape[0]
    tokens, notes = _tokens(path.with_name(TOKENS), outputs)
    config = _config(ours, tokens)
    return Imported("hama Conformer-CTC", config, fit(config, ours, str, str(path)), notes)


def _config(ours: dict[str, Tensor], tokens: tuple[str, ...]) -> ModelConfig:
    """Sizes from the shapes; what the shapes do not say was found against the package's own engine."""
    width, bands, _ = ours["audio.conv.weight"].shape
    blocks = sum(name.endswith(".attention.query.weight") for name in ours)
    block = Block(
        heads=HEADS,
        head_width=width // HEADS,
        feed_forward=ours["blocks.0.feed_forward_1.up.weight"].shape[0],
        feed_forward_2=ours["blocks.0.feed_forward_2.up.weight"].shape[0],
        conv_channels=width,
        kernel=ours["blocks.0.conv.depthwise.weight"].shape[-1],
    )
    return ModelConfig(
        inputs=Features(step_ms=STEP_MS, audio=replace(MEL, mels=bands), video=None),
        width=width,
        audio=Conv1d(activation="gelu"),
        video=None,
        fusion=None,
        blocks=(block,) * blocks,
        encoder=Encoder(positions="none", stream_norm=False),
        max_steps=MAX_S * 1000 // STEP_MS,
        tokens=tokens,
    )


def _ours(theirs: dict[str, Tensor], path: Path) -> dict[str, Tensor]:
    """By our names. The exporter numbered the matrices and the folded convolutions in the order of the graph."""
    matrices, convs = _numbered(theirs, "onnx::MatMul_"), _numbered(theirs, "onnx::Conv_")
    blocks = sum(name.endswith(".attn.in_proj_bias") for name in theirs)
    if not blocks or "proj.weight" not in theirs or (len(matrices), len(convs)) != (6 * blocks, 2 + 2 * blocks):
        raise EdgeavError(f"{path}: not hama's speech model, {WEIGHTS}. It begins with\n{listed(theirs)}")
    ours = {"audio.conv.weight": convs[0], "audio.conv.bias": convs[1]}
    ours |= {f"head.{part}": theirs[f"proj.{part}"] for part in ("weight", "bias")}
    for i in range(blocks):
        at = f"blocks.{i}."
        named = {name.removeprefix(at): w for name, w in theirs.items() if name.startswith(at)}
        block = {renamed(name, NAMES): w for name, w in named.items() if name != "attn.in_proj_bias"}
        block |= _matrices(matrices[6 * i : 6 * i + 6], named["attn.in_proj_bias"])
        block |= _depthwise(*convs[2 + 2 * i : 4 + 2 * i])
        ours |= {at + name: w for name, w in block.items()}
    return ours


def _matrices(matrices: list[Tensor], bias: Tensor) -> dict[str, Tensor]:
    """One block's, in the graph's order. Theirs multiply from the right, (in, out); query, key, value are one."""
    up_1, down_1, inner, out, up_2, down_2 = (w.T for w in matrices)
    ours = {"feed_forward_1.up.weight": up_1, "feed_forward_1.down.weight": down_1, "attention.out.weight": out}
    ours |= {"feed_forward_2.up.weight": up_2, "feed_forward_2.down.weight": down_2}
    for name, weight, shift in zip(("query", "key", "value"), inner.chunk(3), bias.chunk(3), strict=True):
        ours |= {f"attention.{name}.weight": weight, f"attention.{name}.bias": shift}
    return ours


def _depthwise(weight: Tensor, bias: Tensor) -> dict[str, Tensor]:
    """The convolution with its batch norm folded in, and a batch norm that changes nothing."""
    width = weight.shape[0]
    zeros, ones = torch.zeros(width), torch.ones(width)
    norm = {"weight": ones * sqrt(1 + BatchNorm1d(1).eps), "bias": zeros, "running_mean": zeros, "running_var": ones}
    ours = {f"conv.norm.{name}": w.clone() for name, w in norm.items()}
    return ours | {"conv.depthwise.weight": weight, "conv.depthwise.bias": bias}


def _numbered(theirs: dict[str, Tensor], prefix: str) -> list[Tensor]:
    names = [name for name in theirs if name.startswith(prefix) and name.removeprefix(prefix).isdigit()]
    return [theirs[name] for name in sorted(names, key=lambda name: int(name.removeprefix(prefix)))]


def _check_filters(theirs: dict[str, Tensor], path: Path) -> None:
    """EdgeavError when the file's own constants are not the features that `MEL` computes."""
    found = {
        name: theirs.pop(name, torch.zeros(0)).numpy() for name in ("mel_fb", "stft_real_kernel", "stft_imag_kernel")
    }
    angle = np.outer(np.arange(MEL.n_fft // 2 + 1), np.arange(MEL.n_fft)) * (2 * np.pi / MEL.n_fft)
    waves = window(MEL) * np.exp(-1j * angle)
    expected = {
        "mel_fb": mel_filters(MEL).T,
        "stft_real_kernel": waves.real[:, None],
        "stft_imag_kernel": waves.imag[:, None],
    }
    for name, ours in expected.items():
        # The file's waves come from angles in single precision: up to 1e-4 off.
        if found[name].shape != ours.shape or np.abs(found[name] - ours).max() > (1e-5 if name == "mel_fb" else 2e-4):
            raise EdgeavError(f"{path}: {name} is not that of hama 1.7.0, the version that can be imported")


def _tokens(path: Path, outputs: int) -> tuple[tuple[str, ...], list[str]]:
    """Its phonemes, then the word boundary, which becomes our mark of a word's start; the blank is last."""
    if not path.is_file():
        note = f"no {path.name} beside it: the outputs are named <unit 0> …, so there is no readable text"
        return placeholders(outputs - 1, {}), [note]
    tokens = json.loads(path.read_text(encoding="utf-8")).get("decoder", [])
    if len(tokens) + 2 != outputs:
        raise EdgeavError(f"{path}: {len(tokens)} phonemes; the model has {outputs} outputs, so {outputs - 2}")
    return (*tokens, WORD_START), ["its tokens are IPA phonemes, not letters: compare its text with phonemes"]


def _read(path: Path) -> dict[str, Tensor]:
    """Name -> tensor, from the table: a name, its type and shape, and where its bytes are behind the table."""
    data = path.read_bytes()
    if not data.startswith(MAGIC):
        raise EdgeavError(f"{path}: not a .hama file of version 1: it begins with {data[:8]!r}, expected {MAGIC!r}")
    try:
        table, end = _table(data)
        base = -(-end // ALIGNMENT) * ALIGNMENT
        return {
            name: torch.from_numpy(np.frombuffer(data, kind, prod(shape), base + offset).reshape(shape).copy())
            for name, kind, shape, offset in table
        }
    except (struct.error, ValueError, KeyError, IndexError) as error:
        raise EdgeavError(f"{path}: truncated or damaged ({error}). Copy it again") from None


def _table(data: bytes) -> tuple[list[tuple[str, np.dtype, tuple[int, ...], int]], int]:
    """(rows, where the table ends)."""
    (count,), at, rows = struct.unpack_from("<I", data, len(MAGIC)), len(MAGIC) + 4, []
    for _ in range(count):
        (length,) = struct.unpack_from("<H", data, at)
        name = data[at + 2 : at + 2 + length].decode()
        at += 2 + length
        kind, dimensions = struct.unpack_from("<BB", data, at)
        shape = struct.unpack_from(f"<{dimensions}I", data, at + 2)
        offset, _ = struct.unpack_from("<QQ", data, at + 2 + 4 * dimensions)
        rows.append((name, DTYPES[kind], shape, offset))
        at += 18 + 4 * dimensions
    return rows, at
