"""Two face detectors behind one call: gray picture -> faces, as mouth positions and eye distances.

Haar (Viola & Jones 2001, https://doi.org/10.1109/CVPR.2001.990517) comes with OpenCV and needs no file; it
gives a box, and the mouth follows from the proportions of faces. YuNet (Wu, Peng & Yu 2023,
https://doi.org/10.1007/s11633-023-1423-y) finds the landmarks themselves and is faster, but is a file of
its own: pass it as `face_model`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from edgeav.errors import EdgeavError, needs
from edgeav.runtime.onnxruntime_session import open_session

try:
    import cv2
except ModuleNotFoundError as error:
    raise needs("video", "opencv-python-headless") from error

Gray = NDArray[np.uint8]

SHORT_SIDE = 288  # pixels: larger pictures are shrunk to this before the search; a face of a quarter has 72


@dataclass(frozen=True)
class Face:
    """Pixels of the picture searched: middle of the mouth, distance between the eyes."""

    mouth_x: float
    mouth_y: float
    eye_distance: float


class FaceDetector(Protocol):
    say: str  # what the transcript's notes call it

    def find(self, picture: Gray) -> list[Face]:
        """(H, W) -> every face seen, in any order."""
        ...


def open_face_detector(face_model: str | Path | None, threads: int = 1) -> FaceDetector:
    """YuNet from the file `face_model`, or Haar for None. `threads` is OpenCV's for the whole process."""
    cv2.setNumThreads(threads)
    return HaarFaces() if face_model is None else YunetFaces(Path(face_model), threads)


class HaarFaces:
    say = "OpenCV's Haar frontal face cascade"

    # In box widths; means over 11 GRID clips of YuNet's landmarks in this cascade's boxes (clips differ by
    # 0.02 to each side, about 3 pixels of the 96; turned heads more). haarcascade_frontalface_default
    # took 1.7x the time and hit the odd collar; the eye cascades took longer still and were no better.
    MOUTH_X, MOUTH_Y, EYE_DISTANCE = 0.5, 0.76, 0.355

    def __init__(self) -> None:
        folder = Path(cv2.__file__).parent / "data"
        self._cascade = cv2.CascadeClassifier(str(folder / "haarcascade_frontalface_alt2.xml"))

    def find(self, picture: Gray) -> list[Face]:
        small, scale = _shrink(picture)
        side = SHORT_SIDE // 4
        boxes = self._cascade.detectMultiScale(small, scaleFactor=1.1, minNeighbors=5, minSize=(side, side))
        return [self._face(box / scale) for box in np.asarray(boxes, dtype=np.float64).reshape(-1, 4)]

    def _face(self, box: NDArray[np.float64]) -> Face:
        x, y, width, height = box.tolist()
        return Face(x + self.MOUTH_X * width, y + self.MOUTH_Y * height, self.EYE_DISTANCE * width)


class YunetFaces:
    """Run by ONNX Runtime: OpenCV 4's own reader refuses the file with free picture sizes."""

    say = "YuNet's landmarks"
    STRIDES = (8, 16, 32)
    MIN_SCORE, MAX_OVERLAP = 0.6, 0.3

    def __init__(self, model: Path, threads: int) -> None:
        if not model.is_file():
            raise EdgeavError(f"face model {model} does not exist. Leave it out to use OpenCV's Haar cascade.")
        try:
            session = open_session(model, threads)
        except ModuleNotFoundError as error:
            raise needs("onnxruntime", "onnxruntime (which runs the face model)") from error
        except Exception as error:  # ONNX Runtime's exceptions share no other base
            raise EdgeavError(f"face model {model} cannot be loaded: {error}") from error
        self._session: Any = session
        wanted = {f"{head}_{stride}" for head in ("cls", "obj", "bbox", "kps") for stride in self.STRIDES}
        if missing := wanted - {output.name for output in self._session.get_outputs()}:
            raise EdgeavError(f"{model} is not a YuNet model: it has no outputs {', '.join(sorted(missing))}")

    def find(self, picture: Gray) -> list[Face]:
        small, scale = _shrink(picture)
        height, width = (-(-side // 32) * 32 for side in small.shape)
        padded = np.zeros((height, width), np.float32)
        padded[: small.shape[0], : small.shape[1]] = small
        image = np.broadcast_to(padded, (1, 3, height, width))  # gray as blue, green and red in 0..255
        names = [output.name for output in self._session.get_outputs()]
        heads = dict(zip(names, self._session.run(None, {"input": np.ascontiguousarray(image)}), strict=True))
        found = [self._decode(heads, stride, width // stride) for stride in self.STRIDES]
        scores, boxes, points = (np.concatenate(part) for part in zip(*found, strict=True))
        kept = cv2.dnn.NMSBoxes(boxes.tolist(), scores.tolist(), self.MIN_SCORE, self.MAX_OVERLAP)
        return [_from_landmarks(points[index] / scale) for index in kept]

    def _decode(self, heads: dict[str, NDArray], stride: int, columns: int) -> tuple[NDArray, NDArray, NDArray]:
        """One scale's outputs -> scores (N,), boxes (N, 4) as x y w h, landmarks (N, 5, 2), in pixels."""
        scores = np.sqrt(heads[f"cls_{stride}"][0, :, 0] * heads[f"obj_{stride}"][0, :, 0])
        cells = np.arange(len(scores))
        corner = np.stack([cells % columns, cells // columns], axis=1)
        keep = scores > self.MIN_SCORE
        box, corner = heads[f"bbox_{stride}"][0, keep], corner[keep]
        size = np.exp(box[:, 2:]) * stride
        boxes = np.concatenate([(corner + box[:, :2]) * stride - size / 2, size], axis=1)
        points = (heads[f"kps_{stride}"][0, keep].reshape(-1, 5, 2) + corner[:, None]) * stride
        return scores[keep], boxes, points


def _from_landmarks(points: NDArray) -> Face:
    """(5, 2) right eye, left eye, nose, right and left mouth corner -> Face."""
    x, y = points[3:5].mean(axis=0).tolist()
    return Face(x, y, float(np.linalg.norm(points[0] - points[1])))


def _shrink(picture: Gray) -> tuple[Gray, float]:
    """The picture with a short side of at most SHORT_SIDE, and its scale."""
    scale = min(1.0, SHORT_SIDE / min(picture.shape))
    if scale == 1.0:
        return picture, scale
    size = (max(1, round(picture.shape[1] * scale)), max(1, round(picture.shape[0] * scale)))
    return np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA), dtype=np.uint8), scale
