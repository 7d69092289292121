"""From the JSON that the steps left to the report and its verdict: nothing is measured here."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from edgeav import __version__
from edgeav.choose import choose
from edgeav.compress import Steps
from edgeav.gains import gain_rows, judge_start, size_mb
from edgeav.guards.budget import judge
from edgeav.guards.verdict import bucket_checks, bucket_rows, file_checks, slower
from edgeav.recipe import WerBudget
from edgeav.report import (
    BucketRow,
    BundleRow,
    Check,
    CorpusRow,
    Environment,
    GainRow,
    Increase,
    ModelRow,
    PairRow,
    ParityRow,
    Report,
    SplitRow,
    StageRow,
    StartRow,
    Verdict,
    WerRow,
)
from edgeav.run import Run, Step, read_json, versions
from edgeav.runtime.bundle import read_bundle, update_quality
from edgeav.runtime.machine import machine
from edgeav.search.result import SearchRow, load_search
from edgeav.target import Precision

ALL = "all"  # the name of the test splits taken together


def assemble(run: Run, steps: Steps) -> Report:
    """Everything a finished run found out."""
    bundles = [_bundle_row(run, steps, *key) for key in steps.exports]
    small = small_bundles(steps)
    increases = {
        target: _increases(
            run, steps.measures[target, "fp32"], steps.measures[target, precision], run.recipe.budget.wer
        )
        for target, precision in small.items()
    }
    real = {device.name for device in run.recipe.devices if not device.emulated}  # of others no ratio is measured
    pairs = [_pair_row(run, steps, key, increases[key[0]]) for key in steps.profiles if small and key[1] in real]
    lost = {target: list(found.values())[-1] for target, found in increases.items()}  # the last: over all splits
    buckets = [row for target in small for row in _bucket_rows(run, steps, target)]
    gains = list(_gains(run, steps, bundles))
    checks = [*judge(run.recipe.budget, bundles, pairs, lost), *_guard_checks(run, steps, buckets)]
    checks += judge_start(run.recipe.budget.start, gains, bundles)
    eager = _rates(run, steps.baseline)
    return Report(
        recipe=run.recipe.model_dump(mode="json", exclude_none=True),
        model=_model_row(run, steps.baseline),
        corpus=_corpus_row(run, eager),
        environment=_environment(run),
        verdict=Verdict(passed=all(check.passed for check in checks), checks=checks),
        stages=[StageRow(name=step.name, seconds=run.seconds(step)) for step in steps.stages],
        bundles=bundles,
        pairs=pairs,
        buckets=buckets,
        choices=choose(bundles, lost, run.recipe.budget),
        eager=eager,
        start=_start_row(run, steps.beginning.measured) if steps.beginning else None,
        gains=gains,
        search=_search(run),
        notes=[
            *emulated(bundles),
            *(
                f"{pair.target} on {pair.device}: int8 is slower than fp32 there. Use bundles/{pair.target}-fp32."
                for pair in pairs
                if pair.chosen == "fp32"
            ),
        ],
    )


def emulated(bundles: Sequence[BundleRow]) -> list[str]:
    """A line for each bundle that only rounds to its format: its WER is of that format, its time is not."""
    rows = [(bundle, [f for f, how in bundle.arithmetic.items() if how == "emulated"]) for bundle in bundles]
    return [
        f"{bundle.target} {bundle.precision}: {', '.join(found)} is emulated: rounded to, multiplied in float32."
        for bundle, found in rows
        if found
    ]


def describe_quality(folder: Path, row: BundleRow) -> None:
    """Tell the bundle what was measured of it: a device gets the bundle, not the report."""
    bundle = read_bundle(folder)
    measured = {
        "wer": {split: wer.model_dump() for split, wer in row.wer.items()},
        "parity": row.parity.model_dump() if row.parity else None,
    }
    if bundle.quality | measured != bundle.quality:
        update_quality(bundle, bundle.quality | measured)


def _bundle_row(run: Run, steps: Steps, target: str, precision: Precision) -> BundleRow:
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
                "size_mb": size_mb(run, steps.exports[target, precision]),
                "parity": ParityRow(**parity["summary"]).model_dump(),
                "wer": read_json(measured / "wer.json"),
                "profile": profiles,
                "integer_share": spec["quality"].get("integer_mac_share"),
                "arithmetic": spec["quality"].get("arithmetic", {}),
            }
        )
    )


def _search(run: Run) -> SearchRow | None:
    """Of the last search stage."""
    found = load_search(run.folder) if any(item.search for item in run.recipe.stages) else None
    return None if found is None else found[0]


def small_bundles(steps: Steps) -> dict[str, Precision]:
    """Target -> the precision beside fp32."""
    return {target: precision for target, precision in steps.exports if precision != "fp32"}


def _pair_row(run: Run, steps: Steps, key: tuple[str, str], increase: dict[str, Increase]) -> PairRow:
    """`key`: target and device."""
    target, device = key
    pair = read_json(run.folder / steps.profiles[key].name / "pair.json")
    small = small_bundles(steps)[target]
    sizes = {p: size_mb(run, steps.exports[target, p]) for p in ("fp32", small)}
    ratios = ("cpu_ratio", "wall_ratio", "cpu_ratio_min", "cpu_ratio_max")
    size_ratio = round(sizes[small] / sizes["fp32"], 4)
    timing = {name: pair[name] for name in ratios}
    chosen = "fp32" if slower(pair["cpu_ratio"], pair["cpu_ratio_min"], pair["cpu_ratio_max"]) else small
    return PairRow(
        target=target, device=device, size_ratio=size_ratio, wer_increase=increase, precision=small, chosen=chosen,
        cpu_ms=tuple(pair["cpu_ms"]), **timing,
    )  # fmt: skip


def _bucket_rows(run: Run, steps: Steps, target: str) -> list[BucketRow]:
    ci = run.recipe.budget.wer.ci if run.recipe.budget.wer else 95
    return bucket_rows(
        run, target, steps.guards[target, "fp32"], steps.guards[target, small_bundles(steps)[target]], ci
    )


def _guard_checks(run: Run, steps: Steps, buckets: list[BucketRow]) -> Iterator[Check]:
    for target in small_bundles(steps):
        if target in steps.inspections:  # other formats cannot be taken apart: docs/guards.md
            yield from file_checks(run, target, steps.inspections[target])
        yield from bucket_checks(run.recipe.budget, [row for row in buckets if row.target == target])


def _increases(run: Run, before: Step, after: Step, wanted: WerBudget | None) -> dict[str, Increase]:
    """By split, and last over all of them, where there are several."""
    from edgeav.measure import wer_increase

    first, second = (_transcripts(run, step) for step in (before, after))
    found, ci = {}, wanted.ci if wanted else 95
    splits = list(dict.fromkeys(row["split"] for row in first))
    for split in [*splits, ALL] if len(splits) > 1 else splits:
        chosen = [(a, b) for a, b in zip(first, second, strict=True) if split in (a["split"], ALL)]
        references, was, now = zip(*((a["reference"], a["text"], b["text"]) for a, b in chosen), strict=True)
        difference, low, high = wer_increase(references, was, now, ci, run.recipe.seed)
        found[split] = Increase(abs=difference, low=low, high=high)
    return found


def _transcripts(run: Run, step: Step) -> list[dict]:
    return [json.loads(line) for line in (run.folder / step.name / "transcripts.jsonl").read_text("utf-8").splitlines()]


def _gains(run: Run, steps: Steps, bundles: Sequence[BundleRow]) -> Iterator[GainRow]:
    if began := steps.beginning:
        finals = {target: steps.measures[target, precision] for target, precision in steps.exports}  # the last counts
        wanted = run.recipe.budget.start.wer if run.recipe.budget.start else None
        lost = {target: _increases(run, began.measured, measure, wanted) for target, measure in finals.items()}
        yield from gain_rows(run, began, bundles, lost)


def _start_row(run: Run, measured: Step) -> StartRow:
    return StartRow(model=_model_row(run, measured), wer=_rates(run, measured))


def _rates(run: Run, measured: Step) -> dict[str, WerRow]:
    """By split."""
    found = read_json(run.folder / measured.name / "wer.json")
    return {split: WerRow(**row) for split, row in found.items()}


def _model_row(run: Run, measured: Step) -> ModelRow:
    facts = read_json(run.folder / measured.name / "model.json")
    name = run.recipe.model if isinstance(run.recipe.model, str) else "new"
    return ModelRow(name=Path(name).name, **facts)


def _corpus_row(run: Run, eager: dict[str, WerRow]) -> CorpusRow:
    rows = {}
    for split in run.corpus.tests:
        found = eager[split.name]
        rows[split.name] = SplitRow(
            utterances=found.utterances, words=found.words, synthetic=split.synthetic, speakers=split.speakers
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


def provenance() -> dict[str, Any]:
    """commit, cpu, versions: what every measurement says of itself."""
    return {"commit": commit(), "cpu": machine()["cpu"], "versions": versions()}


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
