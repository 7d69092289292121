"""What the doctor says about engines that work, are absent, are broken, or crash when they are imported."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest

from edgeav import doctor, show
from edgeav.errors import EdgeavError, needs
from edgeav.runtime.machine import ISA_FLAGS, isa

X86 = "fpu sse2 avx2 avx512f avx512_vnni fma"
ARM = "fp asimd crc32 asimdhp asimddp i8mm"


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (X86, ["avx2", "fma", "avx512f", "avx512_vnni"]),
        (ARM, ["neon", "fp16", "dotprod", "i8mm"]),
        ("", []),
        ("myavx2 avx2x", []),
    ],
)
def test_instruction_sets_are_read_from_x86_and_arm_alike(flags: str, expected: list[str]) -> None:
    assert isa(flags) == expected


@pytest.fixture
def extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Make an extra of the given modules {name: source}; returns what the doctor finds."""

    def check(modules: dict[str, str], *names: str) -> dict[str, Any]:
        for name, source in modules.items():
            (tmp_path / f"{name}.py").write_text(source)
        monkeypatch.setenv("PYTHONPATH", str(tmp_path))
        monkeypatch.setitem(doctor.EXTRAS, "toys", names)
        return doctor.check_extra("toys")

    return check


def test_an_extra_that_imports_works_and_needs_no_fix(extra: Any) -> None:
    assert extra({"toy_one": "x = 1"}, "toy_one", "json") == {"works": True, "problems": {}, "fix": None}


def test_an_absent_extra_says_what_to_type(extra: Any) -> None:
    found = extra({}, "toy_absent")
    assert found["problems"] == {"toy_absent": "not installed"}
    assert found["fix"] == "pip install 'edgeav[toys]'"


def test_an_extra_that_lacks_something_of_its_own_is_not_called_absent(extra: Any) -> None:
    found = extra({"toy_hungry": "import toy_food"}, "toy_hungry")
    assert found["problems"] == {"toy_hungry": "needs toy_food"}
    assert "--force-reinstall" in found["fix"]


def test_an_import_that_raises_is_reported_with_its_words(extra: Any) -> None:
    found = extra({"toy_broken": "raise ImportError('libtoy.so:\\n cannot open')"}, "toy_broken", "json")
    assert found["problems"] == {"toy_broken": "ImportError: libtoy.so: cannot open"}


def test_a_crash_costs_one_line_and_the_modules_after_it_are_still_tried(extra: Any) -> None:
    crash = "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)"
    found = extra({"toy_crash": crash, "toy_late": "import toy_food"}, "json", "toy_crash", "toy_late")
    assert found["problems"]["toy_crash"] == "the process ended while importing it (exit code -11)"
    assert found["problems"]["toy_late"] == "needs toy_food"
    assert set(found["problems"]) == {"toy_crash", "toy_late"}


def test_a_module_that_prints_while_it_is_imported_does_not_confuse_the_doctor(extra: Any) -> None:
    assert extra({"toy_loud": "print('a\\tb'); print('json\\tbroken')"}, "toy_loud")["works"]


def test_a_missing_engine_is_shown_with_the_command_on_a_line_of_its_own(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(doctor, "EXTRAS", dict.fromkeys(doctor.EXTRAS, ("json",)))
    monkeypatch.setitem(doctor.EXTRAS, "openvino", ("edgeav_no_such_engine",))
    found = doctor.examine()
    assert found["engines"] == {"onnxruntime": True, "openvino": False, "executorch": True}
    show.health(found)
    assert "openvino: pip install 'edgeav[openvino]'" in capsys.readouterr().out.splitlines()


def test_work_is_refused_before_it_begins_when_an_extra_is_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(doctor.EXTRAS, "openvino", ("edgeav_no_such_engine", "json"))
    monkeypatch.setitem(doctor.EXTRAS, "executorch", ("edgeav_no_such_either.runtime",))
    with pytest.raises(EdgeavError) as caught:
        doctor.require(["openvino", "executorch", "openvino"])
    assert str(caught.value).splitlines() == [
        str(needs("openvino", "edgeav_no_such_engine")),
        str(needs("executorch", "edgeav_no_such_either")),
    ]
    assert "pip install 'edgeav[openvino]'" in str(caught.value)


def test_every_extra_of_the_package_is_examined(repository: Path) -> None:
    project = tomllib.loads((repository / "pyproject.toml").read_text())["project"]
    assert set(doctor.EXTRAS) == set(project["optional-dependencies"]) - {"all", "dev"}
    assert set(doctor.ENGINES) < set(doctor.EXTRAS)


def test_the_module_of_an_extra_leads_back_to_it() -> None:
    assert doctor.extra_of("executorch.kernels") == "executorch"
    assert doctor.extra_of("nncf") == "openvino"
    assert doctor.extra_of("json") is None


def test_the_machine_is_described_completely() -> None:
    machine = doctor.cpu()
    assert machine["cpu"]
    assert machine["cores"] >= 1
    assert set(machine["isa"]) <= set(ISA_FLAGS.values())
    assert {"numpy", "pydantic"} <= set(doctor.versions(doctor.DISTRIBUTIONS))
