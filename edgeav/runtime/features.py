"""From sound and mouth pictures to the three arrays every edgeav model takes. numpy only: this file runs on the device.

Why one file: training, calibration, evaluation and the device must agree to the last bit on what a model is fed; a
different mel scale or pre-emphasis alone costs whole points of WER. So there is one implementation, and bundle.json
repeats its settings for readers in other languages.

The log-mel follows NVIDIA NeMo's Fast Conformer front end (Rekesh et al. 2023, https://arxiv.org/abs/2305.05084).
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]

SAMPLE_RATE_HZ = 16_000
WINDOW = 400  # samples: 25 ms
HOP = 160  # samples: 10 ms
N_FFT = 512
MELS = 80
PRE_EMPHASIS = 0.97
LOG_FLOOR = 2.0**-24
NORMALIZE_EPSILON = 1e-5
MEL_FRAMES_PER_SECOND = SAMPLE_RATE_HZ // HOP  # 100

VIDEO_FPS = 25
MOUTH = 96  # pixels: side of the square mouth crop that corpora and the face tracker deliver
CROP = 88  # pixels: side of what the model sees; the 8 spare pixels are the room for random crops in training

STEPS_PER_SECOND = 12.5  # a step is one output frame of the encoder: 80 ms
MEL_FRAMES_PER_STEP = 8  # 100 Hz -> 12.5 Hz
VIDEO_FRAMES_PER_STEP = 2  # 25 fps -> 12.5 Hz
SAMPLES_PER_STEP = HOP * MEL_FRAMES_PER_STEP  # 1280
MIN_STEPS, MAX_STEPS = 2, 200  # 200 steps = 16 s; longer input is cut into windows by the transcriber


class Inputs(NamedTuple):
    """One utterance as a model takes it; N is its number of 80 ms steps. Zeros where a modality is absent."""

    mel: Array  # (1, 8N, 80) normalized log-mel, 100 Hz
    video: Array  # (1, 2N, 88, 88) standardized gray mouth, 25 fps
    presence: Array  # (1, N, 2) 1 where [sound, picture] exists; a step with neither is padding

    @property
    def steps(self) -> int:
        return self.presence.shape[1]


def log_mel(waveform: Array) -> Array:
    """(S,) samples in [-1, 1] at 16 kHz -> (S // 160, 80) log-mel energies, not yet normalized."""
    emphasized = np.append(waveform[:1], waveform[1:] - PRE_EMPHASIS * waveform[:-1]).astype(np.float32)
    padded = np.pad(emphasized, N_FFT // 2)
    frames = np.lib.stride_tricks.sliding_window_view(padded, N_FFT)[::HOP][: len(waveform) // HOP]
    spectrum = np.fft.rfft(frames * _window(), axis=-1)
    power = (spectrum.real**2 + spectrum.imag**2).astype(np.float32)
    return np.log(power @ mel_filters().T + np.float32(LOG_FLOOR)).astype(np.float32)


def normalize_mel(mel: Array) -> Array:
    """(T, 80) -> (T, 80) with mean 0 and deviation 1 in every band over the utterance (ddof 1, as in NeMo)."""
    if len(mel) < 2:
        return np.zeros_like(mel)
    deviation = mel.std(axis=0, ddof=1) + NORMALIZE_EPSILON
    return ((mel - mel.mean(axis=0)) / deviation).astype(np.float32)


def standardize_video(mouth: NDArray[np.uint8] | Array) -> Array:
    """(T, H, W) gray levels -> (T, H, W) with mean 0 and deviation 1 over the clip: lighting and skin tone drop out."""
    pixels = np.asarray(mouth, dtype=np.float32)
    return (pixels - pixels.mean()) / (pixels.std() + np.float32(1e-3))


def center_crop(mouth: NDArray, side: int = CROP) -> NDArray:
    """(T, H, W) -> (T, side, side) around the middle."""
    top, left = (mouth.shape[1] - side) // 2, (mouth.shape[2] - side) // 2
    return mouth[:, top : top + side, left : left + side]


def model_inputs(waveform: Array | None, mouth: NDArray[np.uint8] | None) -> Inputs:
    """(S,) sound at 16 kHz and (T, 96, 96) gray mouth at 25 fps, either may be None -> Inputs of equal length."""
    mel = None if waveform is None or len(waveform) < HOP else normalize_mel(log_mel(waveform))
    video = None if mouth is None or not len(mouth) else standardize_video(center_crop(mouth))
    return pack(mel, video)


def pack(mel: Array | None, video: Array | None) -> Inputs:
    """(T, 80) and (T', 88, 88), either may be None -> Inputs padded with zeros to whole steps."""
    mel_steps = 0 if mel is None else -(-len(mel) // MEL_FRAMES_PER_STEP)
    video_steps = 0 if video is None else -(-len(video) // VIDEO_FRAMES_PER_STEP)
    steps = max(mel_steps, video_steps, MIN_STEPS)
    out = empty_inputs(steps)
    if mel is not None:
        out.mel[0, : len(mel)] = mel
        out.presence[0, :mel_steps, 0] = 1
    if video is not None:
        out.video[0, : len(video)] = video
        out.presence[0, :video_steps, 1] = 1
    return out


def empty_inputs(steps: int, batch: int = 1) -> Inputs:
    """All zeros: what the model is told when nothing is there."""
    return Inputs(
        np.zeros((batch, steps * MEL_FRAMES_PER_STEP, MELS), np.float32),
        np.zeros((batch, steps * VIDEO_FRAMES_PER_STEP, CROP, CROP), np.float32),
        np.zeros((batch, steps, 2), np.float32),
    )


@lru_cache
def mel_filters() -> Array:
    """(80, 257) triangles on Slaney's mel scale, each of unit area (Slaney 1998, Auditory Toolbox)."""
    edges_hz = _mel_to_hz(np.linspace(_hz_to_mel(0.0), _hz_to_mel(SAMPLE_RATE_HZ / 2), MELS + 2))
    bins_hz = np.linspace(0, SAMPLE_RATE_HZ / 2, N_FFT // 2 + 1)
    lower, center, upper = edges_hz[:-2, None], edges_hz[1:-1, None], edges_hz[2:, None]
    rising, falling = (bins_hz - lower) / (center - lower), (upper - bins_hz) / (upper - center)
    return (np.maximum(0, np.minimum(rising, falling)) * 2 / (upper - lower)).astype(np.float32)


def settings() -> dict[str, dict]:
    """What bundle.json says of this file, for readers in other languages."""
    return {
        "audio": {
            "sample_rate_hz": SAMPLE_RATE_HZ,
            "window": WINDOW,
            "hop": HOP,
            "n_fft": N_FFT,
            "mels": MELS,
            "mel_scale": "slaney",
            "pre_emphasis": PRE_EMPHASIS,
            "window_function": "hann, symmetric, centered in n_fft",
            "padding": "n_fft/2 zeros on both sides; frames = samples // hop",
            "log_floor": LOG_FLOOR,
            "normalize": "per band over the utterance: (x - mean) / (std(ddof=1) + 1e-5)",
        },
        "video": {
            "fps": VIDEO_FPS,
            "mouth": MOUTH,
            "crop": CROP,
            "color": "gray",
            "normalize": "per clip: (x - mean) / (std + 1e-3), x in 0..255, over the cropped frames",
        },
    }


# Slaney's scale: linear below 1 kHz (200/3 Hz a mel), logarithmic above (27 mels from 1 to 6.4 kHz).
_HZ_PER_MEL, _BREAK_HZ, _LOG_STEP = 200 / 3, 1000.0, np.log(6.4) / 27
_BREAK_MEL = _BREAK_HZ / _HZ_PER_MEL  # 15


def _hz_to_mel(hz: float) -> float:
    return hz / _HZ_PER_MEL if hz < _BREAK_HZ else _BREAK_MEL + np.log(hz / _BREAK_HZ) / _LOG_STEP


def _mel_to_hz(mel: NDArray) -> NDArray:
    return np.where(mel < _BREAK_MEL, mel * _HZ_PER_MEL, _BREAK_HZ * np.exp(_LOG_STEP * (mel - _BREAK_MEL)))


@lru_cache
def _window() -> Array:
    """(512,) symmetric Hann of 400 samples with 56 zeros on both sides, as torch.stft centers a short window."""
    margin = (N_FFT - WINDOW) // 2
    return np.pad(np.hanning(WINDOW), margin).astype(np.float32)
