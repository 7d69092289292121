"""What training does to a clip: tempo, noise at an exact SNR, camera movement, short masks. numpy and OpenCV only.

SNR is over ACTIVE speech: clips are half silence, and an SNR over the whole clip flatters by 3 to 4 dB.
SpecAugment: Park et al. 2019 (https://arxiv.org/abs/1904.08779); its masks are short: a word lasts 15 to 25 frames.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from edgeav.data.corpus import Word
from edgeav.runtime.inputs import MOUTH, SAMPLE_RATE_HZ

Array = NDArray[np.float32]
Rng = np.random.Generator


def stretch(waveform: Array, factor: float) -> Array:
    """(S,) -> (S / factor,): faster and higher by `factor`, as a tape played faster."""
    count = round(len(waveform) / factor)
    return np.interp(np.arange(count) * factor, np.arange(len(waveform)), waveform).astype(np.float32)


def stretch_frames(frames: NDArray[np.uint8], factor: float) -> NDArray[np.uint8]:
    """(T, H, W) -> (T / factor, H, W), the nearest frame of each new time."""
    count = max(1, round(len(frames) / factor))
    return frames[np.minimum(len(frames) - 1, np.round(np.arange(count) * factor).astype(int))]


def delayed(frames: NDArray, late: int) -> NDArray:
    """(T, …) -> (T, …): each is that of `late` frames before, of as many after if negative; the ends are held."""
    return frames[np.clip(np.arange(len(frames)) - late, 0, len(frames) - 1)]


def active_power(waveform: Array, words: Sequence[Word]) -> float:
    """Mean square of the speech: within the words where times are known, else within 20 dB of the loudest 20 ms."""
    if words:
        spans = [waveform[int(s * SAMPLE_RATE_HZ) : int(e * SAMPLE_RATE_HZ)] for _, s, e in words]
        return float(np.mean(np.concatenate(spans) ** 2)) if any(map(len, spans)) else float(np.mean(waveform**2))
    frame = SAMPLE_RATE_HZ // 50
    power = (waveform[: len(waveform) // frame * frame].reshape(-1, frame) ** 2).mean(axis=1)
    return float(power[power >= power.max() / 100].mean()) if len(power) else float(np.mean(waveform**2))


def add_noise(waveform: Array, noise: Array, snr_db: float, words: Sequence[Word] = ()) -> Array:
    """(S,) + (S,) at exactly `snr_db`, the power of active speech against that of all the noise, so 0 is 0 dB.

    Silent speech stays as it is, and nothing is clipped. ValueError for silent noise: it reaches no ratio.
    """
    speech, disturbance = active_power(waveform, words), float(np.mean(np.square(noise, dtype=np.float64)))
    if speech <= 0:
        return waveform
    if disturbance <= 0:
        raise ValueError("the noise is silent: no gain brings it to any SNR")
    gain = np.sqrt(speech / disturbance) * 10 ** (-snr_db / 20)
    return (waveform + noise * gain).astype(np.float32)


def move_camera(frames: NDArray[np.uint8], side: int, r: Rng) -> Array:
    """(T, 96, 96) -> (T, side, side): one random turn, zoom, shape, shift, mirror, light and gamma for the clip.

    Faces differ more in shape and light than the few that a corpus shows; without this, lips of unknown people are
    trusted too much.
    """
    turn = cv2.getRotationMatrix2D((0, 0), r.uniform(-8, 8), r.uniform(0.87, 1.15))[:, :2]
    wide = r.uniform(0.88, 1.14)
    shape = np.array([[wide, r.uniform(-0.08, 0.08)], [0, 1 / wide]])  # wider or longer, and slanted, as large
    if r.random() < 0.5:
        shape = np.diag([-1, 1]) @ shape
    linear = turn @ shape
    center = (side - 1) / 2 + r.uniform(-6, 6, 2)
    move = np.column_stack([linear, center - linear @ np.full(2, (MOUTH - 1) / 2)])
    warp = [cv2.warpAffine(f, move, (side, side), borderMode=cv2.BORDER_REPLICATE) for f in frames]
    moved = np.stack(warp).astype(np.float32) * _slope(side, r)
    return (255 * np.clip(moved / 255, 0, 1) ** np.float32(r.uniform(0.75, 1.3))).astype(np.float32)


def _slope(side: int, r: Rng) -> Array:
    """(side, side): light from one side, up to 30 % brighter there and darker on the other."""
    across = np.linspace(-1, 1, side, dtype=np.float32)
    angle, strength = r.uniform(0, 2 * np.pi), np.float32(r.uniform(0, 0.3))
    ramp = np.float32(np.cos(angle)) * across[None, :] + np.float32(np.sin(angle)) * across[:, None]
    return (1 + strength * ramp / np.sqrt(2)).astype(np.float32)


def roughen(video: Array, r: Rng) -> Array:
    """(T, H, W) normalized -> the same with camera noise now and then, and up to two gaps of one or two frames."""
    if r.random() < 0.3:
        noise = r.standard_normal(video.shape, np.float32) * np.float32(r.uniform(0.02, 0.2))
        video = (video + noise).astype(np.float32)
    for _ in range(int(r.integers(0, 3))):
        width = int(r.integers(1, 3))
        start = int(r.integers(0, max(1, len(video) - width)))
        video[start : start + width] = 0
    return video


def mask_mel(mel: Array, r: Rng, masks: int = 2, frames: int = 7) -> Array:
    """(T, mels) of mean 0 -> the same with `masks` bands and `masks` stretches of time set to 0; changes `mel`."""
    bands = mel.shape[1] * 15 // 80  # at most
    for _ in range(masks):
        width = int(r.integers(0, bands + 1))
        start = int(r.integers(0, mel.shape[1] - width))
        mel[:, start : start + width] = 0
        mask_time(mel, r, frames)
    return mel


def mask_time(frames: Array, r: Rng, longest: int) -> Array:
    """(T, ...) of mean 0 -> the same with one stretch of up to `longest` set to 0; changes `frames`."""
    width = int(r.integers(0, longest + 1))
    start = int(r.integers(0, max(1, len(frames) - width)))
    frames[start : start + width] = 0
    return frames
