"""Training batches: which clips, in which modality, how disturbed, and the labels frame by frame.

A batch is a function of (seed, step, rank) alone, so a resumed run sees exactly what an unbroken one would have seen.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from edgeav.data import augment
from edgeav.data.acoustics import Acoustics, clip_name
from edgeav.data.cache import DecodedClips
from edgeav.data.corpus import Media, Word
from edgeav.data.disturbance import MODALITIES, Disturbance, Modality
from edgeav.data.draw import TOGETHER, Draw, dealt, draw, trimmed
from edgeav.data.lip_faults import UNTOLD, missing, untold
from edgeav.data.splice import Donors
from edgeav.data.text import Tokenizer
from edgeav.models.config import ModelConfig
from edgeav.runtime.features import Inputs, hear, normalize_video, pack
from edgeav.runtime.inputs import SAMPLE_RATE_HZ, Features, LogMel

NO_LABEL = -1
TEMPOS = (0.85, 1.18)
MASK = SAMPLE_RATE_HZ * 7 // 100  # samples: 70 ms at most, as in a log-mel


@dataclass(frozen=True)
class Source:
    """One corpus of a mix: how many of its clips a batch holds. Clips beyond `longest_s` would only pad the others."""

    clips: DecodedClips
    per_batch: int
    longest_s: float
    splice: float = 0.0  # how often a clip gets words of other clips
    leave_out: tuple[str, ...] = ()  # speakers, kept to choose settings by
    varied: bool = False  # spliced and at other tempos already, see variants.py
    trim: float = 0.0  # how often most of the silence around a clip's speech is cut, see draw.py

    @cached_property
    def usable(self) -> list[int]:
        rows = self.clips.rows
        if self.varied:  # chosen before they were made slower
            return list(range(len(rows)))
        return [i for i, r in enumerate(rows) if r.duration_s <= self.longest_s and r.speaker not in self.leave_out]

    @cached_property
    def donors(self) -> Donors:
        return Donors(self.clips, self.usable)

    def draws(self, group: int, order: Sequence[int], seed: list[int]) -> list[list[Draw]]:
        """The clips of the batches of one group, `order` being their order by length."""
        count = len(order) * self.per_batch
        positions = range(group * count, (group + 1) * count)
        drawn = [draw(self.clips.rows, self.usable, self.trim, seed, position) for position in positions]
        return dealt(drawn, self.per_batch, order)

    def clip(self, index: int, r: np.random.Generator) -> tuple[Media, str]:
        """What it holds and what is said in it."""
        if not self.varied and self.splice and r.random() < self.splice:
            return self.donors.splice(index, r)
        return self.clips.media(index), self.clips.rows[index].text

    def tempo(self, share: float, r: np.random.Generator) -> float:
        """By which the clip is played faster: of a `share` of the clips another one."""
        return float(r.uniform(*TEMPOS)) if not self.varied and r.random() < share else 1.0


@dataclass(frozen=True)
class Batch:
    """audio (B, T, mels) or (B, S), video (R, T, crop, crop) of the R rows that have one, presence (B, N, 2),
    labels (B, N) or -1. Without frames: what the model does not take."""

    audio: Tensor
    video: Tensor
    video_rows: Tensor
    presence: Tensor
    labels: Tensor
    steps: Tensor
    targets: Tensor
    target_lengths: Tensor
    lips_fit: Tensor  # (B,) whether the lips say what is said


@dataclass(frozen=True)
class Take:
    """One clip of a batch: `heard` is what of `media` the model is given, at another tempo and with noise."""

    media: Media  # as it lies on the disk
    tempo: float
    heard: Media
    inputs: Inputs  # of `heard`, masked, as a moving camera sees it
    labels: NDArray[np.int64]  # (N,)
    text: str
    place: tuple[int, int]  # number of the source, index of the clip
    lips_fit: bool = True  # False: frozen, black or far too late

    @property
    def whole(self) -> Media:
        """Both modalities, without noise, as long as `heard`."""
        return at_tempo(self.media, self.tempo)


class Batches:
    """`batch(step)` makes the batch of that step for a model of `config`, with noise and rooms from `acoustics`.
    `modalities`: how often (both, sound alone, lips alone) of a clip that has both is given; `lip_faults`: how often
    the lips that go with a sound are faulty."""

    def __init__(
        self,
        sources: Sequence[Source],
        tokenizer: Tokenizer,
        acoustics: Acoustics,
        config: ModelConfig,
        modalities: Mapping[Modality, float] = MODALITIES,
        lip_faults: float = 0.0,
    ) -> None:
        self.sources, self.tokenizer, self.acoustics, self.lip_faults = sources, tokenizer, acoustics, lip_faults
        self.features, self.blank, self.modalities = config.inputs, config.blank, modalities
        self._groups: dict[tuple[int, int, int, int], list[list[Draw]]] = {}

    def batch(self, seed: int, step: int, rank: int, disturbance: Disturbance) -> Batch:
        return self.collate(self.takes(seed, step, rank, disturbance))

    def takes(self, seed: int, step: int, rank: int, disturbance: Disturbance) -> list[Take]:
        """The clips of that batch, one by one."""
        r, takes = np.random.default_rng([seed, step, rank]), []
        for number, source in enumerate(self.sources):
            for index, margins_s in self._drawn(seed, step, rank, number):
                media, text = source.clip(index, r)
                media = trimmed(media, margins_s)
                given = _choose_modality(_taken(media, self.features), r, self.modalities)
                factor = source.tempo(disturbance.tempo_share, r)
                name = clip_name(source.clips, index)
                heard = self.acoustics.disturb(at_tempo(given, factor), name, disturbance, r)
                shown, fits, gone = self._faulty(heard, r)
                inputs = roughened(shown, self.features, r)
                inputs = missing(inputs, self.features, r) if gone else inputs
                labels = self.labels(heard.words, inputs.steps)
                takes.append(Take(media, factor, heard, inputs, labels, text, (number, index), fits))
        return takes

    def _drawn(self, seed: int, step: int, rank: int, number: int) -> Iterator[tuple[int, tuple[float, float]]]:
        """Index and margins of the clips of source `number`. Short batches come at the same steps in every process."""
        group, place = divmod(step, TOGETHER)
        if (seed, group, rank, number) not in self._groups:
            order = np.random.default_rng([seed, group, 2]).permutation(TOGETHER).tolist()
            self._groups = {key: kept for key, kept in self._groups.items() if key[1] >= group - 1}
            drawn = self.sources[number].draws(group, order, [seed, rank, number])
            self._groups[seed, group, rank, number] = drawn
        yield from ((one.index, one.margins_s) for one in self._groups[seed, group, rank, number][place])

    def _faulty(self, media: Media, r: np.random.Generator) -> tuple[Media, bool, bool]:
        """What is shown of the clip, whether its lips fit the words, and whether some of them are to be missing."""
        if not self.lip_faults or media.waveform is None or media.mouth is None or r.random() >= self.lip_faults:
            return media, True, False
        if r.random() < 1 / (1 + len(UNTOLD)):
            return media, True, True
        return *untold(media, r), False

    def collate(self, takes: Sequence[Take]) -> Batch:
        batch = collate([(take.inputs, take.labels, take.text) for take in takes], self.tokenizer, self.features)
        return replace(batch, lips_fit=torch.tensor([take.lips_fit for take in takes]))

    def labels(self, words: Sequence[Word], steps: int) -> NDArray[np.int64]:
        """(N,): the token spoken at the middle of each step, blank in silence, -1 where word times are not known."""
        if not words:
            return np.full(steps, NO_LABEL)
        out = np.full(steps, self.blank)
        time = (np.arange(steps) + 0.5) / self.features.steps_per_second
        for word, start, end in words:
            ids = self.tokenizer.encode(word)
            spoken = np.flatnonzero((time >= start) & (time < end))
            out[spoken] = [ids[min(len(ids) - 1, int((time[i] - start) / (end - start) * len(ids)))] for i in spoken]
        return out


def at_tempo(media: Media, factor: float) -> Media:
    """The clip played faster by `factor`, its word times too."""
    if factor == 1.0:
        return media
    return Media(
        None if media.waveform is None else augment.stretch(media.waveform, factor),
        None if media.mouth is None else augment.stretch_frames(media.mouth, factor),
        tuple((word, start / factor, end / factor) for word, start, end in media.words),
    )


def roughened(media: Media, features: Features, r: np.random.Generator) -> Inputs:
    """What the model is fed in training: sound with short masks, lips as a moving, faltering camera sees them."""
    audio = video = None
    if media.waveform is not None:
        heard = hear(media.waveform, features)
        audio = None if heard is None else mask(heard, features, r)
    if media.mouth is not None and features.video is not None:
        moved = augment.move_camera(media.mouth, features.video.crop, r)
        video = augment.roughen(normalize_video(moved, features.video), r)
    return pack(audio, video, features)


def mask(audio: NDArray[np.float32], features: Features, r: np.random.Generator) -> NDArray[np.float32]:
    """What `hear` gave, with short stretches, and bands of a log-mel, set to the mean; changes `audio`."""
    if not isinstance(features.audio, LogMel):
        return augment.mask_time(augment.mask_time(audio, r, MASK), r, MASK)
    if features.audio.normalize == "per-band":  # the mean is 0
        return augment.mask_mel(audio, r)
    mean = audio.mean(axis=0)
    return augment.mask_mel(audio - mean, r) + mean


def collate(items: Sequence[tuple[Inputs, NDArray[np.int64], str]], tokenizer: Tokenizer, features: Features) -> Batch:
    """Pad to the longest."""
    takes = [inputs for inputs, _, _ in items]
    rows = [row for row, inputs in enumerate(takes) if inputs.presence[..., 1].any()]
    if not rows and features.video:
        rows = [0]  # a black clip nobody looks at: every process must touch the same parameters
    steps = max(inputs.steps for inputs in takes)
    heard, seen, _ = (shape[1] for shape in features.shapes(1, steps))
    labels = np.full((len(items), steps), NO_LABEL)
    for row, (_, label, _) in enumerate(items):
        labels[row, : len(label)] = label
    tokens = [tokenizer.encode(text) for _, _, text in items]
    return Batch(
        audio=torch.from_numpy(_stacked([inputs.audio for inputs in takes], heard)),
        video=torch.from_numpy(_stacked([takes[row].video for row in rows or [0]], seen)[: len(rows)]),
        video_rows=torch.tensor(rows, dtype=torch.long),
        presence=torch.from_numpy(_stacked([inputs.presence for inputs in takes], steps)),
        labels=torch.from_numpy(labels),
        steps=torch.tensor([inputs.steps for inputs, _, _ in items]),
        targets=torch.tensor([t for ids in tokens for t in ids]),
        target_lengths=torch.tensor([len(ids) for ids in tokens]),
        lips_fit=torch.ones(len(items), dtype=torch.bool),
    )


def padded(clips: Sequence[Inputs], features: Features) -> Inputs:
    """Clips of one row each -> one of B rows, as long as the longest."""
    shapes = features.shapes(1, max(inputs.steps for inputs in clips))
    return Inputs(*(_stacked(parts, shape[1]) for parts, shape in zip(zip(*clips, strict=True), shapes, strict=True)))


def _stacked(parts: Sequence[NDArray[np.float32]], length: int) -> NDArray[np.float32]:
    """(1, n, …) each -> (B, length, …), zeros behind the end of each."""
    out = np.empty((len(parts), length, *parts[0].shape[2:]), np.float32)
    for row, part in zip(out, parts, strict=True):
        row[: part.shape[1]] = part[0]
        row[part.shape[1] :] = 0
    return out


def _taken(media: Media, features: Features) -> Media:
    """The clip without what the model does not take."""
    return Media(media.waveform if features.audio else None, media.mouth if features.video else None, media.words)


def _choose_modality(media: Media, r: np.random.Generator, shares: Mapping[Modality, float]) -> Media:
    if media.waveform is None or media.mouth is None:
        return media
    choice = r.choice(list(shares), p=list(shares.values()))
    sound = None if choice == "lips" else media.waveform
    return Media(sound, None if choice == "sound" else media.mouth, media.words)
