"""OpenVINO IR: model.xml + model.bin, converted from the ONNX graph; int8 by NNCF's post-training quantization.

From ONNX rather than torch.export: the same speed, a tenth of the time, and operators keep the names of their modules.
https://docs.openvino.ai/nightly/openvino-workflow/model-optimization-guide/quantizing-models-post-training.html
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from edgeav.errors import needs
from edgeav.exporters.onnx import module_of_name
from edgeav.quant.plan import Plan
from edgeav.runtime.features import Inputs
from edgeav.runtime.openvino_core import core, signal_stack_kept
from edgeav.target import OpenVinoOptions

try:
    import nncf
    import openvino
    from nncf.quantization.advanced_parameters import (
        AdvancedQuantizationParameters,
        AdvancedSmoothQuantParameters,
        QuantizationParameters,
    )
    from nncf.quantization.range_estimator import RangeEstimatorParametersSet
except ImportError as error:
    raise needs("openvino", error.name or "openvino") from error

MODEL = "model.xml"
OPSET = 20  # of the ONNX graph in between
MULTIPLIES = ("Convolution", "GroupConvolution", "MatMul")
EXECUTES = ("Convolution", "GroupConvolution", "MatMul", "FullyConnected", "FullyConnectedQuantizedLegacy")
INTEGER = ("i8", "u8")


def write_openvino(source: Path, path: Path) -> None:
    """Convert the float32 ONNX file `source`; weights stay float32 (half precision is the default of save_model)."""
    openvino.save_model(openvino.convert_model(source), path, compress_to_fp16=False)


def write_quantized_openvino(
    source: Path, path: Path, plan: Plan, calibration: Sequence[Inputs], options: OpenVinoOptions
) -> None:
    """Convert `source` and quantize it: per channel in the weights, one range for a whole activation."""
    nncf.set_log_level(logging.ERROR)
    model = openvino.convert_model(source)
    names = [value.any_name for value in model.inputs]
    with signal_stack_kept():
        quantized = nncf.quantize(
            model,
            nncf.Dataset(calibration, lambda inputs: inputs.named(names)),
            subset_size=len(calibration),
            model_type=nncf.ModelType.TRANSFORMER,
            ignored_scope=nncf.IgnoredScope(names=_float_operators(model, plan)),
            advanced_parameters=_advanced(options),
        )
    openvino.save_model(quantized, path, compress_to_fp16=False)


def integer_modules(path: Path) -> set[str]:
    """The modules that OpenVINO computes in integer kernels, read from the graph as it compiles it on this machine."""
    compiled = core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    found = set()
    for node in compiled.get_runtime_model().get_ops():
        facts = node.get_rt_info()
        if _fact(facts, "layerType") in EXECUTES and _fact(facts, "runtimePrecision") in INTEGER:
            # A fused operator lists all it was made of; its own name may be that of the bias.
            found |= {module_of_name(name) for name in _fact(facts, "originalLayersNames").split(",") if "/" in name}
    return found


def _advanced(options: OpenVinoOptions) -> AdvancedQuantizationParameters:
    alpha = -1.0 if options.smooth_quant is None else options.smooth_quant  # NNCF's word for "off" is -1
    return AdvancedQuantizationParameters(
        # NNCF would give depthwise convolutions one range a channel, and push that through a transpose onto the time
        # axis, where clips of different lengths then do not stack.
        activations_quantization_params=QuantizationParameters(per_channel=False),
        # Its default averages the clips' minima and maxima: clips without one modality pull the range in, and the drift
        # was four times as large.
        activations_range_estimator_params=RangeEstimatorParametersSet.MINMAX,
        smooth_quant_alphas=AdvancedSmoothQuantParameters(matmul=alpha, convolution=-1.0),
    )


def _float_operators(model: openvino.Model, plan: Plan) -> list[str]:
    names = [op.get_friendly_name() for op in model.get_ordered_ops() if op.get_type_name() in MULTIPLIES]
    return [name for name in names if not plan.quantizes(module_of_name(name))]


def _fact(facts: dict, name: str) -> str:
    return facts[name].astype(str) if name in facts else ""
