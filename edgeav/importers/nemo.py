"""NVIDIA NeMo archives (.nemo): Fast Conformers with a CTC head, alone or beside a transducer (hybrid).

An archive is a tar of model_config.yaml, model_weights.ckpt and the tokenizer's files. Members are read by their names
and never unpacked to paths of their own, which may point anywhere.
"""

from __future__ import annotations

import shutil
import tarfile
import tempfile
from pathlib import Path

import numpy as np
from torch import Tensor

from edgeav.errors import EdgeavError
from edgeav.importers import parakeet
from edgeav.importers.fast_conformer import FastConformer, Settings
from edgeav.importers.imported import Imported, fit, listed, renamed
from edgeav.importers.reading import read_tensors
from edgeav.models.config import Encoder
from edgeav.runtime.inputs import SAMPLE_RATE_HZ, LogMel
from edgeav.runtime.log_mel import mel_filters

CONFIG, WEIGHTS = "model_config.yaml", "model_weights.ckpt"
TEXT_BYTES = 64 << 20  # no config or tokenizer is larger; an archive can claim any size

# Hugging Face's names -> NeMo's; ours become theirs by way of `parakeet.NAMES`.
NAMES = {
    "encoder.subsampling.layers": "encoder.pre_encode.conv",
    "encoder.subsampling.linear": "encoder.pre_encode.out",
    "conv.norm": "conv.batch_norm",
    "self_attn.q_proj": "self_attn.linear_q",
    "self_attn.k_proj": "self_attn.linear_k",
    "self_attn.v_proj": "self_attn.linear_v",
    "self_attn.o_proj": "self_attn.linear_out",
    "self_attn.relative_k_proj": "self_attn.linear_pos",
    "self_attn.bias_u": "self_attn.pos_bias_u",
    "self_attn.bias_v": "self_attn.pos_bias_v",
}
SHARED_BIASES = ("encoder.pos_bias_u", "encoder.pos_bias_v")  # tied ones stand in every block as well
FILTERS = "preprocessor.featurizer.fb"
TRANSDUCER = ("decoder", "joint")

PREPROCESSOR = {
    "sample_rate": (SAMPLE_RATE_HZ,),
    "normalize": ("per_feature",),
    "window": ("hann",),
    "window_stride": (0.01,),
    "log": (True,),
    "frame_splicing": (1,),
    "exact_pad": (False,),
    "mag_power": (2.0,),
    "mel_norm": ("slaney",),
    "log_zero_guard_type": ("add",),
}
ENCODER = {
    "subsampling": ("dw_striding",),
    "subsampling_factor": (4, 8),
    "self_attention_model": ("rel_pos", "rel_pos_local_attn"),
    "causal_downsampling": (False,),
    "att_context_style": ("regular",),
    "conv_norm_type": ("batch_norm",),
    "conv_context_size": (None,),
    "feat_out": (-1, None),
    "reduction": (None,),
    "global_attn_separate": (False,),
}
DEFAULTS = {"xscaling": True, "use_bias": True, "global_tokens": 0, "att_context_size": [-1, -1]}


def read_archive(path: Path) -> Imported:
    """The encoder and the CTC head; a transducer's decoder and joint network are left out, and said so."""
    text, theirs, tokenizer = _members(path)
    settings = Settings.parse(text, f"{path}: {CONFIG}")
    hybrid, transducer = "aux_ctc" in settings.values, "joint" in settings.values
    if transducer and not hybrid:
        raise EdgeavError(
            f"{path}: a transducer without a CTC head (no aux_ctc in {CONFIG}); expected a CTC or hybrid model"
        )
    head = (settings.inner("aux_ctc") if hybrid else settings).inner("decoder")
    network, tokens = _network(settings), _tokens(head)
    kept, left_out = _parts(theirs, TRANSDUCER if hybrid else ())
    # A CTC head of NeMo has one output more than tokens, at the end: the blank.
    config = network.config((*tokens, "<blank>"), len(tokens) + 1, len(tokens))
    names = NAMES | {"ctc_head": "ctc_decoder.decoder_layers.0" if hybrid else "decoder.decoder_layers.0"}

    def their_name(name: str) -> str:
        return renamed(renamed(name, parakeet.NAMES), names)

    weights = fit(config, kept, their_name, str(path), ignored=SHARED_BIASES)
    notes = _filters_note(theirs, network.mel)
    return Imported("NeMo hybrid" if hybrid else "NeMo CTC", config, weights, notes, left_out, tokenizer)


def _network(settings: Settings) -> FastConformer:
    encoder, sound = settings.inner("encoder", DEFAULTS), settings.inner("preprocessor")
    encoder.check(ENCODER)
    sound.check(PREPROCESSOR)
    width, bias = encoder.number("d_model"), encoder.flag("use_bias")
    window, tokens = _context(encoder)
    return FastConformer(
        width=width,
        heads=encoder.number("n_heads"),
        blocks=encoder.number("n_layers"),
        feed_forward=width * encoder.number("ff_expansion_factor"),
        kernel=encoder.number("conv_kernel_size"),
        subsampling=(encoder.number("subsampling_factor"), encoder.number("subsampling_conv_channels")),
        mel=LogMel(
            mels=sound.number("features"),
            window=round(float(sound.values.get("window_size", 0.025)) * SAMPLE_RATE_HZ),
            n_fft=sound.number("n_fft"),
            pre_emphasis=float(sound.values.get("preemph", 0.97) or 0),
        ),
        encoder=Encoder(
            bias=bias,
            conv_bias=bias,
            scale_input=encoder.flag("xscaling"),
            stream_norm=False,
            window=window,
            global_tokens=tokens,
        ),
    )


def _context(encoder: Settings) -> tuple[int | None, int]:
    """(steps seen to each side or None for all, global tokens)."""
    size, local = encoder.values["att_context_size"], encoder.values.get("self_attention_model") == "rel_pos_local_attn"
    if not local and size in ([-1, -1], None):
        return None, 0
    if local and isinstance(size, list) and len(size) == 2 and size[0] == size[1] and size[0] > 0:
        encoder.check({"global_tokens": (0, 1)})
        return size[0], encoder.number("global_tokens", least=0)
    allowed = "[w, w]" if local else "[-1, -1]"
    raise EdgeavError(f"{encoder.place}att_context_size: {size!r} is not supported (streaming); allowed: {allowed}")


def _tokens(head: Settings) -> tuple[str, ...]:
    tokens = head.values.get("vocabulary")
    if not isinstance(tokens, list) or not tokens:
        raise EdgeavError(f"{head.place}vocabulary: missing; expected the list of tokens")
    return tuple(map(str, tokens))


def _parts(theirs: dict[str, Tensor], besides: tuple[str, ...]) -> tuple[dict[str, Tensor], list[str]]:
    """(what makes our model, "part (n tensors)" for what a transducer needs besides)."""
    parts = [name.partition(".")[0] for name in theirs]
    unused = {*besides, "preprocessor"}  # the preprocessor's filters are computed here, and compared
    kept = {name: w for name, w in theirs.items() if name.partition(".")[0] not in unused}
    return kept, [f"{part} ({parts.count(part)} tensors)" for part in besides if part in parts]


def _members(path: Path) -> tuple[bytes, dict[str, Tensor], bytes | None]:
    """(config, weights, SentencePiece model or None)."""
    try:
        with tarfile.open(path, "r:*") as archive:
            files = {Path(member.name).name: member for member in archive.getmembers() if member.isfile()}
            missing = [name for name in (CONFIG, WEIGHTS) if name not in files]
            if missing:
                found = listed(files) or "  nothing"
                raise EdgeavError(f"{path}: no {' and no '.join(missing)} in the archive. It holds:\n{found}")
            pieces = next((member for name, member in files.items() if name.endswith("tokenizer.model")), None)
            tokenizer = _text(archive, pieces, path) if pieces else None
            return _text(archive, files[CONFIG], path), _weights(archive, files[WEIGHTS], path), tokenizer
    except (tarfile.TarError, EOFError, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise EdgeavError(f"{path}: not a .nemo archive, or truncated ({error}). Copy it again") from None


def _text(archive: tarfile.TarFile, member: tarfile.TarInfo, path: Path) -> bytes:
    if member.size > TEXT_BYTES:
        raise EdgeavError(f"{path}: {member.name} claims {member.size / 1e6:.0f} MB; at most {TEXT_BYTES / 1e6:.0f}")
    file = archive.extractfile(member)
    assert file is not None  # it is a file
    return file.read()


def _weights(archive: tarfile.TarFile, member: tarfile.TarInfo, path: Path) -> dict[str, Tensor]:
    """Copied to a file that can be mapped; the mapping outlives the file's name."""
    with tempfile.TemporaryDirectory(prefix="edgeav-") as folder:
        place, file = Path(folder) / WEIGHTS, archive.extractfile(member)
        assert file is not None
        with place.open("wb") as copy:
            shutil.copyfileobj(file, copy, 1 << 20)
        if place.stat().st_size != member.size:
            raise EOFError(f"{WEIGHTS} ends after {place.stat().st_size} of {member.size} bytes")
        return read_tensors(place, f"{path}: {WEIGHTS}")


def _filters_note(theirs: dict[str, Tensor], mel: LogMel) -> list[str]:
    """What to say when the archive's own mel filters are not those that our features compute."""
    if FILTERS not in theirs:
        return []
    found = theirs[FILTERS].float().squeeze().numpy()
    ours = mel_filters(mel)
    if found.shape != ours.shape:
        return [f"its mel filters are {found.shape}, ours {ours.shape}: its output on sound will differ"]
    error = float(np.abs(found - ours).max())
    return [f"its mel filters differ from ours by {error:.2g}: its output on sound may differ"] if error > 1e-5 else []
