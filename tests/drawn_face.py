"""A drawn face that a Haar cascade takes for one, around the drawn mouth of the demo corpus: no real person needed."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

Gray = NDArray[np.uint8]

EYES = 88.0  # pixels between them
MOUTH_BELOW = 0.405 / 0.355 * EYES  # the eyes, as far as face.py takes it to be: 0.76 - 0.355 box widths


def draw_face(mouth: Gray, x: float = 320, y: float = 200, height: int = 480, width: int = 640) -> Gray:
    """(96, 96) mouth -> (height, width): a face whose eyes are around (x, y), its mouth where face.py expects it."""
    skin = float(np.median(mouth[:12]))
    picture = np.full((height, width), 0.35 * skin, np.float32)
    _ellipse(picture, x, y + 30, 1.15 * EYES, 1.75 * EYES, skin)
    _ellipse(picture, x, y - 1.3 * EYES, 1.2 * EYES, 0.55 * EYES, 0.2 * skin)  # hair
    _ellipse(picture, x, y - 0.62 * EYES, 0.9 * EYES, 0.3 * EYES, 1.08 * skin)  # forehead
    for side in (-1, 1):
        eye = x + side * EYES / 2
        _ellipse(picture, eye, y, 0.30 * EYES, 0.17 * EYES, 0.55 * skin)  # the hollow
        _ellipse(picture, eye, y - 0.26 * EYES, 0.30 * EYES, 0.055 * EYES, 0.3 * skin)  # the brow
        _ellipse(picture, eye, y, 0.11 * EYES, 0.1 * EYES, 0.15 * skin)
        _ellipse(picture, x + side * 0.55 * EYES, y + 0.5 * EYES, 0.26 * EYES, 0.2 * EYES, 1.1 * skin)  # the cheek
    _ellipse(picture, x, y + 0.25 * EYES, 0.11 * EYES, 0.45 * EYES, 1.15 * skin)  # the nose
    _ellipse(picture, x, y + 0.68 * EYES, 0.17 * EYES, 0.05 * EYES, 0.6 * skin)
    picture = cv2.GaussianBlur(picture, (0, 0), 2.5)
    _paste(picture, mouth, x, y + MOUTH_BELOW)
    return np.clip(picture, 0, 255).astype(np.uint8)


def _ellipse(picture: NDArray, x: float, y: float, half_width: float, half_height: float, level: float) -> None:
    axes = (round(half_width), round(half_height))
    cv2.ellipse(picture, (round(x), round(y)), axes, 0, 0, 360, level, -1)


def _paste(picture: NDArray, mouth: Gray, x: float, y: float) -> None:
    """The mouth, as large as its crop is cut from a picture, fading out at its edge."""
    side = round(1.75 * EYES)
    large = cv2.resize(mouth, (side, side), interpolation=cv2.INTER_LINEAR).astype(np.float32)
    row, column = np.mgrid[:side, :side] / (side - 1) * 2 - 1
    alpha = np.clip((0.95 - np.hypot(row * 1.3, column)) / 0.25, 0, 1)
    top, left = round(y - side / 2), round(x - side / 2)
    part = picture[top : top + side, left : left + side]
    part[:] = alpha * large + (1 - alpha) * part
