"""What every reader gives: clips as they lie on disk, before any is decoded. And what readers share.

A reader is a function from a path to a `RawCorpus`. What is wrong with the format of a list (columns, JSON, numbers) is
an EdgeavError with every such line; what is wrong with one clip (no text, no file) is found when it is prepared.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgeav.data.corpus import UNKNOWN, Word
from edgeav.errors import EdgeavError

VIDEO = (".mp4", ".mpg", ".mpeg", ".mov", ".avi", ".mkv", ".webm", ".m4v", ".3gp")
AUDIO = (".wav", ".flac", ".ogg", ".mp3", ".m4a", ".opus")
MOST_PROBLEMS = 20  # shown of one kind of mistake; the rest is counted


@dataclass(frozen=True)
class RawClip:
    """A stretch of a file, or of a video and a sound file that begin together.

    `id` names the prepared files. `audio` None: the sound is in `video`. `words` hold seconds from the beginning of the
    file, as `start_s` does; `duration_s` None: to the end. `split` None: the corpus has none of its own.
    """

    id: str
    speaker: str
    text: str
    video: Path | None = None
    audio: Path | None = None
    start_s: float = 0.0
    duration_s: float | None = None
    words: tuple[Word, ...] = ()
    split: str | None = None


@dataclass(frozen=True)
class RawCorpus:
    """`kind` for people; `own_splits`: the corpus says itself who is in its test."""

    kind: str
    clips: Sequence[RawClip]
    own_splits: bool


class Problems:
    """Mistakes, collected; `stop` raises them all at once."""

    def __init__(self, what: str) -> None:
        self.what = what  # how it should have been, said once below the mistakes
        self.lines: list[str] = []

    def add(self, where: object, why: str) -> None:
        self.lines.append(f"{where}: {why}")

    def stop(self) -> None:
        if self.lines:
            more = [f"… and {len(self.lines) - MOST_PROBLEMS} more"] if len(self.lines) > MOST_PROBLEMS else []
            raise EdgeavError("\n".join([*self.lines[:MOST_PROBLEMS], *more, self.what]))


def corpus_of(kind: str, clips: Iterable[RawClip], own_splits: bool) -> RawCorpus:
    """The corpus in the order of its ids; EdgeavError for none, and for two clips of one id."""
    clips = sorted(clips, key=lambda clip: clip.id)
    double = [id for id, count in Counter(clip.id for clip in clips).items() if count > 1]
    problems = Problems(f"{kind}: every clip needs an id of its own; leave one copy of each")
    for clip in clips:
        if clip.id in set(double[:MOST_PROBLEMS]):
            problems.add(clip.video or clip.audio, f"a clip named {clip.id} is there twice")
    problems.stop()
    if not clips:
        raise EdgeavError(f"{kind}: the list holds no clip")
    return RawCorpus(kind, clips, own_splits)


def clip_id(*parts: object) -> str:
    """A name for files: "pretrain", "0Fi83BHQsMA/00002" -> "pretrain_0Fi83BHQsMA_00002"."""
    return re.sub(r"[^\w.-]+", "_", "_".join(map(str, parts))).strip("_")


def speaker_of(relative: Path) -> str:
    """The folder a clip lies in; UNKNOWN at the top level."""
    return relative.parent.name or UNKNOWN


def split_named(name: str) -> str | None:
    """The split that a file's name speaks of: "lrs3_train_transcript" -> "train"; None if it says nothing."""
    for split, spellings in {
        "test": ("test",),
        "valid": ("valid", "val", "dev"),
        "train": ("train", "trainval"),
    }.items():
        if set(re.split(r"[^a-z]+", name.lower())) & set(spellings):
            return split
    return None


def media_below(folder: Path, suffixes: Sequence[str] = VIDEO + AUDIO) -> list[Path]:
    """All media files in `folder` and below, in order; hidden ones left out."""
    found = (path for path in folder.rglob("*") if path.suffix.lower() in suffixes)
    return sorted(path for path in found if not any(p.startswith(".") for p in path.relative_to(folder).parts))


def numbered_lines(path: Path) -> Iterator[tuple[str, str]]:
    """("FILE:LINE", text) of every line that is not blank."""
    for number, line in enumerate(read_text(path).splitlines(), 1):
        if line.strip():
            yield f"{path}:{number}", line


def read_text(path: Path) -> str:
    """EdgeavError for a file that is no text."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise EdgeavError(f"{path}: cannot be read as text ({error})") from None


def plain(text: str) -> str:
    """The words with one space between them."""
    return " ".join(text.split())
