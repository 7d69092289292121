"""A second synthesizer with another sound: SVOX Pico (units cut from recordings of people), through PyPI's ttspico.

SYNTHETIC speech. Pico has one English voice for each of two accents; a change of vocal tract length (resampling, with
the rate corrected) makes several people of each. It tells no times: those come from espeak-ng's rendition of the same
words (`align.py`).
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgeav.data.align import carry_over
from edgeav.data.speech import Speech, Voice, resample, speak
from edgeav.errors import EdgeavError, needs
from edgeav.runtime.inputs import SAMPLE_RATE_HZ

ACCENTS = {"en-GB": "en-gb-x-rp", "en-US": "en-us"}  # Pico's name -> espeak-ng's, for the times


@dataclass(frozen=True)
class PicoVoice:
    """`rate`, `pitch` in percent of the recording's; `tract` the length of the vocal tract against the speaker's."""

    accent: str
    rate: int = 100
    pitch: int = 100
    tract: float = 1.0


def speak_pico(text: str, voice: PicoVoice, seed: int = 0) -> Speech:
    """Synthesize `text`, a function of its arguments alone; EdgeavError for an accent that is not one of ACCENTS."""
    if voice.accent not in ACCENTS:
        raise EdgeavError(f"Pico has no accent {voice.accent!r}; it has {', '.join(ACCENTS)}")
    samples = _synthesize(text, voice, seed)
    waveform = resample(samples, round(SAMPLE_RATE_HZ / voice.tract))
    timed = speak(text, Voice(f"{ACCENTS[voice.accent]}+f2", 150), seed)
    phonemes, words = (carry_over(spans, timed.waveform, waveform) for spans in (timed.phonemes, timed.words))
    return Speech(waveform, phonemes, words)


def _synthesize(text: str, voice: PicoVoice, seed: int) -> NDArray[np.int16]:
    """Samples at 16 kHz. A longer tract is lower and slower when resampled: both are asked for in advance."""
    try:
        import ttspico  # pyright: ignore[reportMissingImports]  built from source only where it is asked for
    except ImportError as error:
        raise needs("ttspico", "voices") from error
    ctypes.CDLL(None).srand(seed)  # its excitation draws from the C library
    engine = ttspico.TtsEngine(voice.accent)
    engine.rate = int(np.clip(voice.rate * voice.tract, 20, 500))
    engine.pitch = int(np.clip(voice.pitch * voice.tract, 50, 200))
    return np.frombuffer(engine.speak(text) or b"", np.int16)
