"""Milliseconds and megabytes of a candidate before it is exported, from what its layers cost alone.

A table knows each layer (edgeav/search/parts.py). Their sum is not what the whole model takes: norms, softmax and what
moves bytes are missing, kernels that are fused save time, and a table of float layers knows nothing of other formats.
So measured candidates calibrate it: one factor for each number format and one constant, by least squares of the
RELATIVE error. How good that is, is judged on candidates that had no part in the fit (leave one out); the figure for
the bare sum is reported beside it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

LEAST = 4  # measured candidates before a prediction discards another
PRIOR = 1e-4  # weight of "this factor is 1" beside one measurement: it counts only where those say nothing
CONSTANT_PRIOR = 1e-2  # of "the constant is 0"
SAFETY = 1.5  # times the largest error so far: what is left after that is hopeless

Parts = Mapping[str, float]  # format -> what the layers in it cost, added up


@dataclass(frozen=True)
class Fit:
    """factor of each format * its part + constant."""

    factors: dict[str, float]
    constant: float

    def of(self, parts: Parts) -> float:
        return self.constant + sum(self.factors.get(name, 1.0) * value for name, value in parts.items())


def fit(rows: Sequence[Parts], measured: Sequence[float]) -> Fit:
    """Least squares of (predicted - measured) / measured."""
    names = sorted({name for row in rows for name in row})
    values = np.asarray(measured, float)
    columns = np.array([[*(row.get(name, 0.0) for name in names), 1.0] for row in rows]) / values[:, None]
    # Factors have no unit, and the constant is one of the measurements' size: little evidence changes factors first.
    weights = np.sqrt([PRIOR] * len(names) + [CONSTANT_PRIOR]) * np.array([1.0] * len(names) + [1 / values.mean()])
    prior = np.array([1.0] * len(names) + [0.0])
    design, target = np.vstack([columns, np.diag(weights)]), np.concatenate([np.ones(len(rows)), weights * prior])
    found = np.linalg.lstsq(design, target, rcond=None)[0]
    return Fit(dict(zip(names, found[:-1].tolist(), strict=True)), float(found[-1]))


def left_out(rows: Sequence[Parts], measured: Sequence[float]) -> dict[int, float]:
    """Each predicted by the fit to all the others, by its place; without those that alone have one of their formats."""
    found = {}
    for place, row in enumerate(rows):
        others = [other for other in range(len(rows)) if other != place]
        if known(row, [rows[other] for other in others]):
            found[place] = fit([rows[other] for other in others], [measured[other] for other in others]).of(row)
    return found


def known(parts: Parts, rows: Sequence[Parts]) -> bool:
    """Whether every format in `parts` is in one of `rows`."""
    return set(parts) <= {name for row in rows for name in row}


def errors(predicted: Sequence[float], measured: Sequence[float]) -> list[float]:
    """|predicted - measured| / measured."""
    return [abs(p - m) / m for p, m in zip(predicted, measured, strict=True)]


def mape(predicted: Sequence[float], measured: Sequence[float]) -> float | None:
    """Mean absolute percentage error; None of nothing."""
    found = errors(predicted, measured)
    return round(100 * sum(found) / len(found), 2) if found else None


def summary(rows: Sequence[Parts], measured: Sequence[float]) -> dict[str, float | int | None]:
    """{"n", "raw_mape": of the bare sums, "calibrated_mape": leave one out}, in percent."""
    alone = left_out(rows, measured)
    return {
        "n": len(rows),
        "raw_mape": mape([sum(row.values()) for row in rows], measured),
        "calibrated_mape": mape(list(alone.values()), [measured[place] for place in alone]),
    }


def hopeless(
    parts: Parts, rows: Sequence[Parts], measured: Sequence[float], limit: float
) -> tuple[float, float] | None:
    """(predicted, share of it that it may be wrong by) where even then it misses `limit`; else None.

    Fewer than `LEAST` measured candidates that the others predict, or none with one of its formats, say nothing.
    """
    alone = left_out(rows, measured)
    if len(alone) < LEAST or not known(parts, rows):
        return None
    predicted = fit(rows, measured).of(parts)
    margin = SAFETY * max(errors(list(alone.values()), [measured[place] for place in alone]))
    return (predicted, margin) if predicted * (1 - margin) > limit else None
