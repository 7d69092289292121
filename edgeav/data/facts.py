"""What a corpus is: splits, speakers, hours, words, modalities, what was rejected. For `edgeav data show`."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import av
import av.error
import soundfile

from edgeav.data.corpus import UNKNOWN, Corpus, Utterance, open_corpus
from edgeav.data.manifest import Files
from edgeav.errors import EdgeavError

EXAMPLES = 3  # of each split
MOST_MISSING = 10  # missing files named; the rest is counted


def corpus_facts(folder: Path) -> dict[str, Any]:
    """{folder, clips, hours, speakers, vocabulary, splits: [...], rejected: {reason: count}}.

    EdgeavError for a folder without manifest.jsonl, for wrong lines in it, and for missing files.
    """
    corpus = open_corpus(str(folder))
    split_of = _splits(corpus)
    everything = [utterance for _, utterances, _ in split_of for utterance in utterances]
    _check_files(everything)
    trained = {word for u in corpus.train for word in u.text.split()}
    rows = [_split_facts(name, utterances, speakers, trained) for name, utterances, speakers in split_of]
    return {
        "folder": str(folder),
        "clips": len(everything),
        "hours": _hours(everything),
        "speakers": len({u.speaker for u in everything} - {UNKNOWN}),
        "vocabulary": len({word for u in everything for word in u.text.split()}),
        "splits": rows,
        "rejected": _rejected(folder),
    }


def _splits(corpus: Corpus) -> list[tuple[str, Sequence[Utterance], str]]:
    """(name, utterances, how well their speakers are known to a model trained on the corpus)."""
    tests = [(split.name, split.utterances, split.speakers) for split in corpus.tests]
    return [("train", corpus.train, "–"), ("valid", corpus.valid, "–"), *tests]


def _split_facts(name: str, utterances: Sequence[Utterance], speakers: str, trained: set[str]) -> dict[str, Any]:
    """`known`: are its speakers trained on; `timed`: clips with word times; `words`, and those `new` to training."""
    files = [u.source for u in utterances if isinstance(u.source, Files)]
    words = {word for u in utterances for word in u.text.split()}
    return {
        "split": name,
        "clips": len(utterances),
        "hours": _hours(utterances),
        "speakers": len({u.speaker for u in utterances} - {UNKNOWN}),
        "known": speakers,
        "tracks": _tracks(files),
        "timed": sum(bool(source.words) for source in files),
        "words": len(words),
        "new": len(words - trained),
        "examples": [u.text for u in utterances[:EXAMPLES]],
    }


def _tracks(files: Sequence[Files]) -> str:
    """ "AV", or "AV 81, V 30" where they differ."""
    kinds = Counter("A" * (source.audio is not None) + "V" * (source.video is not None) for source in files)
    return next(iter(kinds), "–") if len(kinds) < 2 else ", ".join(f"{kind} {n}" for kind, n in kinds.most_common())


def _check_files(utterances: Sequence[Utterance]) -> None:
    paths = [path for u in utterances if isinstance(u.source, Files) for path in (u.source.audio, u.source.video)]
    missing = [path for path in paths if path is not None and not path.is_file()]
    if missing:
        more = [f"… and {len(missing) - MOST_MISSING} more"] if len(missing) > MOST_MISSING else []
        raise EdgeavError("\n".join([*(f"{path}: no such file" for path in missing[:MOST_MISSING]), *more]))


def _hours(utterances: Sequence[Utterance]) -> float:
    return round(sum(_seconds(u.source) for u in utterances if isinstance(u.source, Files)) / 3600, 4)


def _seconds(source: Files) -> float:
    """From the headers alone."""
    try:
        if source.audio is not None:
            return soundfile.info(source.audio).duration
        with av.open(str(source.video)) as container:
            return (container.duration or 0) / av.time_base
    except (soundfile.LibsndfileError, av.error.FFmpegError) as error:
        raise EdgeavError(f"{source.audio or source.video}: cannot be read ({error})") from None


def _rejected(folder: Path) -> dict[str, int]:
    path = folder / "rejected.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    return dict(Counter(json.loads(line)["reason"] for line in lines))
