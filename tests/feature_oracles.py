"""The features that models are fed, once more: in torch and torchaudio, and from the formulas.

The log-mel's specification is NVIDIA NeMo's AudioToMelSpectrogramPreprocessor as Fast Conformers are trained with it;
the scale is that of Slaney 1998, Auditory Toolbox. Samples and lips are as Auto-AVSR prepares them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torchaudio.functional import melscale_fbanks

from edgeav.runtime.features import hear, see
from edgeav.runtime.inputs import Features, LogMel, Mouth, Samples
from edgeav.runtime.log_mel import log_mel, normalize_mel

Array = NDArray[np.float32]

AUTO_AVSR = Features(step_ms=40, audio=Samples(), video=Mouth(normalize="fixed", mean=0.421, deviation=0.165))


@dataclass(frozen=True)
class Function:
    """A comparison (see `comparisons`) of a function of ours with another one, on the same input."""

    name: str
    ours: Callable[[Any], Any]
    reference: Callable[[Any], Any]
    given: Any
    tolerance: float = 1e-5

    def subject(self) -> Callable[[Any], Any]:
        return self.ours

    def difference(self, subject: Callable[[Any], Any]) -> float:
        got, expected = np.asarray(subject(self.given)), np.asarray(self.reference(self.given))
        return math.inf if got.shape != expected.shape else float(np.abs(got - expected).max())


def speech_like(samples: int) -> Array:
    """A rising tone with three harmonics, some noise, and a silent second quarter."""
    time = np.arange(samples) / 16_000
    phase = 2 * np.pi * (120 * time + 60 * time**2)
    wave = sum(np.sin(n * phase) / n for n in (1, 2, 5)) * 0.1
    wave = wave + 0.01 * np.random.default_rng(samples).standard_normal(samples)
    wave[samples // 4 : samples // 2] = 0
    return wave.astype(np.float32)


def our_log_mel(wave: Array) -> Array:
    return log_mel(wave, LogMel())


def our_normalized_log_mel(wave: Array) -> Array:
    return normalize_mel(log_mel(wave, LogMel()), LogMel())


def torch_log_mel(wave: Array) -> Array:
    """The specification in the words of torch and torchaudio, in float64: (S,) -> (S // 160, 80)."""
    x = torch.from_numpy(wave).double()
    x = torch.cat([x[:1], x[1:] - 0.97 * x[:-1]])
    window = torch.hann_window(400, periodic=False, dtype=torch.float64)
    spectrum = torch.stft(x, 512, 160, 400, window, center=True, pad_mode="constant", return_complex=True)
    usual = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)  # in float32 torchaudio's filters alone move some bands by 1e-4
    try:
        filters = melscale_fbanks(257, 0.0, 8000.0, 80, 16_000, norm="slaney", mel_scale="slaney")
    finally:
        torch.set_default_dtype(usual)
    return torch.log(spectrum.abs().square().T @ filters + 2**-24)[: len(wave) // 160].numpy()


def torch_normalized_log_mel(wave: Array) -> Array:
    mel = torch.from_numpy(torch_log_mel(wave))
    return ((mel - mel.mean(0)) / (mel.std(0, correction=1) + 1e-5)).numpy()


def torch_samples(wave: Array) -> Array:
    """Auto-AVSR's: a layer norm over the whole utterance."""
    return torch.nn.functional.layer_norm(torch.from_numpy(wave).double(), wave.shape, eps=1e-8).numpy()


def torch_lips(mouth: NDArray[np.uint8]) -> Array:
    """Auto-AVSR's: to 0..1, the middle 88 x 88 of 96 x 96, minus 0.421, by 0.165."""
    return ((torch.from_numpy(mouth).double() / 255)[:, 4:92, 4:92].sub(0.421).div(0.165)).numpy()


def slaney_mel(hz: float) -> float:
    """Linear to 1 kHz, 15 mels; then 27 mels for every factor of 6.4."""
    return 3 * hz / 200 if hz <= 1000 else 15 + 27 * math.log(hz / 1000) / math.log(6.4)


def slaney_hz(mel: float) -> float:
    return 200 * mel / 3 if mel <= 15 else 1000 * 6.4 ** ((mel - 15) / 27)


MOUTHS = np.random.default_rng(0).integers(0, 256, (5, 96, 96), dtype=np.uint8)
LOG_MEL = Function("log-mel in torch and torchaudio", our_log_mel, torch_log_mel, speech_like(16_000))
NORMALIZED = Function(
    "normalized log-mel in torch", our_normalized_log_mel, torch_normalized_log_mel, speech_like(16_000)
)
SAMPLES = Function("torch's layer norm", lambda wave: hear(wave, AUTO_AVSR), torch_samples, speech_like(16_000))
LIPS = Function("Auto-AVSR's pixels, in torch", lambda mouth: see(mouth, AUTO_AVSR), torch_lips, MOUTHS)
