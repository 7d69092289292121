"""The quantization plan knows what every part of a model is for; the census counts all of its work."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from tiny_av import clip, tiny_model
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from edgeav.errors import EdgeavError
from edgeav.exporters.rewrites import deployable
from edgeav.quant.census import mac_share, macs_by_module
from edgeav.quant.plan import ROLES, Calibration, Plan, load_plan, role_of
from edgeav.recipe import Recipe
from edgeav.stages.quantize import Quantize


def test_every_module_that_multiplies_has_a_role_and_every_role_a_module() -> None:
    model = deployable(tiny_model())
    paths = [path for path, module in model.named_modules() if isinstance(module, nn.Linear | nn.Conv1d | nn.Conv2d)]
    assert all(role_of(path) for path in paths), [path for path in paths if not role_of(path)]
    assert {role_of(path) for path, _ in model.named_modules()} - {None} == set(ROLES)


@pytest.mark.parametrize("path", ["blocks.0.norms.3", "audio_norm", "", "blocks.0", "video.dropout", "headless"])
def test_what_does_not_multiply_has_no_role_and_is_never_quantized(path: str) -> None:
    assert role_of(path) is None
    assert not Plan(keep_float=()).quantizes(path)


def test_a_role_kept_in_float_is_kept_in_every_block() -> None:
    plan = Plan(keep_float=("conv-depthwise", "head"))
    assert not plan.quantizes("blocks.0.conv.depthwise")
    assert not plan.quantizes("blocks.11.conv.depthwise")
    assert not plan.quantizes("head")
    assert plan.quantizes("blocks.11.conv.expand")


def test_a_plan_reads_back_as_it_was_saved(tmp_path: Path) -> None:
    plan = Plan(keep_float=("head",), calibration=Calibration(utterances=2, seed=7, ids=("a", "b")))
    plan.save(tmp_path)
    assert load_plan(tmp_path) == plan


def test_a_plan_with_an_unknown_role_is_an_error_that_names_the_roles(tmp_path: Path) -> None:
    (tmp_path / "quantization.json").write_text('{"format": "int8", "keep_float": ["heads"]}')
    with pytest.raises(EdgeavError, match="did you mean 'head'"):
        load_plan(tmp_path)


def test_the_census_counts_every_multiplication_once() -> None:
    model, steps = tiny_model(), 12
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(*(torch.from_numpy(array) for array in clip(steps)))
    assert sum(macs_by_module(model, steps).values()) == counter.get_total_flops() // 2


def test_the_integer_share_is_the_share_of_the_work_and_not_of_the_modules() -> None:
    model = tiny_model()
    macs = macs_by_module(model)
    assert mac_share(model, []) == 0
    assert mac_share(model, macs) == 1
    assert mac_share(model, ["video.stem.conv"]) == round(macs["video.stem.conv"] / sum(macs.values()), 4)


def test_a_format_that_is_not_there_yet_is_refused_with_what_is_allowed() -> None:
    with pytest.raises(EdgeavError, match="'fp8': must be 'fp32', 'int8', 'int8-dynamic'"):
        Recipe.load("int8", ["stages.0.quantize.format=fp8"])


def test_the_quantize_stage_copies_the_model_and_leaves_a_plan(tmp_path: Path) -> None:
    before, out = tmp_path / "before", tmp_path / "out"
    before.mkdir()
    out.mkdir()
    for name in ("model.json", "model.safetensors", "tokenizer.model", "done.json"):
        (before / name).write_text(name)
    clips = [SimpleNamespace(id=f"clip-{number}", text="a") for number in range(5)]
    corpus = SimpleNamespace(name="five", train=clips)
    run = SimpleNamespace(recipe=SimpleNamespace(seed=3), corpus=corpus)
    Quantize(calibration=2, keep_float=("head",)).apply(before, out, run)  # type: ignore[arg-type]
    assert sorted(path.name for path in out.iterdir()) == [
        "model.json",
        "model.safetensors",
        "quantization.json",
        "tokenizer.model",
    ]
    plan = load_plan(out)
    assert plan.calibration is not None
    assert plan.calibration == Calibration(utterances=2, seed=3, ids=plan.calibration.ids)
    assert len(set(plan.calibration.ids) & {clip.id for clip in clips}) == 2
    assert plan.keep_float == ("head",)
