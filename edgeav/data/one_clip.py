"""One raw clip -> its prepared files: 96x96 gray mouth at 25 fps in H.264, 16 kHz mono sound in FLAC.

Everything is decoded and checked before anything is written; files get their names when they are whole.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import av
import numpy as np
import soundfile
from numpy.typing import NDArray

from edgeav.data.corpus import Media
from edgeav.data.readers.clip import RawClip
from edgeav.errors import EdgeavError
from edgeav.runtime.face import FaceDetector, Gray
from edgeav.runtime.inputs import MOUTH, SAMPLE_RATE_HZ, VIDEO_FPS
from edgeav.runtime.media import open_media
from edgeav.runtime.mouth import extract_mouth

SAMPLES_PER_PICTURE = SAMPLE_RATE_HZ // VIDEO_FPS  # 640
MIN_SEEN = 0.9  # of the pictures must show the face; the black rest would be taken for lips
APART_S = 0.5  # sound and pictures may end this far apart: cameras stop their tracks at different times
WORDS_OVER_S = 0.1  # a last word may end this long after the clip: times are rounded
QUALITY = {"crf": "12", "preset": "medium"}  # 30 kB for 3 s; 0.8 gray levels off on average


@dataclass(frozen=True)
class Limits:
    """The lengths that are kept, in seconds."""

    shortest_s: float = 0.4
    longest_s: float = 20.0


class Rejected(Exception):
    """Why a clip is left out: `reason` to count by, `detail` to understand."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason, self.detail = reason, detail


def prepare_clip(clip: RawClip, detector: FaceDetector, limits: Limits, out: Path) -> dict[str, Any]:
    """Write video/ID.mp4 and audio/ID.flac, whichever there is; the clip's manifest row, without a split.

    Raises Rejected.
    """
    media = read_clip(clip, detector, limits)
    row: dict[str, Any] = {"id": clip.id, "speaker": clip.speaker, "text": clip.text}
    if media.mouth is not None:
        row |= {"video": f"video/{clip.id}.mp4", "frames": len(media.mouth), "fps": VIDEO_FPS}
        with Whole(out / row["video"]) as part:
            write_mouth(part, media.mouth)
    if media.waveform is not None:
        row |= {"audio": f"audio/{clip.id}.flac", "audio_s": round(len(media.waveform) / SAMPLE_RATE_HZ, 3)}
        with Whole(out / row["audio"]) as part:
            soundfile.write(part, media.waveform, SAMPLE_RATE_HZ, "PCM_16", format="FLAC")
    return row | {"align": [[round(start, 3), round(end, 3), word] for word, start, end in media.words]}


def read_clip(clip: RawClip, detector: FaceDetector, limits: Limits) -> Media:
    """Sound and lips of the clip's stretch, both from its first picture on. Raises Rejected."""
    _check_listed(clip, limits)
    first = round(clip.start_s * VIDEO_FPS)
    # Not a picture more than shows that the clip is too long: it may be a film.
    most_s = limits.longest_s + 0.1 if clip.duration_s is None else clip.duration_s
    pictures = range(first, first + max(1, round(most_s * VIDEO_FPS)))
    try:
        mouth = _mouth(clip.video, pictures, detector) if clip.video else None
        sound = _sound(clip, pictures)
    except EdgeavError as error:
        raise Rejected("undecodable", str(error)) from error
    if mouth is None and sound is None:
        raise Rejected("undecodable", f"{clip.video or clip.audio}: neither pictures nor sound")
    words = tuple((word, start - first / VIDEO_FPS, end - first / VIDEO_FPS) for word, start, end in clip.words)
    media = Media(sound, mouth, words)
    _check_lengths(media, clip.duration_s or 0.0, limits)
    return media


class Whole:
    """A file under a temporary name beside its own, which it gets when the block ends well."""

    def __init__(self, path: Path) -> None:
        self.path, self.part = path, path.with_name(f".{path.name}.part")

    def __enter__(self) -> Path:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        return self.part

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.part.replace(self.path)
        else:
            self.part.unlink(missing_ok=True)


def write_mouth(path: Path, frames: NDArray[np.uint8]) -> None:
    """(T, 96, 96) -> MP4. In yuv420p: gray H.264 comes back 7 levels too bright from FFmpeg 8."""
    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=VIDEO_FPS, options=QUALITY)
        stream.width = stream.height = MOUTH
        stream.pix_fmt = "yuv420p"
        stream.codec_context.thread_count = 1
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="gray").reformat(format="yuv420p")))
        container.mux(stream.encode())


def _check_listed(clip: RawClip, limits: Limits) -> None:
    """What can be told without decoding."""
    for path in (clip.video, clip.audio):
        if path is not None and not path.is_file():
            raise Rejected("missing file", f"{path}: no such file")
    if not clip.text:
        raise Rejected("no text", "its transcript is empty or missing")
    if clip.duration_s is not None and clip.duration_s > limits.longest_s + 1 / VIDEO_FPS:
        raise Rejected("too long", f"{clip.duration_s:.2f} s; the limit is {limits.longest_s:g}")


def _mouth(path: Path, wanted: range, detector: FaceDetector) -> Gray:
    """The mouth in the `wanted` pictures, (T, 96, 96). Raises Rejected without a face."""
    media = open_media(path, hears=False)

    def pictures() -> Iterator[Gray]:
        return islice(media.pictures(), wanted.start, wanted.stop)

    mouth = extract_mouth(pictures, detector)
    if mouth is None:
        raise Rejected(
            "times outside", f"{path}: no picture at {wanted.start / VIDEO_FPS:.2f} s, where the clip begins"
        )
    if mouth.present.mean() < MIN_SEEN:
        seen = f"{mouth.present.sum()} of {len(mouth.present)} pictures"
        raise Rejected("no face", f"{path}: {detector.say} found a face in {seen}")
    return mouth.frames


def _sound(clip: RawClip, pictures: range) -> NDArray[np.float32] | None:
    """(S,), as long as the pictures; None for a file without sound, or with nothing but zeros."""
    path = clip.audio or clip.video
    assert path is not None, "readers name a file"
    waveform = open_media(path, sees=clip.audio is None).waveform
    if waveform is None or not waveform.any():
        return None
    cut = waveform[pictures.start * SAMPLES_PER_PICTURE : pictures.stop * SAMPLES_PER_PICTURE]
    if not len(cut):
        end_s = len(waveform) / SAMPLE_RATE_HZ
        raise Rejected("times outside", f"{path}: ends at {end_s:.2f} s, before the clip begins")
    return cut


def _check_lengths(media: Media, listed_s: float, limits: Limits) -> None:
    seconds = [len(track) / rate for track, rate in _tracks(media)]
    if max(seconds) < limits.shortest_s:
        raise Rejected("too short", f"{max(seconds):.2f} s; at least {limits.shortest_s:g}")
    if max(seconds) > limits.longest_s + 1 / VIDEO_FPS:
        raise Rejected("too long", f"more than the limit of {limits.longest_s:g} s")
    if max(seconds) < listed_s - APART_S:
        raise Rejected("times outside", f"{listed_s:.2f} s by the list, but only {max(seconds):.2f} s are there")
    if max(seconds) - min(seconds) > APART_S:
        raise Rejected("tracks apart", f"pictures last {seconds[0]:.2f} s, sound {seconds[-1]:.2f} s")
    for word, start, end in media.words:
        if not -WORDS_OVER_S <= start <= end <= max(seconds) + WORDS_OVER_S:
            raise Rejected("times outside", f"{word!r} at {start:.2f} to {end:.2f} s of {max(seconds):.2f} s")


def _tracks(media: Media) -> list[tuple[NDArray[Any], int]]:
    tracks = ((media.mouth, VIDEO_FPS), (media.waveform, SAMPLE_RATE_HZ))
    return [(track, rate) for track, rate in tracks if track is not None]
