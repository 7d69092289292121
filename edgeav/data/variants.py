"""Altered copies of clips, written once: spliced sentences, less silence, other tempos.

In training each clip is altered anew in every batch. A teacher whose answers are cached cannot follow that: it hears
these copies once, and the student gets the same ones, with noise and a moving camera on top.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgeav.data.batch import Source, at_tempo
from edgeav.data.cache import DecodedClips, made_once, write_clips
from edgeav.data.corpus import Media
from edgeav.data.draw import margins, trimmed
from edgeav.progress import Progress


@dataclass(frozen=True)
class Variation:
    """How many copies of each clip, and the share at another tempo; the source says which are spliced and cut."""

    copies: int
    tempo_share: float
    seed: int


def vary(source: Source, variation: Variation, folder: Path, progress: Progress) -> DecodedClips:
    """The copies of all usable clips of `source` in `folder`, made once; an interrupted run begins again."""
    label, count = f"vary {source.clips.folder.name}", variation.copies * len(source.usable)
    return made_once(folder, lambda: write_clips(progress.track(_copies(source, variation), label, count), folder))


def _copies(source: Source, variation: Variation) -> Iterator[tuple[str, str, Media]]:
    """(speaker, text, media); the first copies of all clips come first."""
    for copy in range(variation.copies):
        for index in source.usable:
            r = np.random.default_rng([variation.seed, copy, index])
            media, text = source.clip(index, r)
            media = trimmed(media, margins(media.words, source.trim, r))
            media = at_tempo(media, source.tempo(variation.tempo_share, r))
            yield source.clips.rows[index].speaker, text, media
