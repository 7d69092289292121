"""Recipes, targets and devices: what may stand in them, and what is said about what may not."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from edgeav import spec
from edgeav.device import Device
from edgeav.errors import EdgeavError
from edgeav.recipe import Recipe
from edgeav.target import OpenVinoOptions, Target

INT8 = Path(__file__).parents[1] / "recipes" / "int8.yaml"


def message(*overrides: str) -> str:
    with pytest.raises(EdgeavError) as caught:
        Recipe.load("int8", overrides)
    return str(caught.value)


@pytest.mark.parametrize("name", spec.shipped("recipes"))
def test_every_shipped_recipe_loads_and_opens_with_three_lines_of_advice(name: str) -> None:
    recipe = Recipe.load(name)
    assert recipe.name == name
    text = spec.find("recipes", name).read_text()
    assert [line.startswith("# ") for line in text.splitlines()[:4]] == [True, True, True, False]


@pytest.mark.parametrize("name", spec.shipped("export"))
def test_every_shipped_target_runs_on_this_machine(name: str) -> None:
    assert Target.load(name).engine in Device.load("this-machine").engines


def test_the_int8_recipe_asks_for_what_the_product_promises() -> None:
    recipe = Recipe.load("int8")
    assert [step.name for step in recipe.stages] == ["quantize"]
    assert {target.engine for target in recipe.targets} == {"onnxruntime", "openvino", "executorch"}
    wer, speed = recipe.budget.wer, recipe.budget.speed
    assert wer
    assert (wer.max_increase_abs, wer.ci, wer.min_utterances) == (1.0, 95, 200)
    assert speed
    assert (speed.min_ratio_vs_fp32, recipe.budget.size_ratio) == (1.5, 0.35)


@pytest.mark.parametrize("name", spec.shipped("recipes"))
def test_a_resolved_recipe_written_and_read_again_is_the_same(name: str, tmp_path: Path) -> None:
    recipe = Recipe.load(name, ["seed=7"])
    path = tmp_path / "recipe.resolved.yaml"
    path.write_text(spec.dump(recipe))
    assert Recipe.load(path) == recipe


def test_a_stage_keeps_its_settings_and_its_place() -> None:
    recipe = Recipe.load("int8", ["stages.0.quantize.calibration=64"])
    assert recipe.stages[0].stage.model_dump()["calibration"] == 64
    dumped = yaml.safe_load(spec.dump(recipe))["stages"]
    assert [list(step) for step in dumped] == [["quantize"]]


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("bugdet={}", "bugdet: unknown key; did you mean 'budget'?; allowed: schema, name, model"),
        ("stages.0={quantise: {}}", "stages.0.quantise: unknown key; did you mean 'quantize'?"),
        ("stages.0.quantize.calibraton=3", "unknown key; did you mean 'calibration'?"),
        ("stages.0={}", "stages.0 = {}: a step is one stage with its settings"),
        ("stages.0=quantize", "stages.0 = 'quantize': must be a mapping of settings"),
        ("export=[onnxruntime, openvno]", "no export target named 'openvno'; did you mean 'openvino'?"),
        ("export=[tensorrt]", "known: cuda-aoti, executorch-xnnpack, onnxruntime, openvino"),
        ("export=onnxruntime", "export = 'onnxruntime': must be a list"),
        ("export=[openvino, openvino]", "openvino stands in the list twice"),
        ("profile=[this-machin]", "no device named 'this-machin'; did you mean 'this-machine'?"),
        ("corpus=demoo", "no such corpus; did you mean 'demo'?"),
        ("corpus=no/such/folder", "no such corpus; allowed: demo, demo-pico, or the path of a corpus"),
        ("seed=-1", "seed = -1: must be greater than or equal to 0"),
        ("seed=1.5", "seed = 1.5: must be an integer"),
        ("seed='1'", "seed = '1': must be an integer"),
        ("seed=true", "seed = True: must be an integer"),
        ("name=../up", "name = '../up': must match pattern"),
        ("model=3", "model = 3: must be a text or a mapping of settings"),
        ("schema=edgeav/2", "schema = 'edgeav/2': must be 'edgeav/1'"),
        ("budget.wer.ci=100", "budget.wer.ci = 100: must be less than or equal to 99"),
        ("budget.speed.min_ratio_vs_fp32=0", "must be greater than 0"),
        ("budget.size_ratio=2", "budget.size_ratio = 2: must be less than or equal to 1"),
    ],
)
def test_a_mistake_is_named_with_what_is_allowed(override: str, said: str) -> None:
    assert said in message(override)


def test_mistakes_of_every_kind_are_reported_together() -> None:
    lines = message("seed=-1", "export=[onnx]", "profile=[moon]", "budget.wer.ci=hi", "colour=1").splitlines()
    assert len(lines) == 5
    assert all(line.startswith("--set ") for line in lines)


def test_a_target_that_no_device_can_run_is_found_before_any_work(tmp_path: Path) -> None:
    device = tmp_path / "small.yaml"
    text = "schema: edgeav/1\nname: small\ndescription: x\nconnect: local\narch: native\nengines: [openvino]\n"
    device.write_text(text)
    assert "target onnxruntime needs onnxruntime, but small has none: it runs openvino" in message(
        f"profile=[{device}]"
    )
    recipe = Recipe.load("int8", [f"profile=[{device}]", "export=[openvino]"])
    assert [found.name for found in recipe.devices] == ["small"]


def test_a_speed_that_nothing_could_measure_is_not_asked_for() -> None:
    assert "budget.start compares with the model that the recipe begins with" in message(
        "budget.start={size_ratio: 0.1}"
    )
    assert "budget.speed: emulated-pi-5: emulated, so no time counts" in message(
        "export=[onnxruntime]", "profile=[emulated-pi-5]"
    )
    both = ["export=[onnxruntime]", "profile=[emulated-pi-5, this-machine]"]
    assert [device.emulated for device in Recipe.load("int8", both).devices] == [True, False]


def test_a_device_that_only_its_app_can_measure_is_refused_before_any_work() -> None:
    said = message("export=[onnxruntime]", "profile=[this-machine, browser]")
    assert "profile: browser: measured by its own app" in said and "--measured FILE" in said


def test_a_broken_target_is_blamed_on_its_own_file(tmp_path: Path) -> None:
    target = tmp_path / "mine.yaml"
    target.write_text("schema: edgeav/1\nname: mine\ndescription: x\nengine: onnx\n")
    said = message(f"export=[{target}]")
    assert f"{target}:4: engine = 'onnx': must be 'onnxruntime', 'openvino', 'executorch' or 'aoti'" in said
    assert "did you mean 'onnxruntime'?" in said


def test_a_target_takes_only_the_options_of_its_own_engine(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    text = "schema: edgeav/1\nname: mine\ndescription: x\nengine: openvino\n"
    path.write_text(text)
    assert isinstance(Target.load(str(path)).options, OpenVinoOptions)
    path.write_text(text + "options: {opset: 20}\n")
    with pytest.raises(EdgeavError, match=r"mine\.yaml:5: options\.opset: unknown key"):
        Target.load(str(path))


@pytest.mark.parametrize("key", ["wifi", "emulatd"])
def test_a_device_has_no_unknown_keys(tmp_path: Path, key: str) -> None:
    path = tmp_path / "d.yaml"
    path.write_text(spec.find("devices", "this-machine").read_text() + f"{key}: true\n")
    with pytest.raises(EdgeavError, match=f"{key}: unknown key"):
        Device.load(str(path))


def test_reading_a_recipe_loads_nothing_heavy() -> None:
    code = (
        "import sys; from edgeav.recipe import Recipe; import edgeav.cli; Recipe.load('int8')\n"
        "heavy = {'torch', 'onnx', 'onnxruntime', 'openvino', 'nncf', 'executorch', 'plotly', 'cv2', 'av'}\n"
        "sys.exit(', '.join(heavy & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=INT8.parents[1], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
