"""Any sound or video file -> 16 kHz mono samples and gray pictures at exactly 25 a second, on one clock.

Pictures are placed by their timestamps, not counted: phones record at a rate that varies, and 30 or 16
pictures a second counted as 25 would pull lips and sound apart. They come as an iterator, since ten minutes
of full pictures do not fit in memory; sound does (38 MB). Whatever had to be changed or was missing is said
in `notes`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeav.errors import EdgeavError, needs
from edgeav.runtime.inputs import SAMPLE_RATE_HZ, VIDEO_FPS

try:
    import av
    from av.error import FFmpegError
    from av.stream import Disposition
except ModuleNotFoundError as error:
    raise needs("video", "av (PyAV)") from error

Gray = NDArray[np.uint8]

LONGEST_STILL_S = 60.0  # a longer step between two timestamps is a broken file, not a still picture
LATE_S = 0.2  # a track that starts this long after the other is worth a note
SHORT_S, SHORT_SHARE = 0.5, 0.1  # one that ends this long before the file does, too (headers are estimates)


@dataclass
class Media:
    """An opened file. `notes` grows while the pictures are read, since only then is their rate known."""

    path: Path
    waveform: NDArray[np.float32] | None  # (S,) in [-1, 1] at 16 kHz, from the file's time 0
    has_video: bool
    start_s: float  # the file's time 0 on the clock of its timestamps
    stated_s: float  # the duration its header claims
    notes: list[str] = field(default_factory=list)

    def pictures(self) -> Iterator[Gray]:
        """(H, W) gray pictures at 25 a second from the file's time 0. Each call decodes anew."""
        if not self.has_video:
            return
        times: list[float] = []
        yield from at_25_fps(_decode_pictures(self.path, self.start_s, times))
        self._say_rate(times)

    def _say_rate(self, times: list[float]) -> None:
        """Say a rate other than 25, a varying one, a late start; once, however often they are read."""
        notes = []
        if len(times) > 1:
            gaps = np.diff(times)
            rate, varies = (len(times) - 1) / (times[-1] - times[0]), gaps.max() > 1.5 * np.median(gaps)
            if varies or abs(rate - VIDEO_FPS) > 0.05:
                kind = "a varying rate, on average " if varies else ""
                notes.append(f"video: {kind}{rate:.1f} pictures a second, resampled to {VIDEO_FPS} by timestamps")
        if times:
            notes += self.short("video", times[-1])
        if times and times[0] > LATE_S:
            notes.append(f"video: begins {times[0]:.2f} s after the sound")
        self.notes.extend(note for note in notes if note not in self.notes)

    def short(self, track: str, end_s: float) -> list[str]:
        """A note if a track ends well before the file does; the sign of a file cut off on its way."""
        if self.stated_s - end_s < max(SHORT_S, SHORT_SHARE * self.stated_s):
            return []
        return [f"{track}: ends at {end_s:.1f} s, the file is {self.stated_s:.1f} s by its header: cut off?"]


def open_media(path: str | Path, *, hears: bool = True, sees: bool = True) -> Media:
    """Decode the sound of `path` and get ready to read its pictures.

    For a model that does not hear, or does not see, that track is left aside, and nothing is said of it.
    Raises EdgeavError for a missing, damaged or empty file, and for samples that are not numbers.
    """
    path = Path(path)
    if not path.is_file():
        raise EdgeavError(f"{path}: {'is a folder, not a file' if path.is_dir() else 'no such file'}")
    with _opened(path) as container:
        audio, video = _audio_stream(container), _video_stream(container)
        starts = [(stream.start_time or 0) * stream.time_base for stream in (audio, video) if stream]
        stated_s = (container.duration or 0) / av.time_base
        media = Media(path, None, sees and video is not None, float(min(starts, default=0)), stated_s)
        tracks = (("audio", audio, hears), ("video", video, sees))
        media.notes += [f"no {kind} track" for kind, stream, wanted in tracks if wanted and not stream]
        if audio and hears:
            media.waveform = _decode_sound(container, audio, media)
    if media.waveform is None and not media.has_video:
        unused = "" if hears and sees else f", and the model does not {'see' if hears else 'hear'}"
        raise EdgeavError(f"{path}: nothing to transcribe: {'; '.join(media.notes)}{unused}")
    return media


def at_25_fps(pictures: Iterable[tuple[float, Gray]]) -> Iterator[Gray]:
    """(seconds, picture) in order of time -> at every 1/25 s the picture nearest to it; as many as the clip
    is long.

    The last picture is taken to last as long as the average one, so that 75 pictures at 25 a second stay 75.
    """
    tick, first, before = 0, None, None
    count = 0
    for now in pictures:
        first, count = first or now, count + 1
        if before is not None:
            middle = (before[0] + now[0]) / 2
            while tick / VIDEO_FPS < middle - 1e-6:
                yield before[1]
                tick += 1
        before = now
    if first is None or before is None:
        return
    average_s = (before[0] - first[0]) / (count - 1) if count > 1 else 1 / VIDEO_FPS
    while tick < round((before[0] + average_s) * VIDEO_FPS):
        yield before[1]
        tick += 1


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """The container, with FFmpeg's errors turned into ours."""
    try:
        with av.open(str(path)) as container:
            yield container
    except (
        FFmpegError,
        IndexError,
    ) as error:  # IndexError: a container whose header lists no streams
        reason = getattr(error, "strerror", None) or error
        raise EdgeavError(
            f"{path} ({path.stat().st_size} bytes) is damaged, cut off, or no sound or video file: {reason}"
        ) from error


def _audio_stream(container: Any) -> Any | None:
    return next((stream for stream in container.streams.audio if stream.codec_context), None)


def _video_stream(container: Any) -> Any | None:
    """The first stream of moving pictures; the cover of a music file is none."""
    moving = (s for s in container.streams.video if not s.disposition & Disposition.attached_pic)
    return next(moving, None)


def _decode_sound(container: Any, stream: Any, media: Media) -> NDArray[np.float32] | None:
    # Channels are averaged here: FFmpeg's own downmix of float samples to mono is 1.41 times too loud.
    resampler = av.AudioResampler(format="fltp", rate=SAMPLE_RATE_HZ)
    stream.codec_context.thread_count = 1
    parts, late_s = [], None
    for frame in container.decode(stream):
        if late_s is None:
            late_s = (frame.time or media.start_s) - media.start_s
        frame.pts = None  # the resampler would fill jumps of the clock with silence of its own
        parts += [part.to_ndarray().mean(axis=0) for part in resampler.resample(frame)]
    if parts:
        parts += [part.to_ndarray().mean(axis=0) for part in resampler.resample(None)]
    waveform = np.concatenate(parts).astype(np.float32) if parts else np.zeros(0, np.float32)
    if not len(waveform):
        media.notes.append("the audio track is empty")
        return None
    _check_finite(waveform, media.path)
    _say_sound(stream, late_s or 0.0, media)
    waveform = _shift(waveform, round((late_s or 0.0) * SAMPLE_RATE_HZ))
    media.notes += media.short("audio", len(waveform) / SAMPLE_RATE_HZ)
    return waveform


def _check_finite(waveform: NDArray[np.float32], path: Path) -> None:
    bad = np.flatnonzero(~np.isfinite(waveform))
    if len(bad):
        raise EdgeavError(
            f"{path}: {len(bad)} audio samples are NaN or infinite, "
            f"the first at {bad[0] / SAMPLE_RATE_HZ:.3f} s. Write the file anew without them."
        )


def _say_sound(stream: Any, late_s: float, media: Media) -> None:
    rate, channels = stream.codec_context.sample_rate, stream.codec_context.channels
    if (rate, channels) != (SAMPLE_RATE_HZ, 1):
        kind = {1: "mono", 2: "stereo"}.get(channels, f"{channels} channels")
        media.notes.append(f"audio: {rate} Hz {kind}, resampled to {SAMPLE_RATE_HZ} Hz mono")
    if late_s > LATE_S:
        media.notes.append(f"audio: begins {late_s:.2f} s after the video")


def _shift(waveform: NDArray[np.float32], samples: int) -> NDArray[np.float32]:
    """Silence before sound that starts late; a codec's run-in from before time 0 is dropped."""
    return np.pad(waveform, (samples, 0)) if samples >= 0 else waveform[-samples:]


def _decode_pictures(path: Path, start_s: float, times: list[float]) -> Iterator[tuple[float, Gray]]:
    """(seconds since the file's time 0, (H, W)) for every picture; `times` is filled along the way."""
    with _opened(path) as container:
        stream = _video_stream(container)
        assert stream is not None, "Media.has_video was true"
        stream.codec_context.thread_count = 1
        step_s = float(1 / (stream.average_rate or Fraction(VIDEO_FPS)))
        for frame in container.decode(stream):
            last_s = times[-1] if times else -step_s
            now_s = frame.time - start_s if frame.time is not None else last_s + step_s
            if now_s <= last_s:
                continue  # a clock that stands still or runs back: the earlier picture stays
            if now_s - last_s > LONGEST_STILL_S:
                raise EdgeavError(f"{path}: damaged: the video's clock jumps from {last_s:.1f} s to {now_s:.1f} s")
            times.append(now_s)
            yield now_s, _upright(frame.to_ndarray(format="gray"), frame.rotation)
    if not times:
        raise EdgeavError(f"{path}: damaged: its video track holds no picture that can be decoded")


def _upright(picture: Gray, rotation: int) -> Gray:
    """Phones record sideways and write the angle (degrees, counter-clockwise) beside the pictures."""
    return np.rot90(picture, k=round(rotation / 90)) if rotation else picture
