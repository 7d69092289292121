"""Learned ranges -> the FakeQuantize operators of an OpenVINO model, in the place of what calibration put there.

NNCF decides where numbers are rounded, so that a file with learned ranges is as fast as a calibrated one. Converted
from ONNX Runtime's QDQ file, which OpenVINO reads too, `av-student-medium` was 1.14 times as slow.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from openvino import Model, Node, opset13

from edgeav.exporters.onnx_learned import ranges_of
from edgeav.exporters.onnx_weights import module_of_name
from edgeav.exporters.openvino_pictures import borders, grid
from edgeav.quant.plan import Ends, Plan

MULTIPLIES = ("Convolution", "GroupConvolution", "MatMul")
MOVES = ("Reshape", "Transpose", "Unsqueeze", "Squeeze", "Concat", "Slice", "Pad")


def set_learned(model: Model, plan: Plan) -> None:
    """Every FakeQuantize gets the range of the layer that reads it. One that no layer reads goes. Changes `model`.

    EdgeavError for a layer that the plan has no range for.
    """
    for quantizer in quantizers(model):
        ends = learned_ends(quantizer, plan)
        if ends is None:
            quantizer.output(0).replace(quantizer.input_value(0))
            continue
        whole = borders(*grid(*ends))  # zero is one of the levels, as it was in training
        for side, end in enumerate([*whole, *whole], start=1):
            shape = tuple(quantizer.input_value(side).get_shape())
            quantizer.input(side).replace_source_output(opset13.constant(np.full(shape, end, np.float32)).output(0))
    model.validate_nodes_and_infer_types()


def quantizers(model: Model) -> list[Node]:
    """The FakeQuantize operators of activations."""
    return [op for op in model.get_ordered_ops() if op.get_type_name() == "FakeQuantize"]


def learned_ends(quantizer: Node, plan: Plan) -> Ends | None:
    """What training found for the first layer that reads it; all that do share one range. None: no layer does."""
    paths = (module_of_name(layer.get_friendly_name()) for layer in _layers(quantizer))
    return next((ranges_of(plan, path).given for path in paths if plan.quantizes(path)), None)


def _layers(node: Node) -> Iterator[Node]:
    """What multiplies the output of `node`, moved at most, by weights."""
    for reader in node.output(0).get_target_inputs():
        operator = reader.get_node()
        if operator.get_type_name() in MULTIPLIES:
            yield operator
        elif operator.get_type_name() in MOVES:
            yield from _layers(operator)
