"""From the JSON that the steps left to the report and its verdict: nothing is measured here."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from edgeav import __version__
from edgeav.compress import Steps
from edgeav.guards.verdict import bucket_checks, bucket_rows, file_checks, slower, speed_check
from edgeav.recipe import Budget
from edgeav.report import (
    BucketRow,
    BundleRow,
    Check,
    CorpusRow,
    Environment,
    Increase,
    ModelRow,
    PairRow,
    ParityRow,
    Report,
    SplitRow,
    StageRow,
    Verdict,
    WerRow,
)
from edgeav.run import Run, Step, read_json, versions
from edgeav.runtime.bundle import read_bundle, update_quality
from edgeav.runtime.machine import machine

PARITY_LIMIT = 1e-3  # largest difference of a log-probability between a float artifact and PyTorch
ALL = "all"  # the name of the test splits taken together


def assemble(run: Run, steps: Steps) -> Report:
    """Everything a finished run found out."""
    bundles = [_bundle_row(run, steps, *key) for key in steps.exports]
    pairs = [_pair_row(run, steps, *key) for key in steps.profiles if (key[0], "int8") in steps.exports]
    buckets = [row for target in steps.inspections for row in _bucket_rows(run, steps, target)]
    checks = [*judge(run.recipe.budget, bundles, pairs).checks, *_guard_checks(run, steps, buckets)]
    eager = read_json(run.folder / steps.baseline.name / "wer.json")
    return Report(
        recipe=run.recipe.model_dump(mode="json", exclude_none=True),
        model=_model_row(run, steps),
        corpus=_corpus_row(run, eager),
        environment=_environment(run),
        verdict=Verdict(passed=all(check.passed for check in checks), checks=checks),
        stages=[StageRow(name=step.name, seconds=run.seconds(step)) for step in steps.stages],
        bundles=bundles,
        pairs=pairs,
        buckets=buckets,
        eager={split: WerRow(**row) for split, row in eager.items()},
        notes=[
            f"{pair.target} on {pair.device}: int8 is slower than fp32 there. Use bundles/{pair.target}-fp32."
            for pair in pairs
            if pair.chosen == "fp32"
        ],
    )


def describe_quality(folder: Path, row: BundleRow) -> None:
    """Tell the bundle what was measured of it: a device gets the bundle, not the report."""
    bundle = read_bundle(folder)
    measured = {
        "wer": {split: wer.model_dump() for split, wer in row.wer.items()},
        "parity": row.parity.model_dump() if row.parity else None,
    }
    if bundle.quality | measured != bundle.quality:
        update_quality(bundle, bundle.quality | measured)


def judge(budget: Budget, bundles: list[BundleRow], pairs: list[PairRow]) -> Verdict:
    """Parity of every float artifact always; the rest as far as the budget asks for it."""
    checks = [*_parity_checks(bundles)]
    for pair in pairs:
        checks += [
            *_wer_checks(budget, bundles, pair),
            speed_check(budget, pair),
            *_size_checks(budget, bundles, pair),
        ]
    return Verdict(passed=all(check.passed for check in checks), checks=checks)


def _parity_checks(bundles: list[BundleRow]) -> Iterator[Check]:
    for row in bundles:
        if row.precision == "fp32" and row.parity:
            same = "identical transcripts" if row.parity.transcripts_equal else "DIFFERENT transcripts"
            passed = row.parity.max_abs <= PARITY_LIMIT and row.parity.transcripts_equal
            say = f"reloaded fp32 artifact within {row.parity.max_abs:.1e} of PyTorch, {same}"
            yield Check(
                name="parity", target=row.target, value=row.parity.max_abs, limit=PARITY_LIMIT, passed=passed, say=say
            )


def _wer_checks(budget: Budget, bundles: list[BundleRow], pair: PairRow) -> Iterator[Check]:
    """The upper end of the interval must hold: a difference that might be larger has not been shown to be small."""
    if budget.wer is None:
        return
    limit, found = budget.wer.max_increase_abs, list(pair.wer_increase.values())[-1]
    row = next(b for b in bundles if (b.target, b.precision) == (pair.target, "int8"))
    count = sum(w.utterances for w in row.wer.values())
    enough = count >= budget.wer.min_utterances
    interval = f"{found.abs:+.2f} points, {budget.wer.ci} % interval {found.low:+.2f} to {found.high:+.2f}, n = {count}"
    say = f"int8 against fp32: {interval}" + (
        "" if enough else f"; at least {budget.wer.min_utterances} utterances asked for"
    )
    passed = enough and found.high <= limit
    yield Check(name="wer", target=pair.target, value=found.high, limit=limit, passed=passed, say=say)


def _size_checks(budget: Budget, bundles: list[BundleRow], pair: PairRow) -> Iterator[Check]:
    if budget.size_ratio is not None:
        limit, ratio = budget.size_ratio, pair.size_ratio
        say = f"int8 has {ratio:.3f} of the bytes of fp32"
        yield Check(name="size", target=pair.target, value=ratio, limit=limit, passed=ratio <= limit, say=say)
    if budget.size_mb is not None:
        limit = budget.size_mb
        size = next(b.size_mb for b in bundles if (b.target, b.precision) == (pair.target, "int8"))
        say = f"int8 artifact of {size:.2f} MB"
        yield Check(name="size", target=pair.target, value=size, limit=limit, passed=size <= limit, say=say)


def _bundle_row(run: Run, steps: Steps, target: str, precision: str) -> BundleRow:
    folder = run.folder / steps.exports[target, precision].name
    spec, measured = read_json(folder / "bundle.json"), run.folder / steps.measures[target, precision].name
    parity = read_json(measured / "parity.json")
    profiles = {
        device: read_json(run.folder / step.name / f"{folder.name}.json")
        for (name, device), step in steps.profiles.items()
        if name == target
    }
    return BundleRow.model_validate_json(
        json.dumps(
            {
                "target": target,
                "engine": spec["engine"],
                "precision": precision,
                "size_mb": _size_mb(folder, spec),
                "parity": ParityRow(**parity["summary"]).model_dump(),
                "wer": read_json(measured / "wer.json"),
                "profile": profiles,
                "integer_share": spec["quality"].get("integer_mac_share"),
            }
        )
    )


def _pair_row(run: Run, steps: Steps, target: str, device: str) -> PairRow:
    pair = read_json(run.folder / steps.profiles[target, device].name / "pair.json")
    rows = {p: _transcripts(run, steps.measures[target, p]) for p in ("fp32", "int8")}
    sizes = {p: _size_of(run, steps.exports[target, p]) for p in ("fp32", "int8")}
    ratios = ("cpu_ratio", "wall_ratio", "cpu_ratio_min", "cpu_ratio_max")
    increase = _increases(rows["fp32"], rows["int8"], run)
    size_ratio = round(sizes["int8"] / sizes["fp32"], 4)
    timing = {name: pair[name] for name in ratios}
    chosen = "fp32" if slower(pair["cpu_ratio"], pair["cpu_ratio_min"], pair["cpu_ratio_max"]) else "int8"
    return PairRow(
        target=target, device=device, size_ratio=size_ratio, wer_increase=increase, chosen=chosen,
        cpu_ms=tuple(pair["cpu_ms"]), **timing,
    )  # fmt: skip


def _bucket_rows(run: Run, steps: Steps, target: str) -> list[BucketRow]:
    ci = run.recipe.budget.wer.ci if run.recipe.budget.wer else 95
    return bucket_rows(run, target, steps.guards[target, "fp32"], steps.guards[target, "int8"], ci)


def _guard_checks(run: Run, steps: Steps, buckets: list[BucketRow]) -> Iterator[Check]:
    for target, step in steps.inspections.items():
        yield from file_checks(run, target, step)
        yield from bucket_checks(run.recipe.budget, [row for row in buckets if row.target == target])


def _increases(fp32: list[dict], int8: list[dict], run: Run) -> dict[str, Increase]:
    """By split, and last over all of them, where there are several."""
    from edgeav.measure import wer_increase

    ci = run.recipe.budget.wer.ci if run.recipe.budget.wer else 95
    found = {}
    splits = list(dict.fromkeys(row["split"] for row in fp32))
    for split in [*splits, ALL] if len(splits) > 1 else splits:
        chosen = [(a, b) for a, b in zip(fp32, int8, strict=True) if split in (a["split"], ALL)]
        references, before, after = zip(*((a["reference"], a["text"], b["text"]) for a, b in chosen), strict=True)
        difference, low, high = wer_increase(references, before, after, ci, run.recipe.seed)
        found[split] = Increase(abs=difference, low=low, high=high)
    return found


def _transcripts(run: Run, step: Step) -> list[dict]:
    return [json.loads(line) for line in (run.folder / step.name / "transcripts.jsonl").read_text("utf-8").splitlines()]


def _size_of(run: Run, step: Step) -> float:
    folder = run.folder / step.name
    return _size_mb(folder, read_json(folder / "bundle.json"))


def _size_mb(folder: Path, spec: dict[str, Any]) -> float:
    stem = spec["model"].rsplit(".", 1)[0]
    return round(sum((folder / f).stat().st_size for f in spec["files"] if Path(f).stem == stem) / 1e6, 3)


def _model_row(run: Run, steps: Steps) -> ModelRow:
    facts = read_json(run.folder / steps.baseline.name / "model.json")
    name = run.recipe.model if isinstance(run.recipe.model, str) else "new"
    return ModelRow(name=Path(name).name, **facts)


def _corpus_row(run: Run, eager: dict[str, dict]) -> CorpusRow:
    rows = {}
    for split in run.corpus.tests:
        found = eager[split.name]
        rows[split.name] = SplitRow(
            utterances=found["utterances"], words=found["words"], synthetic=split.synthetic, speakers=split.speakers
        )
    return CorpusRow(name=run.corpus.name, splits=rows)


def _environment(run: Run) -> Environment:
    facts = machine()
    threads = max((device.threads for device in run.recipe.devices), default=1)
    return Environment(
        versions={"edgeav": __version__} | versions(),
        cpu=facts["cpu"],
        isa=facts["isa"],
        threads=threads,
        commit=commit(),
        date=datetime.now(UTC).strftime("%Y-%m-%d"),
    )


def commit() -> str | None:
    """The commit of this checkout, with a + where files have changed since; None for an installed package."""
    here = Path(__file__).parent
    try:
        done = subprocess.run(
            ["git", "-C", str(here), "describe", "--always", "--dirty=+", "--exclude=*"], capture_output=True, text=True
        )
    except FileNotFoundError:
        return None
    return done.stdout.strip() or None
