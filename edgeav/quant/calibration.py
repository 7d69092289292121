"""Which clips show the ranges of activations: short and long ones alike, and if asked some in noise.

Drawn blindly, calibration clips have the length most clips have, and the ranges of the rare long ones are cut off.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property

import numpy as np

from edgeav.data.acoustics import NoiseBank, clip_name, make_bank
from edgeav.data.augment import add_noise
from edgeav.data.cache import DecodedClips
from edgeav.data.corpus import Corpus, Media, Utterance
from edgeav.data.disturbance import Disturbance
from edgeav.errors import EdgeavError
from edgeav.quant.plan import CalibrationNoise
from edgeav.runtime.features import Inputs, model_inputs
from edgeav.runtime.inputs import Features

LENGTHS = 4  # buckets between the shortest and the longest
TURN = 8  # clips, of which one is heard but not seen, and one seen but not heard


def chosen(corpus: Corpus, count: int, seed: int) -> list[Utterance]:
    """`count` training utterances, as many of each length as there are; EdgeavError when there are too few.

    A clip's length is that of its text: that is known without opening the clip, and one grows with the other.
    """
    if count > len(corpus.train):
        raise EdgeavError(
            f"calibration: {count} utterances asked for, corpus {corpus.name} has {len(corpus.train)} to train on."
            f" Set calibration to at most {len(corpus.train)}"
        )
    picked = stratified([len(u.text) for u in corpus.train], count, seed)
    return [corpus.train[i] for i in picked]


def stratified(lengths: Sequence[int], count: int, seed: int) -> list[int]:
    """`count` different places in `lengths`: the buckets between the least and the greatest take turns."""
    values = np.asarray(lengths)
    edges = np.linspace(values.min(), values.max(), LENGTHS + 1)[1:-1]
    buckets = np.digitize(values, edges)
    r = np.random.default_rng(seed)
    turns = np.empty(len(values), np.int64)  # when each clip's turn comes in its bucket
    for bucket in range(LENGTHS):
        places = np.flatnonzero(buckets == bucket)
        turns[r.permutation(places)] = np.arange(len(places))
    order = np.lexsort((buckets, turns))  # by turn, then by bucket
    return [int(i) for i in order[:count]]


class CalibrationInputs(Sequence[Inputs]):
    """Training clips as inputs, made when asked for: the memory is that of one clip, however many there are.

    For a model of both, every eighth is heard but not seen, every eighth seen but not heard: ranges from complete clips
    alone would cut off what a missing camera does to the fusion.
    """

    def __init__(
        self, clips: DecodedClips, features: Features, noise: CalibrationNoise | None = None, seed: int = 0
    ) -> None:
        self.clips, self.features, self.noise, self.seed = clips, features, noise, seed

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, index):  # type: ignore[override]
        place = range(len(self.clips))[index]
        media = self._noisy(self.clips.media(place), place)
        sound = media.waveform if self.features.audio else None
        lips = media.mouth if self.features.video else None
        if sound is not None and lips is not None:
            sound, lips = None if place % TURN == 6 else sound, None if place % TURN == 7 else lips
        return model_inputs(sound, lips, self.features)

    @cached_property
    def snrs(self) -> dict[int, float]:
        """Place of each noisy clip -> its SNR in dB: the range's ends and even steps between them, in random order."""
        if self.noise is None:
            return {}
        r = np.random.default_rng([self.seed, 1])
        count = max(1, round(self.noise.share * len(self)))
        places = r.permutation(len(self))[:count]
        return dict(zip(map(int, places), map(float, np.linspace(*self.noise.snr_db, count)), strict=True))

    @cached_property
    def bank(self) -> NoiseBank:
        """Noise of the declared kinds, made of these clips."""
        assert self.noise is not None
        wanted = Disturbance(share=1.0, kinds=dict.fromkeys(self.noise.kinds, 1.0))
        return make_bank(wanted, [self.clips], self.seed)

    def _noisy(self, media: Media, place: int) -> Media:
        sound = media.waveform
        if self.noise is None or place not in self.snrs or sound is None:
            return media
        r = np.random.default_rng([self.seed, 2, place])
        kind = self.noise.kinds[place % len(self.noise.kinds)]
        noise = self.bank.draw(kind, len(sound), r, clip_name(self.clips, place))
        return replace(media, waveform=add_noise(sound, noise, self.snrs[place], media.words))
