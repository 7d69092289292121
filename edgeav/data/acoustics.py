"""A bank of noise and of rooms, made once and drawn from for every clip.

Making noise anew for every clip would cost more than a training step; a memory-mapped bank costs the reading of the
few seconds that are asked for. It is made of TRAINING clips alone: a test voice is never heard, not even as noise.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgeav.data import augment
from edgeav.data.cache import DecodedClips
from edgeav.data.corpus import Media
from edgeav.data.disturbance import Disturbance
from edgeav.data.noise import STRETCH_S, babble_of, chords, coloured, level, read_recordings, speech_shaped
from edgeav.data.rooms import read_rooms, reverberate, room
from edgeav.errors import EdgeavError
from edgeav.runtime.inputs import SAMPLE_RATE_HZ

Array = NDArray[np.float32]
Rng = np.random.Generator

COLOURS = {"white": 0.0, "pink": 1.0, "brown": 2.0}
BABBLE_S, COLOUR_S = 600, 120
VOICES = 300  # clips of each corpus that are heard in babble
GROUPS = 4  # of voices; each is absent from one part of the babble
TRIES = 1000
SILENT = 1e-8  # mean square of a bank of level 1: -80 dB


class NoiseBank:
    """Kind -> (S,) of level 1. `voices` are the clips heard in each 10 s of the babble."""

    def __init__(self, sounds: Mapping[str, Array], voices: Sequence[Sequence[str]] = ()) -> None:
        self.sounds, self.voices = sounds, [frozenset(names) for names in voices]

    def draw(self, kind: str, count: int, r: Rng, clip: str = "") -> Array:
        """(S,) from a random place that is not silent and where `clip` itself does not speak; the end meets the start.

        ValueError where there is no such place.
        """
        sound = self.sounds[kind]
        for _ in range(TRIES):
            start = int(r.integers(len(sound)))
            if kind == "babble" and any(clip in names for names in self._heard(start, count)):
                continue
            part = sound[start : start + count]
            if len(part) < count:
                part = np.take(sound, np.arange(start, start + count), mode="wrap")
            if np.mean(np.square(part)) > SILENT:
                return np.asarray(part)
        raise ValueError(f"noise bank: nowhere do {count} samples of {kind} without clip {clip!r} hold any sound")

    def save(self, folder: Path) -> None:
        for kind, sound in self.sounds.items():
            np.save(folder / f"{kind}.npy", sound)
        (folder / "voices.json").write_text(json.dumps([sorted(names) for names in self.voices]))

    @classmethod
    def load(cls, folder: Path) -> NoiseBank:
        sounds = {path.stem: np.load(path, mmap_mode="r") for path in sorted(folder.glob("*.npy"))}
        return cls(sounds, json.loads((folder / "voices.json").read_text()))

    def _heard(self, start: int, count: int) -> list[frozenset[str]]:
        stretch = STRETCH_S * SAMPLE_RATE_HZ
        numbers = range(start // stretch, (start + count - 1) // stretch + 1)
        return [self.voices[n % len(self.voices)] for n in numbers] if self.voices else []


@dataclass(frozen=True)
class Acoustics:
    """What surrounds a clip: noise and measured rooms."""

    noise: NoiseBank
    rooms: Sequence[Array] = ()

    def disturb(self, media: Media, clip: str, wanted: Disturbance, r: Rng) -> Media:
        """The clip, named `clip`, in a room and in noise, as often as wanted; the lips are left alone."""
        sound = media.waveform
        if sound is None:
            return media
        if r.random() < wanted.rooms.share:
            sound = reverberate(sound, room(self.rooms, wanted.rooms, r))
        if r.random() < wanted.share:
            kind = str(r.choice(list(wanted.shares), p=list(wanted.shares.values())))
            noise = self.noise.draw(kind, len(sound), r, clip)
            sound = augment.add_noise(sound, noise, float(r.uniform(*wanted.snr_db)), media.words)
        return replace(media, waveform=sound)


def load_acoustics(folder: Path) -> Acoustics:
    """What `build_acoustics` wrote."""
    with np.load(folder / "rooms.npz") as rooms:
        return Acoustics(NoiseBank.load(folder), [rooms[name] for name in rooms.files])


def build_acoustics(wanted: Disturbance, clips: Sequence[DecodedClips], seed: int, folder: Path) -> Path:
    """Make what `wanted` needs of `clips`, which are to be training clips, in `folder`, unless it is there already."""
    if folder.exists():
        return folder
    part = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    make_bank(wanted, clips, seed).save(part)
    rooms = read_rooms(Path(wanted.rooms.responses)) if wanted.rooms.responses else []
    np.savez(part / "rooms.npz", *rooms)
    part.rename(folder)  # last: its name says that it is whole
    return folder


def make_bank(wanted: Disturbance, clips: Sequence[DecodedClips], seed: int) -> NoiseBank:
    """Every kind that `wanted` has a share of; none where it never adds noise."""
    r, count = np.random.default_rng(seed), COLOUR_S * SAMPLE_RATE_HZ
    names, voices = _voices(clips, r)
    sounds: dict[str, Array] = {}
    heard: list[list[str]] = []
    for kind in sorted(wanted.shares) if wanted.share else ():
        if kind == "babble":
            sounds[kind], heard = _babble(names, voices, wanted.talkers, r)
        elif kind == "speech-shaped":
            sounds[kind] = speech_shaped(voices, count, r)
        elif kind == "music" and not wanted.music:
            sounds[kind] = chords(count, r)
        elif kind in COLOURS:
            sounds[kind] = coloured(count, COLOURS[kind], r)
        else:
            folder = wanted.music if kind == "music" else wanted.recordings
            sounds[kind] = np.concatenate([level(sound) for sound in read_recordings(Path(folder or ""))])
    return NoiseBank(sounds, heard)


def clip_name(clips: DecodedClips, index: int) -> str:
    """The name by which the bank knows a clip."""
    return f"{clips.folder.name}/{index}"


def _voices(clips: Sequence[DecodedClips], r: Rng) -> tuple[list[str], list[Array]]:
    """Names and sound of up to 300 clips of each corpus."""
    names, voices = [], []
    for source in clips:
        for index in r.permutation(len(source))[:VOICES]:
            sound = source.media(int(index)).waveform
            if sound is not None and sound.any():
                names.append(clip_name(source, int(index)))
                voices.append(sound)
    return names, voices


def _babble(names: Sequence[str], voices: Sequence[Array], talkers: int, r: Rng) -> tuple[Array, list[list[str]]]:
    """Babble in parts, each without one group of the voices: so for every clip there is babble without it."""
    if len(voices) < 2:
        raise EdgeavError("babble: takes at least two training clips with sound; name other `kinds` of noise")
    groups, parts, heard = min(GROUPS, len(voices)), [], []
    for group in range(groups):
        others = [i for i in range(len(voices)) if i % groups != group]
        sound, numbers = babble_of([voices[i] for i in others], BABBLE_S // groups, r, talkers)
        parts.append(sound)
        heard += [[names[others[n]] for n in stretch] for stretch in numbers]
    return np.concatenate(parts), heard
