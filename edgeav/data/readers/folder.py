"""Clips of one's own: media files, each with its sentence in a .txt file of the same name.

The outermost folder around a clip is taken for its speaker, below train/, valid/ and test/ if these are the outermost.
A .wav beside a video of the same name is its sound.
"""

from __future__ import annotations

from pathlib import Path

from edgeav.data.corpus import UNKNOWN
from edgeav.data.readers.clip import (
    AUDIO,
    VIDEO,
    RawClip,
    RawCorpus,
    clip_id,
    corpus_of,
    media_below,
    plain,
    read_text,
    split_named,
)


def has_texts(media: list[Path]) -> bool:
    return any(path.with_suffix(".txt").is_file() for path in media)


def read_plain_folder(folder: Path) -> RawCorpus:
    videos = {path.with_suffix(""): path for path in media_below(folder, VIDEO)}
    sounds = {path.with_suffix(""): path for path in media_below(folder, AUDIO)}
    stems = sorted(videos.keys() | sounds.keys())
    own_splits = all(split_named(_folders(stem, folder)[0]) for stem in stems)
    clips = []
    for stem in stems:
        above, text = _folders(stem, folder), Path(f"{stem}.txt")
        spoken = plain(read_text(text)) if text.is_file() else ""
        speaker = (above[1:] if own_splits else above)[:1] or [UNKNOWN]
        split = split_named(above[0]) if own_splits else None
        clips.append(
            RawClip(
                clip_id(stem.relative_to(folder)),
                speaker[0] or UNKNOWN,
                spoken,
                videos.get(stem),
                sounds.get(stem),
                split=split,
            )
        )
    return corpus_of("plain folder", clips, own_splits)


def _folders(stem: Path, folder: Path) -> list[str]:
    """From the outermost in; one without a name for a clip at the top."""
    return list(stem.relative_to(folder).parts[:-1]) or [""]
