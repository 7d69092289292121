"""Models by name: the published configs of Fast Conformers and of Auto-AVSR's models, and our own students.

Every number of the published ones is the publication's or its training recipe's, so that parameter counts agree to the
last one. The students' are ours: `av-student-medium` is the largest whose compute is a tenth of the demo teacher's.
"""

from __future__ import annotations

from typing import Literal

from edgeav.models.config import (
    AttentionDecoder,
    Block,
    ConcatMlp,
    Conv3dDense,
    DwStriding,
    Encoder,
    ModelConfig,
    ResNet1d,
    ResNet18,
    SpaceToDepth,
)
from edgeav.runtime.inputs import Features, LogMel, Mouth, Samples

Modalities = Literal["audio", "video", "audio-visual"]
Size = Literal["S", "M", "L", "L18", "XL"]

# width, heads, blocks, whether the input is scaled: the table in the head of NeMo's fast-conformer_ctc_bpe.yaml. It
# gives L 17 blocks; the file itself trains 18.
FAST_CONFORMERS: dict[Size, tuple[int, int, int, bool]] = {
    "S": (176, 4, 16, True),
    "M": (256, 4, 16, True),
    "L": (512, 8, 17, True),
    "L18": (512, 8, 18, True),
    "XL": (1024, 8, 24, False),
}

# width, blocks, channels of the front end for sound, front end for lips
STUDENTS: dict[str, tuple[int, int, int, SpaceToDepth]] = {
    "av-student-tiny": (96, 5, 32, SpaceToDepth(pool=2, channels=(32, 48), strides=(2, 2))),
    "av-student-small": (128, 5, 48, SpaceToDepth(pool=2, channels=(48, 64), strides=(2, 2))),
    "av-student-medium": (160, 6, 64, SpaceToDepth(pool=2, channels=(48, 64, 96), strides=(2, 1, 2))),
    "av-student-large": (224, 7, 96, SpaceToDepth(channels=(64, 96, 128), strides=(2, 2, 2))),
}


def named(name: str, modalities: Modalities) -> ModelConfig:
    """ "fast-conformer-S", "av-student-small" and so on, as recipes call them; KeyError for another name."""
    if name in STUDENTS:
        return student(name, modalities)
    sizes: dict[str, Size] = {f"fast-conformer-{size}": size for size in FAST_CONFORMERS}
    return fast_conformer(sizes[name], modalities)


def student(name: str, modalities: Modalities) -> ModelConfig:
    """A Fast Conformer over sound, lips or both, small enough for a phone."""
    width, blocks, channels, eyes = STUDENTS[name]
    hears, sees = modalities != "video", modalities != "audio"
    return ModelConfig(
        inputs=Features(audio=LogMel() if hears else None, video=Mouth() if sees else None),
        width=width,
        audio=DwStriding(channels=channels) if hears else None,
        video=eyes if sees else None,
        fusion=ConcatMlp(hidden=2 * width) if hears and sees else None,
        blocks=(_fast_block(width, 4),) * blocks,
    )


def fast_conformer(size: Size, modalities: Modalities = "audio", tokens: tuple[str, ...] = ()) -> ModelConfig:
    """NVIDIA NeMo's Fast Conformer with a CTC head (Rekesh et al. 2023, https://arxiv.org/abs/2305.05084).

    For sound it is the published model. With lips it is ours: the same blocks over both, behind a front end of dense
    convolutions, each modality normalized before the fusion.
    """
    width, heads, blocks, scaled = FAST_CONFORMERS[size]
    hears, sees = modalities != "video", modalities != "audio"
    return ModelConfig(
        inputs=Features(audio=LogMel() if hears else None, video=Mouth() if sees else None),
        width=width,
        audio=DwStriding(channels=256) if hears else None,
        video=Conv3dDense() if sees else None,
        fusion=ConcatMlp(hidden=2 * width) if hears and sees else None,
        blocks=(_fast_block(width, heads),) * blocks,
        encoder=Encoder(scale_input=scaled, stream_norm=sees),
        tokens=tokens,
    )


def _fast_block(width: int, heads: int) -> Block:
    return Block(
        heads=heads,
        head_width=width // heads,
        feed_forward=4 * width,
        feed_forward_2=4 * width,
        conv_channels=width,
        kernel=9,
    )


def auto_avsr(modalities: Modalities, tokens: tuple[str, ...]) -> ModelConfig:
    """Auto-AVSR's Conformer with CTC and attention (Ma et al. 2023, https://arxiv.org/abs/2303.14307).

    `tokens` begin with the blank and end with the token that begins and ends a text; the published models have 5049.
    """
    hears, sees = modalities != "video", modalities != "audio"
    block = Block(heads=12, head_width=64, feed_forward=3072, feed_forward_2=3072, conv_channels=768, kernel=31)
    return ModelConfig(
        inputs=Features(
            step_ms=40,
            audio=Samples() if hears else None,
            video=Mouth(normalize="fixed", mean=0.421, deviation=0.165) if sees else None,
        ),
        width=768,
        audio=ResNet1d() if hears else None,
        video=ResNet18() if sees else None,
        audio_blocks=(block,) * 12 if hears else (),
        video_blocks=(block,) * 12 if sees else (),
        fusion=ConcatMlp(hidden=8192, norm=True) if hears and sees else None,
        blocks=(),
        encoder=Encoder(activation="relu", norm_epsilon=1e-12, scale_input=True),
        missing="zeros",
        decoder=AttentionDecoder(blocks=6, heads=12, feed_forward=3072, eos=len(tokens) - 1),
        max_steps=1000,  # 40 s
        tokens=tokens,
        blank_index=0,
    )
