"""The stages in recipes: pruned, factorized, quantized, exported by one command; a killed run goes on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from test_compress import SMALL, write_corpus

from edgeav.cli_explain import explain
from edgeav.compress import compress, plan
from edgeav.data.corpus import open_corpus
from edgeav.data.text import train_tokenizer
from edgeav.errors import EdgeavError
from edgeav.models import AVModel, load_model, random_model, save_model
from edgeav.models.config import Conv3dDense
from edgeav.recipe import Recipe
from edgeav.run import Run
from edgeav.shrink.latency import LatencyTable
from edgeav.stages import prune
from edgeav.stages.low_rank import LowRank
from edgeav.stages.prune import Prune

FOUND = {"clips": 4, "runtime": None}
FINETUNE = {"steps": 2, "warmup": 1, "checkpoint_every": 2, "processes": 1, "longest_s": 10.0}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small model with its tokenizer, and eight clips."""
    folder = tmp_path_factory.mktemp("inputs")
    write_corpus(folder / "corpus")
    tokenizer = train_tokenizer([u.text for u in open_corpus("demo").train], 128)
    video = Conv3dDense(stem_channels=16, channels=(32, 16), strides=(2, 2))
    config = SMALL.model_copy(update={"tokens": tokenizer.tokens, "video": video})
    save_model(random_model(config=config), folder / "model")
    tokenizer.save(folder / "model")
    return folder


def recipe(inputs: Path, *stages: dict[str, Any], **more: Any) -> Recipe:
    path = inputs / "recipe.yaml"
    base = {"name": "small", "model": str(inputs / "model"), "corpus": str(inputs / "corpus"), "stages": stages}
    path.write_text(json.dumps(base | more))  # JSON is YAML
    return Recipe.load(path)


def read(folder: Path) -> dict[str, Any]:
    """What the stage says that it did."""
    return json.loads((folder / ("low_rank.json" if "rank" in folder.name else "prune.json")).read_text())


def size(folder: Path) -> int:
    return sum(parameter.numel() for parameter in load_model(folder).parameters())


def test_a_pruned_model_is_factorized_quantized_and_exported_by_one_recipe(
    inputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    stages = (
        {"prune": {"budget": {"macs": 0.6}} | FOUND},
        {"low_rank": {"budget": {"parameters": 0.95}, "calibration": 4, "runtime": None}},
        {"quantize": {"format": "int8", "calibration": 4}},
    )
    budget = {"start": {"wer": {"max_increase_abs": 0.0}, "min_speedup": 0.01, "size_ratio": 0.2}}
    asked = recipe(inputs, *stages, export=["onnxruntime"], profile=["this-machine"], budget=budget)
    report = compress(asked, tmp_path / "run")
    pruned, factorized = read(tmp_path / "run" / "01-prune"), read(tmp_path / "run" / "02-low_rank")
    macs, parameters = pruned["model"], factorized["model"]
    assert macs["after"]["macs"] <= 0.6 * macs["before"]["macs"]
    assert parameters["after"]["parameters"] <= 0.95 * parameters["before"]["parameters"]
    assert parameters["after"]["parameters"] == size(tmp_path / "run" / "03-quantize")
    assert load_model(tmp_path / "run" / "03-quantize").config.ranks
    fp32, int8 = report.bundles
    assert fp32.parity is not None and fp32.parity.max_abs <= 1e-3 and fp32.parity.transcripts_equal
    assert int8.precision == "int8" and int8.integer_share is not None and int8.integer_share > 0.8
    assert {row["state"] for row in plan(asked, tmp_path / "run")} == {"cached"}
    assert report.start is not None and report.start.model.params == size(inputs / "model")
    (gain,) = report.gains
    assert gain.precision == "int8" and gain.start_mb is not None and gain.start_mb > fp32.size_mb > int8.size_mb
    assert gain.size_ratio is not None and gain.size_ratio == pytest.approx(int8.size_mb / gain.start_mb, abs=1e-3)
    was, now = gain.races["this-machine"].cpu_ms
    assert was > 0 and now > 0
    checks = {check.name: check.passed for check in report.verdict.checks if check.name.startswith("start")}
    assert checks == {"start-wer": False, "start-speed": True, "start-size": gain.size_ratio <= 0.2}  # four clips
    assert "Against the model that it began with" in (tmp_path / "run" / "report.html").read_text()
    assert f"{size(inputs / 'model'):,} parameters" in (tmp_path / "run" / "report.md").read_text()
    explain(tmp_path / "run")
    said = capsys.readouterr().out
    assert f"{pruned['rounds'][0]['groups'][0]['group']} " in said and "% left" in said and " rank " in said
    assert all(row["layer"] in said for row in factorized["layers"]) and "attention-matmul" in said


def test_magnitudes_need_no_clips_and_two_rounds_reach_the_same_budget(inputs: Path, tmp_path: Path) -> None:
    settings = {"budget": {"parameters": 0.5}, "importance": "magnitude", "rounds": 2, "runtime": None, "floor": 0.0}
    run = Run(tmp_path / "run", recipe(inputs, {"prune": settings}))
    Prune.model_validate(settings).apply(inputs / "model", folder(tmp_path / "out"), run)
    report = read(tmp_path / "out")
    before, after = size(inputs / "model"), size(tmp_path / "out")
    assert after <= 0.5 * before and [row["share"] for row in report["rounds"]] == [0.7071, 0.5]
    assert report["rounds"][0]["cost_after"] == report["rounds"][1]["cost_before"] <= 0.7072 * before
    assert report["rounds"][1]["cost_after"] == after == report["model"]["after"]["parameters"]
    assert not (tmp_path / "run" / "work" / "clips").exists()
    assert (tmp_path / "out" / "tokenizer.model").is_file()


def test_a_budget_in_time_is_measured_before_and_after(
    inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a clock that counts parameters: real times are not asserted on."""

    def counted(model: AVModel, runtime: str, turns: int = 0) -> float:
        return sum(parameter.numel() for parameter in model.parameters()) / 1000

    monkeypatch.setattr("edgeav.shrink.whole.whole_ms", counted)
    monkeypatch.setattr(LatencyTable, "__getitem__", lambda self, shape: shape.inputs * shape.outputs / 1000)
    settings = {"budget": {"time": 0.8}, "importance": "magnitude", "floor": 0.0}
    run = Run(tmp_path / "run", recipe(inputs, {"prune": settings}))
    Prune.model_validate(settings).apply(inputs / "model", folder(tmp_path / "out"), run)
    report = read(tmp_path / "out")
    row, whole = report["rounds"][0], report["model"]["before"]["milliseconds"]
    assert row["cost_before"] - row["cost_after"] >= 0.2 * whole
    assert report["model"]["after"]["milliseconds"] < whole


def test_a_budget_that_cannot_be_reached_is_an_error_that_says_how_far_one_gets(inputs: Path, tmp_path: Path) -> None:
    settings = {"budget": {"parameters": 0.05}, "importance": "magnitude", "kinds": ["feed-forward"], "runtime": None}
    run = Run(tmp_path / "run", recipe(inputs, {"prune": settings}))
    with pytest.raises(EdgeavError, match=r"cannot be reached.*% of the cost is left.*`kinds`"):
        Prune.model_validate(settings).apply(inputs / "model", folder(tmp_path / "out"), run)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"prune": {"budget": {}}}, "must name one of macs, parameters, time, milliseconds"),
        ({"prune": {"budget": {"macs": 0.5, "time": 0.5}}}, "must name one of"),
        ({"prune": {"budget": {"macs": 0.5}, "kinds": ["head"]}}, "did you mean 'heads'"),
        ({"prune": {"budget": {"macs": 0.5}, "finetune": {"steps": 5}}}, r"finetune\.mix: is missing"),
        ({"prune": {"budget": {"time": 0.5}, "runtime": None}}, "needs a runtime: onnxruntime or openvino"),
        (
            {
                "low_rank": {
                    "energy": 0.9,
                    "finetune": {
                        "teacher": "before",
                        "student": "x",
                        "mix": [{"corpus": "demo", "per_batch": 1}],
                        "steps": 1,
                    },
                }
            },
            "name no `student`",
        ),
        ({"low_rank": {}}, "set one of `energy`"),
        ({"low_rank": {"energy": 0.9, "budget": {"macs": 0.5}}}, "set one of `energy`"),
    ],
)
def test_settings_that_do_not_fit_are_refused_when_the_recipe_is_read(
    inputs: Path, settings: dict[str, Any], says: str
) -> None:
    with pytest.raises(EdgeavError, match=says):
        recipe(inputs, settings)


def test_a_teacher_makes_of_finetuning_a_distillation(inputs: Path) -> None:
    mix = [{"corpus": "demo", "per_batch": 2}]
    plain = Prune.model_validate({"budget": {"macs": 0.5}, "finetune": {"mix": mix, "steps": 1}})
    taught = LowRank.model_validate({"energy": 0.9, "finetune": {"teacher": "before", "mix": mix, "steps": 1}})
    assert type(plain.finetune).__name__ == "Train" and type(taught.finetune).__name__ == "Distill"
    assert taught.facts() == plain.facts() == {}
    by_name = {"teacher": str(inputs / "model"), "mix": mix, "steps": 1}
    named = Prune.model_validate({"budget": {"macs": 0.5}, "finetune": by_name})
    assert set(named.facts()) == {"teacher"}


@pytest.mark.slow
def test_every_round_is_finetuned_and_a_killed_run_goes_on_with_the_next(
    inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mix = {"mix": [{"corpus": str(inputs / "corpus"), "per_batch": 2}]}
    taught = {"teacher": "before", "noise": {"share": 0.0}} | FINETUNE | mix
    asked = recipe(inputs, {"prune": {"budget": {"macs": 0.5}, "rounds": 2, "finetune": taught} | FOUND})
    whole, done = prune.recover, []

    def dies_in_the_second_round(*arguments: Any) -> None:
        done.append(arguments[1].name)
        if len(done) == 2:
            raise KeyboardInterrupt
        whole(*arguments)

    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[1]))
    monkeypatch.setattr(prune, "recover", dies_in_the_second_round)
    with pytest.raises(KeyboardInterrupt):
        compress(asked, tmp_path / "run")
    compress(asked, tmp_path / "run")
    assert done == ["1-cut", "2-cut", "2-cut"]
    report = read(tmp_path / "run" / "01-prune")
    assert report["model"]["after"]["macs"] <= 0.5 * report["model"]["before"]["macs"]
    assert torch.isfinite(load_model(tmp_path / "run" / "01-prune").head.weight).all()


def folder(path: Path) -> Path:
    path.mkdir()
    return path
