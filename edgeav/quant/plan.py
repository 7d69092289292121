"""The quantization plan: which roles of a model get which number format. One plan; each engine's own tools realize it.

Roles are what sensitivity is a property of ("the convolutions over time suffer, the feed-forwards do not"), and they
outlive a changed width or block count; node names of one exported file do not.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal, get_args

from pydantic import Field, field_validator

from edgeav.spec import Strict, load

FILE = "quantization.json"  # beside model.json, from the quantize stage on

Role = Literal[
    "visual-stem",
    "visual-cnn",
    "subsampling",
    "fusion",
    "feed-forward",
    "attention-projection",
    "attention-matmul",
    "conv-pointwise",
    "conv-depthwise",
    "head",
]
ROLES: tuple[Role, ...] = get_args(Role)

Format = Literal["fp32", "int8", "int8-dynamic", "int8-weights", "int4-weights", "fp8-e4m3", "fp8-e5m2", "fp16", "bf16"]
FORMATS: tuple[Format, ...] = get_args(Format)
FP8: tuple[Format, ...] = ("fp8-e4m3", "fp8-e5m2")
CALIBRATED: tuple[Format, ...] = ("int8", *FP8)  # activations have ranges that clips must show
Ranges = Literal["minmax", "percentile", "mse", "entropy"]
RANGES: tuple[Ranges, ...] = get_args(Ranges)

# What multiplies, by the path of its module. Attention's own path stands for its products of two activations. Whatever
# is not here (norms, softmax, residual sums, the attention mask with its -1e4) stays float on every engine.
_RESIDUAL = r"(\.(conv_[12]|shortcut\.0))?"  # inside a block of a ResNet
_BLOCK = r"(audio_|video_)?blocks\.\d+"
_PATTERNS: tuple[tuple[Role, str], ...] = (
    ("visual-stem", r"video\.stem(\.(?!gather$).*)?"),  # `gather` only sorts pixels: edgeav/models/visual.py
    ("visual-cnn", rf"video\.(convs\.\d+{_RESIDUAL}|linear|downsample)"),
    ("subsampling", rf"audio\.(stem|conv|layers\.\d+{_RESIDUAL}|linear)"),
    ("fusion", r"fusion\.(up|down|attention\.(query|key|value|out)|feed_forward\.(up|down))"),
    ("feed-forward", rf"{_BLOCK}\.feed_forward_[12]\.(up|down)"),
    ("attention-projection", rf"{_BLOCK}\.attention\.(query|key|value|position|out)"),
    ("attention-matmul", rf"({_BLOCK}|fusion)\.attention"),
    ("conv-pointwise", rf"{_BLOCK}\.conv\.(expand|project)"),
    ("conv-depthwise", rf"{_BLOCK}\.conv\.depthwise"),
    ("head", r"head"),
)
_FACTORS = re.compile(r"\.(narrow|widen)$")  # both halves of a factorized layer have the role of the whole

Decibels = Annotated[float, Field(ge=-40, le=60)]

# The products of two activations in attention: 1 % of the work, nothing gained in speed, and they carry the scores.
KEPT_FLOAT: tuple[Role, ...] = ("attention-matmul",)


class CalibrationNoise(Strict):
    """Noise in some of the calibration clips, each at an SNR of its own, evenly spread over the range."""

    share: float = Field(default=0.25, gt=0, le=1)
    """Of the clips that have sound."""
    snr_db: tuple[Decibels, Decibels] = Field(default=(0.0, 20.0), strict=False)
    """Over active speech."""
    kinds: tuple[Literal["babble", "white", "pink", "brown", "speech-shaped", "music"], ...] = Field(
        default=("babble",), strict=False, min_length=1
    )
    """In equal parts; made of the calibration clips themselves, which are training clips."""

    @field_validator("snr_db")
    @classmethod
    def _ordered(cls, ends: tuple[float, float]) -> tuple[float, float]:
        if ends[0] > ends[1]:
            raise ValueError(f"{list(ends)} runs backwards; write [{ends[1]:g}, {ends[0]:g}]")
        return ends


class Calibration(Strict):
    """Which data the activation ranges come from."""

    utterances: int = Field(ge=1)
    seed: int = 0
    ids: tuple[str, ...] = Field(default=(), strict=False)
    noise: CalibrationNoise | None = None


Ends = Annotated[tuple[float, float], Field(strict=False)]


class LayerRanges(Strict):
    """The smallest and largest number of a layer's grids: of what it is given, and of what it puts out."""

    given: Ends
    put_out: Ends


class Plan(Strict):
    """What quantization.json holds."""

    format: Format = "int8"
    """Of every role that is not named below; bundles are named after it."""
    roles: dict[Role, Format] = Field(default_factory=dict)
    """Exceptions; they count for more than `keep_float`."""
    keep_float: tuple[Role, ...] = Field(default=KEPT_FLOAT, strict=False)
    """Short for `roles: {R: fp32}`."""
    ranges: Ranges = "minmax"
    smooth: float | None = Field(default=None, ge=0, le=1)
    """What the quantize stage did to the weights (edgeav/quant/smooth.py): nobody need do it again."""
    equalize: bool = False
    """As `smooth`."""
    calibration: Calibration | None = None
    learned: dict[str, LayerRanges] | None = None
    """By path: what quantization-aware training learned. The exporters take them over and calibrate nothing."""

    @field_validator("format")
    @classmethod
    def _changes_something(cls, format: Format) -> Format:
        return not_float32(format)

    def format_of(self, path: str) -> Format | None:
        """The format of the module at `path`, such as "blocks.0.conv.depthwise"; None for what has no role."""
        role = role_of(path)
        return None if role is None else self.format_of_role(role)

    def format_of_role(self, role: Role) -> Format:
        kept: Format = "fp32" if role in self.keep_float else self.format
        return self.roles.get(role, kept)

    def quantizes(self, path: str) -> bool:
        """Whether the module at `path` computes in integers with ranges from calibration."""
        return self.format_of(path) == "int8"

    def has(self, path: str, *formats: Format) -> bool:
        """Whether the module at `path` has one of these formats."""
        return self.format_of(path) in formats

    @property
    def formats(self) -> dict[Format, tuple[Role, ...]]:
        """Each format that occurs, and the roles that have it."""
        found = {role: self.format_of_role(role) for role in ROLES}
        return {f: tuple(role for role in ROLES if found[role] == f) for f in FORMATS if f in found.values()}

    @property
    def needs_calibration(self) -> bool:
        """Whether ranges of activations are still to be taken from clips."""
        return self.learned is None and any(f in CALIBRATED for f in self.formats)

    def save(self, folder: Path) -> None:
        (folder / FILE).write_text(self.model_dump_json(indent=1) + "\n", encoding="utf-8")


def not_float32(format: Format) -> Format:
    """ValueError for fp32 as the format of a whole plan: it is what every plan is compared with."""
    if format == "fp32":
        raise ValueError("fp32 is exported anyway; name the format of what changes, and in keep_float what does not")
    return format


def load_plan(folder: Path) -> Plan:
    """The plan of a quantized model folder; EdgeavError says what is wrong with it."""
    return load(Plan, folder / FILE)


def role_of(path: str) -> Role | None:
    """The role of the module at `path`; None for what never leaves float."""
    whole = _FACTORS.sub("", path)
    return next((role for role, pattern in _PATTERNS if re.fullmatch(pattern, whole)), None)
