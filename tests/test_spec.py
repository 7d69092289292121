"""Reading strict YAML: every mistake is said, with its place, and nothing is guessed."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from pydantic import Field

from edgeav import spec
from edgeav.errors import EdgeavError


class Wheel(spec.Strict):
    size: int = Field(ge=1, le=9)
    color: str = "black"


class Car(spec.Strict):
    name: str
    speed: float = 1.0
    wheels: tuple[Wheel, ...] = ()
    owner: str | dict[str, int] = "me"


def write(folder: Path, text: str) -> Path:
    path = folder / "car.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def message(path: Path, *overrides: str) -> str:
    with pytest.raises(EdgeavError) as caught:
        spec.load(Car, path, overrides)
    return str(caught.value)


def test_a_file_without_mistakes_loads_as_frozen_objects(tmp_path: Path) -> None:
    car = spec.load(Car, write(tmp_path, "name: a\nspeed: 2\nwheels: [{size: 3}]\n"))
    assert car == Car(name="a", speed=2.0, wheels=(Wheel(size=3),))
    with pytest.raises(ValueError, match="frozen"):
        car.name = "b"  # type: ignore[misc]


def test_what_is_dumped_loads_as_an_equal_object(tmp_path: Path) -> None:
    car = Car(name="ö: #1", wheels=(Wheel(size=3), Wheel(size=4, color="red")), owner={"ann": 1})
    assert spec.load(Car, write(tmp_path, spec.dump(car))) == car


def test_all_mistakes_are_reported_at_once_in_the_order_of_the_file(tmp_path: Path) -> None:
    text = "speeed: 3\nspeed: fast\nwheels:\n  - {size: 3}\n  - {size: 12, colour: red}\n"
    lines = message(write(tmp_path, text)).splitlines()
    assert len(lines) == 5
    assert "car.yaml:1: speeed: unknown key; did you mean 'speed'?" in lines[0]
    assert "car.yaml:2: speed = 'fast': must be a number" in lines[1]
    assert "car.yaml:5: wheels.1.size = 12: must be less than or equal to 9" in lines[2]
    assert "wheels.1.colour: unknown key; did you mean 'color'?; allowed: size, color" in lines[3]
    assert "name: is missing" in lines[4]


def test_a_value_that_fits_no_branch_of_a_union_names_all_of_them(tmp_path: Path) -> None:
    said = message(write(tmp_path, "name: a\nowner: 3\n"))
    assert said.endswith("car.yaml:2: owner = 3: must be a text or a mapping of settings")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is empty"),
        ("# only a comment\n", "is empty"),
        ("name: a\nname: b\n", ":2: not valid YAML: duplicate key 'name'"),
        ("name: a\n  speed: 3\n", ":2: not valid YAML"),
        ("name: a\nspeed: [1, 2\n", "not valid YAML"),
        ("name: a\n? [1, 2]\n: b\n", "not valid YAML: a key must be a word"),
        ("- name: a\n", "the file: must be"),
        ("name: &a [1]\nspeed: *a\n", ":2: not valid YAML: aliases are not supported"),
        ("name: !!python/object/apply:os.system ['true']\n", ":1: not valid YAML"),
        ("name: a\nspeed: .nan\n", "speed = nan: must be a finite number"),
        ("name: !!timestamp x\n", ":1: not valid YAML: tags are not supported"),
        ("name: a\nspeed: 010\n", "speed = '010': must be a number"),
        ("name: a\nspeed: 1:30\n", "speed = '1:30': must be a number"),
        ("name: a\n1: b\n", "car.yaml:2: 1: unknown key"),
        ("name: no\nspeed: true\n", "car.yaml:2: speed = True: must be a number"),
        (f"name: a\nspeed: {'9' * 5000}\n", "speed = '9999"),
    ],
)
def test_text_that_is_no_declaration_is_refused_with_its_line(tmp_path: Path, text: str, said: str) -> None:
    assert said in message(write(tmp_path, text))


@pytest.mark.parametrize("word", ["2024-01-01", "no", "on", "Null", "x: y", "#1", "[", "*a", "~", "1e3", ""])
def test_a_text_stays_what_was_written(tmp_path: Path, word: str) -> None:
    quoted = word if word in ("2024-01-01", "no", "on", "Null") else f'"{word}"'
    assert spec.load(Car, write(tmp_path, f"name: {quoted}\n")).name == word
    assert spec.load(Car, write(tmp_path, spec.dump(Car(name=word)))).name == word


def test_deep_nesting_is_refused_instead_of_exhausting_the_stack(tmp_path: Path) -> None:
    assert "not valid YAML" in message(write(tmp_path, "name: " + "[" * 5000 + "]" * 5000))


def test_a_file_that_cannot_be_read_says_why(tmp_path: Path) -> None:
    binary = tmp_path / "binary.yaml"
    binary.write_bytes(b"name: \xff\xfe")
    assert "not UTF-8" in message(binary)
    assert "is a folder" in message(tmp_path)
    assert "no such file" in message(tmp_path / "absent.yaml")


@pytest.mark.parametrize(
    ("text", "value"), [("1e-3", 1e-3), ("-.5", -0.5), ("2E+2", 200.0), ("1.5e3", 1500.0), ("3", 3.0)]
)
def test_numbers_are_read_as_people_write_them(tmp_path: Path, text: str, value: float) -> None:
    assert spec.load(Car, write(tmp_path, f"name: a\nspeed: {text}\n")).speed == value


def test_overrides_reach_into_mappings_and_lists(tmp_path: Path) -> None:
    path = write(tmp_path, "name: a\nwheels: [{size: 3}, {size: 4}]\n")
    car = spec.load(Car, path, ["wheels.1.size=5", "speed=1e1", "owner={ann: 2}", "wheels.0={size: 9}"])
    assert car == Car(name="a", speed=10.0, wheels=(Wheel(size=9), Wheel(size=5)), owner={"ann": 2})


def test_an_override_may_set_what_the_file_leaves_out_or_empty(tmp_path: Path) -> None:
    assert spec.load(Car, write(tmp_path, "name: a\nowner:\n"), ["owner.bob=1"]).owner == {"bob": 1}


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("speed", "--set speed: expected KEY.KEY=VALUE"),
        ("=3", "expected KEY.KEY=VALUE"),
        ("wheels..size=3", "expected KEY.KEY=VALUE"),
        ("wheels.7.size=3", "'7' is not a position in this list; allowed: 0 to 0"),
        ("wheels.first=3", "'first' is not a position"),
        ("name.first=3", "has no keys"),
        ("speed=[1", "--set speed=[1: not valid YAML"),
        ("wheels.0.size=0", "--set wheels.0.size: wheels.0.size = 0: must be greater than or equal to 1"),
        ("sped=2", "--set sped: sped: unknown key; did you mean 'speed'?"),
    ],
)
def test_a_bad_override_is_named_as_it_was_typed(tmp_path: Path, override: str, said: str) -> None:
    assert said in message(write(tmp_path, "name: a\nwheels: [{size: 3}]\n"), override)


def test_every_shipped_file_is_called_as_its_name_says() -> None:
    kinds: tuple[spec.Kind, ...] = ("recipes", "export", "devices")
    for kind in kinds:
        files = spec.shipped(kind)
        assert files
        assert {name: yaml.safe_load(path.read_text())["name"] for name, path in files.items()} == {
            name: name for name in files
        }


def test_an_unknown_name_lists_what_exists_and_guesses() -> None:
    with pytest.raises(EdgeavError, match="no export target named 'openvno'; did you mean 'openvino'"):
        spec.find("export", "openvno")
    with pytest.raises(EdgeavError, match=r"known: .*this-machine"):
        spec.find("devices", "moon")


@pytest.mark.parametrize("name", ["x" * 5000 + ".yaml", "~nobody/a.yaml", "a\0b.yaml", "/dev/null/a.yaml"])
def test_a_path_that_cannot_exist_does_not_exist(name: str) -> None:
    with pytest.raises(EdgeavError, match="no such file"):
        spec.find("recipes", name)


def test_a_path_is_never_taken_for_a_name(tmp_path: Path) -> None:
    with pytest.raises(EdgeavError, match=r"int8\.yaml: no such file; edgeav ships one by the name of 'int8'"):
        spec.find("recipes", str(tmp_path / "int8.yaml"))
    assert spec.find("recipes", str(write(tmp_path, "name: a\n"))) == tmp_path / "car.yaml"


def test_the_json_schema_knows_every_key_and_its_limits() -> None:
    schema = spec.json_schema(Car)
    assert set(schema["properties"]) == {"name", "speed", "wheels", "owner"}
    assert schema["$defs"]["Wheel"]["properties"]["size"]["maximum"] == 9
    assert schema["additionalProperties"] is False
