"""Gray pictures at 25 fps -> the 96x96 mouth crop the models were trained on.

The training crops are squares around the middle of the mouth, 1.75 eye distances wide, smoothed over time.
The clip is read twice: once to find the face in every third picture, once to cut. The path of a face is
only known when it is over (which face stays, how it moves across a gap), and ten minutes of full pictures
cannot be kept meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from edgeav.runtime.face import Face, FaceDetector, Gray, cv2
from edgeav.runtime.inputs import MOUTH, VIDEO_FPS

SIDE = 1.75  # eye distances: width of the crop
STRIDE = 3  # frames: the face is searched every 120 ms and interpolated between
GAP = VIDEO_FPS // 2  # frames: a face lost for up to 0.48 s is taken to have moved straight on
SIGHTINGS = 3  # a face seen less often is a false alarm
JUMP = 1.0  # eye distances: farther between two sightings is another face
CENTER_SMOOTHING = 9  # frames: longer than the detector's jitter, shorter than a nod
SIZE_SMOOTHING = 51  # frames: heads come nearer slowly, boxes change size from frame to frame


@dataclass(frozen=True)
class Mouth:
    """`frames` (T, 96, 96) at 25 fps, black where `present` (T,) is False; `notes` for the user."""

    frames: Gray
    present: NDArray[np.bool_]
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class MouthPath:
    """Where the mouth is: `center` (T, 2) and `eye_distance` (T,) in pixels, NaN in frames without a face."""

    center: NDArray[np.float64]
    eye_distance: NDArray[np.float64]
    notes: list[str]

    @property
    def present(self) -> NDArray[np.bool_]:
        return ~np.isnan(self.eye_distance)


@dataclass
class _Trail:
    """One face through time: the frames it was seen in, without a gap of over 0.48 s."""

    frames: list[int]
    faces: list[Face]

    @property
    def weight(self) -> float:
        """Size times time: the speaker is large and stays."""
        return sum(face.eye_distance for face in self.faces)


def extract_mouth(pictures: Callable[[], Iterator[Gray]], detector: FaceDetector) -> Mouth | None:
    """The mouth in a clip; None without a picture. `pictures` must give the same clip each time it is called.

    Pictures of exactly 96x96 are taken for mouth crops already made.
    """
    first = next(iter(pictures()), None)
    if first is None:
        return None
    if first.shape == (MOUTH, MOUTH):
        frames = np.stack(list(pictures()))
        return Mouth(frames, np.ones(len(frames), bool), ["video: 96x96, taken for a mouth crop already made"])
    path = follow_mouth(pictures(), detector)
    return Mouth(np.stack(list(cut_mouths(pictures(), path))), path.present, path.notes)


def follow_mouth(pictures: Iterable[Gray], detector: FaceDetector) -> MouthPath:
    """Find the speaker's mouth in every frame: detect, link, choose, interpolate, smooth."""
    sightings: dict[int, list[Face]] = {}
    frames = 0
    for frames, picture in enumerate(pictures, start=1):
        if (frames - 1) % STRIDE == 0:
            sightings[frames - 1] = detector.find(picture)
    enough = min(SIGHTINGS, len(sightings))
    trails = [trail for trail in _link(sightings) if len(trail.frames) >= enough]
    chosen = _choose(trails)
    path = MouthPath(np.full((frames, 2), np.nan), np.full(frames, np.nan), [])
    for trail in chosen:
        _lay(trail, path)
    path.notes.extend(_notes(path, detector, _rivals(trails, chosen)))
    return path


def _link(sightings: dict[int, list[Face]]) -> list[_Trail]:
    """Faces near each other in time, place and size become one trail; the longest trail picks first."""
    trails: list[_Trail] = []
    for frame, faces in sightings.items():
        left = list(faces)
        for trail in sorted(trails, key=lambda trail: -len(trail.frames)):
            near = [face for face in left if _same(trail.faces[-1], face)]
            if near and frame - trail.frames[-1] <= GAP:
                face = min(near, key=lambda face: _distance(trail.faces[-1], face))
                trail.frames.append(frame)
                trail.faces.append(face)
                left.remove(face)
        trails += [_Trail([frame], [face]) for face in left]
    return trails


def _same(before: Face, now: Face) -> bool:
    return _distance(before, now) < JUMP * before.eye_distance and 0.6 < now.eye_distance / before.eye_distance < 1.6


def _distance(one: Face, other: Face) -> float:
    return float(np.hypot(one.mouth_x - other.mouth_x, one.mouth_y - other.mouth_y))


def _choose(trails: list[_Trail]) -> list[_Trail]:
    """The weightiest trail, and others where it is not: after a cut the speaker has a new one."""
    chosen: list[_Trail] = []
    for trail in sorted(trails, key=lambda trail: -trail.weight):
        if not any(_overlap(trail, other) for other in chosen):
            chosen.append(trail)
    return chosen


def _overlap(one: _Trail, other: _Trail) -> bool:
    return one.frames[0] <= other.frames[-1] and other.frames[0] <= one.frames[-1]


def _rivals(trails: list[_Trail], chosen: list[_Trail]) -> int:
    """How many other faces were seen for at least a fifth as long as the chosen ones."""
    seen = sum(len(trail.frames) for trail in chosen)
    return sum(len(trail.frames) >= seen / 5 for trail in trails if trail not in chosen)


def _lay(trail: _Trail, path: MouthPath) -> None:
    """Change `path`: write the trail, interpolated and smoothed, over the frames it covers."""
    last_frame = len(path.eye_distance) - 1
    start = 0 if trail.frames[0] <= GAP else trail.frames[0] - STRIDE + 1
    stop = last_frame if last_frame - trail.frames[-1] <= GAP else trail.frames[-1] + STRIDE - 1
    covered = np.arange(start, stop + 1)
    free = ~path.present[covered]
    seen = np.array([[face.mouth_x, face.mouth_y, face.eye_distance] for face in trail.faces])
    x, y, size = (np.interp(covered, trail.frames, column) for column in seen.T)
    path.center[covered[free]] = np.stack([smooth(x, CENTER_SMOOTHING), smooth(y, CENTER_SMOOTHING)], axis=1)[free]
    path.eye_distance[covered[free]] = smooth(size, SIZE_SMOOTHING)[free]


def smooth(values: NDArray[np.float64], width: int) -> NDArray[np.float64]:
    """(T,) -> (T,): a median against outliers, a Hann window against steps, both `width` frames (odd)."""
    windows = np.lib.stride_tricks.sliding_window_view(np.pad(values, width // 2, mode="edge"), width)
    window = np.hanning(width + 2)[1:-1]
    padded = np.pad(np.median(windows, axis=1), width // 2, mode="edge")
    return np.convolve(padded, window / window.sum(), mode="valid").astype(np.float64)


def _notes(path: MouthPath, detector: FaceDetector, rivals: int) -> list[str]:
    present = path.present
    if not present.any():
        return [f"no face found (with {detector.say}): the video is not used"]
    notes = [f"face: found with {detector.say}"]
    if rivals:
        notes.append(f"face: {rivals + 1} faces; followed the one that is largest for longest")
    if not present.all():
        lost = np.flatnonzero(~present)
        where = f"between {lost[0] / VIDEO_FPS:.1f} and {(lost[-1] + 1) / VIDEO_FPS:.1f} s"
        notes.append(f"face: not seen in {len(lost)} of {len(present)} frames, {where}; sound alone there")
    return notes


def cut_mouths(pictures: Iterable[Gray], path: MouthPath) -> Iterator[Gray]:
    """Every picture's mouth, (96, 96); black where the mouth is unknown."""
    for picture, center, eye_distance in zip(pictures, path.center, path.eye_distance, strict=True):
        if np.isnan(eye_distance):
            yield np.zeros((MOUTH, MOUTH), np.uint8)
            continue
        side = max(1, round(SIDE * eye_distance))
        # Cut at sub-pixel precision (whole pixels would tremble), then average: large pictures would alias.
        square = cv2.getRectSubPix(picture, (side, side), center.tolist())
        yield np.asarray(cv2.resize(square, (MOUTH, MOUTH), interpolation=cv2.INTER_AREA), dtype=np.uint8)
