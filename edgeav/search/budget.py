"""What a search's result must keep, by what was measured of it; no torch in here, for recipes are read by it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pydantic import Field, model_validator

from edgeav.spec import Strict

UNITS = {"wer": "% WER", "ms": "ms", "mb": "MB"}  # what every candidate is measured by; less is better


class SearchBudget(Strict):
    """Limits on validation clips and on the machine that searches; at least one."""

    size_mb: float | None = Field(default=None, gt=0)
    """Of the exported model, in 10^6 bytes."""
    ms: float | None = Field(default=None, gt=0)
    """For 4 s of input on one thread here."""
    rtf: float | None = Field(default=None, gt=0)
    """Or that as a real-time factor: time / length of the sound."""
    wer: float | None = Field(default=None, ge=0, le=1000)
    """Word error rate on validation clips, in points."""
    wer_increase_abs: float | None = Field(default=None, ge=0, le=100)
    """Or points more than the float model has that the search begins with, or the teacher of a new one."""

    @model_validator(mode="after")
    def _one_each(self) -> SearchBudget:
        if all(value is None for _, value in self):
            raise ValueError("name at least one limit, like {size_mb: 8, rtf: 0.05, wer_increase_abs: 0.5}")
        for one, other in (("ms", "rtf"), ("wer", "wer_increase_abs")):
            if getattr(self, one) is not None and getattr(self, other) is not None:
                raise ValueError(f"{one} and {other} say the same; name one of them")
        return self

    def limits(self, seconds: float, wer: float) -> dict[str, float]:
        """By unit, for models that are timed on `seconds` and compared with a WER of `wer`."""
        ms = self.ms if self.rtf is None else self.rtf * 1000 * seconds
        rate = self.wer if self.wer_increase_abs is None else wer + self.wer_increase_abs
        found = {"wer": rate, "ms": ms, "mb": self.size_mb}
        return {unit: limit for unit, limit in found.items() if limit is not None}


@dataclass(frozen=True)
class Measures:
    """What counts of a candidate: WER in points, ms for one typical input, 10^6 bytes."""

    wer: float
    ms: float
    mb: float

    @property
    def all(self) -> tuple[float, float, float]:
        return self.wer, self.ms, self.mb

    def dominates(self, other: Measures) -> bool:
        """Nowhere worse and somewhere better."""
        return self.all != other.all and all(a <= b for a, b in zip(self.all, other.all, strict=True))


def front(found: Mapping[int, Measures]) -> list[int]:
    """The candidates that no other dominates, by their numbers, fastest first; of equals the first."""
    best: dict[tuple[float, ...], int] = {}
    for number in sorted(found):
        if not any(other.dominates(found[number]) for other in found.values()):
            best.setdefault(found[number].all, number)
    return sorted(best.values(), key=lambda number: (found[number].ms, number))


def excess(value: float, limit: float) -> float:
    """By what share of the limit `value` is above it; negative: below."""
    return (value - limit) / limit if limit else value


def misses(measures: Measures, limits: Mapping[str, float]) -> dict[str, float]:
    """Of each limit that does not hold: by how much, in its unit."""
    over = {unit: getattr(measures, unit) - limit for unit, limit in limits.items()}
    return {unit: amount for unit, amount in over.items() if amount > 1e-9}


def choose(found: Mapping[int, Measures], limits: Mapping[str, float]) -> int | None:
    """The least WER within the limits, of equals the fastest, then the smallest; None: nothing fits."""
    fits = [number for number in found if not misses(found[number], limits)]
    return min(fits, key=lambda number: (*found[number].all, number), default=None)


def nearest(found: Mapping[int, Measures], limits: Mapping[str, float]) -> list[int]:
    """By the limit that each misses most, as a share of it."""
    worst = {n: max(excess(getattr(m, unit), limit) for unit, limit in limits.items()) for n, m in found.items()}
    return sorted(found, key=lambda number: (worst[number], *found[number].all))


def proof(found: Mapping[int, Measures], limits: Mapping[str, float], says: Sequence[str]) -> str:
    """That nothing tried fits: the nearest, what each misses, and how far one gets by each measure alone.

    `says` are lines on what else became of the trials.
    """
    asked = ", ".join(f"{limit:.4g} {UNITS[unit]}" for unit, limit in limits.items())
    lines = [f"search: none of {len(found)} measured candidates keeps the budget ({asked})."]
    for number in nearest(found, limits)[:3]:
        missed = ", ".join(f"{v:+.3g} {UNITS[unit]}" for unit, v in misses(found[number], limits).items())
        lines.append(f"  trial {number}: {_text(found[number])}: misses {missed}")
    if found:
        least = [f"{min(getattr(m, unit) for m in found.values()):.4g} {UNITS[unit]}" for unit in limits]
        lines.append(f"  the least of each alone, not of one candidate: {', '.join(least)}")
    advice = "Raise a limit, widen `vary`, or raise `trials`: what was measured is kept"
    return "\n".join([*lines, *(f"  {say}" for say in says), advice])


def _text(measures: Measures) -> str:
    return f"{measures.wer:.2f} % WER, {measures.ms:.4g} ms, {measures.mb:.4g} MB"
