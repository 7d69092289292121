"""A drawn talking mouth: phoneme timings -> 96x96 gray frames at 25 fps, for corpora that need no camera.

SYNTHETIC. Real lips show far less than an articulator's settings: sounds that look alike (p/b/m, or t/d/n/s) share one
viseme here, neighbouring sounds blend (Cohen & Massaro 1993, "Modeling coarticulation in synthetic visual speech"), and
every clip is blurred, shaken and noisy. The geometry imitates crops of 1.75 eye distances: lips about 46 pixels wide.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from edgeav.data.augment import delayed
from edgeav.runtime.inputs import MOUTH, VIDEO_FPS

Frames = NDArray[np.uint8]
Segment = tuple[str, float, float]  # (phoneme, start in s, end in s)

# viseme: jaw opening, width (-1 rounded .. 1 spread), closure, lip under teeth, teeth shown; dominance, its decay in s
VISEMES = {
    "rest": (0.03, 0.0, 0.9, 0.0, 0.0, 0.6, 0.08),
    "bilabial": (0.00, 0.0, 1.0, 0.0, 0.0, 3.0, 0.045),
    "labiodental": (0.12, 0.1, 0.1, 1.0, 0.6, 2.4, 0.05),
    "alveolar": (0.18, 0.2, 0.0, 0.0, 0.8, 1.0, 0.05),
    "rounded": (0.14, -0.9, 0.05, 0.0, 0.1, 1.7, 0.065),
    "open-rounded": (0.60, -0.5, 0.0, 0.0, 0.1, 1.4, 0.08),
    "spread": (0.20, 0.9, 0.0, 0.0, 0.6, 1.3, 0.07),
    "mid": (0.42, 0.2, 0.0, 0.0, 0.4, 1.0, 0.06),
    "open": (0.80, 0.2, 0.0, 0.0, 0.3, 1.5, 0.08),
}
# espeak-ng's phoneme mnemonics (en), diphthongs as the two mouths they move between
_GROUPS = {
    "bilabial": "b p m",
    "labiodental": "f v",
    "alveolar": "t t# d n s z T D l @L",
    "rounded": "w u: u U S Z tS dZ r 3 3: U@",
    "open-rounded": "O: O@ O o@ 0 0# o",
    "spread": "i: i I I2 I# j i@ i@3",
    "mid": "E e@ @ @2 @5 a# V k g N h x",
    "open": "a aa A: A@ A",
}
_DIPHTHONGS = {
    "eI": ("mid", "spread"),
    "aI": ("open", "spread"),
    "aI@": ("open", "mid"),
    "OI": ("open-rounded", "spread"),
    "aU": ("open", "rounded"),
    "aU@": ("open", "mid"),
    "oU": ("open-rounded", "rounded"),
    "@U": ("mid", "rounded"),
}
PHONEMES: dict[str, tuple[str, ...]] = {p: (name,) for name, group in _GROUPS.items() for p in group.split()}
PHONEMES |= _DIPHTHONGS


@dataclass(frozen=True)
class Face:
    """How one person looks: lengths in pixels, gray levels 0..255."""

    half_width: float
    upper_lip: float
    lower_lip: float
    opening: float
    skin: float
    lip: float
    cavity: float
    teeth: float
    light: tuple[float, float]
    nose: float
    stubble: float
    articulation: float
    blur: float
    noise: float
    tilt: float


def random_face(seed: int) -> Face:
    """A face that depends on `seed` alone."""
    r = np.random.default_rng(seed)
    skin = r.uniform(95, 190)
    return Face(
        half_width=r.uniform(19, 26),
        upper_lip=r.uniform(2.2, 4.5),
        lower_lip=r.uniform(3.0, 6.0),
        opening=r.uniform(9, 16),
        skin=skin,
        lip=skin * r.uniform(0.6, 0.88),
        cavity=r.uniform(15, 50),
        teeth=skin * r.uniform(0.95, 1.3),
        light=(r.normal(0, 0.15), r.normal(0.05, 0.12)),
        nose=r.uniform(-24, -17),
        stubble=max(0.0, r.normal(-3, 8)),
        articulation=r.uniform(0.7, 1.2),
        blur=r.uniform(0.6, 1.4),
        noise=r.uniform(1, 5),
        tilt=r.normal(0, 3),
    )


def visemes(segments: list[Segment]) -> list[Segment]:
    """Phonemes -> visemes; an unknown phoneme is a mid mouth, a pause a closed one."""
    out: list[Segment] = []
    for phoneme, start, end in segments:
        names = PHONEMES.get(phoneme, ("rest",) if phoneme.startswith("_") or not phoneme else ("mid",))
        step = (end - start) / len(names)
        out += [(name, start + i * step, start + (i + 1) * step) for i, name in enumerate(names)]
    return out


def articulate(segments: list[Segment], duration_s: float, r: np.random.Generator) -> NDArray[np.float64]:
    """(T, 5) settings at 25 fps: every viseme pulls with its dominance, which decays with distance in time."""
    spoken = visemes(segments)
    edge = 0.6  # s of rest before and after
    first, last = (spoken[0][1], spoken[-1][2]) if spoken else (0.0, duration_s)
    spoken = [("rest", -edge, first), *spoken, ("rest", last, duration_s + edge)]
    table = np.array([VISEMES[name] for name, _, _ in spoken])
    start, end = np.array([s for _, s, _ in spoken]), np.array([e for _, _, e in spoken])
    targets = table[:, :5] * (1 + 0.25 * r.standard_normal((len(spoken), 5)))
    time = ((np.arange(round(duration_s * VIDEO_FPS)) + 0.5) / VIDEO_FPS)[:, None]
    outside = np.maximum(np.maximum(start - time, time - end), 0)
    dominance = table[:, 5] * np.exp(-outside / table[:, 6])
    return dominance @ targets / dominance.sum(axis=1, keepdims=True)


def render(settings: NDArray[np.float64], face: Face, r: np.random.Generator) -> Frames:
    """(T, 5) settings -> (T, 96, 96) frames with a wandering head, changing light and camera noise."""
    frames = len(settings)
    skin = _skin(face, r)
    shift, turn = _walk(frames, 1.2, r, 2) + r.normal(0, 1.5, 2), face.tilt + _walk(frames, 1.2, r, 1)[:, 0]
    zoom, light = 1 + _walk(frames, 0.012, r, 1)[:, 0], 1 + _walk(frames, 0.02, r, 1)[:, 0]
    out = np.empty((frames, MOUTH, MOUTH), np.uint8)
    center = (MOUTH / 2, MOUTH / 2)
    for t, setting in enumerate(settings):
        picture = _draw(skin.copy(), setting, face)
        move = cv2.getRotationMatrix2D(center, float(turn[t]), float(zoom[t]))
        move[:, 2] += shift[t]
        picture = cv2.warpAffine(picture, move, (MOUTH, MOUTH), borderMode=cv2.BORDER_REPLICATE)
        picture = cv2.GaussianBlur(picture, (0, 0), face.blur) * light[t]
        picture += face.noise * r.standard_normal((MOUTH, MOUTH), dtype=np.float32)
        out[t] = np.clip(picture, 0, 255)
    return out


def worsen(frames: Frames, r: np.random.Generator) -> Frames:
    """(T, 96, 96) -> the same as a cheap camera gives it: low resolution, something in front of the mouth now and then,
    frames that hang, a picture that runs up to two frames ahead of the sound or behind it."""
    frames = frames.copy()
    if r.random() < 0.5:
        side = int(r.integers(20, 64))
        small = [cv2.resize(f, (side, side), interpolation=cv2.INTER_AREA) for f in frames]
        frames = np.stack([cv2.resize(f, (MOUTH, MOUTH), interpolation=cv2.INTER_LINEAR) for f in small])
    if r.random() < 0.2:
        start, center = int(r.integers(len(frames))), tuple(int(v) for v in r.integers(24, 72, 2))
        axes, gray = tuple(int(v) for v in r.integers(12, 36, 2)), int(r.integers(30, 220))
        for frame in frames[start : start + int(r.integers(4, 16))]:
            cv2.ellipse(frame, center, axes, float(r.uniform(0, 180)), 0, 360, gray, -1)
    if r.random() < 0.2:
        start, count = int(r.integers(1, len(frames))), int(r.integers(2, 8))
        frames[start : start + count] = frames[start - 1]
    return delayed(frames, late=int(r.integers(-2, 3)))


def _skin(face: Face, r: np.random.Generator) -> NDArray[np.float32]:
    y, x = np.mgrid[0:MOUTH, 0:MOUTH].astype(np.float32) / (MOUTH / 2) - 1
    skin = face.skin * (1 + face.light[0] * x + face.light[1] * y - 0.15 * x**2)
    blotches = cv2.resize(r.standard_normal((16, 16)).astype(np.float32), (MOUTH, MOUTH), interpolation=cv2.INTER_CUBIC)
    stubble = face.stubble * r.standard_normal((MOUTH, MOUTH)) * (y > 0.25)
    return (skin + 2.5 * blotches + 0.5 * stubble).astype(np.float32)


def _draw(picture: NDArray[np.float32], setting: NDArray[np.float64], face: Face) -> NDArray[np.float32]:
    jaw, width, closure, under_teeth, teeth = setting
    opening = max(0.0, face.opening * face.articulation * jaw * (1 - min(1.0, max(0.0, closure))))
    half = face.half_width * (1 + (0.18 if width > 0 else 0.32) * width * face.articulation)
    middle = MOUTH / 2
    x = np.linspace(-1, 1, 25)
    arch = 1 - np.abs(x) ** 2.2
    for side in (-1, 1):
        cv2.ellipse(
            picture,
            _point(middle + side * 6, middle + face.nose),
            _point(4, 2),
            0,
            0,
            360,
            face.skin * 0.45,
            -1,
        )
    inner_top, inner_bottom = middle - 0.4 * opening * arch, middle + (0.6 * opening - under_teeth) * arch
    pout = 1 + 0.4 * max(0.0, -width) - 0.25 * max(0.0, closure)
    outer_top = inner_top - face.upper_lip * pout * arch
    outer_bottom = inner_bottom + face.lower_lip * pout * (1 - 0.3 * under_teeth) * arch
    columns = middle + x * half
    _fill(picture, columns, outer_top, outer_bottom, face.lip)
    if opening > 0.8:
        _fill(picture, middle + x * half * 0.9, inner_top, inner_bottom, face.cavity)
        shown = np.minimum(inner_bottom, inner_top + min(0.5 * opening, 1.5 + 2.5 * max(0.0, teeth)))
        _fill(
            picture,
            middle + x * half * 0.65,
            inner_top,
            shown,
            face.teeth * (0.5 + 0.5 * min(1.0, max(0.0, teeth))),
        )
    else:
        line = np.stack([columns, (inner_top + inner_bottom) / 2], axis=1)
        cv2.polylines(picture, [_fixed(line)], False, face.skin * 0.4, 1, cv2.LINE_AA, 4)
    return picture


def _fill(picture: NDArray[np.float32], x: NDArray, top: NDArray, bottom: NDArray, gray: float) -> None:
    outline = np.concatenate([np.stack([x, top], axis=1), np.stack([x, bottom], axis=1)[::-1]])
    cv2.fillPoly(picture, [_fixed(outline)], float(gray), cv2.LINE_AA, 4)


def _fixed(points: NDArray) -> NDArray[np.int32]:
    return np.round(points * 16).astype(np.int32)  # OpenCV's shift=4: 16ths of a pixel


def _point(x: float, y: float) -> tuple[int, int]:
    return round(x), round(y)


def _walk(frames: int, size: float, r: np.random.Generator, columns: int) -> NDArray[np.float64]:
    """(T, columns): smooth random movement of about `size`."""
    kernel = np.hanning(9) / np.hanning(9).sum()
    noise = r.standard_normal((frames + 8, columns)) * size * 2
    smooth = [np.convolve(noise[:, c], kernel, "valid").astype(np.float64) for c in range(columns)]
    return np.stack(smooth, axis=1)
