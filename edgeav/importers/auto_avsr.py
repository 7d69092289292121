"""Auto-AVSR checkpoints: AV-Conformers with CTC and attention (Ma et al. 2023, https://arxiv.org/abs/2303.14307).

Layout A, audio-visual or one modality: encoder.*, aux_encoder.* (sound), fusion.*, decoder.*, ctc.*, each encoder with
its frontend and embed.0 inside. Layout B, one modality, the repository's present form: frontend.*, proj_encoder.*,
encoder.*, decoder.*, ctc.*. Lightning puts `model.` before every name. All sizes come from the shapes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from edgeav.errors import EdgeavError
from edgeav.importers.imported import MAX_S, Imported, fit, listed, placeholders, renamed, shape_of
from edgeav.importers.reading import read_tensors
from edgeav.models import ModelConfig
from edgeav.models.config import AttentionDecoder, Block, ConcatMlp, Encoder, ResNet1d, ResNet18
from edgeav.runtime.inputs import Features, Mouth, Samples

STEP_MS = 40
LAYOUTS = """\
  A  encoder.frontend.…, encoder.embed.0.…, encoder.encoders.…, decoder.…, ctc.ctc_lo.…; also aux_encoder.…, fusion.…
  B  frontend.…, proj_encoder.…, encoder.encoders.…, decoder.…, ctc.ctc_lo.…"""

# ours -> theirs, in an encoder's blocks; the typo `cov` is theirs
BLOCK = {
    "feed_forward_1.up": "feed_forward_macaron.w_1",
    "feed_forward_1.down": "feed_forward_macaron.w_2",
    "feed_forward_2.up": "feed_forward.w_1",
    "feed_forward_2.down": "feed_forward.w_2",
    "attention.query": "self_attn.linear_q",
    "attention.key": "self_attn.linear_k",
    "attention.value": "self_attn.linear_v",
    "attention.out": "self_attn.linear_out",
    "attention.position": "self_attn.linear_pos",
    "attention.bias_u": "self_attn.pos_bias_u",
    "attention.bias_v": "self_attn.pos_bias_v",
    "conv.expand": "conv_module.pointwise_cov1",
    "conv.depthwise": "conv_module.depthwise_conv",
    "conv.norm": "conv_module.norm",
    "conv.project": "conv_module.pointwise_cov2",
    "norms.0": "norm_ff_macaron",
    "norms.1": "norm_mha",
    "norms.2": "norm_conv",
    "norms.3": "norm_ff",
    "norms.4": "norm_final",
}
RESIDUAL = {"conv_1": "conv1", "norm_1": "bn1", "conv_2": "conv2", "norm_2": "bn2", "shortcut": "downsample"}
DECODER = {
    "decoder.embed": "decoder.embed.0",
    "decoder.norm": "decoder.after_norm",
    "decoder.head": "decoder.output_layer",
    "blocks": "decoders",
    "self_attention": "self_attn",
    "source_attention": "src_attn",
    "query": "linear_q",
    "key": "linear_k",
    "value": "linear_v",
    "out": "linear_out",
    "feed_forward.up": "feed_forward.w_1",
    "feed_forward.down": "feed_forward.w_2",
    "norms.0": "norm1",
    "norms.1": "norm2",
    "norms.2": "norm3",
}
REST = {"fusion.up": "fusion.fc1", "fusion.norm": "fusion.bn1", "fusion.down": "fusion.fc2", "head": "ctc.ctc_lo"}
STAGE = [f"{stage}.{place}" for stage in range(1, 5) for place in range(2)]  # of a ResNet18: layer1.0 to layer4.1


def read_checkpoint(path: Path, units: Path | None) -> Imported:
    """A checkpoint of layout A or B; `units` names its tokens, which the checkpoint does not hold."""
    weights = _without_prefix(read_tensors(path))
    streams = _streams(weights, path)
    config, notes = _config(weights, streams, str(path)), []
    if units is None:
        notes = ["a checkpoint holds no tokens: text needs --units unigram5000_units.txt (lines: token id)"]
    else:
        config = config.model_copy(update={"tokens": _read_units(units, config.vocabulary)})
    tables = {side: _names(encoder, *front) for side, (encoder, *front) in streams.items()}

    def their_name(name: str) -> str:
        if name.startswith("decoder."):
            return renamed(name, DECODER)
        return renamed(name, tables.get(re.split("[._]", name)[0], REST))

    fitted = fit(config, weights, their_name, str(path))
    if "fusion.up.weight" in fitted:  # theirs takes (video, audio), ours (sound, lips)
        video, audio = fitted["fusion.up.weight"].chunk(2, dim=1)
        fitted["fusion.up.weight"] = torch.cat([audio, video], dim=1)
    return Imported("Auto-AVSR", config, fitted, notes)


def _without_prefix(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    if all(name.startswith("model.") for name in weights):
        return {name.removeprefix("model."): w for name, w in weights.items()}
    return weights


def _streams(weights: Mapping[str, Tensor], path: Path) -> dict[str, tuple[str, str, str]]:
    """ "audio" or "video" -> (its encoder, its front end, its projection): where they stand in the checkpoint."""
    inside = ("encoder", "encoder.frontend", "encoder.embed.0")
    aux = ("aux_encoder", "aux_encoder.frontend", "aux_encoder.embed.0")
    places = [inside, aux, ("encoder", "frontend", "proj_encoder")]
    streams = {}
    for place in places:
        if f"{place[1]}.frontend3D.0.weight" in weights:
            streams["video"] = place
        elif f"{place[1]}.trunk.conv1.weight" in weights:
            streams["audio"] = place
    if not streams:
        raise EdgeavError(
            f"{path}: an unknown layout. It begins with\n{listed(weights)}\n"
            f"Expected, with or without `model.` before each:\n{LAYOUTS}"
        )
    return streams


def _config(weights: Mapping[str, Tensor], streams: Mapping[str, tuple[str, str, str]], source: str) -> ModelConfig:
    outputs, width = shape_of(weights, "ctc.ctc_lo.weight", source, 2)
    blocks = {side: _blocks(weights, place[0], source) for side, place in streams.items()}
    channels = {side: _channels(weights, place[1], source) for side, place in streams.items()}
    hears, sees = "audio" in streams, "video" in streams
    fusion = None
    if hears and sees:
        hidden = shape_of(weights, "fusion.fc1.weight", source, 2)[0]
        fusion = ConcatMlp(hidden=hidden, norm="fusion.bn1.weight" in weights)
    return ModelConfig(
        inputs=Features(
            step_ms=STEP_MS,
            audio=Samples() if hears else None,
            video=Mouth(normalize="fixed", mean=0.421, deviation=0.165) if sees else None,
        ),
        width=width,
        audio=ResNet1d(channels=channels["audio"]) if hears else None,
        video=ResNet18(channels=channels["video"]) if sees else None,
        audio_blocks=blocks.get("audio", ()),
        video_blocks=blocks.get("video", ()),
        fusion=fusion,
        blocks=(),
        encoder=Encoder(activation="relu", norm_epsilon=1e-12, scale_input=True),
        missing="zeros",
        decoder=_decoder(weights, next(iter(blocks.values()))[0].heads, outputs, source),
        max_steps=MAX_S * 1000 // STEP_MS,
        tokens=placeholders(outputs, {0: "<blank>", 1: "<unk>", outputs - 1: "<eos>"}),
        blank_index=0,
    )


def _blocks(weights: Mapping[str, Tensor], encoder: str, source: str) -> tuple[Block, ...]:
    return tuple(
        _block(weights, f"{encoder}.encoders.{i}", source)
        for i in range(max(1, _count(weights, rf"{encoder}\.encoders\.(\d+)\.")))
    )


def _block(weights: Mapping[str, Tensor], at: str, source: str) -> Block:
    heads, head_width = shape_of(weights, f"{at}.self_attn.pos_bias_u", source, 2)
    channels, _, kernel = shape_of(weights, f"{at}.conv_module.depthwise_conv.weight", source, 3)
    return Block(
        heads=heads,
        head_width=head_width,
        feed_forward=shape_of(weights, f"{at}.feed_forward_macaron.w_1.weight", source, 2)[0],
        feed_forward_2=shape_of(weights, f"{at}.feed_forward.w_1.weight", source, 2)[0],
        conv_channels=channels,
        kernel=kernel,
    )


def _channels(weights: Mapping[str, Tensor], frontend: str, source: str) -> tuple[int, int, int, int]:
    dimensions = 4 if f"{frontend}.frontend3D.0.weight" in weights else 3
    names = (f"{frontend}.trunk.layer{stage}.0.conv1.weight" for stage in range(1, 5))
    first, second, third, fourth = (shape_of(weights, name, source, dimensions)[0] for name in names)
    return first, second, third, fourth


def _decoder(weights: Mapping[str, Tensor], heads: int, outputs: int, source: str) -> AttentionDecoder | None:
    """A decoder's attention has no tensor a head: it is taken to have the encoder's heads, as all published ones do."""
    blocks = _count(weights, r"decoder\.decoders\.(\d+)\.")
    if not blocks:
        return None
    hidden = shape_of(weights, "decoder.decoders.0.feed_forward.w_1.weight", source, 2)[0]
    return AttentionDecoder(blocks=blocks, heads=heads, feed_forward=hidden, eos=outputs - 1)


def _count(weights: Mapping[str, Tensor], pattern: str) -> int:
    return max((int(found[1]) + 1 for name in weights if (found := re.match(pattern, name))), default=0)


def _names(encoder: str, frontend: str, projection: str) -> dict[str, str]:
    """One stream's names, ours -> theirs; of both modalities, since only one of them begins any name."""
    video = {"video.stem.conv": f"{frontend}.frontend3D.0", "video.stem.norm": f"{frontend}.frontend3D.1"}
    # convs.0 is the max-pool
    video |= {f"video.convs.{i + 1}": f"{frontend}.trunk.layer{place}" for i, place in enumerate(STAGE)}
    audio = {"audio.stem": f"{frontend}.trunk.conv1", "audio.norm": f"{frontend}.trunk.bn1"}
    audio |= {f"audio.layers.{i}": f"{frontend}.trunk.layer{place}" for i, place in enumerate(STAGE)}
    sides = ("audio", "video")
    rest = {f"{side}_blocks": f"{encoder}.encoders" for side in sides} | {
        f"{side}.linear": projection for side in sides
    }
    return BLOCK | RESIDUAL | video | audio | rest | {f"{side}_norm": f"{encoder}.after_norm" for side in sides}


def _read_units(path: Path, outputs: int) -> tuple[str, ...]:
    """Lines `token id`, ids from 1: <blank> stands before them, <eos> behind."""
    try:
        rows = [line.split() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise EdgeavError(f"--units {path}: cannot be read as text ({error})") from None
    for number, row in enumerate(rows, start=1):
        if len(row) != 2 or row[1] != str(number):
            raise EdgeavError(f"--units {path}:{number}: {' '.join(row)!r}, expected a token and the id {number}")
    if len(rows) + 2 != outputs:
        raise EdgeavError(f"--units {path}: {len(rows)} tokens; the checkpoint has {outputs} outputs, so {outputs - 2}")
    return ("<blank>", *(row[0] for row in rows), "<eos>")
