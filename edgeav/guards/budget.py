"""What the recipe's budget says of the bundles: parity of every float artifact always, the rest as far as it asks.

WER and size belong to a bundle, wherever it runs: they are judged once a target, and without any device too. Speed
belongs to a bundle on a device; an emulated one has none.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from edgeav.guards.verdict import speed_check
from edgeav.recipe import Budget, WerBudget
from edgeav.report import BundleRow, Check, Increase, PairRow

PARITY_LIMIT = 1e-3  # largest difference of a log-probability between a float artifact and PyTorch


def judge(
    budget: Budget, bundles: Sequence[BundleRow], pairs: Sequence[PairRow], lost: Mapping[str, Increase]
) -> Iterator[Check]:
    """`lost`: WER over all test splits, compressed minus fp32, by target."""
    yield from _parity_checks(bundles)
    for target, increase in lost.items():
        fp32, small = (_bundle(bundles, target, reference) for reference in (True, False))
        if budget.wer is not None:
            yield wer_check("wer", budget.wer, small, increase, "fp32")
        yield from (speed_check(budget, pair) for pair in pairs if pair.target == target)
        yield from _size_checks(budget, fp32, small)


def _parity_checks(bundles: Sequence[BundleRow]) -> Iterator[Check]:
    for row in bundles:
        if row.precision == "fp32" and row.parity:
            same = "identical transcripts" if row.parity.transcripts_equal else "DIFFERENT transcripts"
            passed = row.parity.max_abs <= PARITY_LIMIT and row.parity.transcripts_equal
            say = f"reloaded fp32 artifact within {row.parity.max_abs:.1e} of PyTorch, {same}"
            yield Check(
                name="parity", target=row.target, value=row.parity.max_abs, limit=PARITY_LIMIT, passed=passed, say=say
            )


def wer_check(name: str, budget: WerBudget, bundle: BundleRow, found: Increase, against: str) -> Check:
    """The upper end of the interval must hold: a difference that might be larger has not been shown to be small."""
    limit, count = budget.max_increase_abs, sum(w.utterances for w in bundle.wer.values())
    enough = count >= budget.min_utterances
    interval = f"{found.abs:+.2f} points, {budget.ci} % interval {found.low:+.2f} to {found.high:+.2f}, n = {count}"
    say = f"{bundle.precision} against {against}: {interval}" + (
        "" if enough else f"; at least {budget.min_utterances} utterances asked for"
    )
    passed = enough and found.high <= limit
    return Check(name=name, target=bundle.target, value=found.high, limit=limit, passed=passed, say=say)


def _size_checks(budget: Budget, fp32: BundleRow, small: BundleRow) -> Iterator[Check]:
    if budget.size_ratio is not None:
        limit, ratio = budget.size_ratio, small.size_mb / fp32.size_mb
        say = f"{small.precision} has {ratio:.3f} of the bytes of fp32"
        yield Check(name="size", target=small.target, value=ratio, limit=limit, passed=ratio <= limit, say=say)
    if budget.size_mb is not None:
        limit, size = budget.size_mb, small.size_mb
        say = f"{small.precision} artifact of {size:.2f} MB"
        yield Check(name="size", target=small.target, value=size, limit=limit, passed=size <= limit, say=say)


def _bundle(bundles: Sequence[BundleRow], target: str, reference: bool) -> BundleRow:
    return next(row for row in bundles if row.target == target and (row.precision == "fp32") == reference)
