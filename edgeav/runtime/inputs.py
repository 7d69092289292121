"""What a model is fed, as data: its clock, how sound becomes log-mel or samples, how a mouth becomes pixels.

model.json and bundle.json hold it, so that training, export and device compute the same features, and a model from
elsewhere brings its own. Plain dataclasses: the device needs no schema library.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

SAMPLE_RATE_HZ = 16_000
VIDEO_FPS = 25


@dataclass(frozen=True)
class LogMel:
    """(S,) samples -> (T, mels). The defaults are NVIDIA NeMo's Fast Conformer front end."""

    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012  read by pydantic where it is installed

    kind: Literal["log-mel"] = "log-mel"
    mels: int = 80
    window: int = 400  # samples: 25 ms
    hop: int = 160  # samples: 10 ms
    n_fft: int = 512
    window_function: Literal["hann-symmetric", "hann-periodic"] = "hann-symmetric"
    mel_scale: Literal["slaney", "htk"] = "slaney"
    mel_norm: Literal["area", "none"] = "area"
    pre_emphasis: float = 0.97
    padding: Literal["zeros", "reflect"] = "zeros"  # n_fft // 2 on both sides
    log_floor: float = 2.0**-24  # added before the logarithm
    normalize: Literal["per-band", "none"] = "per-band"  # (x - mean) / (std(ddof=1) + 1e-5) over the utterance


@dataclass(frozen=True)
class Samples:
    """(S,) samples -> (S,), normalized over the utterance: (x - mean) / sqrt(variance + 1e-8), as Auto-AVSR does."""

    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012

    kind: Literal["samples"] = "samples"


@dataclass(frozen=True)
class Mouth:
    """(T, 96, 96) gray mouth -> (T, crop, crop)."""

    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012

    crop: int = 88
    normalize: Literal["per-clip", "fixed"] = "per-clip"  # fixed: (x / 255 - mean) / deviation
    mean: float = 0.0
    deviation: float = 1.0


@dataclass(frozen=True)
class Features:
    """The inputs of one model. None: the model does not take that modality."""

    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012

    step_ms: int = 80  # one output frame of the encoder
    audio: LogMel | Samples | None = LogMel()
    video: Mouth | None = Mouth()

    @property
    def steps_per_second(self) -> float:
        return 1000 / self.step_ms

    @property
    def samples_per_step(self) -> int:
        return SAMPLE_RATE_HZ * self.step_ms // 1000

    @property
    def audio_frames(self) -> int:
        """Log-mel frames, or samples, in one step; 0 for a model that does not hear."""
        if self.audio is None:
            return 0
        return self.samples_per_step // (self.audio.hop if isinstance(self.audio, LogMel) else 1)

    @property
    def video_frames(self) -> int:
        """Pictures in one step; 0 for a model that does not see."""
        return 0 if self.video is None else VIDEO_FPS * self.step_ms // 1000

    @property
    def names(self) -> tuple[str, ...]:
        """The inputs of the exported model, in order: "mel" or "samples", "video", "presence"."""
        sound = {LogMel: ("mel",), Samples: ("samples",)}.get(type(self.audio), ())
        return (*sound, *(("video",) if self.video else ()), "presence")
