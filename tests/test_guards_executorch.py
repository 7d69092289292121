"""Every mistake in an int8 ExecuTorch file is found, and a healthy file is left in peace. One lowering for all."""

from __future__ import annotations

import shutil
from pathlib import Path

import artifact_faults as faults
import numpy as np
import pytest
import torch
from tiny_av import calibration, clip, target, tiny_model

from edgeav.exporters import export
from edgeav.exporters.rewrites import by_rows, deployable
from edgeav.guards.executorch_file import Matched, inspect_executorch, match
from edgeav.guards.numbers import Stored
from edgeav.guards.pte import read_layers
from edgeav.models import AVModel
from edgeav.quant.plan import KEPT_FLOAT, Plan
from edgeav.runtime.bundle import Bundle, read_bundle, write_bundle

PLAN = Plan(keep_float=(*KEPT_FLOAT, "head"))
pytestmark = pytest.mark.slow  # PyTorch's lowering


@pytest.fixture(scope="module")
def model() -> AVModel:
    """Its two projections of one shape are told apart by what they do, not only by their numbers."""
    model = tiny_model()
    with torch.no_grad():
        model.get_parameter("blocks.0.attention.query.weight").mul_(8)
        model.get_parameter("blocks.0.attention.value.weight").mul_(8)
    return model


@pytest.fixture(scope="module")
def bundle(model: AVModel, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    folder = tmp_path_factory.mktemp("guards")
    return export(model, target("executorch-xnnpack"), "int8", calibration(), [(None, clip(16))], folder, PLAN)


@pytest.fixture(scope="module")
def layers(model: AVModel, bundle: Bundle) -> dict[str, Matched]:
    return {found.path: found for found in match(read_layers(bundle.model_path), by_rows(deployable(model)))}


def spoiled(bundle: Bundle, fault: faults.Fault, folder: Path) -> Bundle:
    """A copy with the fault in it and a bundle.json that fits it."""
    shutil.copytree(bundle.folder, folder)
    fault(folder / bundle.model)
    import json

    spec = json.loads((folder / "bundle.json").read_text())
    return write_bundle(folder, spec={key: spec[key] for key in spec if key not in ("schema", "files")})


def test_a_healthy_file_passes_and_every_layer_is_recognized(
    model: AVModel, bundle: Bundle, layers: dict[str, Matched]
) -> None:
    found = inspect_executorch(bundle, model, PLAN, calibration())
    assert found.passed, found.findings
    assert found.wiring < 2
    assert {path for path, layer in layers.items() if isinstance(layer.layer.weight, Stored)} >= {
        "video.stem.conv",
        "blocks.0.conv.depthwise",
        "blocks.0.attention.key",
    }


def test_a_float_fallback_is_named(model: AVModel, bundle: Bundle) -> None:
    found = inspect_executorch(bundle, model, Plan(), calibration())
    assert found.not_integer == ("head",)
    assert not found.passed


def _stored(layers: dict[str, Matched], path: str, part: str) -> Stored:
    stored = getattr(layers[path].layer, part)
    assert isinstance(stored, Stored)
    return stored


def test_numbers_that_are_off_are_found(
    model: AVModel, bundle: Bundle, layers: dict[str, Matched], tmp_path: Path
) -> None:
    scale = _stored(layers, "fusion.up", "weight").scale.tobytes()
    bias = _stored(layers, "video.convs.0", "bias").integers
    weight = _stored(layers, "blocks.0.conv.expand", "weight").integers[..., 0].copy()
    moved = (np.clip(weight, -127, 126) + 1).astype(np.int8)  # what a zero point of -1 says
    grid = layers["blocks.0.conv.project"].layer.input
    assert grid is not None
    found = {
        "weight scale x1.1": faults.bytes_for_bytes(
            scale, (np.frombuffer(scale, np.float32) * np.float32(1.1)).tobytes()
        ),
        "bias dropped": faults.bytes_for_bytes(bias.tobytes(), bytes(bias.nbytes)),
        "weight zero point": faults.bytes_for_bytes(weight.tobytes(), moved.tobytes()),
        "activation scale x1.1": faults.levels_of(grid.scale, grid.zero_point, 1.1, 0),
        "activation zero point + 1": faults.levels_of(grid.scale, grid.zero_point, 1.0, 1),
    }
    for number, (name, fault) in enumerate(found.items()):
        wrong = spoiled(bundle, fault, tmp_path / str(number))
        assert inspect_executorch(wrong, model, PLAN, calibration()).findings, name


def test_layers_that_got_each_others_inputs_are_found_by_running_the_file(
    model: AVModel, bundle: Bundle, layers: dict[str, Matched], tmp_path: Path
) -> None:
    """The filters of query and value for one another, with all that belongs to them: each number is right."""
    parts = [("weight", "integers"), ("weight", "scale"), ("bias", "integers"), ("bias", "scale")]
    first, second = (
        [getattr(_stored(layers, f"blocks.0.attention.{name}", part), what).tobytes() for part, what in parts]
        for name in ("query", "value")
    )

    def swap(path: Path) -> None:
        data = bytearray(path.read_bytes())
        places = [(data.index(a), data.index(b)) for a, b in zip(first, second, strict=True)]
        for (here, there), a, b in zip(places, first, second, strict=True):
            data[here : here + len(a)], data[there : there + len(b)] = b, a
        path.write_bytes(data)

    wrong = spoiled(bundle, swap, tmp_path / "swapped")
    found = inspect_executorch(wrong, model, PLAN, calibration())
    assert any("wiring" in text for text in found.findings), found


def test_a_sealed_file_that_is_cut_or_changed_is_refused_before_anything_runs(bundle: Bundle, tmp_path: Path) -> None:
    from edgeav.errors import EdgeavError

    data = bundle.model_path.read_bytes()
    changed = bytearray(data)
    changed[len(data) // 2] ^= 1
    for number, content in enumerate((data[:-100], bytes(changed))):
        folder = tmp_path / str(number)
        shutil.copytree(bundle.folder, folder)
        (folder / bundle.model).write_bytes(content)
        with pytest.raises(EdgeavError, match="changed or truncated"):
            read_bundle(folder)
