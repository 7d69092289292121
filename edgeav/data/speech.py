"""Text -> speech with phoneme and word times, through the espeak-ng library that PyPI's espeakng-loader brings.

SYNTHETIC speech (formant synthesis, GPL-3 library, loaded at run time and never linked into a model or a bundle).
"""

from __future__ import annotations

import _ctypes
import ctypes
from dataclasses import dataclass

import espeakng_loader
import numpy as np
from av import AudioFrame, AudioResampler
from numpy.typing import NDArray

from edgeav.data.mouth import Segment
from edgeav.errors import EdgeavError
from edgeav.runtime.inputs import SAMPLE_RATE_HZ

_SYNCHRONOUS, _PHONEME_EVENTS, _UTF8, _CHARACTER_POSITIONS = 2, 1, 1, 1
_RATE, _PITCH, _RANGE = 1, 3, 4  # espeak_PARAMETER
_END, _WORD, _PHONEME = 0, 1, 7  # espeak_EVENT_TYPE


@dataclass(frozen=True)
class Speech:
    """(S,) float32 at 16 kHz; phonemes and words with their times in seconds."""

    waveform: NDArray[np.float32]
    phonemes: list[Segment]
    words: list[Segment]


@dataclass(frozen=True)
class Voice:
    """espeak-ng's voice name (accent+variant), words a minute, pitch and pitch range (0..99)."""

    name: str
    rate: int = 160
    pitch: int = 50
    pitch_range: int = 50


class _Id(ctypes.Union):
    _fields_ = [("number", ctypes.c_int), ("name", ctypes.c_char_p), ("string", ctypes.c_char * 8)]


class _Event(ctypes.Structure):
    _fields_ = [
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", _Id),
    ]


_CALLBACK = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event))


def speak(text: str, voice: Voice, seed: int = 0) -> Speech:
    """Synthesize `text`, a function of its arguments alone; EdgeavError for a voice that espeak-ng does not have.

    espeak-ng keeps the phase of its noise and oscillators in static variables, so the same sentence sounds different
    each time; a library loaded afresh (2 ms) and seeded noise make it repeatable.
    """
    engine = _Engine(seed)
    try:
        samples, events = engine.synthesize(text, voice)
    finally:
        engine.close()
    waveform = resample(samples, engine.rate_hz)
    duration = len(samples) / engine.rate_hz
    times = [(kind, name, position / engine.rate_hz) for kind, name, position in events]
    phonemes = _spans([(n, t) for kind, n, t in times if kind == _PHONEME], duration)
    words = _spans([(n, t) for kind, n, t in times if kind == _WORD], _speech_end(phonemes, duration))
    return Speech(waveform, phonemes, words)


class _Engine:
    """The library is one global synthesizer: close one before opening the next."""

    def __init__(self, seed: int) -> None:
        self.library = ctypes.CDLL(espeakng_loader.get_library_path())
        data = espeakng_loader.get_data_path().encode()
        self.rate_hz = self.library.espeak_Initialize(_SYNCHRONOUS, 0, data, _PHONEME_EVENTS)
        if self.rate_hz <= 0:
            raise EdgeavError(f"espeak-ng did not start with its data in {data.decode()}")
        # After espeak_Initialize, which seeds the noise of breathy voices with the time of day.
        self.library.espeak_ng_SetRandSeed(ctypes.c_long(seed))
        ctypes.CDLL(None).srand(seed)
        self.samples: list[NDArray[np.int16]] = []
        self.events: list[tuple[int, str, int]] = []
        self.text = ""
        self.callback = _CALLBACK(self._collect)  # kept: ctypes would free it
        self.library.espeak_SetSynthCallback(self.callback)

    def close(self) -> None:
        self.library.espeak_Terminate()
        _ctypes.dlclose(self.library._handle)

    def synthesize(self, text: str, voice: Voice) -> tuple[NDArray[np.int16], list[tuple[int, str, int]]]:
        self.samples, self.events, self.text = [], [], text
        if self.library.espeak_SetVoiceByName(voice.name.encode()) != 0:
            raise EdgeavError(f"espeak-ng has no voice {voice.name!r}")
        for parameter, value in ((_RATE, voice.rate), (_PITCH, voice.pitch), (_RANGE, voice.pitch_range)):
            self.library.espeak_SetParameter(parameter, value, 0)
        data = text.encode()
        self.library.espeak_Synth(data, len(data) + 1, 0, _CHARACTER_POSITIONS, 0, _UTF8, None, None)
        return np.concatenate(self.samples), self.events

    def _collect(self, wave: ctypes._Pointer, count: int, events: ctypes._Pointer) -> int:
        if count > 0:
            self.samples.append(np.ctypeslib.as_array(wave, (count,)).copy())
        index = 0
        while (event := events[index]).type != _END:
            if event.type == _PHONEME:
                name = event.id.string.decode("utf-8", "replace").strip("'\",%=|")
                self.events.append((_PHONEME, name or "_", event.sample))
            elif event.type == _WORD:
                start = event.text_position - 1
                self.events.append((_WORD, self.text[start : start + event.length], event.sample))
            index += 1
        return 0


def _spans(starts: list[tuple[str, float]], end: float) -> list[Segment]:
    stops = [t for _, t in starts[1:]] + [end]
    return [(name, start, stop) for (name, start), stop in zip(starts, stops, strict=True) if stop > start]


def _speech_end(phonemes: list[Segment], duration: float) -> float:
    spoken = [end for name, _, end in phonemes if not name.startswith("_")]
    return max(spoken, default=duration)


def resample(samples: NDArray[np.int16], rate_hz: int) -> NDArray[np.float32]:
    """(S,) at `rate_hz` -> (S',) float32 in [-1, 1] at 16 kHz."""
    frame = AudioFrame.from_ndarray(samples[None].astype(np.float32) / 32768, format="fltp", layout="mono")
    frame.sample_rate = rate_hz
    resampler = AudioResampler(format="fltp", layout="mono", rate=SAMPLE_RATE_HZ)
    parts = [part.to_ndarray()[0] for part in (*resampler.resample(frame), *resampler.resample(None))]
    return np.concatenate(parts).astype(np.float32)
