"""Kinds of noise: talkers, colours, the spectrum of speech, music, recordings; each (S,) float32 of level 1 (its RMS).

Speech-shaped noise has the long-term spectrum of speech and none of its pauses: Dreschler et al. 2001, ICRA noises
(https://doi.org/10.3109/00206090109073110). How loud it is against a clip is augment.add_noise's affair.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgeav.errors import EdgeavError
from edgeav.runtime.inputs import SAMPLE_RATE_HZ
from edgeav.runtime.media import open_media

Array = NDArray[np.float32]
Rng = np.random.Generator

SLOWEST_HZ = 20.0  # 1/f grows without end towards 0; nobody hears what is below
STRETCH_S = 10  # of babble, with the same number of talkers
SOUNDS = (".flac", ".wav", ".ogg", ".mp3", ".m4a", ".opus")


def coloured(count: int, exponent: float, r: Rng) -> Array:
    """(S,) with power ~ 1 / f**exponent from 20 Hz up, flat below: 0 white, 1 pink, 2 brown."""
    frequency = np.fft.rfftfreq(count, 1 / SAMPLE_RATE_HZ)
    return _filtered(r.standard_normal(count), np.maximum(frequency, SLOWEST_HZ) ** (-exponent / 2))


def speech_shaped(voices: Iterable[Array], count: int, r: Rng) -> Array:
    """(S,) of noise with the mean spectrum of `voices`, each of which counts by its energy."""
    width = SAMPLE_RATE_HZ // 40  # 25 ms
    power = np.zeros(width // 2 + 1)
    for voice in voices:
        frames = voice[: len(voice) // width * width].reshape(-1, width)
        power += (np.abs(np.fft.rfft(frames * np.hanning(width), axis=1)) ** 2).sum(axis=0)
    if not power.any():
        raise EdgeavError("speech-shaped noise: none of the training clips holds any sound; take `white` or `pink`")
    fine = np.fft.rfftfreq(count, 1 / SAMPLE_RATE_HZ)
    return _filtered(
        r.standard_normal(count), np.interp(fine, np.fft.rfftfreq(width, 1 / SAMPLE_RATE_HZ), np.sqrt(power))
    )


def chords(count: int, r: Rng) -> Array:
    """(S,) of SYNTHETIC music, for want of recordings: plucked major and minor chords, one every half second."""
    beat = SAMPLE_RATE_HZ // 2
    notes = [_plucked(55 * 2 ** (semitone / 12), 2 * beat, r) for semitone in range(37)]  # three octaves from A1
    sound = np.zeros(count + 2 * beat)
    for start in range(0, count, beat):
        root, third = int(r.integers(0, 25)), int(r.integers(3, 5))
        for semitone in (0, third, 7, 12):
            sound[start : start + 2 * beat] += notes[root + semitone]
    return level(sound[:count])


def babble(voices: Sequence[Array], seconds: int, r: Rng, talkers: int = 6) -> Array:
    """(S,) of several people talking at once, their number (1 to `talkers`) changing every 10 s."""
    return babble_of(voices, seconds, r, talkers)[0]


def babble_of(voices: Sequence[Array], seconds: int, r: Rng, talkers: int) -> tuple[Array, list[list[int]]]:
    """The same, and for each of its stretches of 10 s which `voices`, all of them with sound, are in it."""
    count, parts, heard = STRETCH_S * SAMPLE_RATE_HZ, [], []
    for _ in range(-(-seconds // STRETCH_S)):
        streams = [_talker(voices, count, r) for _ in range(int(r.integers(1, talkers + 1)))]
        parts.append(level(np.sum([sound for sound, _ in streams], axis=0)))
        heard.append(sorted({number for _, numbers in streams for number in numbers}))
    return np.concatenate(parts), heard


def read_recordings(folder: Path) -> list[Array]:
    """Every recording of a folder, by its manifest.jsonl or, without one, all sound files under it; 16 kHz mono.

    EdgeavError where there is none, or one cannot be read; a recording of silence is one that cannot be used.
    """
    paths = recording_paths(folder)
    sounds = [open_media(path, sees=False).waveform for path in paths]
    silent = [str(path) for path, sound in zip(paths, sounds, strict=True) if sound is None or not sound.any()]
    if silent:
        raise EdgeavError("\n".join(f"{path}: holds no sound; take it out of the folder" for path in silent))
    return [sound for sound in sounds if sound is not None]


def recording_paths(folder: Path) -> list[Path]:
    """The files that `read_recordings` reads, in order."""
    manifest = folder / "manifest.jsonl"
    if not manifest.is_file():
        found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SOUNDS)
        if not found:
            raise EdgeavError(f"{folder}: has neither manifest.jsonl nor sound files ({', '.join(SOUNDS)})")
        return found
    paths, problems = [], []
    for number, line in enumerate(manifest.read_text(encoding="utf-8").splitlines(), 1):
        try:
            paths += [folder / json.loads(line)["path"]] if line.strip() else []
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            problems.append(f"{manifest}:{number}: {type(error).__name__}: {error}; expected an object with `path`")
    if problems or not paths:
        raise EdgeavError("\n".join(problems[:20]) or f"{manifest}: names no recording")
    return paths


def level(sound: NDArray) -> Array:
    """(S,) -> the same with an RMS of 1; silence stays silence."""
    return (sound / max(1e-12, np.sqrt(np.mean(np.square(sound, dtype=np.float64))))).astype(np.float32)


def to_int16(waveform: Array) -> tuple[NDArray[np.int16], float]:
    """(S,) for a file of 16-bit samples, and the gain in dB that kept it from clipping: 0 where none was needed.

    Speech and noise are lowered together, so their ratio stays; float32 holds any level and needs no such thing.
    """
    peak = float(np.abs(waveform).max(initial=0.0))
    gain = min(1.0, 1.0 / peak) if peak else 1.0
    return np.round(waveform * (gain * 32767)).astype(np.int16), float(20 * np.log10(gain))


def _plucked(pitch_hz: float, count: int, r: Rng) -> NDArray:
    """(S,): a string with eight harmonics, the higher the weaker and the sooner gone."""
    time_s = np.arange(count) / SAMPLE_RATE_HZ
    waves = [
        np.sin(2 * np.pi * n * pitch_hz * time_s + r.uniform(0, 2 * np.pi)) * np.exp(-time_s * (1 + n)) / n
        for n in range(1, 9)
    ]
    return np.sum(waves, axis=0)


def _filtered(white: NDArray, response: NDArray) -> Array:
    """(S,) with the spectrum of `white` times `response`, (S // 2 + 1,); without a constant part."""
    spectrum = np.fft.rfft(white) * response
    spectrum[0] = 0
    return level(np.fft.irfft(spectrum, len(white)))


def _talker(voices: Sequence[Array], count: int, r: Rng) -> tuple[NDArray, list[int]]:
    """One person's utterances after each other, and their numbers."""
    parts, numbers, total = [], [], 0
    while total < count:
        numbers.append(int(r.integers(len(voices))))
        voice = voices[numbers[-1]]
        parts.append(voice / (voice.std() + 1e-4))
        total += len(voice)
    return np.concatenate(parts)[:count], numbers
