"""Manifests with one JSON object a line: NeMo's, and our own.

NeMo: {"audio_filepath", "duration", "text"} and perhaps "offset", "speaker", "video_filepath"
(https://docs.nvidia.com/nemo-framework/user-guide/latest/nemotoolkit/asr/datasets.html). Ours: data/manifest.py.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from edgeav.data.corpus import UNKNOWN
from edgeav.data.readers.clip import (
    Problems,
    RawClip,
    RawCorpus,
    clip_id,
    corpus_of,
    numbered_lines,
    plain,
    split_named,
)

NEMO = ("audio_filepath", "text")
OURS = ("text", "speaker", "split")
SILENCE = ("sil", "sp", "")
FORMAT = {
    "NeMo": 'A NeMo manifest holds {"audio_filepath": …, "duration": …, "text": …} on each line',
    "edgeav": 'manifest.jsonl holds {"video": …, "audio": …, "text": …, "speaker": …, "split": …} on each line',
}


def kind_of(path: Path) -> str | None:
    """ "NeMo" or "edgeav" by the keys of the first line that is an object with any of them; None for other files."""
    for _, line in numbered_lines(path):
        try:
            keys = set(json.loads(line))
        except (ValueError, TypeError):
            continue
        if keys & {"audio_filepath", "video_filepath"}:
            return "NeMo"
        return "edgeav" if keys & {"audio", "video"} else None
    return None


def manifests_in(folder: Path) -> list[Path]:
    """NeMo manifests; ours has a fixed name."""
    return [
        path
        for path in sorted(folder.glob("*.json*"))
        if path.suffix in (".json", ".jsonl") and kind_of(path) == "NeMo"
    ]


def read_nemo(paths: list[Path]) -> RawCorpus:
    """Splits are named by the files (train_manifest.json). Paths are relative to the manifest."""
    problems, clips, splits = Problems(FORMAT["NeMo"]), [], [split_named(path.stem) for path in paths]
    for path, split in zip(paths, splits, strict=True):
        for number, (where, row) in enumerate(_rows(path, NEMO, problems)):
            try:
                clips.append(_nemo_clip(path, number, row, split))
            except (TypeError, ValueError) as error:
                problems.add(where, str(error))
    problems.stop()
    return corpus_of("NeMo", clips, own_splits=all(splits))


def read_ours(path: Path) -> RawCorpus:
    problems, clips = Problems(FORMAT["edgeav"]), []
    for where, row in _rows(path, OURS, problems):
        try:
            clips.append(_our_clip(path.parent, row))
        except (TypeError, ValueError) as error:
            problems.add(where, str(error))
    problems.stop()
    return corpus_of("edgeav", clips, own_splits=True)


def _rows(path: Path, needed: tuple[str, ...], problems: Problems) -> list[tuple[str, dict[str, Any]]]:
    rows = []
    for where, line in numbered_lines(path):
        try:
            row = json.loads(line)
        except ValueError as error:
            problems.add(where, f"no JSON: {error}")
            continue
        missing = [key for key in needed if not isinstance(row, dict) or not isinstance(row.get(key), str)]
        if missing:
            problems.add(where, f"{', '.join(missing)}: missing, or no text")
        else:
            rows.append((where, row))
    return rows


def _nemo_clip(path: Path, number: int, row: dict[str, Any], split: str | None) -> RawClip:
    """The number tells apart the segments that one sound file is cut into."""
    sound = path.parent / row["audio_filepath"]
    video = path.parent / row["video_filepath"] if row.get("video_filepath") else None
    seconds = float(row["duration"]) if row.get("duration") is not None else None
    return RawClip(
        clip_id(path.stem, f"{number:06d}", sound.stem),
        str(row.get("speaker") or UNKNOWN),
        plain(row["text"]),
        video,
        sound,
        float(row.get("offset") or 0.0),
        seconds,
        split=split,
    )


def _our_clip(folder: Path, row: dict[str, Any]) -> RawClip:
    video, audio = (folder / row[key] if row.get(key) else None for key in ("video", "audio"))
    named = video or audio
    if named is None:
        raise ValueError("names neither video nor audio")
    words = tuple((str(word), float(start), float(end)) for start, end, word in row.get("align") or ())
    return RawClip(
        clip_id(named.stem),
        row["speaker"],
        plain(row["text"]),
        video,
        audio,
        words=tuple(word for word in words if word[0] not in SILENCE),
        split=row["split"],
    )
