"""What there is to transcribe: sound, mouth, and which frames show a face. Gives the model any span of it.

A missing track is simple; a face that is lost for two seconds is why this is a type: those steps must reach
the model as absent, and the rest of the pictures must be standardized without them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgeav.errors import EdgeavError
from edgeav.runtime import features
from edgeav.runtime.features import HOP, MEL_FRAMES_PER_STEP, SAMPLES_PER_STEP, VIDEO_FRAMES_PER_STEP, Inputs


@dataclass
class Clip:
    """`waveform` (S,) at 16 kHz, `mouth` (T, 96, 96) at 25 fps, `present` (T,): whether a face shows."""

    waveform: NDArray[np.float32] | None
    mouth: NDArray[np.uint8] | None
    present: NDArray[np.bool_]
    notes: list[str]

    @property
    def samples(self) -> int:
        return 0 if self.waveform is None else len(self.waveform)

    @property
    def pictures(self) -> int:
        return 0 if self.mouth is None else len(self.mouth)

    @property
    def steps(self) -> int:
        mel_steps = -(-(self.samples // HOP) // MEL_FRAMES_PER_STEP)
        return max(mel_steps, -(-self.pictures // VIDEO_FRAMES_PER_STEP), features.MIN_STEPS)

    @property
    def duration_s(self) -> float:
        return max(self.samples / features.SAMPLE_RATE_HZ, self.pictures / features.VIDEO_FPS)

    def drop_what_says_nothing(self, source: str) -> None:
        """Make a silent track and a video without a face absent. Raises EdgeavError if nothing is left."""
        if self.waveform is not None and self.samples < HOP:
            self.notes.append(f"audio: {self.samples} samples are too few, not used")
            self.waveform = None
        if self.waveform is not None and not self.waveform.any():
            self.notes.append("audio: digital silence throughout, not used")
            self.waveform = None
        if not self.present.any():
            self.mouth = None
        if self.waveform is None and self.mouth is None:
            why = "; ".join(self.notes) or "no sound and no pictures"
            raise EdgeavError(f"{source}: nothing to transcribe: {why}")

    def inputs(self, start: int, stop: int) -> Inputs:
        """What the model gets for the steps [start, stop)."""
        pictures = slice(start * VIDEO_FRAMES_PER_STEP, stop * VIDEO_FRAMES_PER_STEP)
        sound = mouth = None
        if self.waveform is not None:
            sound = self.waveform[start * SAMPLES_PER_STEP : stop * SAMPLES_PER_STEP]
        if self.mouth is not None:
            mouth = self.mouth[pictures]
        if mouth is None or self.present[pictures].all():
            return _lengthen(features.model_inputs(sound, mouth), stop - start)
        return _lengthen(_partly_seen(sound, mouth, self.present[pictures]), stop - start)


def _partly_seen(sound: NDArray[np.float32] | None, mouth: NDArray[np.uint8], present: NDArray[np.bool_]) -> Inputs:
    """As `model_inputs`, with zeros and no presence in the steps that lack a face in any of their frames."""
    seen = [
        bool(step.all())
        for step in np.split(present, range(VIDEO_FRAMES_PER_STEP, len(present), VIDEO_FRAMES_PER_STEP))
    ]
    frames = np.repeat(seen, VIDEO_FRAMES_PER_STEP)[: len(present)]
    heard = features.model_inputs(sound, None)
    if not frames.any():
        return heard
    video = np.zeros((len(mouth), features.CROP, features.CROP), np.float32)
    video[frames] = features.standardize_video(features.center_crop(mouth[frames]))
    inputs = _lengthen(heard, len(seen))
    inputs.video[0, : len(video)] = video
    inputs.presence[0, : len(seen), 1] = seen
    return inputs


def _lengthen(inputs: Inputs, steps: int) -> Inputs:
    """Absent steps at the end, where both tracks end before the window does."""
    if inputs.steps >= steps:
        return inputs
    out = features.empty_inputs(steps)
    for whole, part in zip(out, inputs, strict=True):
        whole[:, : part.shape[1]] = part
    return out
