"""The whole loop on a small model and a small corpus of real files: first run, second run, killed run."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from fractions import Fraction
from pathlib import Path

import av
import onnx
import pytest
import soundfile
import torch
from onnx import numpy_helper

from edgeav import spec
from edgeav.compress import compress, plan
from edgeav.data.corpus import open_corpus
from edgeav.models import AVModel, ModelConfig, load_model, save_model
from edgeav.models.config import Block, ConcatMlp, Conv3dDense, DwStriding
from edgeav.quant.plan import load_plan
from edgeav.recipe import Recipe
from edgeav.report import load

SMALL = ModelConfig(
    width=32,
    audio=DwStriding(channels=16),
    video=Conv3dDense(stem_channels=8, channels=(16, 16), strides=(2, 2)),
    fusion=ConcatMlp(hidden=32),
    blocks=(Block(heads=2, head_width=16, feed_forward=64, feed_forward_2=64, conv_channels=32),),
    tokens=("▁bin", "▁blue", "▁a", "▁two", "▁now"),
)
# measured anew in each run
TIMES = ("seconds", "profile", "pairs", "environment", "verdict", "choices", "integer_share")


def write_corpus(folder: Path) -> None:
    """Four training and four test clips of the drawn corpus, as files."""
    folder.mkdir()
    rows = []
    for index, utterance in enumerate([*open_corpus("demo").train[:4], *open_corpus("demo").tests[0].utterances[:4]]):
        media, name = utterance.media(), f"clip{index}"
        assert media.waveform is not None and media.mouth is not None
        soundfile.write(folder / f"{name}.flac", media.waveform, 16_000)
        with av.open(str(folder / f"{name}.mp4"), "w") as container:
            stream = container.add_stream("libx264", rate=Fraction(25))
            stream.width = stream.height = 96
            stream.pix_fmt = "yuv420p"
            for picture in media.mouth:
                container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="gray")))
            container.mux(stream.encode())
        split = "train" if index < 4 else "test_unseen"
        row = {"audio": f"{name}.flac", "video": f"{name}.mp4", "text": utterance.text, "speaker": utterance.speaker}
        rows.append(json.dumps(row | {"split": split}))
    (folder / "manifest.jsonl").write_text("\n".join(rows))


@pytest.fixture(scope="module")
def recipe_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("inputs")
    write_corpus(folder / "corpus")
    torch.manual_seed(0)
    save_model(AVModel(SMALL).eval(), folder / "model")
    path = folder / "recipe.yaml"
    path.write_text(
        f"schema: edgeav/1\nname: small\nmodel: {folder / 'model'}\ncorpus: {folder / 'corpus'}\n"
        "stages:\n  - quantize: {format: int8, calibration: 4}\nexport: [onnxruntime]\nprofile: [this-machine]\n"
    )
    return path


@pytest.fixture(scope="module")
def finished(recipe_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run") / "small"
    compress(Recipe.load(recipe_path), folder)
    return folder


def untimed(folder: Path) -> object:
    """The report without what is measured with a clock."""

    def strip(value: object) -> object:
        if isinstance(value, dict):
            return {k: strip(v) for k, v in value.items() if k not in TIMES}
        return [strip(v) for v in value] if isinstance(value, list) else value

    return strip(json.loads((folder / "report.json").read_text()))


def test_a_run_explains_itself_in_its_folder(finished: Path) -> None:
    names = {path.name for path in finished.iterdir()}
    assert {"recipe.resolved.yaml", "01-quantize", "bundles", "measured", "profiles"} <= names
    assert {"report.html", "report.md", "report.json"} <= names
    assert {path.name for path in (finished / "bundles").iterdir()} == {"onnxruntime-fp32", "onnxruntime-int8"}
    report = load(finished)
    assert {(b.target, b.precision) for b in report.bundles} == {("onnxruntime", "fp32"), ("onnxruntime", "int8")}
    assert report.corpus.splits["test_unseen"].utterances == 4
    fp32 = report.bundles[0]
    assert fp32.parity is not None and fp32.parity.max_abs <= 1e-3 and fp32.parity.transcripts_equal
    assert len(fp32.parity.lengths) >= 3


def test_every_run_is_guarded_without_being_asked(finished: Path) -> None:
    report = load(finished)
    checks = {check.name: check for check in report.verdict.checks}
    assert set(checks) == {"parity", "speed", "file", "kernels", "bucket", "blanks"}
    assert checks["file"].passed and checks["kernels"].passed, [check.say for check in report.verdict.checks]
    assert {"short", "long", "0 dB"} <= {row.bucket for row in report.buckets}
    assert {row["step"] for row in plan(Recipe.load(finished / "recipe.resolved.yaml"), finished)} >= {
        "guards/onnxruntime-fp32",
        "guards/onnxruntime-int8",
        "guards/onnxruntime-file",
    }


def test_a_second_run_redoes_nothing(finished: Path, recipe_path: Path) -> None:
    before = {p: p.stat().st_mtime_ns for p in finished.rglob("done.json")}
    assert {row["state"] for row in plan(Recipe.load(recipe_path), finished)} == {"cached"}
    compress(Recipe.load(recipe_path), finished)
    assert {p: p.stat().st_mtime_ns for p in finished.rglob("done.json")} == before


def test_a_plan_says_what_a_changed_setting_redoes(finished: Path, recipe_path: Path) -> None:
    changed = Recipe.load(recipe_path, ["stages.0.quantize.calibration=2"])
    rows = {row["step"]: row for row in plan(changed, finished)}
    assert "changed" in rows["01-quantize"]["why"]
    assert rows["bundles/onnxruntime-int8"]["why"] == "follows 01-quantize"


def test_what_is_not_quantized_is_not_compared(recipe_path: Path, tmp_path: Path) -> None:
    recipe = Recipe.load(recipe_path, ["stages=[]"])
    steps = [row["step"] for row in plan(recipe, tmp_path)]
    assert steps == [
        "measured/eager",
        "bundles/onnxruntime-fp32",
        "measured/onnxruntime-fp32",
        "profiles/onnxruntime-this-machine",
    ]


def test_a_corrupted_bundle_is_named_not_used(finished: Path, tmp_path: Path) -> None:
    from edgeav.errors import EdgeavError
    from edgeav.runtime.bundle import read_bundle

    broken = tmp_path / "bundle"
    shutil.copytree(finished / "bundles" / "onnxruntime-int8", broken)
    model = broken / "model.onnx"
    model.write_bytes(model.read_bytes()[:-100])
    with pytest.raises(EdgeavError, match=r"model\.onnx"):
        read_bundle(broken)


@pytest.mark.slow
def test_a_run_killed_in_every_step_ends_with_the_same_report(
    recipe_path: Path, finished: Path, tmp_path: Path
) -> None:
    """SIGKILL as soon as each step's hidden folder appears; what was finished before is never done again."""
    folder = tmp_path / "small"
    steps = [row["step"] for row in plan(Recipe.load(recipe_path), folder)]
    finished_at: dict[Path, int] = {}
    for step in steps:
        part = (folder / step).with_name(f".{Path(step).name}.part")
        process = start(recipe_path, folder)
        while not part.exists():
            assert process.poll() is None, "the run ended before the step began"
            time.sleep(0.01)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        assert not (folder / step).exists()
        done = {path: path.stat().st_mtime_ns for path in folder.rglob("done.json")}
        assert {path: done[path] for path in finished_at} == finished_at
        finished_at = done
    assert start(recipe_path, folder).wait() in (0, 1)  # 1: an untrained model keeps no budget
    assert untimed(folder) == untimed(finished)


@pytest.mark.slow
def test_a_recipe_trains_a_new_model_and_then_trains_it_further(recipe_path: Path, tmp_path: Path) -> None:
    corpus = str(recipe_path.parent / "corpus")
    train = {"mix": [{"corpus": corpus, "per_batch": 2}], "vocabulary": 64, "steps": 4, "checkpoint_every": 2}
    train |= {"longest_s": 10.0, "warmup": 1}
    config = json.loads(SMALL.model_dump_json(exclude={"tokens"}))
    recipe = {"name": "small", "model": {"config": config}, "corpus": corpus, "stages": [{"train": train}] * 2}
    path = tmp_path / "recipe.yaml"
    path.write_text(json.dumps(recipe))  # JSON is YAML
    report = compress(Recipe.load(path), tmp_path / "run")
    first, second = (load_model(tmp_path / "run" / name) for name in ("01-train", "02-train"))
    assert first.config == second.config and len(first.config.tokens) > 10
    assert any((a != b).any() for a, b in zip(first.parameters(), second.parameters(), strict=True))
    assert report.eager["test_unseen"].utterances == 4
    assert {row["state"] for row in plan(Recipe.load(path), tmp_path / "run")} == {"cached"}


@pytest.mark.slow
def test_a_recipe_learns_ranges_and_exports_those(recipe_path: Path, tmp_path: Path) -> None:
    corpus = str(recipe_path.parent / "corpus")
    train = {"mix": [{"corpus": corpus, "per_batch": 2}], "longest_s": 10.0, "warmup": 1, "checkpoint_every": 2}
    config = json.loads(SMALL.model_dump_json(exclude={"tokens"}))
    stages: list[dict] = [{"train": train | {"steps": 2, "vocabulary": 64}}]
    stages += [{"quantize": {"calibration": 4}}, {"qat": train | {"steps": 3, "range_learning_rate": 0.05}}]
    recipe = {"name": "small", "model": {"config": config}, "corpus": corpus, "stages": stages}
    path, run = tmp_path / "recipe.yaml", tmp_path / "run"
    path.write_text(json.dumps(recipe | {"export": ["onnxruntime"]}))
    report = compress(Recipe.load(path), run)
    began, learned = (load_plan(next(run.glob(place))) for place in ("work/qat/initial-*", "03-qat"))
    assert learned.calibration == load_plan(run / "02-quantize").calibration
    low, high = (learned.learned or {})["head"].given
    assert abs(high / (began.learned or {})["head"].given[1] - 1) > 0.01
    assert input_scale(run / "bundles" / "onnxruntime-int8" / "model.onnx", "head") == pytest.approx((high - low) / 255)
    assert [bundle.arithmetic for bundle in report.bundles] == [{}, {"int8": "real"}]
    (file,) = [check for check in report.verdict.checks if check.name == "file"]
    assert file.passed, file.say
    assert {row["state"] for row in plan(Recipe.load(path), run)} == {"cached"}


def input_scale(path: Path, layer: str) -> float:
    """Of what an int8 ONNX file gives to a layer."""
    graph = onnx.load(path).graph
    constants = {item.name: numpy_helper.to_array(item) for item in graph.initializer}
    makers = {name: node for node in graph.node for name in node.output}
    (node,) = [n for n in graph.node if n.name.startswith(f"{layer}/") and n.op_type in ("MatMul", "Gemm")]
    return float(constants[makers[node.input[0]].input[1]])


def start(recipe: Path, folder: Path) -> subprocess.Popen:
    here = Path(__file__).resolve().parent.parent
    env = {**os.environ, "PYTHONPATH": str(here)}
    command = [sys.executable, "-m", "edgeav", "compress", str(recipe), "--run-dir", str(folder)]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    return subprocess.Popen(command, env=env, start_new_session=True, **quiet)  # type: ignore[call-overload]


def test_a_model_that_does_not_exist_is_named_and_nothing_is_written(recipe_path: Path, tmp_path: Path) -> None:
    from edgeav.errors import EdgeavError

    with pytest.raises(EdgeavError, match=r"'nowhere' is neither a shipped model"):
        compress(Recipe.load(recipe_path, ["model=nowhere"]), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_new_model_with_a_bad_config_is_refused_by_field(recipe_path: Path, tmp_path: Path) -> None:
    from edgeav.errors import EdgeavError
    from edgeav.run import Run
    from edgeav.work import starting_model

    recipe = Recipe.load(recipe_path, ["model={config: {width: 4, blokcs: []}}"])
    with pytest.raises(EdgeavError, match=r"(?s)width.*blokcs.*blocks"):
        starting_model(Run(tmp_path, recipe))


def test_a_recipe_can_begin_with_a_published_size_and_change_single_settings(tmp_path: Path) -> None:
    from edgeav.run import Run
    from edgeav.work import starting_model

    source = {"preset": "fast-conformer-S", "modalities": "audio", "config": {"dropout": 0.2}}
    recipe = Recipe.model_validate({"schema": "edgeav/1", "name": "preset", "model": source})
    config = spec.load(ModelConfig, starting_model(Run(tmp_path, recipe)) / "model.json")
    assert (config.width, len(config.blocks), config.video, config.dropout) == (176, 16, None, 0.2)
