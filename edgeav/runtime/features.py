"""From sound and mouth pictures to the arrays a model takes, as its `Features` say. numpy only: runs on the device.

Why one place: training, calibration, evaluation and the device must agree to the last bit on what a model is fed; a
different mel scale or pre-emphasis alone costs whole points of WER. So there is one implementation, and bundle.json
repeats its settings for readers in other languages.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from edgeav.runtime.inputs import MIN_STEPS, Features, LogMel, Mouth
from edgeav.runtime.log_mel import log_mel, normalize_mel

Array = NDArray[np.float32]


class Inputs(NamedTuple):
    """One utterance as a model takes it; N is its number of steps. Zeros where a modality is absent; an array without
    frames for one that the model lacks. See `Features.shapes`."""

    audio: Array  # (1, T, mels) log-mel, or (1, S) samples
    video: Array  # (1, T, crop, crop) gray mouth, 25 fps
    presence: Array  # (1, N, 2) 1 where [sound, picture] exists; a step with neither is padding

    @property
    def steps(self) -> int:
        return self.presence.shape[1]

    def named(self, names: Sequence[str]) -> dict[str, Array]:
        """What a model with the inputs `names` ("mel" or "samples", "video", "presence") is fed."""
        arrays = {"mel": self.audio, "samples": self.audio, "video": self.video, "presence": self.presence}
        return {name: arrays[name] for name in names}


def model_inputs(waveform: Array | None, mouth: NDArray[np.uint8] | None, features: Features) -> Inputs:
    """(S,) sound at 16 kHz and (T, 96, 96) gray mouth at 25 fps, either may be None -> Inputs of equal length."""
    return pack(hear(waveform, features), see(mouth, features), features)


def hear(waveform: Array | None, features: Features) -> Array | None:
    """(S,) -> (T, mels) or (S,), normalized; None where there is nothing to hear, or the model does not."""
    if features.audio is None or waveform is None or len(waveform) < features.hop:
        return None
    if isinstance(features.audio, LogMel):
        return normalize_mel(log_mel(waveform, features.audio), features.audio)
    return normalize_samples(waveform)


def see(mouth: NDArray | None, features: Features) -> Array | None:
    """(T, H, W) gray levels -> (T, crop, crop), normalized; None where nothing is to be seen, or the model does not."""
    if features.video is None or mouth is None or not len(mouth):
        return None
    return normalize_video(center_crop(mouth, features.video.crop), features.video)


def normalize_samples(waveform: Array) -> Array:
    """(S,) -> (S,) with mean 0 and deviation 1 over the utterance."""
    return ((waveform - waveform.mean()) / np.sqrt(waveform.var() + np.float32(1e-8))).astype(np.float32)


def normalize_video(mouth: NDArray, settings: Mouth) -> Array:
    """(T, H, W) gray levels -> (T, H, W). Per clip: mean 0 and deviation 1, so that lighting and skin tone drop out."""
    pixels = np.asarray(mouth, dtype=np.float32)
    if settings.normalize == "fixed":
        return ((pixels / 255 - settings.mean) / settings.deviation).astype(np.float32)
    return (pixels - pixels.mean()) / (pixels.std() + np.float32(1e-3))


def center_crop(mouth: NDArray, side: int) -> NDArray:
    """(T, H, W) -> (T, side, side) around the middle."""
    top, left = (mouth.shape[1] - side) // 2, (mouth.shape[2] - side) // 2
    return mouth[:, top : top + side, left : left + side]


def pack(audio: Array | None, video: Array | None, features: Features) -> Inputs:
    """What `hear` and `see` gave, either may be None -> Inputs padded with zeros to whole steps."""
    heard = 0 if audio is None else -(-len(audio) // features.audio_frames)
    seen = 0 if video is None else -(-len(video) // features.video_frames)
    out = empty_inputs(features, max(heard, seen, MIN_STEPS))
    if audio is not None:
        out.audio[0, : len(audio)] = audio
        out.presence[0, :heard, 0] = 1
    if video is not None:
        out.video[0, : len(video)] = video
        out.presence[0, :seen, 1] = 1
    return out


def empty_inputs(features: Features, steps: int, batch: int = 1) -> Inputs:
    """All zeros: what the model is told when nothing is there."""
    audio, video, presence = features.shapes(batch, steps)
    return Inputs(np.zeros(audio, np.float32), np.zeros(video, np.float32), np.zeros(presence, np.float32))


def from_named(arrays: Mapping[str, Array], features: Features) -> Inputs:
    """The reverse of `Inputs.named`; other arrays may stand among them."""
    absent, presence = empty_inputs(features, 0, len(arrays["presence"])), arrays["presence"]
    audio = next((arrays[name] for name in features.names if name in ("mel", "samples")), absent.audio)
    return Inputs(audio, arrays["video"] if features.video else absent.video, presence)
