"""Is an int8 file really the float model, rounded? Read from the file itself, on any CPU, without a word error rate.

A drift of the outputs cannot tell a scale that is 10 % off in one layer from healthy rounding. So a file is
taken apart:

1. its numbers: every weight and bias within half a quantization step of the float model's, every range the one that
   calibration saw, every zero point the one that follows from its range (Jacob et al. 2018,
   https://arxiv.org/abs/1712.05877, equation 3);
2. its wiring: without its quantizers, and with the float numbers back in, it must compute what the float file does;
3. its kernels: what the plan wants in integers is in integers in the graph that the runtime really runs.

1 and 2 together prove the file, and need no tolerance that a healthy file on another CPU could break.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from edgeav.errors import EdgeavError

if TYPE_CHECKING:  # a recipe reads its settings from here, without torch
    from edgeav.guards.numbers import Inspection
    from edgeav.models import AVModel
    from edgeav.quant.plan import Plan
    from edgeav.runtime.bundle import Bundle
    from edgeav.runtime.features import Inputs


def inspectable(plan: Plan) -> bool:
    """Whether the files of this plan can be taken apart: static int8 with the plainest ranges, and float beside it."""
    return set(plan.formats) <= {"int8", "fp32"} and plan.ranges == "minmax"


def inspect(quantized: Bundle, float_bundle: Bundle, model: AVModel, plan: Plan, clips: Sequence[Inputs]) -> Inspection:
    """Everything that is wrong with a static int8 bundle. `clips` are those that it was calibrated on.

    `float_bundle` is the same model's for the same target, `model` the PyTorch model of both; neither is changed.
    """
    from edgeav.guards.numbers import few

    clips = few(clips) if plan.learned else clips  # no clip has any part in learned ranges
    match quantized.engine:
        case "onnxruntime":
            from edgeav.guards.onnx_file import inspect_onnx, made_from

            with made_from(model, plan, int(quantized.exported["opset"])) as path:
                return inspect_onnx(quantized.model_path, path, plan, clips)
        case "openvino":
            from edgeav.guards.openvino_file import inspect_openvino

            return inspect_openvino(quantized.model_path, float_bundle.model_path, plan, clips)
        case "executorch":
            from edgeav.guards.executorch_file import inspect_executorch

            return inspect_executorch(quantized, model, plan, clips)
        case other:
            raise EdgeavError(f"{quantized.folder}: no inspection of {other} files")
