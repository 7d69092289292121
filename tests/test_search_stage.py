"""The search stage in recipes: what is refused when one is read, and a whole search of a small model."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from test_compress import SMALL, write_corpus
from tiny_search import BASE, VARY, Stub, candidate_of, study

from edgeav import yaml_text
from edgeav.cli_explain import explain
from edgeav.compress import compress, plan
from edgeav.data.corpus import open_corpus
from edgeav.data.text import train_tokenizer
from edgeav.errors import EdgeavError
from edgeav.models import load_model, random_model, save_model
from edgeav.models.config import Conv3dDense
from edgeav.progress import Progress
from edgeav.quant.plan import load_plan
from edgeav.recipe import Recipe
from edgeav.run import Run
from edgeav.search.budget import Measures
from edgeav.search.candidate import Candidate, build
from edgeav.search.job import Job, scratch_of
from edgeav.search.measuring import Gauge, Reference
from edgeav.search.parts import size_parts, time_parts
from edgeav.search.result import SearchRow, collect, load_search, table
from edgeav.search.space import Point
from edgeav.search.trial_run import TrialRun
from edgeav.search.worker import join, work
from edgeav.shrink.latency import LatencyTable
from edgeav.stages import Step
from edgeav.stages.search import Search

PRUNE = {"budget": {"parameters": 0.5}, "importance": "magnitude", "floor": 0.0, "runtime": None}
SEARCH: dict[str, Any] = {
    "prune": PRUNE,
    "quantize": {"format": "int8", "calibration": 2},
    "vary": {"prune.budget.parameters": [0.6, 0.8], "quantize": [True, False]},
    "budget": {"size_mb": 0.5},
    "trials": 4,
}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small model with its tokenizer, and eight clips, of which two are to validate with."""
    folder = tmp_path_factory.mktemp("inputs")
    write_corpus(folder / "corpus")
    manifest = folder / "corpus" / "manifest.jsonl"
    rows = [json.loads(line) for line in manifest.read_text().splitlines()]
    rows = [row | {"split": "valid" if place in (2, 3) else row["split"]} for place, row in enumerate(rows)]
    manifest.write_text("\n".join(map(json.dumps, rows)))
    tokenizer = train_tokenizer([u.text for u in open_corpus("demo").train], 128)
    video = Conv3dDense(stem_channels=16, channels=(32, 16), strides=(2, 2))
    config = SMALL.model_copy(update={"tokens": tokenizer.tokens, "video": video})
    save_model(random_model(config=config), folder / "model")
    tokenizer.save(folder / "model")
    return folder


def recipe(inputs: Path, search: dict[str, Any], **more: Any) -> Recipe:
    path = inputs / "recipe.yaml"
    base = {"name": "small", "model": str(inputs / "model"), "corpus": str(inputs / "corpus")}
    path.write_text(json.dumps(base | {"stages": [{"search": search}]} | more))  # JSON is YAML
    return Recipe.load(path)


def test_all_that_is_wrong_with_a_search_is_said_at_once(inputs: Path) -> None:
    wrong = SEARCH | {
        "vary": {
            "prune.budget.parametres": [0.5],
            "prune.budget.parameters": {"low": 0.5, "high": 1.5},
            "low_rank.energy": [0.9],
            "quantize.format": ["int8", "int9"],
            "quantize": [1, 2],
        }
    }
    with pytest.raises(EdgeavError) as error:
        recipe(inputs, wrong)
    text = str(error.value)
    assert "parametres" in text and "did you mean 'parameters'" in text
    assert "vary.prune.budget.parameters: 1.5" in text and "less than or equal to 1" in text
    assert "vary.low_rank.energy: names no stage of this search; it has prune, quantize" in text
    assert 'vary.quantize.format: "int9"' in text and "did you mean 'int8'" in text
    assert "vary.quantize: with the whole stage or without it: write [true, false]" in text


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"budget": {}}, "name at least one limit"),
        ({"budget": {"ms": 5, "rtf": 0.1}}, "ms and rtf say the same"),
        ({"vary": {}}, "at least 1 item"),
        ({"vary": {"prune.budget.parameters": {"low": 0.9, "high": 0.3}}}, "low: 0.9 must be below high: 0.3"),
        ({"target": "onnx"}, "did you mean 'onnxruntime'"),
        ({"target": "openvino", "vary": {"quantize.ranges": ["minmax", "entropy"]}}, "openvino has no entropy ranges"),
        ({"model": {"preset": "fast-conformer-S"}}, "a new model needs `train`, or `distill` with a `teacher`"),
        ({"prune": None, "quantize": None, "vary": {"x": [1]}}, "names no stage to search with"),
    ],
)
def test_a_search_that_cannot_work_is_refused_when_the_recipe_is_read(
    inputs: Path, change: dict[str, Any], says: str
) -> None:
    with pytest.raises(EdgeavError, match=says):
        recipe(inputs, SEARCH | change)


def test_every_plan_that_a_search_may_choose_must_be_possible_on_every_target(inputs: Path) -> None:
    vary = {"vary": {"quantize.format": ["int8", "int4-weights"], "quantize": [True, False]}}
    assert {plan.format for plan in recipe(inputs, SEARCH | vary).plans} == {"int8", "int4-weights"}
    with pytest.raises(EdgeavError, match="executorch cannot do int4-weights"):
        recipe(inputs, SEARCH | vary, export=["executorch-xnnpack"])


def test_a_sketch_is_as_small_and_trains_nothing() -> None:
    mix = {"mix": [{"corpus": "demo", "per_batch": 1}], "steps": 1}
    auto = {"keep_float": "auto", "wer_budget_abs": 0.3}
    search = Search.model_validate(
        SEARCH | {"prune": PRUNE | {"rounds": 3, "finetune": mix}, "quantize": auto, "vary": {"quantize": [True]}}
    )
    whole = Candidate({name: stage.model_dump(mode="json") for name, stage in search.base.items()})
    sketch = whole.sketch
    assert sketch.settings["prune"]["finetune"] is None and sketch.settings["prune"]["rounds"] == 1
    assert sketch.settings["prune"]["budget"] == whole.settings["prune"]["budget"]
    assert sketch.settings["quantize"]["wer_budget_abs"] is None and sketch.steps
    assert sketch.sketch == sketch and whole.key != sketch.key


def test_candidates_that_begin_alike_share_their_first_steps(inputs: Path, tmp_path: Path) -> None:
    job, run = job_of(inputs, tmp_path)
    points: list[Point] = [{"prune.budget.parameters": 0, "quantize": place} for place in (0, 1)]
    quantized, plain = (build(job.candidate(point), inputs / "model", run) for point in points)
    assert len(list((tmp_path / "search" / "models").iterdir())) == 2, "the pruned model, and its plan"
    assert load_plan(quantized).format == "int8" and not (plain / "quantization.json").exists()
    before = sum(p.numel() for p in load_model(inputs / "model").parameters())
    small = load_model(plain)
    assert sum(p.numel() for p in small.parameters()) < before
    floats, mixed = size_parts(small, None), size_parts(small, load_plan(quantized))
    assert floats["fp32"] * 1e6 == pytest.approx(4 * sum(p.numel() for p in small.parameters()))
    assert mixed["fp32"] + 4 * mixed["int8"] == pytest.approx(floats["fp32"])


def test_a_new_model_is_sketched_with_random_weights_and_then_pruned(inputs: Path, tmp_path: Path) -> None:
    config = json.loads(SMALL.model_dump_json(exclude={"tokens"}))
    train = {"mix": [{"corpus": str(inputs / "corpus"), "per_batch": 2}], "vocabulary": 64, "steps": 1}
    new = {"model": {"config": config}, "train": train, "vary": {"model.config.width": [16, 32]}}
    job, run = job_of(inputs, tmp_path, SEARCH | new | {"prune": PRUNE | {"budget": {"parameters": 0.8}}})
    folders = [build(job.candidate({"model.config.width": n}).sketch, inputs, run, trained=False) for n in (0, 1)]
    narrow, wide = (load_model(folder) for folder in folders)
    assert (narrow.config.width, wide.config.width) == (16, 32)
    assert len(narrow.config.tokens) > 10 and (folders[0] / "tokenizer.model").is_file()
    assert max(block.feed_forward for block in wide.config.blocks) < SMALL.blocks[0].feed_forward


def test_the_searches_in_the_documentation_are_accepted(repository: Path) -> None:
    blocks = (repository / "docs" / "search.md").read_text().split("```yaml\n")[1:]
    for block in blocks:
        data, _ = yaml_text.parse("stages:\n" + block.split("```")[0].removeprefix("stages:\n"), Path("docs"))
        assert [Step.model_validate_json(json.dumps(item)).name for item in data["stages"]] == ["search"]
    assert len(blocks) == 2


def test_times_are_added_up_by_the_format_that_each_layer_has(inputs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LatencyTable, "__getitem__", lambda self, shape: 1.0)
    model = load_model(inputs / "model")
    whole = time_parts(model, None, LatencyTable())
    parts = time_parts(model, Search.model_validate(SEARCH).plans[0], LatencyTable())
    assert set(whole) == {"fp32"} and set(parts) == {"fp32", "int8"}
    assert sum(parts.values()) == whole["fp32"] and parts["fp32"] == 1.0, "attention's products stay in float"


def job_of(inputs: Path, folder: Path, settings: dict[str, Any] = SEARCH) -> tuple[Job, TrialRun]:
    asked = recipe(inputs, settings)
    search = asked.stages[0].search
    assert search is not None
    place = folder / "search"
    place.mkdir()
    run = TrialRun(folder, asked, Progress(), shared=place, place=place / "trial", turn=0)
    return Job(recipe=asked, search=search, cpu="any"), run


def stub_result(tmp_path: Path, limits: dict[str, float]) -> SearchRow:
    """The result of the whole small space of tiny_search.py."""
    search = Search.model_validate(
        {name: stage.model_dump() for name, stage in BASE.items()}
        | {"vary": VARY, "budget": {"size_mb": 4.0}, "trials": 12}
    )
    job = Job(recipe=Recipe.model_validate({"name": "small", "model": "x"}), search=search, cpu="a CPU")
    found = study(tmp_path, trials=12)
    work(found, candidate_of, Stub(limits), Progress())
    return collect(found, job, limits, Reference(10.0, 42.0, 9.0, 4.0, []), 100)


def test_the_result_reads_back_and_explain_prints_the_front_and_the_choice(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    found = stub_result(tmp_path, {"mb": 4.0})
    stage = tmp_path / "run" / "01-search"
    stage.mkdir(parents=True)
    (stage / "search.json").write_text(json.dumps(found.model_dump(mode="json")))
    loaded = load_search(tmp_path / "run")
    assert loaded is not None and loaded[0] == found
    assert found.chosen in found.front and found.row(found.chosen).measured is not None
    assert all(found.measured[n].wer >= found.measured[found.chosen].wer for n in found.measured if found.fits(n))
    assert [row["trial"] for row in table(found)] == [str(number) for number in found.front]
    explain(tmp_path / "run")
    said = capsys.readouterr().out
    assert f"Chosen: trial {found.chosen}" in said and "Predicted against measured ms" in said and "chosen" in said
    explain(tmp_path / "run", as_json=True)
    assert json.loads(capsys.readouterr().out)["search"]["chosen"] == found.chosen


def test_a_search_that_finds_nothing_says_what_comes_nearest(tmp_path: Path) -> None:
    found = stub_result(tmp_path, {"mb": 0.5, "wer": 10.2})
    assert found.chosen is None
    text = found.missed()
    assert "keeps the budget (0.5 MB, 10.2 % WER)" in text.replace("10.2 % WER, 0.5 MB", "0.5 MB, 10.2 % WER")
    assert "were discarded unmeasured, like trial" in text and "MB predicted, give or take" in text


def test_a_worker_on_another_machine_is_refused(inputs: Path, tmp_path: Path) -> None:
    job, run = job_of(inputs, tmp_path)
    with pytest.raises(EdgeavError, match="its milliseconds are those of any"):
        join(job, run.shared, tmp_path, 1, Progress())


def test_raising_the_trials_keeps_the_scratch_folder_and_another_space_does_not(inputs: Path, tmp_path: Path) -> None:
    run = Run(tmp_path, recipe(inputs, SEARCH))
    folders = [
        scratch_of(Search.model_validate(SEARCH | change), inputs / "model", run)
        for change in ({}, {"trials": 9, "budget": {"ms": 4}, "workers": 2}, {"vary": {"quantize": [True, False]}})
    ]
    assert folders[0] == folders[1] != folders[2]


@pytest.mark.slow
def test_a_search_finds_measures_and_hands_on_a_model_that_keeps_its_budget(
    inputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    asked = recipe(inputs, SEARCH, export=["onnxruntime"])
    assert plan(asked, tmp_path / "run")[-1]["step"] == "bundles/…"
    report = compress(asked, tmp_path / "run")
    found = report.search
    assert found is not None and found.chosen is not None and len(found.trials) == 4
    chosen = found.row(found.chosen)
    assert chosen.measured is not None and chosen.measured.mb <= 0.5
    folder = tmp_path / "run" / "01-search"
    quantized = bool(chosen.settings["quantize"])
    assert (folder / "quantization.json").exists() == quantized
    sizes = {bundle.precision: bundle.size_mb for bundle in report.bundles}
    assert sizes["int8" if quantized else "fp32"] == pytest.approx(chosen.measured.mb, rel=0.01)
    assert found.reference is not None and found.prediction["mb"].n == found.count("measured")
    assert {row["state"] for row in plan(asked, tmp_path / "run")} == {"cached"}
    page = (tmp_path / "run" / "report.html").read_text()
    assert "<h2>Search</h2>" in page and "**chosen**" in (tmp_path / "run" / "report.md").read_text()
    explain(tmp_path / "run")
    assert f"Chosen: trial {found.chosen}" in capsys.readouterr().out


@pytest.mark.slow
def test_helpers_share_the_work_and_an_impossible_budget_is_an_error_with_proof(inputs: Path, tmp_path: Path) -> None:
    asked = recipe(inputs, SEARCH | {"budget": {"size_mb": 0.01}, "workers": 2})
    with pytest.raises(EdgeavError, match=r"none of [0-9]+ measured candidates keeps the budget \(0.01 MB\)") as error:
        compress(asked, tmp_path / "run")
    path = Path(str(error.value).rpartition("All trials: ")[2])
    found = SearchRow.model_validate_json(path.read_text())
    assert len(found.trials) == 4 and not (tmp_path / "run" / "01-search").exists()
    assert len({json.dumps(row.settings) for row in found.trials}) == 4
    shutil.rmtree(tmp_path / "run" / "work" / "clips")
    command = [sys.executable, "-m", "edgeav", "join", str(tmp_path / "run")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[1])
    assert done.stdout.strip() == "0 trials done here", done.stderr


def test_measures_of_a_model_are_those_of_its_reloaded_artifact(
    inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job, run = job_of(inputs, tmp_path)
    gauge = Gauge(job.model_copy(update={"reference": "start"}), run)
    shutil.copytree(inputs / "model", run.shared / "start")
    monkeypatch.setattr(Gauge, "_measure", lambda self, folder, precision: (Measures(20.0, 3.0, 1.0), ["a", "b"]))
    measures, more = gauge.measure(inputs / "model")
    assert measures == Measures(20.0, 3.0, 1.0) and more == {"increase": [0.0, 0.0, 0.0]}
    assert gauge.limits() == {"mb": 0.5}
    assert gauge.reference is not None and gauge.reference.seconds == 4.0
