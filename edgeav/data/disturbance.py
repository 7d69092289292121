"""The declaration of what training does to the sound of a clip: how often, with what, how loudly, and from when on.

Easy first, then hard: Bengio et al. 2009 (https://dl.acm.org/doi/10.1145/1553374.1553380); for noise Braun et al. 2017
(https://arxiv.org/abs/1606.06864). Only plain data here; acoustics.py carries it out.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from edgeav.errors import EdgeavError
from edgeav.spec import Strict

Kind = Literal["babble", "white", "pink", "brown", "speech-shaped", "music", "recording"]
Modality = Literal["both", "sound", "lips"]
MODALITIES: dict[Modality, float] = {"both": 0.45, "sound": 0.20, "lips": 0.35}  # lips are hardest: the larger share
Share = Annotated[float, Field(gt=0, le=1000)]
Decibels = Annotated[float, Field(ge=-40, le=60)]


def _check_range(name: str, ends: tuple[float, float]) -> None:
    if ends[0] > ends[1]:
        raise ValueError(f"{name}: {list(ends)} runs backwards; write [{ends[1]}, {ends[0]}]")


class Curriculum(Strict):
    """How it begins; at `full_at`, a share of all steps, all has risen in a straight line to what is declared."""

    full_at: float = Field(default=0.21, gt=0, le=1)
    first_share: float = Field(default=0.3, ge=0, le=1)
    """Of the declared shares of noise and of rooms."""
    lowest_snr_db: Decibels | None = None
    """Low end of the SNR at the beginning; nothing: the declared one from the start."""


class RoomShare(Strict):
    """Reverberation, before noise is added."""

    share: float = Field(default=0.3, ge=0, le=1)
    """Probability that a clip is put into a room."""
    responses: str | None = None
    """A folder of measured impulse responses; nothing: all rooms are synthetic."""
    synthetic: float = Field(default=0.5, ge=0, le=1)
    """Share of synthetic rooms where measured ones are given."""
    rt60_s: tuple[float, float] = Field(default=(0.15, 0.8), strict=False)
    """Range of a synthetic room's reverberation time."""
    direct_db: tuple[float, float] = Field(default=(-3.0, 9.0), strict=False)
    """Range of a synthetic room's ratio of direct to reverberant energy."""

    @model_validator(mode="after")
    def _ordered(self) -> RoomShare:
        _check_range("rt60_s", self.rt60_s)
        _check_range("direct_db", self.direct_db)
        if not 0.05 <= self.rt60_s[0] <= self.rt60_s[1] <= 10:
            raise ValueError(f"rt60_s: {list(self.rt60_s)} must lie between 0.05 and 10 s")
        return self


class Disturbance(Strict):
    """Noise and rooms; every clip draws its own kind, place, loudness and room."""

    share: float = Field(default=0.7, ge=0, le=1)
    """Probability that noise is added to a clip."""
    snr_db: tuple[Decibels, Decibels] = Field(default=(-5.0, 18.0), strict=False)
    """Range of the signal-to-noise ratio over active speech; [0, 0] is always 0 dB."""
    kinds: dict[Kind, Share] | None = None
    """Relative shares; nothing: babble 2, and 1 each for `recordings` and `music` where they are given."""
    recordings: str | None = None
    """A folder of noise recordings: manifest.jsonl with `path`, or just sound files."""
    music: str | None = None
    """The same for music; without it the kind `music` is synthetic chords."""
    talkers: int = Field(default=6, ge=1, le=32)
    """At most so many people in babble, which is made of the training clips."""
    rooms: RoomShare = RoomShare(share=0.0)
    tempo_share: float = Field(default=0.7, ge=0, le=1)
    """Probability that a clip is played faster or slower."""
    curriculum: Curriculum = Curriculum()
    optional: bool = False
    """Leave out, and say so, folders that are absent."""

    @model_validator(mode="after")
    def _consistent(self) -> Disturbance:
        _check_range("snr_db", self.snr_db)
        if self.kinds is not None and not self.kinds:
            raise ValueError("kinds: is empty; name at least one kind, or set share to 0")
        if "recording" in (self.kinds or ()) and not self.recordings:
            raise ValueError("kinds: `recording` needs a folder in `recordings`")
        if self.kinds and self.recordings and "recording" not in self.kinds:
            raise ValueError("kinds: `recordings` are given, but the kind `recording` has no share")
        if self.kinds and self.music and "music" not in self.kinds:
            raise ValueError("kinds: `music` is given, but the kind `music` has no share")
        return self

    @property
    def shares(self) -> dict[Kind, float]:
        """Kind -> share, which add up to 1."""
        by_default: dict[Kind, float] = {"babble": 2.0}
        by_default |= {"recording": 1.0} if self.recordings else {}
        by_default |= {"music": 1.0} if self.music else {}
        kinds = self.kinds or by_default
        return {kind: share / sum(kinds.values()) for kind, share in kinds.items()}

    def at(self, progress: float) -> Disturbance:
        """What holds when `progress`, 0..1, of the steps are done."""
        begin, done = self.curriculum, min(1.0, progress / self.curriculum.full_at)
        risen = begin.first_share + (1 - begin.first_share) * done
        low, high = self.snr_db
        if begin.lowest_snr_db is not None:
            low = min(high, begin.lowest_snr_db + (low - begin.lowest_snr_db) * done)
        rooms = self.rooms.model_copy(update={"share": self.rooms.share * risen})
        return self.model_copy(update={"share": self.share * risen, "snr_db": (low, high), "rooms": rooms})

    def present(self, say: Callable[[str], object]) -> Disturbance:
        """What can be done with the folders that are here.

        EdgeavError names the absent ones; where they are `optional` they are left out, which `say` is told.
        """
        folders = {"recordings": self.recordings, "music": self.music, "rooms.responses": self.rooms.responses}
        absent = {field: folder for field, folder in folders.items() if folder and not Path(folder).is_dir()}
        if absent and not self.optional:
            lines = [f"noise.{field}: {folder}: no such folder" for field, folder in absent.items()]
            raise EdgeavError("\n".join(lines) + "\nSet noise.optional to true to go on without what is absent")
        for field, folder in absent.items():
            say(f"noise: {folder} ({field}) is not here; training goes on without it")
        kinds = {k: v for k, v in (self.kinds or {}).items() if k != "recording" or "recordings" not in absent}
        if self.kinds and not kinds:
            raise EdgeavError("noise.kinds: nothing is left without `recordings`; name another kind, such as babble")
        rooms = self.rooms.model_copy(update={"responses": None} if "rooms.responses" in absent else {})
        gone = {field: None for field in ("recordings", "music") if field in absent}
        return self.model_copy(update={**gone, "kinds": kinds or None, "rooms": rooms})
