"""The quantize stage as a recipe runs it: weights rescaled, roles tried on validation clips, a plan left behind."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
import torch
from tiny_av import clip, tiny_model

from edgeav.data.cache import Row
from edgeav.data.corpus import Media
from edgeav.errors import EdgeavError
from edgeav.exporters.onnx import integer_form, quantize_onnx, write_onnx
from edgeav.exporters.rewrites import deployable
from edgeav.models import load_model, save_model
from edgeav.quant.plan import ROLES, Plan, Role, load_plan
from edgeav.quant.rod import Rod
from edgeav.quant.sensitivity import load_sensitivity
from edgeav.stages.quantize import Quantize
from edgeav.target import OnnxRuntimeOptions


class Clips:
    """Two clips of noise, half a second and a second long."""

    folder = Path("noise")
    rows = (Row("one two", "a", (0, 8_000), (0, 12), ()), Row("three", "a", (0, 16_000), (0, 25), ()))

    def __len__(self) -> int:
        return len(self.rows)

    def media(self, index: int) -> Media:
        random, row = np.random.default_rng(index), self.rows[index]
        sound = 0.1 * random.standard_normal(row.samples[1])
        return Media(sound.astype(np.float32), random.integers(0, 255, (row.frames[1], 96, 96), np.uint8))


def run() -> SimpleNamespace:
    clips = [SimpleNamespace(id=f"clip-{number}", text="a" * number) for number in range(2)]
    return SimpleNamespace(
        recipe=SimpleNamespace(seed=3, corpus="noise"),
        corpus=SimpleNamespace(name="noise", train=clips, valid=clips),
        decoded=lambda *_: Clips(),
        progress=SimpleNamespace(say=lambda _: None),
    )


def test_the_stage_rescales_the_weights_tries_every_role_and_keeps_what_the_budget_asks_for(tmp_path: Path) -> None:
    before, out = tmp_path / "before", tmp_path / "out"
    out.mkdir()
    model = tiny_model()
    save_model(model, before)
    settings = {"calibration": 2, "smooth": 0.5, "equalize": True, "keep_float": "auto", "wer_budget_abs": 100.0}
    Quantize.model_validate(settings).apply(before, out, run())  # type: ignore[arg-type]
    changed, inputs = load_model(out), [torch.from_numpy(array) for array in clip(9)]
    with torch.no_grad():
        assert (changed(*inputs) - model(*inputs)).abs().max() < 1e-5
    assert (changed.head.weight == model.head.weight).all()
    assert (changed.blocks[0].norms[0].weight != model.blocks[0].norms[0].weight).any()  # type: ignore[index]
    found, plan = load_sensitivity(out), load_plan(out)
    assert {row.role for row in found.rows} == set(ROLES) - {"attention-matmul"}
    assert all(row.effect.drift > 0 for row in found.rows)
    assert found.everything.drift > max(row.effect.drift for row in found.rows) / 2
    assert plan.keep_float == found.keep_float == ("attention-matmul",)  # no budget is easier to keep
    assert plan.smooth == 0.5 and plan.equalize
    assert any(row.saved_ms != 0 for row in found.rows)


def test_the_scan_measures_the_file_that_the_exporter_writes(tmp_path: Path) -> None:
    """The visual stem has another form in integers than in float."""
    model, plan, calibration = tiny_model(), Plan(format="int8"), [clip(9), clip(14, seed=1)]
    write_onnx(integer_form(deployable(model), plan), tmp_path / "exported.onnx", OnnxRuntimeOptions().opset)
    quantize_onnx(tmp_path / "exported.onnx", tmp_path / "exported-int8.onnx", plan, calibration)
    rod = Rod(model, plan, calibration, Clips(), tmp_path)  # type: ignore[arg-type]
    in_float: tuple[Role, ...] = tuple(role for role in rod.roles if role != "visual-stem")
    assert operators(rod.artifact(tuple(rod.roles))) == operators(tmp_path / "exported-int8.onnx")
    assert operators(rod.artifact(in_float)) != operators(tmp_path / "exported-int8.onnx")


def operators(path: Path) -> Counter[str]:
    return Counter(node.op_type for node in onnx.load(path).graph.node)


def test_a_scan_without_validation_clips_or_with_a_format_that_cannot_be_measured_is_refused(tmp_path: Path) -> None:
    save_model(tiny_model(), tmp_path / "before")
    none = run()
    none.corpus.valid = []
    for number, (settings, said) in enumerate(
        [({}, "has no validation clips"), ({"format": "bf16"}, "onnxruntime cannot do bf16")]
    ):
        out = tmp_path / str(number)
        out.mkdir()
        stage = Quantize.model_validate(settings | {"calibration": 2, "keep_float": "auto", "wer_budget_abs": 1.0})
        with pytest.raises(EdgeavError, match=said):
            stage.apply(tmp_path / "before", out, none)  # type: ignore[arg-type]
