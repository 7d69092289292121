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
from edgeav.exporters.rewrites import deployable
from edgeav.models import AVModel
from edgeav.quant.census import integer_mac_share
from edgeav.quant.plan import Plan
from edgeav.runtime import ctc
from edgeav.runtime.bundle import Bundle, write_bundle, write_golden
from edgeav.runtime.bundle_check import input_entries, output_entries, step_entries
from edgeav.runtime.engines import open_engine
from edgeav.runtime.features import Inputs
from edgeav.runtime.inputs import settings
from edgeav.target import ExecuTorchOptions, OnnxRuntimeOptions, OpenVinoOptions, Precision, Target

GoldenInputs = Sequence[tuple[NDArray[np.float32] | None, Inputs]]

FP32_TOLERANCE = 1e-3  # what parity allows a float artifact
INT8_TOLERANCE = 0.05  # the least; see _tolerance


@dataclass(frozen=True)
class Lowered:
    """What an engine's exporter made in the bundle's folder."""

    model: str
    max_steps: int
    integer_modules: set[str]
    counted: str
    exported: dict[str, str]


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

    `calibration` is needed for int8 only; `golden` are (waveform or None, its inputs) to record; `plan` says what stays
    float (None: the plan's defaults). `model` is not changed.
    """
    if precision == "int8" and not calibration:
        raise EdgeavError(f"{target.name}: int8 needs calibration utterances, none were given")
    folder.mkdir(parents=True, exist_ok=True)
    ready = deployable(model)
    lowered = _lower(ready, target, calibration if precision == "int8" else None, plan or Plan(), folder)
    spec = _describe(model, target, precision, lowered)
    if precision == "int8":
        share = integer_mac_share(ready, lowered.integer_modules)
        spec["quality"] = {"integer_mac_share": share, "integer_mac_counted": lowered.counted}
    bundle = write_bundle(folder, spec=spec)
    spec["golden"] = _record(bundle, model, golden)
    return write_bundle(folder, spec=spec)


def _lower(model: AVModel, target: Target, calibration: Sequence[Inputs] | None, plan: Plan, folder: Path) -> Lowered:
    """Write the model files; `calibration` None means float."""
    match target.options:
        case OnnxRuntimeOptions() as options:
            return _lower_onnx(model, options, calibration, plan, folder)
        case OpenVinoOptions() as options:
            return _lower_openvino(model, options, calibration, plan, folder)
        case ExecuTorchOptions() as options:
            return _lower_executorch(model, options, calibration, plan, folder)


def _lower_onnx(
    model: AVModel, options: OnnxRuntimeOptions, calibration: Sequence[Inputs] | None, plan: Plan, folder: Path
) -> Lowered:
    from edgeav.exporters.onnx import MODEL, integer_modules, quantize_onnx, write_onnx

    path, integer = folder / MODEL, set[str]()
    if calibration is None:
        write_onnx(model, path, options.opset)
    else:
        with tempfile.TemporaryDirectory() as place:
            write_onnx(model, Path(place) / MODEL, options.opset)
            quantize_onnx(Path(place) / MODEL, path, plan, calibration)
        integer = integer_modules(path)
    exported = _versions("torch", "onnx", "onnxruntime") | {"opset": str(options.opset)}
    counted = "multiply-accumulates of 4 s in integer kernels of the graph as ONNX Runtime optimized it when exporting"
    return Lowered(MODEL, model.config.max_steps, integer, counted, exported)


def _lower_openvino(
    model: AVModel, options: OpenVinoOptions, calibration: Sequence[Inputs] | None, plan: Plan, folder: Path
) -> Lowered:
    from edgeav.exporters.onnx import write_onnx
    from edgeav.exporters.openvino import MODEL, OPSET, integer_modules, write_openvino, write_quantized_openvino

    path, integer = folder / MODEL, set[str]()
    with tempfile.TemporaryDirectory() as place:
        source = Path(place) / "model.onnx"
        write_onnx(model, source, OPSET)
        if calibration is None:
            write_openvino(source, path)
        else:
            write_quantized_openvino(source, path, plan, calibration, options)
            integer = integer_modules(path)
    exported = _versions("torch", "onnx", "openvino", "nncf") | {"opset": str(OPSET)}
    counted = "multiply-accumulates of 4 s in layers that OpenVINO compiled to i8 or u8 when exporting"
    return Lowered(MODEL, model.config.max_steps, integer, counted, exported)


def _lower_executorch(
    model: AVModel, options: ExecuTorchOptions, calibration: Sequence[Inputs] | None, plan: Plan, folder: Path
) -> Lowered:
    from edgeav.exporters.executorch import MODEL, write_executorch, write_quantized_executorch

    asked = int(options.max_seconds * model.config.inputs.steps_per_second)
    path, steps = folder / MODEL, min(asked, model.config.max_steps)
    if calibration is None:
        integer = write_executorch(model, path, steps)
    else:
        integer = write_quantized_executorch(model, path, steps, plan, calibration)
    counted = "multiply-accumulates of 4 s in quantized operators delegated to XNNPACK"
    return Lowered(MODEL, steps, integer, counted, _versions("torch", "executorch", "torchao"))


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
    """Store inputs with what a sound runtime must answer: in float eager PyTorch's, in int8 the reloaded artifact's."""
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
    """In int8 another CPU's kernels round differently, which can add up to as much as the quantization itself did."""
    return FP32_TOLERANCE if bundle.precision == "fp32" else round(max(INT8_TOLERANCE, drift), 4)
