"""The lists that Auto-AVSR trains from: `dataset,path,frames,id id id…`, a file for each split, without a header.

Ma et al. 2023, "Auto-AVSR", https://arxiv.org/abs/2303.14307. The text stands there as token ids alone, so the token
list that made them is needed; a fifth column with the text does as well.
"""

from __future__ import annotations

import csv
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from edgeav.data.readers.clip import (
    Problems,
    RawClip,
    RawCorpus,
    clip_id,
    corpus_of,
    numbered_lines,
    plain,
    speaker_of,
    split_named,
)
from edgeav.errors import EdgeavError

FPS = 25
FORMAT = (
    "A line of an Auto-AVSR list is DATASET,PATH,FRAMES,ID ID ID… (token ids, which --units unigram5000_units.txt turns"
    " into text), or has the text itself as a fifth column"
)


@dataclass(frozen=True)
class _List:
    """One CSV file: where its media lie and what its ids mean."""

    path: Path
    root: Path
    units: tuple[str, ...]


def lists_in(folder: Path) -> list[Path]:
    return sorted([*folder.glob("*.csv"), *folder.glob("labels/*.csv")])


def read_auto_avsr(lists: list[Path], units: Path | None) -> RawCorpus:
    """`units`: lines `token id`, ids from 1; 0 is the blank. Media lie at DATASET/PATH beside the list or one above."""
    tokens = _read_units(units) if units else ()
    problems, clips, splits = Problems(FORMAT), [], [split_named(path.stem) for path in lists]
    for path, split in zip(lists, splits, strict=True):
        rows = [(where, row) for where, line in numbered_lines(path) for row in csv.reader([line])]
        listed = _List(path, _root(path, rows), tokens)
        for where, row in rows:
            clip = _clip(listed, row, split, lambda why, where=where: problems.add(where, why))
            clips += [clip] if clip else []
    problems.stop()
    return corpus_of("Auto-AVSR", clips, own_splits=all(splits))


def _clip(listed: _List, row: list[str], split: str | None, wrong: Callable[[str], None]) -> RawClip | None:
    if len(row) not in (4, 5) or not row[2].strip().isdigit():
        return wrong(f"{','.join(row)[:80]!r}: {len(row)} columns, or FRAMES is no whole number")
    relative = Path(row[0].strip(), row[1].strip())
    if len(row) == 5:
        text = plain(row[4])
    elif listed.units:
        ids = row[3].split()
        if not all(id.isdigit() and 1 <= int(id) <= len(listed.units) for id in ids):
            return wrong(f"its ids must be in 1..{len(listed.units)}, the lines of the units file")
        text = plain("".join(listed.units[int(id) - 1] for id in ids).replace("▁", " ")).lower()
    else:
        return wrong("only token ids, and no --units to read them with")
    video = listed.root / relative
    sound = video.with_suffix(".wav")
    return RawClip(
        clip_id(relative.with_suffix("")),
        speaker_of(relative),
        text,
        video,
        sound if sound.is_file() else None,
        duration_s=int(row[2]) / FPS,
        split=split,
    )


def _root(path: Path, rows: list[tuple[str, list[str]]]) -> Path:
    """The lists lie beside the datasets, or in labels/ beside them."""
    datasets = {row[0].strip() for _, row in rows}
    above = [
        folder for folder in (path.parent, path.parent.parent) if any((folder / name).is_dir() for name in datasets)
    ]
    if not above:
        named = ", ".join(sorted(datasets)[:5])
        raise EdgeavError(f"{path}: lists clips of {named}, but no such folder is in {path.parent} or the folder above")
    return above[0]


def _read_units(path: Path) -> tuple[str, ...]:
    problems, tokens = (
        Problems("A units file holds lines of TOKEN ID, ids from 1 on; a SentencePiece model is none"),
        [],
    )
    for where, line in numbered_lines(path):
        row = line.split()
        if len(row) != 2 or row[1] != str(len(tokens) + 1):
            problems.add(where, f"{line[:60]!r}: expected a token and the id {len(tokens) + 1}")
        tokens.append(row[0])
    problems.stop()
    return tuple(tokens)
