"""Which clips are trained on, and which are held out: by speaker, where the corpus does not say it itself.

A recognizer knows the voices and faces it was trained on; a test of other clips of theirs flatters it. So whole
speakers are held out, the same for the same seed, and a test speaker found in training is an error. Where the corpus
says itself who is tested, its word counts, and the overlap is reported. Where no speaker can be spared, or speakers are
unknown, single clips are held out, in splits named `valid_seen` and `test_seen`.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from edgeav.data.corpus import UNKNOWN
from edgeav.data.readers.clip import RawClip, RawCorpus
from edgeav.errors import EdgeavError

SHARES = {"test": 0.1, "valid": 0.05}  # of the clips that are left to train on
MOST_HELD_OUT = 1000  # clips of one split: more make its interval narrower than anyone needs
SAYS_SEEN = "_seen"  # a split of this ending says itself that its speakers are trained on


@dataclass(frozen=True)
class Splits:
    """Every clip with a split; `notes` say how they were made."""

    clips: list[RawClip]
    notes: list[str]


def assign_splits(corpus: RawCorpus, seed: int) -> Splits:
    """Give each clip a split: the corpus's own, else by speaker. EdgeavError for a test speaker who is trained on."""
    clips, notes = [replace(clip, split=clip.split or "train") for clip in corpus.clips], []
    own = {clip.split for clip in clips} if corpus.own_splits else set()
    for split in SHARES:
        if not any(str(clip.split).startswith(_spellings(split)) for clip in clips):
            held_out, note = _hold_out(clips, split, seed)
            clips = [held_out.get(clip.id, clip) for clip in clips]
            notes += [note] if note else []
    check_speakers(clips, own)
    return Splits(clips, notes + _overlaps(clips, own))


def check_speakers(clips: Sequence[RawClip], own: set[str | None]) -> None:
    """EdgeavError when a speaker of a held-out split is also in another kind of split.

    Splits in `own`, which the corpus made, may do so, and those named `…_seen`.
    """
    problems = [
        f"speaker {speaker} of {split} is also in {', '.join(sorted(others))}"
        for speaker, split, others in _shared(clips)
        if split not in own and not split.endswith(SAYS_SEEN)
    ]
    if problems:
        raise EdgeavError("\n".join([*problems, "Hold out whole speakers, or name the split test_seen"]))


def first_clips(clips: Sequence[RawClip], limit: int | None, seed: int) -> list[RawClip]:
    """`limit` of them, in turn from each split; a larger limit only adds clips."""
    ranks: Counter[str | None] = Counter()
    ranked = []
    for clip in _shuffled(clips, lambda clip: clip.id, seed):
        ranked.append((ranks[clip.split], str(clip.split), clip))
        ranks[clip.split] += 1
    return [clip for _, _, clip in sorted(ranked, key=lambda row: row[:2])[:limit]]


def _hold_out(clips: Sequence[RawClip], split: str, seed: int) -> tuple[dict[str, RawClip], str | None]:
    """The clips that leave training for `split`, by id, and how they were chosen."""
    pool = [clip for clip in clips if str(clip.split).startswith("train")]
    if len(pool) < 2:
        return {}, None
    wanted = min(MOST_HELD_OUT, max(1, round(SHARES[split] * len(pool))))
    speakers = _speakers_to_hold_out(clips, pool, wanted, seed)
    if speakers:
        chosen = [clip for clip in pool if clip.speaker in speakers]
        named = f"{len(speakers)} speakers" if len(speakers) > 8 else "speaker " + ", ".join(sorted(speakers))
        note = f"{split}: {named} held out of training, chosen by seed {seed}"
    else:
        chosen = _shuffled(pool, lambda clip: clip.id, seed)[:wanted]
        split += SAYS_SEEN
        why = "speakers are unknown" if any(clip.speaker == UNKNOWN for clip in pool) else "no speaker could be spared"
        note = f"{split}: {len(chosen)} clips held out of training, but {why}"
    return {clip.id: replace(clip, split=split) for clip in chosen}, note


def _speakers_to_hold_out(clips: Sequence[RawClip], pool: Sequence[RawClip], wanted: int, seed: int) -> set[str]:
    """Speakers with `wanted` clips together; none where one is unknown, who might be any of them.

    Whoever has most clips stays: training on the rest of a corpus that is mostly one speaker would waste it.
    """
    counts = Counter(clip.speaker for clip in pool)
    elsewhere = {clip.speaker for clip in clips if not str(clip.split).startswith("train")}
    (most, _), *_ = counts.most_common(1)
    free = set() if UNKNOWN in counts else set(counts) - elsewhere - {most}
    chosen: set[str] = set()
    for speaker in _shuffled(sorted(free), str, seed):
        if sum(counts[name] for name in chosen) < wanted:
            chosen.add(speaker)
    return chosen


def _overlaps(clips: Sequence[RawClip], own: set[str | None]) -> list[str]:
    """What the corpus's own splits share, for its user to know."""
    shared: dict[str, list[str]] = defaultdict(list)
    for speaker, split, _ in _shared(clips):
        if split in own:
            shared[split].append(speaker)
    return [
        f"{split}: {len(speakers)} of its speakers are in other splits too, by the corpus's own division"
        for split, speakers in sorted(shared.items())
    ]


def _shared(clips: Sequence[RawClip]) -> list[tuple[str, str, set[str]]]:
    """(speaker, held-out split, its other splits) for each known speaker in splits of more than one kind."""
    splits: dict[str, set[str]] = defaultdict(set)
    for clip in clips:
        splits[clip.speaker].add(str(clip.split))
    found = []
    for speaker, names in sorted(splits.items()):
        for split in sorted(names):
            others = {name for name in names if _kind(name) != _kind(split)}
            if speaker != UNKNOWN and _kind(split) != "train" and others:
                found.append((speaker, split, others))
    return found


def _kind(split: str) -> str:
    """train, valid or test; another name is a kind of its own."""
    return next((kind for kind in ("train", *SHARES) if split.startswith(_spellings(kind))), split)


def _spellings(split: str) -> tuple[str, ...]:
    """As data/manifest.py tells splits apart."""
    return ("valid", "dev") if split == "valid" else (split,)


def _shuffled(items: Iterable, key, seed: int) -> list:
    """In an order that depends on each item's name alone: more items do not change that of the others."""
    return sorted(items, key=lambda item: hashlib.sha256(f"{seed}/{key(item)}".encode()).digest())
