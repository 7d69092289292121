"""The browser page's face and mouth under node, against OpenCV and the Python runtime, on a drawn face."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from web_tools import ask, clip, drawn_clip, needs_node, raw, script

from edgeav.runtime.face import Face, HaarFaces, cv2
from edgeav.runtime.mouth import extract_mouth, follow_mouth

RNG = np.random.default_rng


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> tuple[np.ndarray, dict[str, Any]]:
    """40 pictures, and the files node reads them from."""
    needs_node()
    pictures = drawn_clip()[2][:40]
    return pictures, clip(tmp_path_factory.mktemp("clip") / "pictures", pictures)


@pytest.fixture(scope="module")
def cascade(tmp_path_factory: pytest.TempPathFactory) -> str:
    """face.json as install.py makes it from OpenCV's file."""
    install = script("install")
    path = tmp_path_factory.mktemp("cascade") / "face.json"
    path.write_text(json.dumps(install.read_cascade(install._cascade_file().read_bytes())))
    return str(path)


def test_the_cascade_finds_the_face_where_opencv_finds_it(drawn: Any, cascade: str) -> None:
    pictures, files = drawn
    expected = [HaarFaces().find(picture) for picture in pictures]

    found = ask("faces", clip=files, cascade=cascade)["found"]

    assert [len(faces) for faces in found] == [len(faces) for faces in expected] == [1] * len(pictures)
    apart = [abs(f["x"] - e.mouth_x) + abs(f["y"] - e.mouth_y) for (f,), (e,) in zip(found, expected, strict=True)]
    sizes = [f["eyes"] / e.eye_distance for (f,), (e,) in zip(found, expected, strict=True)]
    assert np.median(apart) < 1 and max(apart) < 4  # pixels of 480: boxes are grouped, one more or less moves the mean
    np.testing.assert_allclose(sizes, 1, atol=0.03)


def test_no_face_is_found_in_noise_and_in_an_even_picture(cascade: str, tmp_path: Path) -> None:
    pictures = np.stack([RNG(0).integers(0, 256, (240, 320), dtype=np.uint8), np.full((240, 320), 90, np.uint8)])
    assert ask("faces", clip=clip(tmp_path / "clip", pictures), cascade=cascade)["found"] == [[], []]


def test_the_mouth_is_cut_as_python_cuts_it(drawn: Any) -> None:
    pictures, files = drawn
    faces = [HaarFaces().find(picture) for picture in pictures]
    mouth = extract_mouth(lambda: iter(pictures), HaarFaces())
    assert mouth is not None

    listed = [[{"x": face.mouth_x, "y": face.mouth_y, "eyes": face.eye_distance} for face in seen] for seen in faces]
    found = ask("mouth", clip=files, faces=listed)

    assert found["present"] == mouth.present.tolist()
    difference = np.abs(np.reshape(found["mouth"], mouth.frames.shape) - mouth.frames.astype(int))
    assert difference.max() <= 2 and difference.mean() < 0.2  # gray levels: OpenCV computes in fixed point


def test_the_whole_way_from_picture_to_mouth_is_close_to_pythons(drawn: Any, cascade: str) -> None:
    pictures, files = drawn
    mouth = extract_mouth(lambda: iter(pictures), HaarFaces())
    assert mouth is not None

    faces = ask("faces", clip=files, cascade=cascade)["found"]
    found = np.reshape(ask("mouth", clip=files, faces=faces)["mouth"], mouth.frames.shape)

    assert np.abs(found - mouth.frames.astype(int)).mean() < 1.5


def wandering(frame: int) -> list[Face]:
    speaker = [] if 40 <= frame < 46 or 70 <= frame < 95 else [Face(100 + frame + RNG(frame).normal(), 80, 40)]
    passer_by = [Face(300 - 3 * frame, 60, 20)] if frame < 30 else []
    return [*passer_by, *speaker]


class Scripted:
    say = "a script"

    def find(self, picture: np.ndarray) -> list[Face]:
        return wandering(int(picture[0, 0]))


def test_the_path_of_a_mouth_is_that_of_python_with_losses_and_a_passer_by() -> None:
    path = follow_mouth((np.full((4, 4), frame, np.uint8) for frame in range(140)), Scripted())
    faces = [
        (frame, [{"x": face.mouth_x, "y": face.mouth_y, "eyes": face.eye_distance} for face in wandering(frame)])
        for frame in range(0, 140, 3)
    ]

    found = ask("path", faces=faces, frames=140)

    assert [place is not None for place in found] == path.present.tolist()
    seen = np.array([[place["x"], place["y"], place["eyes"]] for place in found if place])
    expected = np.column_stack([path.center, path.eye_distance])[path.present]
    np.testing.assert_allclose(seen, expected, atol=1e-9)


@pytest.mark.parametrize("side", [54, 80, 95, 96, 97, 154, 311])
def test_pictures_are_resized_as_opencv_does_by_area(side: int, tmp_path: Path) -> None:
    picture = np.asarray(
        cv2.GaussianBlur(RNG(side).integers(0, 256, (side, side), dtype=np.uint8), (0, 0), 2), np.uint8
    )
    expected = cv2.resize(picture, (96, 96), interpolation=cv2.INTER_AREA).astype(int)

    found = ask("area", clip=clip(tmp_path / "clip", picture[None]), width=96, height=96)

    assert np.abs(np.reshape(found, (96, 96)) - expected).max() <= 1


def test_colors_become_the_gray_that_opencv_makes(tmp_path: Path) -> None:
    colors = RNG(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    rgba = np.dstack([colors, np.full((20, 30), 255, np.uint8)])
    expected = cv2.cvtColor(colors, cv2.COLOR_RGB2GRAY).astype(int)

    found = ask("gray", rgba=raw(tmp_path / "rgba", rgba), width=30, height=20)

    assert np.abs(np.reshape(found, (20, 30)) - expected).max() <= 1
