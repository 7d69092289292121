"""Clips of each kind that a mean hides: short, long, longer than any other, noisy.

Published int8 models are fine on the mean and broken past 20 seconds or in noise; a mean over the test clips, which are
all about equally long and clean, cannot show that. Long clips are test clips of one speaker, one behind the other.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from edgeav.data.acoustics import NoiseBank
from edgeav.data.cache import DecodedClips
from edgeav.data.conditions import Condition, disturb
from edgeav.data.corpus import Media
from edgeav.runtime.features import Inputs, model_inputs
from edgeav.runtime.inputs import Features

LONGER = 2.0  # times the longest clip


@dataclass(frozen=True)
class Case:
    """What one bundle is asked, and what was said."""

    bucket: str
    text: str
    inputs: Inputs


def length_cases(clips: DecodedClips, features: Features, count: int, max_s: float) -> Iterator[Case]:
    """`count` of the shortest clips, of the longest, and of clips joined to twice the longest (at most `max_s`)."""
    order = sorted(range(len(clips)), key=lambda index: (clips.rows[index].duration_s, index))
    half = min(count, len(order) // 2)
    for bucket, chosen in (("short", order[:half]), ("long", order[len(order) - half :])):
        for index in chosen:
            yield Case(bucket, clips.rows[index].text, _inputs(clips.media(index), features))
    longest_s = clips.rows[order[-1]].duration_s
    for group in joinable(clips, LONGER * longest_s, max_s)[:count]:
        text = " ".join(clips.rows[index].text for index in group)
        yield Case("longer", text, _inputs(joined([clips.media(index) for index in group]), features))


def noise_cases(
    clips: DecodedClips, features: Features, count: int, noise: NoiseBank, snrs_db: Sequence[float]
) -> Iterator[Case]:
    """`count` clips taken evenly, with babble at each SNR; none for a model that does not hear."""
    chosen = np.linspace(0, len(clips) - 1, min(count, len(clips))).round().astype(int)
    for snr_db in snrs_db if features.audio else ():
        condition = Condition("av" if features.video else "a", snr_db)
        for index in chosen:
            media = clips.media(int(index))
            if media.waveform is not None:
                disturbed = disturb(media, condition, noise, (0, str(index)))
                yield Case(f"{snr_db:g} dB", clips.rows[index].text, disturbed.inputs(features))


def joinable(clips: DecodedClips, least_s: float, max_s: float) -> list[list[int]]:
    """Clips of one speaker that together last at least `least_s`, and at most `max_s`; none twice."""
    speakers: dict[str, list[int]] = {}
    for index, row in enumerate(clips.rows):
        speakers.setdefault(row.speaker, []).append(index)
    groups: list[list[int]] = []
    for indices in speakers.values():
        group: list[int] = []
        for index in indices:
            if group and _seconds(clips, [*group, index]) > max_s:
                break
            group.append(index)
            if _seconds(clips, group) >= least_s:
                groups.append(group)
                group = []
    return groups


def joined(parts: Sequence[Media]) -> Media:
    """One clip behind the other; a modality that one of them lacks is left out of all."""
    sounds, mouths = [part.waveform for part in parts], [part.mouth for part in parts]
    sound = None if any(s is None for s in sounds) else np.concatenate([s for s in sounds if s is not None])
    mouth = None if any(m is None for m in mouths) else np.concatenate([m for m in mouths if m is not None])
    return Media(sound, mouth)


def _seconds(clips: DecodedClips, indices: Sequence[int]) -> float:
    return sum(clips.rows[index].duration_s for index in indices)


def _inputs(media: Media, features: Features) -> Inputs:
    return model_inputs(media.waveform if features.audio else None, media.mouth if features.video else None, features)
