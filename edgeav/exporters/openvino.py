"""OpenVINO IR: model.xml + model.bin, converted from the ONNX graph; int8 and small weights by NNCF.

From ONNX rather than torch.export: the same speed, a tenth of the time, and operators keep the names of their modules.
https://docs.openvino.ai/nightly/openvino-workflow/model-optimization-guide/quantizing-models-post-training.html
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from edgeav.errors import EdgeavError, needs
from edgeav.exporters.onnx_weights import module_of_name
from edgeav.exporters.openvino_learned import MULTIPLIES, set_learned
from edgeav.exporters.openvino_pictures import pictures_as_bytes
from edgeav.quant.plan import FP8, Format, Plan, Ranges
from edgeav.quant.ranges import KEPT_PERCENT
from edgeav.runtime.features import Inputs
from edgeav.runtime.openvino_core import core, signal_stack_kept
from edgeav.target import OpenVinoOptions

try:
    import nncf
    import openvino
    from nncf.quantization.advanced_parameters import (
        AdvancedCompressionParameters,
        AdvancedQuantizationParameters,
        AdvancedSmoothQuantParameters,
        GroupSizeFallbackMode,
        QuantizationParameters,
    )
    from nncf.quantization.range_estimator import (
        AggregatorType,
        RangeEstimatorParameters,
        RangeEstimatorParametersSet,
        StatisticsCollectorParameters,
        StatisticsType,
    )
except ImportError as error:
    raise needs("openvino", error.name or "openvino") from error

MODEL = "model.xml"
OPSET = 20  # of the ONNX graph in between
EXECUTES = ("Convolution", "GroupConvolution", "MatMul", "FullyConnected", "FullyConnectedQuantizedLegacy")
INTEGER = ("i8", "u8")
INT4_GROUP = 64  # weights with one scale
COMPRESSED: tuple[tuple[nncf.CompressWeightsMode, tuple[Format, ...]], ...] = (
    (nncf.CompressWeightsMode.INT8_SYM, ("int8-weights", "int8-dynamic")),
    (nncf.CompressWeightsMode.INT4_SYM, ("int4-weights",)),
)


def write_openvino(source: Path, path: Path) -> None:
    """Convert the float32 ONNX file `source`; weights stay float32 (half precision is the default of save_model)."""
    openvino.save_model(openvino.convert_model(source), path, compress_to_fp16=False)


@signal_stack_kept()
def write_quantized_openvino(
    source: Path, path: Path, plan: Plan, calibration: Sequence[Inputs], options: OpenVinoOptions
) -> None:
    """Convert `source` and bring it to the plan's formats. bf16 leaves the file alone: who opens it asks for that."""
    nncf.set_log_level(logging.ERROR)
    model = openvino.convert_model(source)
    if plan.format in FP8:
        from edgeav.exporters.openvino_fp8 import round_to_fp8

        model = round_to_fp8(model, plan.format, _others(model, plan, (plan.format,)), calibration)
    if "int8" in plan.formats:
        model = _quantized(model, plan, calibration, options)
        if plan.learned:
            set_learned(model, plan)
        pictures_as_bytes(model)
    for mode, formats in COMPRESSED:
        if any(f in plan.formats for f in formats):
            model = _compressed(model, plan, mode, formats)
    openvino.save_model(model, path, compress_to_fp16=plan.format == "fp16")


def integer_modules(path: Path, plan: Plan) -> set[str]:
    """The modules that OpenVINO computes in integer kernels, read from the graph as it compiles it on this machine.

    It calls a layer with small weights i8 whether or not it rounds activations too, which it only does on demand: of
    those the plan knows.
    """
    compiled = core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    found = set()
    for node in compiled.get_runtime_model().get_ops():
        facts = node.get_rt_info()
        if _fact(facts, "layerType") in EXECUTES and _fact(facts, "runtimePrecision") in INTEGER:
            # A fused operator lists all it was made of; its own name may be that of the bias.
            found |= {module_of_name(name) for name in _fact(facts, "originalLayersNames").split(",") if "/" in name}
    return {path for path in found if plan.has(path, "int8", "int8-dynamic")}


def _quantized(
    model: openvino.Model, plan: Plan, calibration: Sequence[Inputs], options: OpenVinoOptions
) -> openvino.Model:
    """Per channel in the weights, one range for a whole activation; for learned ones any clip will do."""
    names = [value.any_name for value in model.inputs]
    return nncf.quantize(
        model,
        nncf.Dataset(calibration, lambda inputs: inputs.named(names)),
        subset_size=len(calibration),
        model_type=nncf.ModelType.TRANSFORMER,
        ignored_scope=nncf.IgnoredScope(names=_others(model, plan, ("int8",))),
        advanced_parameters=_advanced(options, plan),
    )


def _compressed(
    model: openvino.Model, plan: Plan, mode: nncf.CompressWeightsMode, formats: tuple[Format, ...]
) -> openvino.Model:
    """Small weights in the linear layers of these formats."""
    scope, four = nncf.IgnoredScope(names=_others(model, plan, formats)), mode is nncf.CompressWeightsMode.INT4_SYM
    if not four:
        return nncf.compress_weights(model, mode=mode, ignored_scope=scope)
    return nncf.compress_weights(
        model,
        mode=mode,
        group_size=INT4_GROUP,
        all_layers=True,
        ignored_scope=scope,
        advanced_parameters=AdvancedCompressionParameters(group_size_fallback_mode=GroupSizeFallbackMode.ADJUST),
    )


def _advanced(options: OpenVinoOptions, plan: Plan) -> AdvancedQuantizationParameters:
    smooth = None if plan.learned else options.smooth_quant  # what was learned is of activations as they are
    alpha = -1.0 if smooth is None else smooth  # NNCF's word for "off" is -1
    return AdvancedQuantizationParameters(
        # NNCF would give depthwise convolutions one range a channel, and push that through a transpose onto the time
        # axis, where clips of different lengths then do not stack.
        activations_quantization_params=QuantizationParameters(per_channel=False),
        # Its default averages the clips' minima and maxima: clips without one modality pull the range in, and the drift
        # was four times as large.
        activations_range_estimator_params=_estimator(plan.ranges),
        disable_bias_correction=bool(plan.learned),  # training saw to it
        smooth_quant_alphas=AdvancedSmoothQuantParameters(matmul=alpha, convolution=-1.0),
    )


def _estimator(ranges: Ranges) -> RangeEstimatorParameters:
    match ranges:
        case "minmax":
            return RangeEstimatorParametersSet.MINMAX
        case "percentile":
            tail = (1 - KEPT_PERCENT / 100) / 2
            quantile = partial(StatisticsCollectorParameters, StatisticsType.QUANTILE, quantile_outlier_prob=tail)
            # The widest of the clips', not their mean: see above.
            return RangeEstimatorParameters(quantile(AggregatorType.MIN), quantile(AggregatorType.MAX))
        case "mse":
            return RangeEstimatorParametersSet.HISTOGRAM
        case "entropy":
            raise EdgeavError("openvino has no entropy ranges; it has minmax, percentile, mse")


def _others(model: openvino.Model, plan: Plan, formats: tuple[Format, ...]) -> list[str]:
    """Names of the operators that multiply and have none of these formats."""
    names = [op.get_friendly_name() for op in model.get_ordered_ops() if op.get_type_name() in MULTIPLIES]
    return [name for name in names if not plan.has(module_of_name(name), *formats)]


def _fact(facts: dict, name: str) -> str:
    return facts[name].astype(str) if name in facts else ""
