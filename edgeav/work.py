"""What the steps of a run do: export a bundle, measure a recognizer on the test splits, profile a pair on a device.

Each fills a folder with JSON that `results.py` reads; none knows of keys, caches or resuming.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edgeav.buckets import plan_buckets
from edgeav.catalog import find_model
from edgeav.device import Device
from edgeav.errors import EdgeavError
from edgeav.run import Run, write_json
from edgeav.runtime.engines import padded
from edgeav.runtime.features import Inputs, model_inputs
from edgeav.runtime.inputs import SAMPLE_RATE_HZ, VIDEO_FPS, Features
from edgeav.target import Durations, Precision, Target

if TYPE_CHECKING:
    from edgeav.data.cache import DecodedClips
    from edgeav.data.corpus import Corpus, Media
    from edgeav.measure import Recognizer
    from edgeav.quant.calibration import CalibrationInputs
    from edgeav.quant.plan import Calibration, CalibrationNoise
    from edgeav.runtime.bundle import Bundle

LENGTHS_OF = 256  # training clips, whose lengths buckets are planned for
VOICES = 60  # training clips that babble is made of
GOLDEN_S = (0.64, 1.92)  # of a clip: half a megabyte of pixels, long enough for several words


def starting_model(run: Run) -> Path:
    """The folder of the model that the recipe begins with; for a new model one that holds model.json alone."""
    model = run.recipe.model
    if isinstance(model, str):
        return find_model(model)
    folder = run.scratch("config")
    (folder / "model.json").write_text(model.described("recipe: model.config").model_dump_json(indent=1))
    return folder


def export_bundle(run: Run, model_folder: Path, target: Target, precision: Precision, out: Path) -> Bundle:
    """Lower, quantize if asked, reload and describe: the whole bundle in `out`."""
    from edgeav.exporters import export
    from edgeav.models import load_model
    from edgeav.quant.plan import load_plan
    from edgeav.runtime.bundle import with_buckets

    model, plan = load_model(model_folder), None if precision == "fp32" else load_plan(model_folder)
    takes = model.config.inputs
    shown = plan.calibration if plan and plan.needs_calibration else None
    calibration = calibration_inputs(run, shown, takes) if shown else []
    bundle = export(model, target, precision, calibration, golden_inputs(run, takes), out, plan)
    return with_buckets(bundle, bucket_lengths(run, bundle, target.buckets)) if target.buckets else bundle


def bucket_lengths(run: Run, bundle: Bundle, wanted: int | Sequence[int] | Durations) -> list[int]:
    """The lengths in steps that a target asks for, or as many as it asks for, planned for the training clips."""
    rules = bundle.steps
    if isinstance(wanted, Durations):
        wanted = sorted({ceil(seconds * rules.per_second) for seconds in wanted.seconds})
    if not isinstance(wanted, int):
        outside = [steps for steps in wanted if not rules.min <= steps <= rules.max]
        if outside:
            raise EdgeavError(f"buckets: {outside}: {bundle.name} takes {rules.min} to {rules.max} steps")
        return sorted(wanted)
    clips = run.corpus.calibration(min(LENGTHS_OF, len(run.corpus.train)), run.recipe.seed)
    rows = run.decoded(run.recipe.corpus, run.recipe.seed, f"lengths-{len(clips)}", clips).rows
    lengths = Counter(min(rules.max, max(rules.min, ceil(row.duration_s * rules.per_second))) for row in rows)
    return plan_buckets(lengths, wanted)


def calibration_of(run: Run, utterances: int, noise: CalibrationNoise | None) -> Calibration:
    """Which clips a stage calibrates with; EdgeavError when there are too few."""
    from edgeav.quant.calibration import chosen
    from edgeav.quant.plan import Calibration

    seed = run.recipe.seed
    ids = tuple(clip.id for clip in chosen(run.corpus, utterances, seed))
    return Calibration(utterances=utterances, seed=seed, ids=ids, noise=noise)


def calibration_inputs(run: Run, plan: Calibration, features: Features) -> CalibrationInputs:
    """The clips that the quantize stage chose, decoded once for all targets."""
    from edgeav.quant.calibration import CalibrationInputs, chosen

    clips = chosen(run.corpus, plan.utterances, plan.seed)
    name = f"calibration-{plan.utterances}-{plan.seed}-by-length"
    decoded = run.decoded(run.recipe.corpus, run.recipe.seed, name, clips)
    return CalibrationInputs(decoded, features, plan.noise, plan.seed)


def training_voices(run: Run, name: str, corpus: Corpus) -> DecodedClips:
    """What babble is made of: clips of the training speakers of a corpus, which may be another than the recipe's."""
    voices = corpus.calibration(min(VOICES, len(corpus.train)), seed=7)
    return run.decoded(name, run.recipe.seed, f"voices-{len(voices)}", voices)


def golden_inputs(run: Run, features: Features) -> list[tuple[np.ndarray | None, Inputs]]:
    """The middle of one training clip, with the waveform its features came from."""
    sound, lips = _taken(run.corpus.calibration(1, run.recipe.seed)[0].media(), features)
    start_s, stop_s = GOLDEN_S
    sound = None if sound is None else sound[round(start_s * SAMPLE_RATE_HZ) : round(stop_s * SAMPLE_RATE_HZ)]
    lips = None if lips is None else lips[round(start_s * VIDEO_FPS) : round(stop_s * VIDEO_FPS)]
    return [(sound, model_inputs(sound, lips, features))]


def measure_eager(run: Run, model_folder: Path, out: Path) -> None:
    """WER of the PyTorch model itself, and what it costs to compute."""
    from edgeav.macs import gmac_per_second
    from edgeav.measure import recognizer
    from edgeav.models import load_model

    model = load_model(model_folder)
    params = sum(p.numel() for p in model.parameters())
    write_json(out / "model.json", {"params": params, "gmac_per_second": gmac_per_second(model)})
    _measure(run, recognizer(model), out)


def measure_bundle(run: Run, bundle_folder: Path, model_folder: Path, out: Path) -> None:
    """Reload the bundle in its engine; WER on every test split, and parity with PyTorch at several lengths."""
    from edgeav.exporters.parity import compare
    from edgeav.measure import Recognizer
    from edgeav.models import load_model
    from edgeav.runtime.bundle import read_bundle
    from edgeav.runtime.engines import open_engine

    bundle = read_bundle(bundle_folder)
    parity = compare(bundle, load_model(model_folder), list(parity_cases(run, bundle.features)))
    write_json(out / "parity.json", parity.as_dict())
    engine = open_engine(bundle)
    _measure(run, Recognizer(lambda x: engine.run(*x), bundle.features, bundle.tokens, bundle.blank), out)


def parity_cases(run: Run, features: Features) -> Iterator[Inputs]:
    """Three test clips at three lengths: complete, padded as in a batch, and if the model takes both heard, seen.

    The clips of a corpus may all be equally long, so the shortest and the middle one are cut.
    """
    clips = next(iter(test_clips(run).values()))
    order = sorted(range(len(clips)), key=lambda index: clips.rows[index].duration_s)
    for index, share in ((order[0], 0.4), (order[len(order) // 2], 0.7), (order[-1], 1.0)):
        sound, lips = _taken(clips.media(index), features)
        sound = None if sound is None else sound[: round(share * len(sound))]
        lips = None if lips is None else lips[: round(share * len(lips))]
        yield model_inputs(sound, lips, features)
        if features.audio and features.video:
            yield model_inputs(sound, None, features)
            yield model_inputs(None, lips, features)
        yield padded(model_inputs(sound, lips, features), 5)


def _taken(media: Media, features: Features) -> tuple[np.ndarray | None, np.ndarray | None]:
    """The sound and the lips of a clip, None for what the model does not take."""
    return media.waveform if features.audio else None, media.mouth if features.video else None


def profile_bundles(bundles: Sequence[Path], device: Device, out: Path) -> None:
    """Each bundle alone, and where there are two (fp32, int8) both in turn in one process for a fair ratio."""
    from edgeav.profiling import compare_pair, profile

    for bundle in bundles:
        found = profile(bundle, device, operators=not device.emulated)
        write_json(out / f"{bundle.name}.json", found.model_dump(mode="json"))
    if len(bundles) == 2 and not device.emulated:
        write_json(out / "pair.json", compare_pair(bundles[0], bundles[1], device))


def test_clips(run: Run) -> dict[str, DecodedClips]:
    """The test splits, decoded once for all measurements of this corpus."""
    clips = {s.name: run.decoded(run.recipe.corpus, run.recipe.seed, s.name, s.utterances) for s in run.corpus.tests}
    if not clips:
        raise EdgeavError(f"corpus {run.corpus.name} has no test split")
    return clips


def _measure(run: Run, recognizer: Recognizer, out: Path) -> None:
    """Transcripts of every test clip as JSON lines, and the WER of every split."""
    from edgeav.measure import word_error_rate

    rates = {}
    with (out / "transcripts.jsonl").open("w", encoding="utf-8") as file:
        for split, clips in test_clips(run).items():
            references, texts = [], []
            for index in run.progress.track(
                range(len(clips)), f"{out.name.strip('.').removesuffix('.part')} on {split}"
            ):
                media = clips.media(index)
                texts.append(recognizer.text(media.waveform, media.mouth))
                references.append(clips.rows[index].text)
                row = {"split": split, "index": index, "reference": references[-1], "text": texts[-1]}
                file.write(json.dumps(row, ensure_ascii=False) + "\n")
            rates[split] = word_error_rate(references, texts, run.recipe.seed).as_dict()
    write_json(out / "wer.json", rates)
