"""Which bundle should a device get? The fastest one there whose WER is within the budget: measured, not assumed.

Without dot-product instructions int8 can cost more than float, and which engine is fastest differs between processors.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from edgeav.recipe import Budget
from edgeav.report import BundleRow, ChoiceRow, Increase

UNITS = {"p50_ms": "ms (median)", "instructions": "instructions a second of sound; emulated, so no time counts"}


def choose(bundles: Sequence[BundleRow], increases: Mapping[str, Increase], budget: Budget) -> list[ChoiceRow]:
    """One row a device; none for a device on which nothing comparable was measured. `increases`: of int8, by target."""
    devices = dict.fromkeys(device for bundle in bundles for device in bundle.profile)
    allowed = [bundle for bundle in bundles if _allowed(bundle, increases, budget)]
    rows = (_choice(device, [bundle for bundle in allowed if device in bundle.profile]) for device in devices)
    return [row for row in rows if row]


def _allowed(bundle: BundleRow, increases: Mapping[str, Increase], budget: Budget) -> bool:
    """fp32 is what the budget compares with; anything else must have shown that it loses no more than allowed."""
    if bundle.precision == "fp32" or budget.wer is None:
        return True
    found = increases.get(bundle.target)
    return found is not None and found.high <= budget.wer.max_increase_abs


def _choice(device: str, bundles: Sequence[BundleRow]) -> ChoiceRow | None:
    costs = [(cost, bundle) for bundle in bundles if (cost := _cost(bundle, device))]
    if not costs:
        return None
    (by, value), best = min(costs, key=lambda pair: pair[0][1])
    others = len(costs) - 1
    say = f"{best.target} {best.precision}: {value:.4g} {UNITS[by]}, the least of {others + 1} within the WER budget"
    return ChoiceRow(device=device, target=best.target, precision=best.precision, by=by, value=value, say=say)


def _cost(bundle: BundleRow, device: str) -> tuple[str, float] | None:
    """What is compared: time where time means something, else instructions."""
    profile = bundle.profile[device]
    if not profile.emulated:
        return "p50_ms", profile.wall_ms.p50
    return ("instructions", profile.instructions.per_second) if profile.instructions else None
