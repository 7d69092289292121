"""What an int8 model is worth: its speed, all models in turn; its share of integers; WER and drift on test clips.

All of it in our process and our runtime, whoever made the file: for that, a peer's model becomes a bundle.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeav.data.cache import DecodedClips
from edgeav.errors import EdgeavError
from edgeav.exporters.rewrites import deployable
from edgeav.measure import greedy_text, wer_increase, word_error_rate
from edgeav.models import AVModel
from edgeav.quant.census import mac_share
from edgeav.quant.plan import Plan
from edgeav.quant.rod import divergence
from edgeav.run import read_json, write_json
from edgeav.runtime.bench import Workload, random_inputs, time_runs
from edgeav.runtime.bundle import FILE, Bundle, read_bundle, write_bundle
from edgeav.runtime.engines import Engine, open_engine
from edgeav.runtime.features import Inputs, model_inputs

FACTS, TEXTS, LOG_PROBS, SPEED = "facts.json", "texts.json", "log_probs.npz", "speed.json"
WORKLOAD = Workload(seconds=4.0, iterations=5, warmup=2)


def bundle_of(made: Path, like: Path, name: str, out: Path) -> None:
    """What a peer made, as a bundle in `out`: inputs and outputs as those of the bundle `like`, no golden vectors."""
    out.mkdir(parents=True)
    for path in made.glob("model.*"):
        shutil.copy(path, out)
    spec = json.loads((like / FILE).read_text())
    spec = {key: value for key, value in spec.items() if key not in ("schema", "files")}
    write_bundle(out, spec=spec | {"name": name, "golden": [], "quality": {}, "exported": {}})


def race(folders: Mapping[str, Path], rounds: int, out: Path) -> None:
    """speed.json: CPU milliseconds of each bundle in each round, all in turn; or why it does not run."""
    running, errors = {}, {}
    for name, folder in folders.items():
        try:
            engine, inputs = open_engine(read_bundle(folder)), random_inputs(read_bundle(folder), WORKLOAD)
            _answer(engine, inputs)
            running[name] = engine, inputs
        except EdgeavError as error:
            errors[name] = _short(error)
    cpu_ms: dict[str, list[float]] = {name: [] for name in running}
    for _ in range(rounds):
        for name, (engine, inputs) in running.items():
            cpu_ms[name].append(round(float(np.median(time_runs(engine, inputs, WORKLOAD)[1])), 3))
    write_json(out / SPEED, {"cpu_ms": cpu_ms, "errors": errors})


def times_faster(before_ms: Sequence[float], after_ms: Sequence[float]) -> list[float]:
    """Milliseconds of the same rounds -> before/after: [median, lowest, highest]."""
    ratios = np.array(before_ms) / np.array(after_ms)
    return [round(float(value), 3) for value in (np.median(ratios), ratios.min(), ratios.max())]


def hear(folder: Path, model: AVModel, clips: DecodedClips, out: Path) -> None:
    """facts.json (bytes, integer share, error), and what the bundle in `folder` makes of every clip if it takes all."""
    bundle = read_bundle(folder)
    facts: dict[str, Any] = {"error": None, "mb": round(bundle.size_bytes / 1e6, 2), "integer_mac_share": None}
    try:
        engine = open_engine(bundle)
        facts["integer_mac_share"] = mac_share(deployable(model), _integer_modules(bundle))
        _recognize(engine, bundle, clips, out)
    except EdgeavError as error:
        facts["error"] = _short(error)
    write_json(out / FACTS, facts)


def quality(clips: DecodedClips, fp32: Path, ours: Path, heard: Path) -> dict[str, Any]:
    """WER; its increase over our fp32's, and that of our int8's over it, with intervals; the drift in nats a step.

    The three folders are those that `hear` filled.
    """
    references = [row.text for row in clips.rows]
    float_texts, our_texts, texts = (read_json(folder / TEXTS) for folder in (fp32, ours, heard))
    with np.load(fp32 / LOG_PROBS) as true, np.load(heard / LOG_PROBS) as found:
        drift = float(np.mean([divergence(true[name], found[name]) for name in true.files]))
    return {
        "wer": word_error_rate(references, texts).as_dict(),
        "increase": wer_increase(references, float_texts, texts),
        "ours_increase": wer_increase(references, texts, our_texts),
        "drift": round(drift, 5),
    }


def _recognize(engine: Engine, bundle: Bundle, clips: DecodedClips, out: Path) -> None:
    texts, answers = [], {}
    for index, inputs in enumerate(_inputs(clips, bundle)):
        answer = _answer(engine, inputs)
        texts.append(greedy_text(answer, inputs, bundle.tokens, bundle.blank))
        answers[f"{index:04}"] = answer[0]
    write_json(out / TEXTS, texts)
    np.savez(out / LOG_PROBS, **answers)


def _integer_modules(bundle: Bundle) -> set[str]:
    """By the names of the nodes, which peers keep."""
    if bundle.precision == "fp32":
        return set()
    if bundle.engine == "onnxruntime":
        from edgeav.exporters.onnx import integer_modules

        return integer_modules(bundle.model_path)
    from edgeav.exporters.openvino import integer_modules as compiled_modules

    return compiled_modules(bundle.model_path, Plan(keep_float=()))


def _answer(engine: Engine, inputs: Inputs) -> NDArray[np.float32]:
    try:
        answer = engine.run(*inputs)
    except Exception as error:  # the runtimes' exceptions share no other base
        raise EdgeavError(f"refuses a clip of {inputs.steps} steps: {error}") from error
    if answer.shape[1] != inputs.steps:
        raise EdgeavError(f"its time axis is frozen: {answer.shape[1]} steps for a clip of {inputs.steps}")
    return answer


def _inputs(clips: DecodedClips, bundle: Bundle) -> Iterator[Inputs]:
    features = bundle.features
    for index in range(len(clips)):
        media = clips.media(index)
        sound, lips = media.waveform if features.audio else None, media.mouth if features.video else None
        yield model_inputs(sound, lips, features)


def _short(error: EdgeavError) -> str:
    return " ".join(str(error).split())[:300]
