"""Under which conditions a clip is recognized, as data: a modality, noise at an SNR, and what befalls the pictures.

    av  a@0dB  v  av@-5dB:white+missing50  av+frozen  av+black30  av+late10  a@5dB:recording

A clip is disturbed alike at every evaluation of the same seed, and gets the same stretch of noise at every SNR: systems
and conditions are compared in pairs. That pictures are missing is told to the model through `presence`; that they are
frozen, black or late is not, since a device would not know either.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from edgeav.data.acoustics import NoiseBank
from edgeav.data.augment import add_noise, delayed
from edgeav.data.corpus import Media
from edgeav.data.disturbance import Kind
from edgeav.errors import EdgeavError
from edgeav.runtime.clip import Clip
from edgeav.runtime.features import Inputs, model_inputs
from edgeav.runtime.inputs import Features

Fault = Literal["missing", "frozen", "black"]
NOISES: tuple[str, ...] = get_args(Kind)
BURST = 10  # frames that are spoilt at a stretch, on average: 400 ms, as when a hand or a turn hides a face
MOST_LATE = 50  # frames: 2 s
SYNTAX = re.compile(r"(?P<modality>av|a|v)(@(?P<snr>-?\d+(\.\d+)?)dB(:(?P<noise>[a-z-]+))?)?(?P<rest>(\+[a-z]+\d*)*)")
EXAMPLES = "av, a, v, a@0dB, av@-5dB:white, av+missing50, av+frozen, av+black30, av@0dB+late10, av+early5"

SNRS = (None, 10, 5, 0, -5, -10)
_WITH_SNR = [modality + ("" if snr is None else f"@{snr}dB") for modality in ("av", "a") for snr in SNRS]
_BROKEN = [
    "missing25",
    "missing50",
    "missing75",
    "missing100",
    "frozen",
    "black",
    "late5",
    "late10",
    "early5",
    "early10",
]
GRIDS: Mapping[str, Sequence[str]] = {
    "short": ("av", "a", "v", "av@0dB", "a@0dB"),
    "standard": (*_WITH_SNR, "v", *(f"av+{fault}" for fault in _BROKEN), "v+missing25", "v+missing50"),
}


@dataclass(frozen=True)
class Condition:
    """`fault` befalls `percent` of the pictures, in bursts; then all come `late` frames after the sound (negative:
    before it)."""

    modality: Literal["av", "a", "v"] = "av"
    snr_db: float | None = None
    noise: str = "babble"
    fault: Fault | None = None
    percent: int = 0
    late: int = 0

    @property
    def name(self) -> str:
        """The shortest text that `parse` reads as this."""
        kind = "" if self.noise == "babble" else f":{self.noise}"
        text = self.modality if self.snr_db is None else f"{self.modality}@{self.snr_db:g}dB{kind}"
        if self.fault:
            text += f"+{self.fault}" + ("" if self.percent == 100 and self.fault != "missing" else str(self.percent))
        return text + (f"+{'late' if self.late > 0 else 'early'}{abs(self.late)}" if self.late else "")

    @property
    def hears(self) -> bool:
        return "a" in self.modality

    @property
    def sees(self) -> bool:
        return "v" in self.modality

    def alone(self, modality: Literal["a", "v"]) -> Condition:
        """The same disturbance for one modality: what `av` is compared with. Lips alone are late against nothing."""
        if modality == "a":
            return replace(self, modality="a", fault=None, percent=0, late=0)
        return replace(self, modality="v", snr_db=None, noise="babble", late=0)


@dataclass(frozen=True)
class Disturbed:
    """A clip as the recognizer meets it; `present` (T,) says which pictures it is told of."""

    waveform: NDArray[np.float32] | None
    mouth: NDArray[np.uint8] | None
    present: NDArray[np.bool_]

    def inputs(self, features: Features) -> Inputs:
        """What a model of these features is given."""
        sound, lips = self.waveform if features.audio else None, self.mouth if features.video else None
        if lips is None or self.present.all():
            return model_inputs(sound, lips, features)
        clip = Clip(sound, lips, self.present, [], features)
        return clip.inputs(0, clip.steps)


def parse(names: Sequence[str]) -> list[Condition]:
    """Conditions from their short names, none twice; EdgeavError says all that is wrong with all of them."""
    found, problems = [], []
    for name in names:
        try:
            found.append(_parse(name))
        except ValueError as error:
            problems.append(f"condition {name!r}: {error}")
    if problems:
        raise EdgeavError("\n".join([*problems, f"Conditions look like these: {EXAMPLES}"]))
    return list(dict.fromkeys(found))


def possible(condition: Condition, media: Media) -> bool:
    """Whether the clip has what the condition asks for: its sound, its pictures, or both."""
    return not (condition.hears and media.waveform is None) and not (condition.sees and media.mouth is None)


def disturb(media: Media, condition: Condition, noise: NoiseBank, key: tuple[int, str]) -> Disturbed:
    """The clip under `condition`; `noise` holds the kind that it names, `key` is (seed, id of the clip)."""
    sound, mouth = media.waveform if condition.hears else None, media.mouth if condition.sees else None
    if sound is not None and condition.snr_db is not None:
        disturbance = noise.draw(condition.noise, len(sound), _random(key, "noise"), key[1])
        sound = add_noise(sound, disturbance, condition.snr_db, media.words)
    present = np.ones(0 if mouth is None else len(mouth), bool)
    if mouth is not None and condition.fault:
        spoilt = bursts(len(mouth), condition.percent, _random(key, "pictures"))
        mouth, present = spoil(mouth, spoilt, condition.fault)
    if mouth is not None and condition.late:
        mouth, present = delayed(mouth, condition.late), delayed(present, condition.late)
    return Disturbed(sound, mouth, present)


def bursts(frames: int, percent: float, r: np.random.Generator) -> NDArray[np.bool_]:
    """(T,) True in `percent` of the frames, rounded to whole ones, in stretches of about BURST frames."""
    spoilt = round(frames * percent / 100)
    count = min(max(1, round(spoilt / BURST)), spoilt, frames - spoilt + 1)
    if count < 1:
        return np.zeros(frames, bool)
    inside = np.diff([0, *np.sort(r.choice(np.arange(1, spoilt), count - 1, replace=False)), spoilt])
    starts = np.sort(r.choice(frames - spoilt + 1, count, replace=False))  # counted in frames that are left whole
    starts = starts + np.concatenate([[0], np.cumsum(inside)[:-1]])
    mask = np.zeros(frames, bool)
    for start, length in zip(starts, inside, strict=True):
        mask[start : start + length] = True
    return np.roll(mask, r.integers(frames))  # or the ends of a clip would be spoilt less often than its middle


def spoil(mouth: NDArray[np.uint8], spoilt: NDArray[np.bool_], fault: Fault) -> tuple[NDArray, NDArray[np.bool_]]:
    """(T, H, W) with `fault` in the frames where `spoilt` (T,) is True, and (T,) which of them the model is told of."""
    if fault == "missing":
        return mouth, ~spoilt
    if fault == "black":
        return np.where(spoilt[:, None, None], 0, mouth).astype(np.uint8), np.ones(len(mouth), bool)
    last_good = np.maximum.accumulate(np.where(spoilt, 0, np.arange(len(mouth))))
    return mouth[last_good], np.ones(len(mouth), bool)


def _random(key: tuple[int, str], purpose: str) -> np.random.Generator:
    return np.random.default_rng([key[0], crc32(key[1].encode()), crc32(purpose.encode())])


def _parse(name: str) -> Condition:
    match = SYNTAX.fullmatch(name.strip())
    if match is None:
        raise ValueError("is not MODALITY[@SNRdB[:NOISE]][+FAULT…]")
    snr, noise = match["snr"], match["noise"] or "babble"
    modality: Literal["av", "a", "v"] = match["modality"]  # type: ignore[assignment]  the pattern allows no other
    condition = Condition(modality, None if snr is None else float(snr), noise)
    if noise not in NOISES:
        raise ValueError(f"noise {noise!r}; allowed: {', '.join(NOISES)}")
    if snr is not None and not condition.hears:
        raise ValueError("there is no sound to disturb")
    for fault in filter(None, match["rest"].split("+")):
        condition = _with(condition, re.sub(r"\d", "", fault), re.sub(r"\D", "", fault))
    if not condition.sees and (condition.fault or condition.late):
        raise ValueError("there are no pictures to spoil")
    if condition.modality == "v" and condition.fault == "missing" and condition.percent == 100:
        raise ValueError("leaves nothing to recognize from")
    return condition


def _with(condition: Condition, fault: str, number: str) -> Condition:
    if fault in ("late", "early"):
        if condition.late or not 1 <= int(number or 0) <= MOST_LATE:
            raise ValueError(f"{fault} needs one number of frames, 1 to {MOST_LATE}")
        return replace(condition, late=int(number) * (1 if fault == "late" else -1))
    if fault not in ("missing", "frozen", "black"):
        raise ValueError(f"{fault!r} is not known; allowed: missing, frozen, black, late, early")
    percent = int(number or (100 if fault != "missing" else -1))
    if condition.fault or not 0 <= percent <= 100:
        raise ValueError(f"{fault} needs one percentage, 0 to 100, and no other fault beside it")
    return replace(condition, fault=fault if percent else None, percent=percent)
