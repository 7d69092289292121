"""Which models the documentation says can be exported: every pair of parts, in a model each, small enough to lower.

Parts meet only in (B, N, D) tensors at one rate, so what could go wrong between them goes wrong between two of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations, product

from tiny_models import AUDIO, FUSION, VIDEO, model_config

from edgeav.models.config import Block, Encoder, ModelConfig

NARROW = Block(heads=2, head_width=8, feed_forward=24, feed_forward_2=24, conv_channels=16)
ENCODERS: dict[str, Encoder] = {
    "fast-conformer": Encoder(),
    "teacher": Encoder(activation="relu", norm_epsilon=1e-12, scale_input=True),
    "local window + global token": Encoder(window=6, global_tokens=1),
    "plain attention": Encoder(positions="none"),
}
STREAMS = ("teacher",)  # encoders with blocks of their own for each modality


@dataclass(frozen=True)
class Combination:
    """Names of parts; None: without that modality."""

    encoder: str
    audio: str | None
    video: str | None
    fusion: str | None

    @property
    def parts(self) -> set[str]:
        return {part for part in (self.encoder, self.audio, self.video, self.fusion) if part}

    def __str__(self) -> str:
        return ", ".join(part or "-" for part in (self.encoder, self.audio, self.video, self.fusion))

    def config(self) -> ModelConfig:
        base = model_config(self.audio, self.video, self.fusion or "sum")
        settings = base.model_dump() | {"encoder": ENCODERS[self.encoder].model_dump(), "max_steps": 100}
        if self.encoder in STREAMS:
            own = [NARROW.model_dump() | {"kernel": 31}]
            settings |= {"audio_blocks": own if self.audio else [], "video_blocks": own if self.video else []}
            settings |= {"missing": "zeros"}
        return ModelConfig.model_validate(settings)


def both_modalities() -> list[Combination]:
    """Every encoder with every visual front end, in rows that also pair all the rest."""
    ears = [name for name, (_, step_ms) in AUDIO.items() if step_ms in (40, 80)]
    mixes = list(product(ears, FUSION))
    out = []
    for row, (video, encoder) in enumerate(product(VIDEO, ENCODERS)):
        audio, fusion = mixes[(3 * row + row // len(ENCODERS)) % len(mixes)]  # found by trying; see `missing_pairs`
        out.append(Combination(encoder, audio, video, fusion))
    return out


def one_modality() -> list[Combination]:
    heard = [Combination(encoder, audio, None, None) for encoder, audio in product(ENCODERS, AUDIO)]
    encoders = list(ENCODERS)
    seen = [Combination(encoders[row % len(encoders)], None, video, None) for row, video in enumerate(VIDEO)]
    return heard + seen


ALL = both_modalities() + one_modality()


def missing_pairs() -> set[tuple[str, str]]:
    """Pairs of parts that no combination has, of those that fit: conv1d has a clock of its own, which no video has."""
    groups = [list(ENCODERS), [name for name in AUDIO if name != "conv1d"], list(VIDEO), list(FUSION)]
    wanted = {tuple(sorted(pair)) for a, b in combinations(groups, 2) for pair in product(a, b)}
    found = {tuple(sorted(pair)) for row in ALL for pair in combinations(row.parts, 2)}
    return wanted - found  # type: ignore[return-value]
