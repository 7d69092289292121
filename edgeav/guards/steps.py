"""What the guard steps of a run do: each fills a folder that `edgeav.results` judges. Measured once, like all steps."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from edgeav.data.acoustics import NoiseBank, make_bank
from edgeav.data.disturbance import Disturbance
from edgeav.exporters.rewrites import deployable
from edgeav.guards import inspect
from edgeav.guards.buckets import Case, length_cases, noise_cases
from edgeav.guards.numbers import Inspection
from edgeav.measure import blanks, greedy_text
from edgeav.models import AVModel, load_model
from edgeav.quant.census import macs_by_module
from edgeav.quant.plan import Plan, load_plan
from edgeav.run import Run, write_json
from edgeav.runtime.bundle import Bundle, read_bundle
from edgeav.runtime.engines import open_engine
from edgeav.work import calibration_inputs, test_clips, training_voices


def recognize_buckets(run: Run, bundle_folder: Path, out: Path) -> None:
    """transcripts.jsonl: of every bucket of lengths and noise, what was said, recognized, and left blank."""
    bundle = read_bundle(bundle_folder)
    engine, rows = open_engine(bundle), []
    for case in _cases(run, bundle):
        log_probs = engine.run(*case.inputs)
        text = greedy_text(log_probs, case.inputs, bundle.tokens, bundle.blank)
        facts = {"bucket": case.bucket, "reference": case.text, "text": text}
        rows.append(facts | blanks(log_probs, case.inputs, bundle.blank))
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    (out / "transcripts.jsonl").write_text(lines, encoding="utf-8")


def inspect_bundle(run: Run, bundle_folder: Path, float_folder: Path, model_folder: Path, out: Path) -> None:
    """inspection.json: the int8 file against the float one, number by number."""
    bundle, plan, model = read_bundle(bundle_folder), load_plan(model_folder), load_model(model_folder)
    clips = calibration_inputs(run, plan.calibration, bundle.features) if plan.calibration else []
    found = inspect(bundle, read_bundle(float_folder), model, plan, clips)
    write_json(out / "inspection.json", asdict(found) | {"integer_share": integer_share(model, plan, found)})


def integer_share(model: AVModel, plan: Plan, found: Inspection) -> float:
    """0..1: of the multiply-accumulates that the plan wants in integers, those that the runtime computes so."""
    macs = {path: count for path, count in macs_by_module(deployable(model)).items() if plan.quantizes(path)}
    missing = sum(count for path, count in macs.items() if path in found.not_integer)
    return 1 - missing / max(1, sum(macs.values()))


def _cases(run: Run, bundle: Bundle) -> Iterator[Case]:
    wanted, clips = run.recipe.budget.guards, next(iter(test_clips(run).values()))
    max_s = bundle.steps.max / bundle.steps.per_second
    yield from length_cases(clips, bundle.features, wanted.clips, max_s)
    if wanted.snr_db and bundle.features.audio:
        yield from noise_cases(clips, bundle.features, wanted.clips, _babble(run), wanted.snr_db)


def _babble(run: Run) -> NoiseBank:
    """Of training voices alone."""
    clips = training_voices(run, run.recipe.corpus, run.corpus)
    settings: dict[str, Any] = {"share": 1.0, "kinds": {"babble": 1.0}}
    return make_bank(Disturbance.model_validate(settings), [clips], run.recipe.seed)
