"""The mouth's path through clips whose faces are known, and both detectors on real ones."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from edgeav.errors import EdgeavError
from edgeav.runtime.face import Face, FaceDetector, HaarFaces, YunetFaces, open_face_detector
from edgeav.runtime.media import open_media
from edgeav.runtime.mouth import extract_mouth, follow_mouth, smooth

Gray = np.ndarray


class ScriptedFaces:
    """A detector that knows where the faces are: the first pixel of a picture is the number of its frame."""

    say = "a script"

    def __init__(self, faces: Callable[[int], list[Face]]) -> None:
        self.faces = faces

    def find(self, picture: Gray) -> list[Face]:
        return self.faces(int(picture[0, 0]))


def clip(frames: int, height: int = 100, width: int = 200) -> Iterator[Gray]:
    for frame in range(frames):
        picture = np.zeros((height, width), np.uint8)
        picture[0, 0] = frame
        yield picture


def steady(frame: int) -> list[Face]:
    return [Face(100, 50, 40)]


def test_a_steady_face_gives_a_steady_path() -> None:
    path = follow_mouth(clip(50), ScriptedFaces(steady))

    np.testing.assert_allclose(path.center, np.tile([100, 50], (50, 1)))
    np.testing.assert_allclose(path.eye_distance, 40)
    assert path.notes == ["face: found with a script"]


def test_a_moving_face_is_followed_between_the_frames_searched() -> None:
    path = follow_mouth(clip(60), ScriptedFaces(lambda frame: [Face(50 + frame, 40, 30)]))

    inner = slice(15, 45)  # at its ends a smoothed path bends
    np.testing.assert_allclose(path.center[inner, 0], 50 + np.arange(60)[inner], atol=0.1)


def test_a_detectors_trembling_is_smoothed_away() -> None:
    random = np.random.default_rng(0)
    path = follow_mouth(clip(100), ScriptedFaces(lambda frame: [Face(100 + random.normal(0, 3), 50, 40)]))

    assert np.abs(np.diff(path.center[:, 0])).max() < 1.5
    np.testing.assert_allclose(path.center[:, 0], 100, atol=5)


def test_a_short_loss_is_bridged_and_a_long_one_is_absent_and_said() -> None:
    def faces(frame: int) -> list[Face]:
        return [] if 20 <= frame < 29 or 60 <= frame < 90 else [Face(100, 50, 40)]

    path = follow_mouth(clip(120), ScriptedFaces(faces))

    assert path.present[:60].all()
    assert not path.present[64:86].any()
    assert path.present[92:].all()
    assert any("not seen in" in note and "of 120 frames, between 2." in note for note in path.notes)


def test_a_face_that_comes_late_is_absent_until_then() -> None:
    path = follow_mouth(clip(60), ScriptedFaces(lambda frame: steady(frame) if frame >= 30 else []))

    assert not path.present[:27].any()
    assert path.present[30:].all()


def test_of_two_faces_the_one_larger_for_longer_is_followed_and_said() -> None:
    path = follow_mouth(clip(60), ScriptedFaces(lambda frame: [Face(40, 50, 20), Face(150, 50, 30)]))

    np.testing.assert_allclose(path.center[:, 0], 150)
    assert "face: 2 faces; followed the one that is largest for longest" in path.notes


def test_after_a_cut_the_speakers_new_place_is_followed_at_once() -> None:
    path = follow_mouth(clip(80), ScriptedFaces(lambda frame: [Face(40 if frame < 42 else 160, 50, 30)]))

    np.testing.assert_allclose(path.center[:40, 0], 40)
    np.testing.assert_allclose(path.center[45:, 0], 160)


def test_a_single_false_alarm_is_no_face() -> None:
    path = follow_mouth(clip(60), ScriptedFaces(lambda frame: steady(frame) if frame == 30 else []))

    assert not path.present.any()
    assert path.notes == ["no face found (with a script): the video is not used"]


def test_the_crop_is_1_75_eye_distances_around_the_mouth() -> None:
    def pictures() -> Iterator[Gray]:
        for picture in clip(10, height=200, width=200):
            picture[90:111, 80:121] = 255  # 20 x 40 around (100, 100)
            yield picture

    mouth = extract_mouth(pictures, ScriptedFaces(lambda frame: [Face(100, 100, 80)]))

    assert mouth is not None
    assert mouth.frames.shape == (10, 96, 96)
    rows, columns = (np.flatnonzero(mouth.frames[5].max(axis=axis) > 127) for axis in (1, 0))
    scale = 96 / (1.75 * 80)
    assert abs(len(columns) - 41 * scale) <= 2
    assert abs(len(rows) - 21 * scale) <= 2
    assert abs(columns.mean() - 47.5) <= 1
    assert abs(rows.mean() - 47.5) <= 1


def test_a_mouth_at_the_edge_of_the_picture_still_gives_a_whole_crop() -> None:
    mouth = extract_mouth(lambda: clip(10), ScriptedFaces(lambda frame: [Face(2, 98, 60)]))

    assert mouth is not None
    assert mouth.frames.shape == (10, 96, 96)


def test_frames_without_a_face_are_black_and_not_present() -> None:
    mouth = extract_mouth(
        lambda: (picture + 1 for picture in clip(60)),
        ScriptedFaces(lambda frame: [] if frame < 31 else steady(0)),
    )

    assert mouth is not None
    assert not mouth.frames[~mouth.present].any()
    assert mouth.frames[mouth.present].any()


def test_96x96_pictures_are_taken_as_they_are() -> None:
    mouth = extract_mouth(lambda: clip(7, 96, 96), ScriptedFaces(steady))

    assert mouth is not None
    np.testing.assert_array_equal(mouth.frames, np.stack(list(clip(7, 96, 96))))
    assert mouth.present.all()
    assert mouth.notes == ["video: 96x96, taken for a mouth crop already made"]


def test_no_pictures_give_no_mouth() -> None:
    assert extract_mouth(lambda: iter([]), ScriptedFaces(steady)) is None


def test_smoothing_keeps_a_line_and_drops_an_outlier() -> None:
    line = np.arange(40.0)
    spoiled = np.where(line == 20, 100, 7.0)

    np.testing.assert_allclose(smooth(line, 9)[8:-8], line[8:-8])
    np.testing.assert_allclose(smooth(spoiled, 9), 7)


def test_a_missing_or_wrong_face_model_is_named(tmp_path: Path) -> None:
    (tmp_path / "wrong.onnx").write_bytes(b"no model")

    with pytest.raises(EdgeavError, match=r"absent\.onnx does not exist"):
        open_face_detector(tmp_path / "absent.onnx")
    with pytest.raises(EdgeavError, match=r"wrong\.onnx cannot be loaded"):
        open_face_detector(tmp_path / "wrong.onnx")


@pytest.mark.parametrize("detector", [HaarFaces, YunetFaces])
def test_nothing_is_found_in_a_gray_wall(detector: type, grid: Path) -> None:
    wall = np.full((288, 360), 120, np.uint8)

    assert _open(detector, grid).find(wall) == []


@pytest.mark.parametrize(("detector", "pixels"), [(HaarFaces, 8), (YunetFaces, 3)])
def test_real_mouths_are_cut_like_those_of_the_corpus(detector: type, pixels: float, grid: Path) -> None:
    """How far the crop must be moved to lie best on the corpus's own, which YuNet made."""
    import cv2

    finder = _open(detector, grid)
    for name in ("s1_bgan7a", "s30_bbac3n", "s31_bbac4p"):
        reference = np.stack(list(open_media(grid / "video" / f"{name}.mp4").pictures()))

        mouth = extract_mouth(open_media(grid / "raw" / f"{name}.mpg").pictures, finder)

        assert mouth is not None
        assert mouth.present.all()
        shifts = [
            cv2.phaseCorrelate(cut.astype(np.float32), original.astype(np.float32))[0]
            for cut, original in zip(mouth.frames[::15], reference[::15], strict=True)
        ]
        assert np.hypot(*np.mean(shifts, axis=0)) < pixels


def test_a_large_picture_gives_the_same_face_in_its_own_pixels(grid: Path) -> None:
    import cv2

    picture = next(open_media(grid / "raw" / "s1_bgan7a.mpg").pictures())
    large = np.asarray(cv2.resize(picture, None, fx=3, fy=3), dtype=np.uint8)

    (small_face,), (large_face,) = HaarFaces().find(picture), HaarFaces().find(large)

    assert large_face.mouth_x == pytest.approx(3 * small_face.mouth_x, rel=0.03)
    assert large_face.eye_distance == pytest.approx(3 * small_face.eye_distance, rel=0.05)


def _open(detector: type, grid: Path) -> FaceDetector:
    model = grid.parent / "yunet" / "yunet_n_dynamic.onnx"
    return open_face_detector(model if detector is YunetFaces else None)
