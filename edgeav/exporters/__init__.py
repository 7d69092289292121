"""From a model to a bundle: rewrite, lower with the engine's own tools, reload, record golden vectors, describe.

To add an engine: write its module here, and one case in `_lower` and in `edgeav.runtime.engines.open_engine`.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeav import __version__
from edgeav.errors import EdgeavError
from edgeav.exporters.parity import eager_log_probs, largest_difference
from edgeav.exporters.rewrites import by_rows, deployable, onnxruntime_form, openvino_form
from edgeav.models import AVModel
from edgeav.quant.census import mac_share
from edgeav.quant.plan import Plan
from edgeav.quant.support import arithmetic, check
from edgeav.runtime import ctc
from edgeav.runtime.bundle import Bundle, write_bundle, write_golden
from edgeav.runtime.bundle_check import input_entries, output_entries, step_entries
from edgeav.runtime.engines import open_engine, optimizes
from edgeav.runtime.features import Inputs
from edgeav.runtime.inputs import settings
from edgeav.target import AotiOptions, ExecuTorchOptions, OnnxRuntimeOptions, OpenVinoOptions, Precision, Target

GoldenInputs = Sequence[tuple[NDArray[np.float32] | None, Inputs]]

FP32_TOLERANCE = 1e-3  # what parity allows a float artifact
LEAST_TOLERANCE = 0.05  # of any other format; see _tolerance


@dataclass(frozen=True)
class Lowered:
    """What an engine's exporter made in the bundle's folder."""

    model: str
    max_steps: int
    integer_modules: set[str]
    counted: str
    exported: dict[str, str]
    form: AVModel  # in which the work of the modules named here is counted
    fp8_modules: frozenset[str] = frozenset()  # that multiply in FP8, not only round to it


def export(
    model: AVModel,
    target: Target,
    precision: Precision,
    calibration: Sequence[Inputs],
    golden: GoldenInputs,
    folder: Path,
    plan: Plan | None = None,
) -> Bundle:
    """Write the complete bundle of `model` for `target` into the empty `folder`.

    `calibration` is needed for formats with ranges; `golden` are (waveform or None, its inputs) to record; `plan` says
    what has which format (None: all of them `precision`, but for the plan's defaults). `model` is not changed.
    """
    chosen = None if precision == "fp32" else plan or Plan(format=precision)
    if chosen:
        check(target.name, target.engine, chosen)
        if chosen.needs_calibration and not calibration:
            raise EdgeavError(f"{target.name}: {precision} needs calibration utterances, none were given")
    folder.mkdir(parents=True, exist_ok=True)
    ready = deployable(model)
    lowered = _lower(ready, target, chosen, calibration, folder)
    spec = _describe(model, target, precision, lowered)
    if chosen:
        share = mac_share(lowered.form, lowered.integer_modules)
        spec["quality"] = {"integer_mac_share": share, "integer_mac_counted": lowered.counted}
        spec["quality"]["arithmetic"] = arithmetic(target.engine, chosen)
        if lowered.fp8_modules:
            spec["quality"]["fp8_mac_share"] = mac_share(lowered.form, lowered.fp8_modules)
    bundle = write_bundle(folder, spec=spec)
    spec["golden"] = _record(bundle, model, golden)
    return write_bundle(folder, spec=spec)


def _lower(model: AVModel, target: Target, plan: Plan | None, calibration: Sequence[Inputs], folder: Path) -> Lowered:
    """Write the model files; without a plan all of it is float32."""
    match target.options:
        case OnnxRuntimeOptions() as options:
            return _lower_onnx(model, options, plan, calibration, folder)
        case OpenVinoOptions() as options:
            return _lower_openvino(model, options, plan, calibration, folder)
        case ExecuTorchOptions() as options:
            return _lower_executorch(model, options, plan, calibration, folder)
        case AotiOptions() as options:
            return _lower_aoti(model, options, plan, folder)


def _lower_onnx(
    model: AVModel, options: OnnxRuntimeOptions, plan: Plan | None, calibration: Sequence[Inputs], folder: Path
) -> Lowered:
    from edgeav.exporters.onnx import MODEL, integer_form, integer_modules, quantize_onnx, write_onnx

    path, integer = folder / MODEL, set[str]()
    form = integer_form(model, plan) if plan else onnxruntime_form(model)
    if plan is None:
        write_onnx(form, path, options.opset)
    else:
        with tempfile.TemporaryDirectory() as place:
            write_onnx(form, Path(place) / MODEL, options.opset)
            quantize_onnx(Path(place) / MODEL, path, plan, calibration)
        integer = integer_modules(path) if optimizes(plan.format) else integer
    exported = _versions("torch", "onnx", "onnxruntime") | {"opset": str(options.opset)}
    counted = "multiply-accumulates of 4 s in integer kernels of the graph as ONNX Runtime optimized it when exporting"
    return Lowered(MODEL, model.config.max_steps, integer, counted, exported, form)


def _lower_openvino(
    model: AVModel, options: OpenVinoOptions, plan: Plan | None, calibration: Sequence[Inputs], folder: Path
) -> Lowered:
    from edgeav.exporters.graph import clips_to_run
    from edgeav.exporters.onnx import write_onnx
    from edgeav.exporters.openvino import MODEL, OPSET, integer_modules, write_openvino, write_quantized_openvino

    path, integer, form = folder / MODEL, set[str](), openvino_form(model)
    with tempfile.TemporaryDirectory() as place:
        source = Path(place) / "model.onnx"
        write_onnx(form, source, OPSET)
        if plan is None:
            write_openvino(source, path)
        else:
            write_quantized_openvino(source, path, plan, clips_to_run(plan, calibration, form.config.inputs), options)
            integer = integer_modules(path, plan)
    exported = _versions("torch", "onnx", "openvino", "nncf") | {"opset": str(OPSET)}
    counted = "multiply-accumulates of 4 s in layers that OpenVINO compiled to i8 or u8 when exporting"
    return Lowered(MODEL, model.config.max_steps, integer, counted, exported, form)


def _lower_executorch(
    model: AVModel, options: ExecuTorchOptions, plan: Plan | None, calibration: Sequence[Inputs], folder: Path
) -> Lowered:
    from edgeav.exporters.executorch import MODEL, write_executorch, write_quantized_executorch

    asked = int(options.max_seconds * model.config.inputs.steps_per_second)
    path, steps = folder / MODEL, min(asked, model.config.max_steps)
    turned = by_rows(model)
    if plan is None:
        integer = write_executorch(turned, path, steps)
    else:
        integer = write_quantized_executorch(turned, path, steps, plan, calibration)
    counted = "multiply-accumulates of 4 s in quantized operators delegated to XNNPACK"
    return Lowered(MODEL, steps, integer, counted, _versions("torch", "executorch", "torchao"), model)


def _lower_aoti(model: AVModel, options: AotiOptions, plan: Plan | None, folder: Path) -> Lowered:
    from edgeav.exporters.aoti import MODEL, write_aoti

    asked = int(options.max_seconds * model.config.inputs.steps_per_second)
    steps = min(asked, model.config.max_steps)
    fp8 = write_aoti(model, folder / MODEL, steps, plan, options.device)
    exported = _versions("torch", "torchao") | {"device": options.device}
    return Lowered(MODEL, steps, set(), "nothing: there are no integer kernels", exported, model, frozenset(fp8))


def _versions(*packages: str) -> dict[str, str]:
    return {"edgeav": __version__} | {package: version(package) for package in packages}


def _describe(model: AVModel, target: Target, precision: Precision, lowered: Lowered) -> dict[str, Any]:
    """bundle.json without its files and golden vectors."""
    config = model.config
    return {
        "name": f"{target.name}-{precision}",
        "engine": target.engine,
        "precision": precision,
        "model": lowered.model,
        "inputs": input_entries(config.inputs),
        "outputs": output_entries(config.tokens, config.blank),
        "steps": step_entries(config.inputs, lowered.max_steps),
        "features": settings(config.inputs),
        "tokens": list(config.tokens),
        "blank": config.blank,
        "golden": [],
        "quality": {},
        "exported": lowered.exported,
    }


def _record(bundle: Bundle, model: AVModel, golden: GoldenInputs) -> list[dict[str, Any]]:
    """Store inputs with what a sound runtime must answer: in fp32 eager PyTorch's, else the reloaded artifact's."""
    engine = open_engine(bundle)
    entries = []
    for number, (waveform, inputs) in enumerate(golden):
        eager = eager_log_probs(model, inputs)
        answer = eager if bundle.precision == "fp32" else engine.run(*inputs)
        arrays: dict[str, NDArray] = {} if waveform is None else {"waveform": waveform}
        arrays |= inputs.named(bundle.input_names) | {"log_probs": answer}
        text = ctc.decode(answer[0], bundle.tokens, bundle.blank, inputs.presence[0]).text
        tolerance = _tolerance(bundle, largest_difference(answer, eager, inputs))
        entries.append(write_golden(bundle.folder, f"clip-{number}", arrays, transcript=text, tolerance=tolerance))
    return entries


def _tolerance(bundle: Bundle, drift: float) -> float:
    """In fewer bits another CPU's kernels round differently, which can add up to as much as the format itself did."""
    return FP32_TOLERANCE if bundle.precision == "fp32" else round(max(LEAST_TOLERANCE, drift), 4)
