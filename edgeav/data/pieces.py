"""Clips that are too long to train on, cut between words where the word times are known.

LRS3's pretrain set is whole talks of minutes; Auto-AVSR (Ma et al. 2023, https://arxiv.org/abs/2303.14307) cuts it the
same way.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from edgeav.data.corpus import Word
from edgeav.data.readers.clip import RawClip

OVERLAP_S = 0.05  # of two words: less is rounding
MARGIN_S = 0.2  # kept before the first and behind the last word of a piece, or half the pause where that is less


def cut_long(clips: Sequence[RawClip], longest_s: float) -> list[RawClip]:
    """Every clip, those whose words span more than `longest_s` as several; the others as they are."""
    return [piece for clip in clips for piece in _cut(clip, longest_s)]


def _cut(clip: RawClip, longest_s: float) -> list[RawClip]:
    # Words that do not run forward are not to be cut by; preparation will say so. Rounded times may overlap a little.
    forward = all(a[1] <= a[2] <= b[1] + OVERLAP_S for a, b in zip(clip.words, clip.words[1:], strict=False))
    if not clip.words or not forward or clip.words[-1][2] - clip.words[0][1] <= longest_s - 2 * MARGIN_S:
        return [clip]
    groups = _groups(clip.words, longest_s - 2 * MARGIN_S)
    edges = [(group[0][1], group[-1][2]) for group in groups]
    before = [clip.start_s, *(end for _, end in edges)]
    after = [*(start for start, _ in edges[1:]), edges[-1][1] + MARGIN_S]
    pieces = []
    for number, group in enumerate(groups):
        first, last = edges[number]
        start = max(first - MARGIN_S, (first + before[number]) / 2)
        end = min(last + MARGIN_S, (last + after[number]) / 2)
        text = " ".join(word for word, _, _ in group)
        pieces.append(
            replace(
                clip, id=f"{clip.id}.{number:04d}", text=text, start_s=start, duration_s=end - start, words=tuple(group)
            )
        )
    return pieces


def _groups(words: Sequence[Word], longest_s: float) -> list[list[Word]]:
    """As many words in each as fit."""
    groups: list[list[Word]] = [[]]
    for word in words:
        if groups[-1] and word[2] - groups[-1][0][1] > longest_s:
            groups.append([])
        groups[-1].append(word)
    return groups
