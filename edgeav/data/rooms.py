"""Rooms: measured and synthetic impulse responses, and a clip heard through one.

A synthetic room is the direct sound and exponentially decaying noise: Polack 1988; Jot et al. 1997
(https://doi.org/10.1007/s005300050112). The reverberation time is read from the energy still to come: Schroeder 1965
(https://doi.org/10.1121/1.1909343). A response begins with its direct sound, so lips and sound stay together, and has
energy 1, so a clip is about as loud as before.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgeav.data.disturbance import RoomShare
from edgeav.data.noise import read_recordings
from edgeav.runtime.inputs import SAMPLE_RATE_HZ

Array = NDArray[np.float32]
Rng = np.random.Generator

FIRST_REFLECTION = SAMPLE_RATE_HZ // 400  # samples: 2.5 ms, a detour of 0.9 m
DECAY = 3 * np.log(10)  # of the amplitude, in nepers: 60 dB in one reverberation time
TAIL_DB = 60.0  # what is so far below the whole is cut off


def synthetic_room(rt60_s: float, direct_db: float, r: Rng) -> Array:
    """(L,): direct sound at 0, `direct_db` above the energy of a tail that falls by 60 dB in `rt60_s`."""
    count = FIRST_REFLECTION + round(1.2 * rt60_s * SAMPLE_RATE_HZ)
    time_s = np.arange(count) / SAMPLE_RATE_HZ
    response = r.standard_normal(count) * np.exp(-DECAY * time_s / rt60_s)
    response[:FIRST_REFLECTION] = 0
    response *= 10 ** (-direct_db / 20) / np.sqrt(np.sum(response**2))
    response[0] = 1
    return (response / np.sqrt(np.sum(response**2))).astype(np.float32)


def aligned(response: Array) -> Array:
    """(L,) as measured -> the same from its direct sound on, its strongest sample, with energy 1."""
    cut = response[int(np.abs(response).argmax()) :].astype(np.float64)
    left = _energy_left(cut)
    audible = int(np.count_nonzero(left > left[0] * 10 ** (-TAIL_DB / 10)))
    return (cut[:audible] / np.sqrt(np.sum(cut[:audible] ** 2))).astype(np.float32)


def read_rooms(folder: Path) -> list[Array]:
    """The measured responses of a folder, aligned; EdgeavError where it holds none."""
    return [aligned(response) for response in read_recordings(folder)]


def reverberate(waveform: Array, response: Array) -> Array:
    """(S,) * (L,) -> (S,): heard in the room; what rings on after the end is cut off."""
    response = response[: len(waveform)]
    size = 1 << (len(waveform) + len(response) - 1).bit_length()
    spectrum = np.fft.rfft(waveform, size) * np.fft.rfft(response, size)
    return np.fft.irfft(spectrum, size)[: len(waveform)].astype(np.float32)


def reverberation_time_s(response: Array) -> float:
    """RT60 of (L,): three times the time in which the energy still to come falls from -5 to -25 dB (ISO 3382's T20)."""
    left = _energy_left(response.astype(np.float64))
    fall_db = 10 * np.log10(np.maximum(left / left[0], 1e-12))
    part = np.flatnonzero((fall_db <= -5) & (fall_db >= -25))
    slope = np.polyfit(part / SAMPLE_RATE_HZ, fall_db[part], 1)[0]
    return float(-60 / slope)


def room(measured: Sequence[Array], wanted: RoomShare, r: Rng) -> Array:
    """(L,): one of the measured rooms, or a new synthetic one."""
    if measured and r.random() >= wanted.synthetic:
        return measured[int(r.integers(len(measured)))]
    return synthetic_room(float(r.uniform(*wanted.rt60_s)), float(r.uniform(*wanted.direct_db)), r)


def _energy_left(response: NDArray[np.float64]) -> NDArray[np.float64]:
    """(L,): the energy from each sample to the end."""
    return np.cumsum(response[::-1] ** 2)[::-1]
