"""What there is to transcribe: sound, mouth, and which frames show a face. Gives the model any span of it.

A missing track is simple; a face that is lost for two seconds is why this is a type: those steps must reach
the model as absent, and the rest of the pictures must be standardized without them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgeav.errors import EdgeavError
from edgeav.runtime.features import Inputs, empty_inputs, model_inputs, see
from edgeav.runtime.inputs import MIN_STEPS, SAMPLE_RATE_HZ, VIDEO_FPS, Features


@dataclass
class Clip:
    """`waveform` (S,) at 16 kHz, `mouth` (T, 96, 96) at 25 fps, `present` (T,): whether a face shows.

    `features` are the model's: what it does not take is None here too.
    """

    waveform: NDArray[np.float32] | None
    mouth: NDArray[np.uint8] | None
    present: NDArray[np.bool_]
    notes: list[str]
    features: Features

    @property
    def samples(self) -> int:
        return 0 if self.waveform is None else len(self.waveform)

    @property
    def pictures(self) -> int:
        return 0 if self.mouth is None else len(self.mouth)

    @property
    def steps(self) -> int:
        takes = self.features
        heard = -(-(self.samples // takes.hop) // takes.audio_frames) if takes.audio else 0
        seen = -(-self.pictures // takes.video_frames) if takes.video else 0
        return max(heard, seen, MIN_STEPS)

    @property
    def duration_s(self) -> float:
        return max(self.samples / SAMPLE_RATE_HZ, self.pictures / VIDEO_FPS)

    def drop_what_says_nothing(self, source: str) -> None:
        """Make a silent track and a video without a face absent. Raises EdgeavError if nothing is left."""
        if self.waveform is not None and self.samples < self.features.hop:
            self.notes.append(f"audio: {self.samples} samples are too few, not used")
            self.waveform = None
        if self.waveform is not None and not self.waveform.any():
            self.notes.append("audio: digital silence throughout, not used")
            self.waveform = None
        if not self.present.any():
            self.mouth = None
        if self.waveform is None and self.mouth is None:
            why = "; ".join(self.notes) or _nothing(self.features)
            raise EdgeavError(f"{source}: nothing to transcribe: {why}")

    def inputs(self, start: int, stop: int) -> Inputs:
        """What the model gets for the steps [start, stop)."""
        takes = self.features
        pictures = slice(start * takes.video_frames, stop * takes.video_frames)
        sound = mouth = None
        if self.waveform is not None:
            sound = self.waveform[start * takes.samples_per_step : stop * takes.samples_per_step]
        if self.mouth is not None:
            mouth = self.mouth[pictures]
        if mouth is None or self.present[pictures].all():
            return _lengthen(model_inputs(sound, mouth, takes), stop - start, takes)
        return _lengthen(_partly_seen(sound, mouth, self.present[pictures], takes), stop - start, takes)


def _partly_seen(
    sound: NDArray[np.float32] | None, mouth: NDArray[np.uint8], present: NDArray[np.bool_], features: Features
) -> Inputs:
    """As `model_inputs`, with zeros and no presence in the steps that lack a face in any of their frames."""
    steps = np.split(present, range(features.video_frames, len(present), features.video_frames))
    seen = [bool(step.all()) for step in steps]
    frames = np.repeat(seen, features.video_frames)[: len(present)]
    heard, pixels = model_inputs(sound, None, features), see(mouth[frames], features)
    if pixels is None:
        return heard
    inputs = _lengthen(heard, len(seen), features)
    inputs.video[0, : len(frames)][frames] = pixels
    inputs.presence[0, : len(seen), 1] = seen
    return inputs


def _nothing(features: Features) -> str:
    if features.audio is None:
        return "no pictures, and the model does not hear"
    return "no sound and no pictures" if features.video else "no sound, and the model does not see"


def _lengthen(inputs: Inputs, steps: int, features: Features) -> Inputs:
    """Absent steps at the end, where both tracks end before the window does."""
    if inputs.steps >= steps:
        return inputs
    out = empty_inputs(features, steps)
    for whole, part in zip(out, inputs, strict=True):
        whole[:, : part.shape[1]] = part
    return out
