"""Decoded utterances on disk, memory-mapped: training reads every clip dozens of times, decoding it once is enough."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeav.data.corpus import Media, Utterance, Word
from edgeav.progress import Progress
from edgeav.runtime.inputs import MOUTH, SAMPLE_RATE_HZ, VIDEO_FPS

ROWS, SOUND, LIPS = "rows.json", "sound.i16", "lips.u8"  # the files of a folder


@dataclass(frozen=True)
class Row:
    """Where one utterance lies in the two arrays."""

    text: str
    speaker: str
    samples: tuple[int, int]
    frames: tuple[int, int]
    words: tuple[Word, ...]

    @property
    def duration_s(self) -> float:
        samples, frames = self.samples[1] - self.samples[0], self.frames[1] - self.frames[0]
        return max(samples / SAMPLE_RATE_HZ, frames / VIDEO_FPS)


class DecodedClips:
    """Random access to the decoded clips of one corpus: sound as int16, lips as uint8."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        rows = json.loads((folder / ROWS).read_text())
        self.rows = [Row(r["text"], r["speaker"], tuple(r["samples"]), tuple(r["frames"]), _words(r)) for r in rows]
        self._sound, self._lips = _map(folder / SOUND, "<i2"), _map(folder / LIPS, "u1")

    def __len__(self) -> int:
        return len(self.rows)

    def media(self, index: int) -> Media:
        row = self.rows[index]
        sound = None
        if row.samples[0] < row.samples[1]:
            sound = (self._sound[slice(*row.samples)] / np.float32(32768)).astype(np.float32)
        area = MOUTH * MOUTH
        lips = None
        if row.frames[0] < row.frames[1]:
            lips = np.asarray(self._lips[row.frames[0] * area : row.frames[1] * area]).reshape(-1, MOUTH, MOUTH)
        return Media(sound, lips, row.words)


def decode(
    utterances: Sequence[Utterance], folder: Path, *, workers: int, progress: Progress, label: str
) -> DecodedClips:
    """Decode into `folder`, unless that was done; an interrupted decode is begun again."""
    return made_once(folder, lambda: _write(utterances, folder, workers, progress, label))


def made_once(folder: Path, write: Callable[[], None]) -> DecodedClips:
    """What `write` puts into the empty `folder`, rows last; an interrupted write is begun again."""
    if not (folder / ROWS).exists():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        write()
    return DecodedClips(folder)


def _write(utterances: Sequence[Utterance], folder: Path, workers: int, progress: Progress, label: str) -> None:
    # spawn: a forked child would inherit the synthesizer's and OpenCV's threads half alive
    with get_context("spawn").Pool(workers) as pool:
        decoded = progress.track(pool.imap(_read, utterances, chunksize=16), label, len(utterances))
        write_clips(((u.speaker, u.text, media) for u, media in zip(utterances, decoded, strict=True)), folder)


def write_clips(clips: Iterable[tuple[str, str, Media]], folder: Path) -> None:
    """(speaker, text, media) of each into the empty `folder`, as DecodedClips reads them."""
    rows, sample, frame = [], 0, 0
    with (folder / SOUND).open("wb") as sound, (folder / LIPS).open("wb") as lips:
        for speaker, text, media in clips:
            samples = 0 if media.waveform is None else len(media.waveform)
            frames = 0 if media.mouth is None else len(media.mouth)
            if media.waveform is not None:
                sound.write((np.clip(media.waveform, -1, 1) * 32767).astype("<i2").tobytes())
            if media.mouth is not None:
                lips.write(media.mouth.tobytes())
            rows.append(
                {
                    "text": text,
                    "speaker": speaker,
                    "samples": (sample, sample + samples),
                    "frames": (frame, frame + frames),
                    "words": media.words,
                }
            )
            sample, frame = sample + samples, frame + frames
    write_rows(rows, folder)


def write_rows(rows: Sequence[Mapping[str, Any]], folder: Path) -> None:
    """What `Row` says of each clip. Written last: its presence says that the arrays are whole."""
    temporary = folder / f"{ROWS}.part"
    temporary.write_text(json.dumps(rows))
    temporary.rename(folder / ROWS)


def _map(path: Path, dtype: str) -> NDArray:
    """The file as an array; clips without sound, or all without lips, leave an empty one, which cannot be mapped."""
    return np.memmap(path, dtype, "r") if path.stat().st_size else np.zeros(0, dtype)


def _read(utterance: Utterance) -> Media:
    return utterance.media()


def _words(row: dict) -> tuple[Word, ...]:
    return tuple((word, start, end) for word, start, end in row["words"])
