"""LRS2-BBC and LRS3-TED as they are published.

Both: Afouras, Chung, Senior, Vinyals & Zisserman 2018, "Deep audio-visual speech recognition",
https://arxiv.org/abs/1809.02108; LRS3: https://arxiv.org/abs/1809.00496. A text file lies beside every clip; its first
line is `Text:  WORDS`, and those of the pretrain set go on with a table WORD START END ASDSCORE, in seconds.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from edgeav.data.corpus import Word
from edgeav.data.readers.clip import Problems, RawClip, RawCorpus, clip_id, corpus_of, numbered_lines, plain, speaker_of

LRS2_LISTS = {"train": "train", "val": "valid", "test": "test", "pretrain": "train_pretrain"}
LRS3_SETS = {"pretrain": "train_pretrain", "trainval": "train", "test": "test"}
FORMAT = "A text file of LRS begins with 'Text:  WORDS'; below 'WORD START END ASDSCORE' stand words and their seconds"


def is_lrs2(folder: Path) -> bool:
    sets = any((folder / name).is_dir() for name in ("main", "pretrain"))
    return sets and any((folder / f"{name}.txt").is_file() for name in LRS2_LISTS)


def is_lrs3(folder: Path) -> bool:
    """By a few of its texts: a folder of one's own may have a test/ with folders in it, too."""
    texts = (path.with_suffix(".txt") for name in LRS3_SETS for path in islice((folder / name).glob("*/*.mp4"), 20))
    return any(path.is_file() and path.read_bytes().startswith(b"Text:") for path in texts)


def read_lrs2(folder: Path) -> RawCorpus:
    """main/ and pretrain/ hold SHOW/CLIP.mp4 and .txt; {train,val,test,pretrain}.txt list SHOW/CLIP [more]."""
    named, problems = [], Problems("Each line of an LRS2 list begins with SHOW/CLIP")
    for name, split in LRS2_LISTS.items():
        if (folder / f"{name}.txt").is_file():
            for where, line in numbered_lines(folder / f"{name}.txt"):
                first = line.split()[0]
                if first.count("/") != 1:
                    problems.add(where, f"{first!r} is not SHOW/CLIP")
                named.append((folder / ("pretrain" if name == "pretrain" else "main") / first, split))
    problems.stop()
    return corpus_of("LRS2", _clips(folder, named), own_splits=True)


def read_lrs3(folder: Path) -> RawCorpus:
    """pretrain/, trainval/ and test/ hold TALK/CLIP.mp4 and .txt."""
    named = [
        (path.with_suffix(""), split) for name, split in LRS3_SETS.items() for path in (folder / name).glob("*/*.mp4")
    ]
    return corpus_of("LRS3", _clips(folder, named), own_splits=True)


def _clips(folder: Path, named: list[tuple[Path, str]]) -> Iterator[RawClip]:
    """The clips at these paths without suffix. A missing file is that clip's matter, found when it is prepared."""
    problems = Problems(FORMAT)
    for stem, split in named:
        relative, text = stem.relative_to(folder), Path(f"{stem}.txt")
        spoken, words = _read_text(text, problems) if text.is_file() else ("", ())
        yield RawClip(clip_id(relative), speaker_of(relative), spoken, Path(f"{stem}.mp4"), words=words, split=split)
    problems.stop()


def _read_text(path: Path, problems: Problems) -> tuple[str, tuple[Word, ...]]:
    """The words in lower case, `{notes}` taken out, and their times where the file has them."""
    lines = list(numbered_lines(path))
    if not lines or not lines[0][1].startswith("Text:"):
        problems.add(path, "does not begin with 'Text:'")
        return "", ()
    header = next((n for n, (_, line) in enumerate(lines) if line.split()[:3] == ["WORD", "START", "END"]), len(lines))
    words = []
    for where, line in lines[header + 1 :]:
        try:
            word, start, end, *_ = line.split()
            words.append((word.lower(), float(start), float(end)))
        except ValueError:
            problems.add(where, f"{line!r}: not WORD START END")
    return plain(re.sub(r"\{[^}]*\}", " ", lines[0][1].removeprefix("Text:"))).lower(), tuple(words)
