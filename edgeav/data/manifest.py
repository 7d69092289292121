"""A folder of clips with manifest.jsonl: one JSON object a line with audio and/or video paths, text, speaker, split.

`video` is a 96x96 gray mouth clip at 25 fps. `align` may give word times as [start s, end s, word]. Splits are named
train…, dev…/valid… and test…; each test split is reported apart.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import av.error
import numpy as np
import soundfile
from numpy.typing import NDArray

from edgeav.data.corpus import UNKNOWN, Corpus, Familiarity, Media, Split, Utterance, Word
from edgeav.errors import EdgeavError
from edgeav.runtime.inputs import MOUTH, SAMPLE_RATE_HZ

SILENCE = ("sil", "sp", "")


@dataclass(frozen=True)
class Files:
    """A clip on disk."""

    audio: Path | None
    video: Path | None
    words: tuple[Word, ...]

    def read(self) -> Media:
        sound = _read_sound(self.audio) if self.audio else None
        return Media(sound, _read_mouth(self.video) if self.video else None, self.words)


def read_folder(folder: Path) -> Corpus:
    """The corpus of one folder; EdgeavError names every unreadable line at once."""
    path = folder / "manifest.jsonl"
    if not path.is_file():
        raise EdgeavError(
            f"{folder}: has no manifest.jsonl. One JSON object a line: audio, video, text, speaker, split."
            f" To make one of clips: edgeav data prepare {folder} --out data/{folder.name}"
        )
    rows, problems = [], []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if line.strip():
            try:
                rows.append(_utterance(json.loads(line), folder))
            except (json.JSONDecodeError, KeyError, TypeError, ValueError) as error:
                problems.append(f"{path}:{number}: {type(error).__name__}: {error}")
    if problems:
        raise EdgeavError("\n".join(problems[:20]))
    return _split(folder, rows)


def _split(folder: Path, rows: list[tuple[str, Utterance]]) -> Corpus:
    by_split: dict[str, list[Utterance]] = {}
    for split, utterance in rows:
        by_split.setdefault(split, []).append(utterance)
    train = [u for split, us in by_split.items() if split.startswith("train") for u in us]
    valid = [u for split, us in by_split.items() if split.startswith(("dev", "valid")) for u in us]
    known = {u.speaker for u in train}
    tests = [
        Split(split, us, synthetic=False, speakers=_familiarity({u.speaker for u in us}, known))
        for split, us in by_split.items()
        if split.startswith("test")
    ]
    if not tests:
        raise EdgeavError(f"{folder}/manifest.jsonl: no split is named test…; found {', '.join(sorted(by_split))}")
    return Corpus(folder.name, train, valid, tests)


def _familiarity(speakers: set[str], known: set[str]) -> Familiarity:
    if UNKNOWN in speakers | known:
        return "unknown"
    if speakers <= known:
        return "seen"
    return "unseen" if not speakers & known else "mixed"


def _utterance(row: dict[str, Any], folder: Path) -> tuple[str, Utterance]:
    audio, video = (folder / row[key] if row.get(key) else None for key in ("audio", "video"))
    if audio is None and video is None:
        raise ValueError("names neither audio nor video")
    name = (video or audio).with_suffix("").name  # type: ignore[union-attr]
    words = tuple((word, float(s), float(e)) for s, e, word in row.get("align") or () if word not in SILENCE)
    return row["split"], Utterance(name, row["speaker"], row["text"], Files(audio, video, words))


def _read_sound(path: Path) -> NDArray[np.float32]:
    try:
        samples, rate_hz = soundfile.read(path, dtype="float32", always_2d=True)
    except (soundfile.LibsndfileError, OSError) as error:
        raise EdgeavError(f"{path}: cannot be read as sound ({error})") from None
    if rate_hz != SAMPLE_RATE_HZ:
        raise EdgeavError(f"{path}: {rate_hz} Hz; a corpus holds {SAMPLE_RATE_HZ} Hz sound")
    return samples.mean(axis=1)


def _read_mouth(path: Path) -> NDArray[np.uint8]:
    try:
        with av.open(str(path)) as container:
            frames = [frame.to_ndarray(format="gray") for frame in container.decode(video=0)]
    except (av.error.FFmpegError, OSError, IndexError) as error:
        raise EdgeavError(f"{path}: cannot be read as video ({error})") from None
    mouth = np.stack(frames).astype(np.uint8)
    if mouth.shape[1:] != (MOUTH, MOUTH):
        raise EdgeavError(f"{path}: frames of {mouth.shape[2]}x{mouth.shape[1]}; a corpus holds {MOUTH}x{MOUTH} mouths")
    return mouth
