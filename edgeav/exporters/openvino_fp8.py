"""OpenVINO with FP8, by NNCF: FakeConvert around every layer.

OpenVINO's CPU plug-in emulates it: FakeConvert rounds to FP8, the product is float32, and the model is slower than
float32 (0.3x of its speed where it was measured). What it is good for is the accuracy, on OpenVINO itself.
https://docs.openvino.ai/2025/openvino-workflow/model-optimization-guide/quantizing-models-post-training.html
"""

from __future__ import annotations

from collections.abc import Sequence

import nncf
import openvino
from nncf.quantization.advanced_parameters import AdvancedQuantizationParameters, AdvancedSmoothQuantParameters
from nncf.quantization.range_estimator import RangeEstimatorParametersSet

from edgeav.exporters.onnx_weights import module_of_name
from edgeav.quant.plan import Format, role_of
from edgeav.runtime.features import Inputs

MODES: dict[Format, nncf.QuantizationMode] = {
    "fp8-e4m3": nncf.QuantizationMode.FP8_E4M3,
    "fp8-e5m2": nncf.QuantizationMode.FP8_E5M2,
}


def round_to_fp8(
    model: openvino.Model, format: Format, others: Sequence[str], calibration: Sequence[Inputs]
) -> openvino.Model:
    """`model` in FP8, but for the operators called one of `others`."""
    names = [value.any_name for value in model.inputs]
    return nncf.quantize(
        model,
        nncf.Dataset(calibration, lambda inputs: inputs.named(names)),
        mode=MODES[format],
        subset_size=len(calibration),
        model_type=nncf.ModelType.TRANSFORMER,
        ignored_scope=nncf.IgnoredScope(names=list(dict.fromkeys([*others, *_over_time(model)]))),
        advanced_parameters=AdvancedQuantizationParameters(
            activations_range_estimator_params=RangeEstimatorParametersSet.MINMAX,
            smooth_quant_alphas=AdvancedSmoothQuantParameters(matmul=-1, convolution=-1),  # off
        ),
    )


def _over_time(model: openvino.Model) -> list[str]:
    """Convolutions over time, one channel at a time.

    NNCF wants a range for each of their channels, which a transpose makes one for each step, and clips of different
    lengths then do not stack. In FP8 mode it takes no setting against that.
    """
    names = [op.get_friendly_name() for op in model.get_ordered_ops() if op.get_type_name() == "GroupConvolution"]
    return [name for name in names if role_of(module_of_name(name)) == "conv-depthwise"]
