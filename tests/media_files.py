"""Sound and video files made on the fly, of which every number is known."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

TICKS = 600  # a clock that 16, 25 and 30 pictures a second all divide


def tone(seconds: float, rate: int = 16_000, hz: float = 440) -> NDArray[np.float32]:
    return (0.5 * np.sin(2 * np.pi * hz * np.arange(round(seconds * rate)) / rate)).astype(np.float32)


def write_media(
    path: Path,
    sound: NDArray | None = None,
    rate: int = 16_000,
    pictures: Sequence[NDArray[np.uint8]] | None = None,
    times_s: Sequence[float] | None = None,
    rotation: int = 0,
) -> Path:
    """`sound` (S,) or (channels, S); `pictures` (H, W) each, shown at `times_s` (default: 25 a second)."""
    with av.open(str(path), "w") as container:
        # All streams before any packet: the first packet writes the header.
        video = None if pictures is None else _add_video(container, pictures[0].shape, rotation)
        audio = None if sound is None else _add_audio(container, np.atleast_2d(sound), rate)
        if video is not None and pictures is not None:
            times_s = [index / 25 for index in range(len(pictures))] if times_s is None else times_s
            _write_pictures(container, video, pictures, times_s)
        if audio is not None:
            _write_sound(container, audio, np.atleast_2d(np.asarray(sound)))
    return path


def shades(frames: int, height: int = 48, width: int = 64) -> list[NDArray[np.uint8]]:
    """Even pictures, each 3 gray levels brighter than the one before: which is which can be read off."""
    return [np.full((height, width), 20 + 3 * index, np.uint8) for index in range(frames)]


def _add_video(container: Any, shape: tuple[int, ...], rotation: int) -> Any:
    lossless = container.format.name.startswith("matroska")
    stream = container.add_stream("ffv1" if lossless else "mpeg4", rate=25)
    stream.height, stream.width = shape
    stream.pix_fmt = "yuv420p"
    stream.codec_context.time_base = Fraction(1, TICKS)
    if rotation:
        stream.set_display_rotation(rotation)
    return stream


def _add_audio(container: Any, sound: NDArray, rate: int) -> Any:
    codec = "aac" if container.format.name.startswith("mp4") else "pcm_f32le"
    return container.add_stream(codec, rate=rate, layout={1: "mono", 2: "stereo"}[len(sound)])


def _write_pictures(container: Any, stream: Any, pictures: Sequence[NDArray], times_s: Sequence[float]) -> None:
    for picture, time_s in zip(pictures, times_s, strict=True):
        frame = av.VideoFrame.from_ndarray(picture, format="gray").reformat(format="yuv420p")
        frame.pts, frame.time_base = round(time_s * TICKS), Fraction(1, TICKS)
        container.mux(stream.encode(frame))
    container.mux(stream.encode())


def _write_sound(container: Any, stream: Any, sound: NDArray) -> None:
    packed = stream.codec_context.name == "pcm_f32le"
    array = np.ascontiguousarray(sound.T.reshape(1, -1) if packed else sound, dtype=np.float32)
    layout, rate = stream.codec_context.layout.name, stream.codec_context.sample_rate
    if sound.shape[1]:
        frame = av.AudioFrame.from_ndarray(array, format="flt" if packed else "fltp", layout=layout)
        frame.sample_rate, frame.pts, frame.time_base = rate, 0, Fraction(1, rate)
        container.mux(stream.encode(frame))
    container.mux(stream.encode())
