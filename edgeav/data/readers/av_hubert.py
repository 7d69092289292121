"""The lists that AV-HuBERT trains from: a .tsv of files and a .wrd of sentences, line by line the same clip.

Shi, Hsu, Lakhotia & Mohamed 2022, https://arxiv.org/abs/2201.02184. The first line of the .tsv is the root folder, each
further one: id, video, audio, number of pictures, number of samples, with tabs between.
"""

from __future__ import annotations

from pathlib import Path

from edgeav.data.readers.clip import (
    Problems,
    RawClip,
    RawCorpus,
    clip_id,
    corpus_of,
    numbered_lines,
    plain,
    read_text,
    speaker_of,
    split_named,
)

FORMAT = (
    "AV-HuBERT: NAME.tsv holds ROOT, then ID, VIDEO, AUDIO, FRAMES, SAMPLES with tabs; NAME.wrd a sentence for each"
)


def lists_in(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.glob("*.tsv")) if path.with_suffix(".wrd").is_file()]


def read_av_hubert(lists: list[Path]) -> RawCorpus:
    """Splits are named by the files: train.tsv, valid.tsv, test.tsv."""
    problems, clips, splits = Problems(FORMAT), [], [split_named(path.stem) for path in lists]
    for path, split in zip(lists, splits, strict=True):
        clips += _read_list(path, split, problems)
    problems.stop()
    return corpus_of("AV-HuBERT", clips, own_splits=all(splits))


def _read_list(path: Path, split: str | None, problems: Problems) -> list[RawClip]:
    sentences = path.with_suffix(".wrd")
    if not sentences.is_file():
        problems.add(sentences, f"no such file, and {path.name} has no text")
        return []
    texts = read_text(sentences).splitlines()  # blank lines count here
    (_, root), *rows = list(numbered_lines(path)) or [("", "")]
    if len(texts) != len(rows):
        problems.add(sentences, f"{len(texts)} sentences for {len(rows)} clips in {path.name}")
    clips = []
    for (where, line), text in zip(rows, [*texts, *[""] * len(rows)], strict=False):
        columns = line.split("\t")
        if len(columns) != 5:
            problems.add(where, f"{len(columns)} columns, expected 5")
            continue
        folder = path.parent / root.strip()
        video, audio = (folder / name if name not in ("", "None") else None for name in columns[1:3])
        if video is None and audio is None:
            problems.add(where, "names neither video nor audio")
            continue
        id = columns[0]
        clips.append(RawClip(clip_id(id), speaker_of(Path(id)), plain(text), video, audio, split=split))
    return clips
