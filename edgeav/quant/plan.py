"""The quantization plan: which roles of a model get 8-bit integers. One plan; each engine's own quantizer realizes it.

Roles are what sensitivity is a property of ("the convolutions over time suffer, the feed-forwards do not"), and they
outlive a changed width or block count; node names of one exported file do not.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal, get_args

from pydantic import Field

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

# What multiplies, by the path of its module. Attention's own path stands for its products of two activations. Whatever
# is not here (norms, softmax, residual sums, the attention mask with its -1e4) stays float on every engine.
_RESIDUAL = r"(\.(conv_[12]|shortcut\.0))?"  # inside a block of a ResNet
_BLOCK = r"(audio_|video_)?blocks\.\d+"
_PATTERNS: tuple[tuple[Role, str], ...] = (
    ("visual-stem", r"video\.stem(\..*)?"),
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

# The products of two activations in attention: 1 % of the work, nothing gained in speed, and they carry the scores.
KEPT_FLOAT: tuple[Role, ...] = ("attention-matmul",)


class Calibration(Strict):
    """Which data the activation ranges come from."""

    utterances: int = Field(ge=1)
    seed: int = 0
    ids: tuple[str, ...] = Field(default=(), strict=False)


class Plan(Strict):
    """What quantization.json holds."""

    format: Literal["int8"] = "int8"
    keep_float: tuple[Role, ...] = Field(default=KEPT_FLOAT, strict=False)
    calibration: Calibration | None = None

    def quantizes(self, path: str) -> bool:
        """Whether the module at `path`, such as "blocks.0.conv.depthwise", computes in integers."""
        role = role_of(path)
        return role is not None and role not in self.keep_float

    def save(self, folder: Path) -> None:
        (folder / FILE).write_text(self.model_dump_json(indent=1) + "\n", encoding="utf-8")


def load_plan(folder: Path) -> Plan:
    """The plan of a quantized model folder; EdgeavError says what is wrong with it."""
    return load(Plan, folder / FILE)


def role_of(path: str) -> Role | None:
    """The role of the module at `path`; None for what never leaves float."""
    whole = _FACTORS.sub("", path)
    return next((role for role, pattern in _PATTERNS if re.fullmatch(pattern, whole)), None)
