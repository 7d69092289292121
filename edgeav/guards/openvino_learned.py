"""An int8 OpenVINO file with learned ranges, which is a converted ONNX file.

No clip has any part in it, so that it can be made again. The ONNX file in between is taken apart as every other one,
and what OpenVINO makes of it must be the file, number by number.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import zip_longest
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import numpy as np
from openvino import Model, Node, convert_model

from edgeav.exporters.onnx import quantize_onnx, write_onnx
from edgeav.exporters.openvino import OPSET, integer_modules
from edgeav.exporters.rewrites import deployable, openvino_form
from edgeav.guards.numbers import Inspection
from edgeav.guards.onnx_file import inspect_onnx
from edgeav.models import AVModel
from edgeav.quant.plan import Plan
from edgeav.runtime.openvino_core import core

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgeav.runtime.features import Inputs


def inspect_learned(path: Path, model: AVModel, plan: Plan, clips: Sequence[Inputs]) -> Inspection:
    """Numbers, wiring and kernels of the int8 file at `path`, made from `model` with the plan's learned ranges."""
    form = openvino_form(deployable(model))
    with TemporaryDirectory() as place:
        source, rounded = Path(place) / "float.onnx", Path(place) / "int8.onnx"
        write_onnx(form, source, OPSET)
        quantize_onnx(source, rounded, plan, [], other_runtime=True)
        found = inspect_onnx(rounded, source, plan, clips, other_runtime=True)
        changed = [*differences(core().read_model(path), convert_model(rounded))]
    integer, there = integer_modules(path, plan), dict(form.named_modules())
    not_integer = tuple(sorted(layer for layer in plan.learned or {} if layer in there and layer not in integer))
    return replace(found, not_integer=not_integer, findings=(*found.findings, *changed))


def differences(found: Model, expected: Model) -> Iterator[str]:
    """What another operator, another number or another wire is in `found`; names may differ."""
    ours, theirs = ([*model.get_ordered_ops()] for model in (found, expected))
    places = [{op.get_instance_id(): number for number, op in enumerate(ops)} for ops in (ours, theirs)]
    for one, other in zip_longest(ours, theirs):
        if one is None or other is None or one.get_type_name() != other.get_type_name():
            first = one or other
            yield f"{first.get_friendly_name() if first else ''}: from here on, other operators than conversion makes"
            return
        if _wires(one, places[0]) != _wires(other, places[1]):
            yield f"{other.get_friendly_name()}: other inputs than conversion gives it"
        if one.get_type_name() == "Constant" and not _same(one, other):
            readers = ", ".join(u.get_node().get_friendly_name() for u in other.output(0).get_target_inputs())
            yield f"a number that {readers} reads: another one than conversion makes"


def _wires(op: Node, places: dict[int, int]) -> list[tuple[int, int]]:
    sources = [op.input_value(side) for side in range(op.get_input_size())]
    return [(places[source.get_node().get_instance_id()], source.get_index()) for source in sources]


def _same(one: Node, other: Node) -> bool:
    ours, theirs = (np.asarray(op.get_data()) for op in (one, other))
    return ours.dtype == theirs.dtype and ours.shape == theirs.shape and ours.tobytes() == theirs.tobytes()
