"""Files of known content: everything must be where it was put, and every change must be said."""

from __future__ import annotations

import tracemalloc
import wave
from pathlib import Path

import numpy as np
import pytest
from media_files import shades, tone, write_media

from edgeav.errors import EdgeavError
from edgeav.runtime.media import at_25_fps, open_media


def levels(path: Path) -> list[int]:
    """Which picture of `shades` is shown at each 1/25 s."""
    return [round((float(picture.mean()) - 20) / 3) for picture in open_media(path).pictures()]


def test_sound_at_16_khz_comes_through_unchanged(tmp_path: Path) -> None:
    sound = tone(1.5)

    media = open_media(write_media(tmp_path / "a.wav", sound))

    np.testing.assert_array_equal(media.waveform, sound)
    assert media.notes == ["no video track"]


def test_8_khz_stereo_is_resampled_averaged_and_said(tmp_path: Path) -> None:
    left, right = tone(1, rate=8000), 0.5 * tone(1, rate=8000)

    media = open_media(write_media(tmp_path / "a.wav", np.stack([left, right]), rate=8000))

    assert media.waveform is not None
    assert len(media.waveform) == 16_000
    np.testing.assert_allclose(media.waveform[500:-500], 0.75 * tone(1)[500:-500], atol=0.01)
    assert "audio: 8000 Hz stereo, resampled to 16000 Hz mono" in media.notes


def test_25_pictures_a_second_come_through_one_by_one(tmp_path: Path) -> None:
    path = write_media(tmp_path / "a.mkv", tone(2), pictures=shades(50))

    assert levels(path) == list(range(50))
    assert open_media(path).notes == []


@pytest.mark.parametrize("rate", [16, 30, 50])
def test_other_rates_are_resampled_to_the_nearest_picture_and_said(tmp_path: Path, rate: int) -> None:
    pictures = shades(2 * rate) if rate < 40 else shades(rate)
    seconds = len(pictures) / rate
    path = write_media(tmp_path / "a.mkv", pictures=pictures, times_s=[index / rate for index in range(len(pictures))])
    media = open_media(path)
    shown = [round((float(picture.mean()) - 20) / 3) for picture in media.pictures()]

    assert len(shown) == round(25 * seconds)
    assert all(abs(index / rate - tick / 25) <= 0.5 / rate + 2e-3 for tick, index in enumerate(shown[:-1]))
    assert any(f"{rate}.0 pictures a second, resampled to 25 by timestamps" in note for note in media.notes)


def test_a_varying_rate_follows_the_timestamps_and_is_said(tmp_path: Path) -> None:
    times = [index / 30 for index in range(15)] + [0.5 + index / 10 for index in range(5)]
    media = open_media(write_media(tmp_path / "a.mkv", pictures=shades(20), times_s=times))

    shown = [round((float(picture.mean()) - 20) / 3) for picture in media.pictures()]

    assert all(abs(times[index] - tick / 25) <= 0.052 for tick, index in enumerate(shown[:-2]))
    assert any("a varying rate" in note for note in media.notes)


def test_pictures_may_be_read_twice_and_are_noted_once(tmp_path: Path) -> None:
    media = open_media(write_media(tmp_path / "a.mkv", pictures=shades(10), times_s=[i / 30 for i in range(10)]))

    assert len(list(media.pictures())) == len(list(media.pictures())) == 8
    assert len(media.notes) == 2


def test_nearest_picture_in_time_without_any_file() -> None:
    pictures = [(0.0, np.array([[0]], np.uint8)), (0.1, np.array([[1]], np.uint8))]

    assert [int(picture[0, 0]) for picture in at_25_fps(pictures)] == [0, 0, 1, 1, 1]
    assert list(at_25_fps([])) == []


def test_a_phones_sideways_video_is_set_upright(tmp_path: Path) -> None:
    bright_left = np.zeros((48, 64), np.uint8)
    bright_left[:, :32] = 200
    path = write_media(tmp_path / "a.mp4", pictures=[bright_left] * 5, rotation=90)

    picture = next(open_media(path).pictures())

    assert picture.shape == (64, 48)
    assert picture[-8:].mean() > 150  # 90 degrees counter-clockwise: left has become below
    assert picture[:8].mean() < 50


def test_sound_and_video_stay_together_when_one_starts_later(tmp_path: Path) -> None:
    times = [0.5 + index / 25 for index in range(25)]
    path = write_media(tmp_path / "a.mkv", tone(1.5), pictures=shades(25), times_s=times)

    shown = levels(path)

    assert len(shown) == 38
    assert shown[25] == 12 or shown[25] == 13  # 1.0 s of the file is 0.5 s of the video
    media = open_media(path)
    list(media.pictures())
    assert any("video: begins 0.50 s after the sound" in note for note in media.notes)


def test_nan_and_infinite_samples_are_an_error_that_says_where(tmp_path: Path) -> None:
    sound = tone(2)
    sound[20_000] = np.nan
    sound[24_000] = np.inf

    with pytest.raises(EdgeavError, match=r"2 audio samples are NaN or infinite, the first at 1\.250 s"):
        open_media(write_media(tmp_path / "a.wav", sound))


def test_no_samples_and_no_video_is_an_error(tmp_path: Path) -> None:
    with wave.open(str(tmp_path / "a.wav"), "wb") as file:
        file.setparams((1, 2, 16_000, 0, "NONE", ""))

    with pytest.raises(EdgeavError, match="nothing to transcribe: no video track; the audio track is empty"):
        open_media(tmp_path / "a.wav")


def test_a_missing_file_and_a_folder_are_named(tmp_path: Path) -> None:
    with pytest.raises(EdgeavError, match="no such file"):
        open_media(tmp_path / "absent.mp4")
    with pytest.raises(EdgeavError, match="is a folder"):
        open_media(tmp_path)


def test_a_damaged_file_is_an_error_not_a_traceback(tmp_path: Path) -> None:
    whole = write_media(tmp_path / "whole.mp4", tone(2), pictures=shades(50)).read_bytes()
    for name, content in {
        "text.mp4": b"not a video at all" * 50,
        "empty.mp4": b"",
        "cut.mp4": whole[: len(whole) // 2],  # the index is at the end and lost
    }.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(EdgeavError, match=f"{name} .*is damaged, cut off"):
            open_media(tmp_path / name)


def test_a_file_cut_off_on_its_way_is_read_as_far_as_it_goes_and_said(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (100, 48, 64), dtype=np.uint8)
    whole = write_media(tmp_path / "whole.mkv", tone(4), pictures=list(noise)).read_bytes()
    (tmp_path / "cut.mkv").write_bytes(whole[: len(whole) // 2])

    media = open_media(tmp_path / "cut.mkv")

    assert 10 < len(list(media.pictures())) < 90
    assert any("by its header: cut off?" in note for note in media.notes)


def test_a_long_video_is_streamed_not_held_in_memory(tmp_path: Path) -> None:
    pictures = [np.zeros((240, 320), np.uint8)] * 500  # 38 MB of pictures
    path = write_media(tmp_path / "a.mp4", tone(0.1), pictures=pictures)
    media = open_media(path)

    tracemalloc.start()
    count = sum(1 for _ in media.pictures())
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert count == 500
    assert peak < 5e6


def test_a_real_clip_gives_75_pictures_and_the_sound_of_the_corpus(grid: Path) -> None:
    import soundfile

    clip = sorted((grid / "raw").glob("s1_*.mpg"))[0]
    reference, rate = soundfile.read(grid / "audio" / f"{clip.stem}.flac", dtype="float32")

    media = open_media(clip)

    assert len(list(media.pictures())) == 75
    assert rate == 16_000
    assert media.waveform is not None
    assert len(media.waveform) == len(reference)
    np.testing.assert_allclose(media.waveform, reference, atol=0.03)
