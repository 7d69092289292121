"""The engines against numpy, and that none is loaded or replaced unasked."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from tiny_bundle import expected, make_bundle, some_inputs

from edgeav.errors import EdgeavError
from edgeav.runtime.bundle import Bundle, read_bundle, write_bundle
from edgeav.runtime.engines import open_engine
from edgeav.runtime.inputs import settings

ENGINES = ("onnxruntime", "openvino")
RUNTIME = Path(__file__).parents[1] / "edgeav" / "runtime"
MODULES = [f"edgeav.runtime.{path.stem}".removesuffix(".__init__") for path in sorted(RUNTIME.glob("*.py"))]


@pytest.fixture(scope="module", params=ENGINES)
def bundle(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return make_bundle(tmp_path_factory.mktemp("bundle") / "tiny", engine=request.param)


def test_an_engine_computes_what_the_model_says_at_every_length(bundle: Bundle) -> None:
    engine = open_engine(bundle)

    for steps in (2, 37, 200):
        inputs = some_inputs(steps)
        np.testing.assert_allclose(engine.run(*inputs), expected(inputs), atol=1e-4)


def test_an_engine_says_who_it_is(bundle: Bundle) -> None:
    engine = open_engine(bundle)

    assert engine.name == bundle.engine
    assert engine.version == importlib.import_module(bundle.engine).__version__.split("-")[0]


def test_an_output_survives_the_next_run(bundle: Bundle) -> None:
    engine = open_engine(bundle)
    first = engine.run(*some_inputs(9, seed=1))
    kept = first.copy()

    engine.run(*some_inputs(9, seed=2))

    np.testing.assert_array_equal(first, kept)


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino", "executorch"])
def test_a_missing_engine_is_an_error_with_the_command_to_install_it(
    bundle: Bundle, engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, engine, None)
    spoiled = Bundle(**{**vars(bundle), "engine": engine})

    with pytest.raises(EdgeavError, match=rf"pip install 'edgeav\[{engine}\]'"):
        open_engine(spoiled)


def test_a_file_the_engine_refuses_is_named_with_the_versions(bundle: Bundle, tmp_path: Path) -> None:
    name = bundle.model
    (tmp_path / name).write_bytes(b"this is no model")
    spec = {key: value for key, value in vars(bundle).items() if key not in ("folder", "files", "steps", "features")}
    spoiled = write_bundle(
        tmp_path, spec={**spec, "steps": vars(bundle.steps), "features": settings(bundle.features), "golden": []}
    )

    with pytest.raises(EdgeavError, match=f"{bundle.engine} .* cannot load .*{name}"):
        open_engine(read_bundle(spoiled.folder))


@pytest.mark.slow
def test_executorch_computes_what_the_model_says_at_every_length(tmp_path: Path) -> None:
    from tiny_executorch import make_executorch_bundle

    engine = open_engine(make_executorch_bundle(tmp_path / "tiny"))

    for steps in (2, 37, 200):
        inputs = some_inputs(steps)
        np.testing.assert_allclose(engine.run(*inputs), expected(inputs), atol=1e-4)


@pytest.mark.parametrize("module", MODULES)
def test_no_module_of_the_runtime_loads_torch_or_pydantic(module: str) -> None:
    code = f"import sys, {module}; print(*[m for m in ('torch', 'pydantic', 'executorch') if m in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    assert (run.returncode, run.stdout.strip()) == (0, ""), run.stderr
