"""Log-mel energies with every setting that the models we know differ in. numpy only: this file runs on the device.

The default settings follow NVIDIA NeMo's Fast Conformer front end (Rekesh et al. 2023,
https://arxiv.org/abs/2305.05084); the others are those of torchaudio's MelSpectrogram, which HTK's scale came with.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from edgeav.runtime.inputs import SAMPLE_RATE_HZ, LogMel

Array = NDArray[np.float32]

NORMALIZE_EPSILON = 1e-5
DEFAULT = LogMel()


def log_mel(waveform: Array, settings: LogMel = DEFAULT) -> Array:
    """(S,) samples in [-1, 1] at 16 kHz -> (S // hop, mels) log-mel energies, not yet normalized."""
    # In float64: in float32 the loud low tones of speech round away part of its quiet high bands.
    wave = waveform.astype(np.float64)
    emphasized = np.append(wave[:1], wave[1:] - settings.pre_emphasis * wave[:-1])
    padded = np.pad(emphasized, settings.n_fft // 2, mode="reflect" if settings.padding == "reflect" else "constant")
    frames = np.lib.stride_tricks.sliding_window_view(padded, settings.n_fft)[:: settings.hop]
    spectrum = np.fft.rfft(frames[: len(waveform) // settings.hop] * window(settings), axis=-1)
    power = (spectrum.real**2 + spectrum.imag**2).astype(np.float32)
    energies, floor = power @ mel_filters(settings).T, np.float32(settings.log_floor)
    return np.log(energies + floor if settings.log_guard == "add" else np.maximum(energies, floor)).astype(np.float32)


def normalize_mel(mel: Array, settings: LogMel = DEFAULT) -> Array:
    """(T, mels) -> (T, mels): mean 0 and deviation 1 in every band over the utterance (ddof 1), if asked."""
    if settings.normalize == "none":
        return mel
    if len(mel) < 2:
        return np.zeros_like(mel)
    # In float64: in float32 the mean of digital silence is not exactly its value, and 1e-6 of it over 1e-5 is not zero.
    mean, deviation = mel.mean(axis=0, dtype=np.float64), mel.std(axis=0, ddof=1, dtype=np.float64)
    return ((mel - mean) / (deviation + NORMALIZE_EPSILON)).astype(np.float32)


@lru_cache
def mel_filters(settings: LogMel = DEFAULT) -> Array:
    """(mels, n_fft / 2 + 1) triangles on the mel scale, each of unit area or of unit height."""
    to_mel, to_hz = (_htk_mel, _htk_hz) if settings.mel_scale == "htk" else (_slaney_mel, _slaney_hz)
    edges_hz = to_hz(np.linspace(to_mel(settings.low_hz), to_mel(settings.high_hz), settings.mels + 2))
    lower, center, upper = _corners(edges_hz, settings)
    bins = np.arange(settings.n_fft // 2 + 1)
    rising, falling = (bins - lower) / (center - lower), (upper - bins) / (upper - center)
    triangles = np.maximum(0, np.minimum(rising, falling))
    widths_hz = (edges_hz[2:] - edges_hz[:-2])[:, None]
    return (triangles * 2 / widths_hz if settings.mel_norm == "area" else triangles).astype(np.float32)


def _corners(edges_hz: NDArray, settings: LogMel) -> tuple[NDArray, NDArray, NDArray]:
    """Lower corner, tip and upper corner of every triangle, (mels, 1) each, counted in bins of the transform."""
    if settings.mel_corners == "exact":
        edges = edges_hz * settings.n_fft / SAMPLE_RATE_HZ
        return edges[:-2, None], edges[1:-1, None], edges[2:, None]
    edges = np.floor(edges_hz * (settings.n_fft + 1) / SAMPLE_RATE_HZ)
    lower, tip = edges[:-2], np.maximum(edges[1:-1], edges[:-2] + 1)
    return lower[:, None], tip[:, None], np.maximum(edges[2:], tip + 1)[:, None]


# Slaney's scale: linear below 1 kHz (200/3 Hz a mel), logarithmic above (27 mels from 1 to 6.4 kHz).
# Slaney 1998, Auditory Toolbox.
_HZ_PER_MEL, _BREAK_HZ, _LOG_STEP = 200 / 3, 1000.0, np.log(6.4) / 27
_BREAK_MEL = _BREAK_HZ / _HZ_PER_MEL  # 15


def _slaney_mel(hz: float) -> float:
    return hz / _HZ_PER_MEL if hz < _BREAK_HZ else _BREAK_MEL + np.log(hz / _BREAK_HZ) / _LOG_STEP


def _slaney_hz(mel: NDArray) -> NDArray:
    return np.where(mel < _BREAK_MEL, mel * _HZ_PER_MEL, _BREAK_HZ * np.exp(_LOG_STEP * (mel - _BREAK_MEL)))


def _htk_mel(hz: float) -> float:
    """The HTK book's scale (Young et al. 2006, section 5.4)."""
    return float(2595 * np.log10(1 + hz / 700))


def _htk_hz(mel: NDArray) -> NDArray:
    return 700 * (10 ** (mel / 2595) - 1)


@lru_cache
def window(settings: LogMel) -> Array:
    """(n_fft,): Hann with zeros on both sides, as torch.stft centers a window shorter than the transform."""
    periodic = settings.window_function == "hann-periodic"
    hann = np.hanning(settings.window + periodic)[: settings.window]
    left = (settings.n_fft - settings.window) // 2
    return np.pad(hann, (left, settings.n_fft - settings.window - left)).astype(np.float32)
