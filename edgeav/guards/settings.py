"""What the guards of a run allow: `budget.guards` of a recipe. They are always on; this says where they bite."""

from __future__ import annotations

from pydantic import Field

from edgeav.spec import Strict


class GuardBudget(Strict):
    """Limits of the guards, and how many clips their slower ones may take."""

    clips: int = Field(default=60, ge=4, le=2000)
    """Clips of each bucket: short, long, longer than the corpus has, and each of `snr_db`."""
    snr_db: tuple[float, ...] = Field(default=(0.0,), strict=False)
    """Of babble over the sound; () leaves noise out."""
    bucket_increase_abs: float | None = Field(default=None, ge=0, le=100)
    """Points of WER that the compressed bundle may lose in any one bucket; null: as in `budget.wer`, or 1."""
    blank_shift_abs: float = Field(default=2.0, ge=0, le=100)
    """Points by which the share of blank steps may move."""
    min_integer_share: float = Field(default=1.0, ge=0, le=1)
    """Of the multiply-accumulates that the plan wants in integers: how many the runtime must compute in integers."""
