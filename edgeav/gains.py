"""From the steps of beginning.py to rows of the report and lines of the verdict: each bundle against the start."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from edgeav.beginning import WHY_NOT, Beginning
from edgeav.guards.budget import wer_check
from edgeav.recipe import StartBudget
from edgeav.report import BundleRow, Check, GainRow, Increase, RaceRow
from edgeav.run import Run, Step, read_json


def gain_rows(
    run: Run, began: Beginning, bundles: Sequence[BundleRow], lost: dict[str, dict[str, Increase]]
) -> Iterator[GainRow]:
    """One a target. `lost`: WER minus the start's, by target and split."""
    for target, export in began.exports.items():
        final, folder = _final(bundles, target), run.folder / export.name
        missing = read_json(folder / WHY_NOT)["why"] if (folder / WHY_NOT).is_file() else ""
        start_mb = None if missing else size_mb(run, export)
        yield GainRow(
            target=target,
            precision=final.precision,
            wer_increase=lost[target],
            start_mb=start_mb,
            size_ratio=None if start_mb is None else round(final.size_mb / start_mb, 4),
            races={} if missing else dict(_races(run, began, target)),
            missing=missing,
        )


def judge_start(budget: StartBudget | None, gains: Sequence[GainRow], bundles: Sequence[BundleRow]) -> Iterator[Check]:
    """What `budget.start` asks for. What could not be measured is broken: nothing shows that it holds."""
    for gain in gains if budget else ():
        assert budget is not None
        if budget.wer is not None:
            found = list(gain.wer_increase.values())[-1]  # over all splits
            yield wer_check("start-wer", budget.wer, _final(bundles, gain.target), found, "the start")
        yield from _speed(budget, gain)
        yield from _size(budget, gain)


def _speed(budget: StartBudget, gain: GainRow) -> Iterator[Check]:
    limit = budget.min_speedup
    if limit is None:
        return
    if gain.missing:
        yield _check("start-speed", gain, 0.0, limit, False, f"not measured: {gain.missing}")
    for device, race in gain.races.items():
        ms = f"{race.cpu_ms[0]:.1f} ms against {race.cpu_ms[1]:.1f} ms"
        say = f"{gain.precision} runs {race.cpu_ratio:.2f}x as fast as the start in fp32 on {device} ({ms}), in turn"
        yield _check("start-speed", gain, race.cpu_ratio, limit, race.cpu_ratio >= limit, say)


def _size(budget: StartBudget, gain: GainRow) -> Iterator[Check]:
    limit = budget.size_ratio
    if limit is None:
        return
    if gain.size_ratio is None:
        yield _check("start-size", gain, 1.0, limit, False, f"not measured: {gain.missing}")
    else:
        say = f"{gain.precision} has {gain.size_ratio:.3f} of the bytes of the start in fp32"
        yield _check("start-size", gain, gain.size_ratio, limit, gain.size_ratio <= limit, say)


def _check(name: str, gain: GainRow, value: float, limit: float, passed: bool, say: str) -> Check:
    return Check(name=name, target=gain.target, value=value, limit=limit, passed=passed, say=say)


def _races(run: Run, began: Beginning, target: str) -> Iterator[tuple[str, RaceRow]]:
    for (name, device), step in began.races.items():
        if name == target:
            pair = read_json(run.folder / step.name / "pair.json")
            ratios = {key: pair[key] for key in ("cpu_ratio", "cpu_ratio_min", "cpu_ratio_max")}
            yield device, RaceRow(cpu_ms=tuple(pair["cpu_ms"]), **ratios)


def _final(bundles: Sequence[BundleRow], target: str) -> BundleRow:
    """The compressed one where there are two."""
    return [row for row in bundles if row.target == target][-1]


def size_mb(run: Run, export: Step) -> float:
    """Of a bundle's model file or files, in 10^6 bytes."""
    folder = run.folder / export.name
    spec = read_json(folder / "bundle.json")
    stem = spec["model"].rsplit(".", 1)[0]
    return round(sum((folder / f).stat().st_size for f in spec["files"] if Path(f).stem == stem) / 1e6, 3)
