"""Strict declarations: how a YAML file becomes a frozen Python object, or a complete list of what is wrong.

`recipes/`, `export/` and `devices/` are read by this one file. It finds a shipped file by its name, applies
`--set`, and hands pydantic's findings to explain.py, which makes "file:line: path: what is allowed" of them.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from edgeav import yaml_text
from edgeav.errors import EdgeavError
from edgeav.explain import Sources, explain, guess

Kind = Literal["recipes", "export", "devices"]
NAME = r"^[a-z0-9][a-z0-9._-]{0,63}$"  # a name is also a folder's name
SUFFIXES = (".yaml", ".yml")
S = TypeVar("S", bound="Strict")
T = TypeVar("T")


class Strict(BaseModel):
    """A frozen declaration: no unknown keys, no silent conversions ("3" is not 3), no NaN."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        allow_inf_nan=False,
        validate_default=True,
        use_attribute_docstrings=True,
        serialize_by_alias=True,
        validate_by_name=True,
        validate_by_alias=True,
    )


def load(cls: type[S], path: Path, overrides: Sequence[str] = ()) -> S:
    """Read one YAML file as `cls`, with `a.b=c` overrides. EdgeavError lists all that is wrong at once."""
    text = read_text(path)
    data, lines = yaml_text.parse(text, path)
    overridden = [_override(data, override) for override in overrides]
    return validate(cls, data, Sources(_shown(path), lines, overridden))


def validate(cls: type[S], data: Any, sources: Sources) -> S:
    """Plain data -> `cls`; `sources` says where each value came from, for the errors.

    It goes through JSON because strict pydantic reads a list as a tuple only from there.
    """
    try:
        return cls.model_validate_json(json.dumps(data))
    except ValidationError as error:
        raise EdgeavError(explain(cls, data, error, sources)) from None


def unique(items: list[T]) -> list[T]:
    """The same list; ValueError (for pydantic's validators) when something stands in it twice."""
    twice = sorted({str(item) for item in items if items.count(item) > 1})
    if twice:
        raise ValueError(f"{', '.join(twice)} stands in the list twice")
    return items


def distinct(names: Sequence[str], option: str) -> None:
    """EdgeavError when something stands in a list of the command line twice."""
    twice = sorted({name for name in names if list(names).count(name) > 1})
    if twice:
        raise EdgeavError(f"{option}: {', '.join(twice)} stands there twice")


def dump(spec: Strict) -> str:
    """The declaration as YAML that `load` reads back to an equal object."""
    return yaml_text.dump(_without_idle_nulls(spec, spec.model_dump(mode="json")))


def _without_idle_nulls(value: Any, dumped: Any) -> Any:
    """`dumped`, which is `value`, without every null that its field has anyway; one that means something stays."""
    match value, dumped:
        case BaseModel(), dict():
            fields = {field.alias or name: (name, field) for name, field in type(value).model_fields.items()}
            kept = [key for key, part in dumped.items() if part is not None or fields[key][1].default is not None]
            return {key: _without_idle_nulls(getattr(value, fields[key][0]), dumped[key]) for key in kept}
        case list() | tuple(), list():
            return [_without_idle_nulls(*pair) for pair in zip(value, dumped, strict=True)]
        case dict(), dict():
            return {key: _without_idle_nulls(value[key], part) for key, part in dumped.items()}
    return dumped


def json_schema(cls: type[Strict]) -> dict[str, Any]:
    """JSON schema of a declaration, for editors that complete YAML."""
    return cls.model_json_schema(by_alias=True)


def read_text(path: Path) -> str:
    """The text of a user's file; EdgeavError when it cannot be read or is not UTF-8."""
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise EdgeavError(f"{path}: no such file") from None
    except IsADirectoryError:
        raise EdgeavError(f"{path}: is a folder; expected a YAML file") from None
    except UnicodeDecodeError as error:
        raise EdgeavError(f"{path}: is not UTF-8 text (byte {error.start}); expected a YAML file") from None
    except OSError as error:
        raise EdgeavError(f"{path}: cannot be read: {error.strerror}") from None


def shipped(kind: Kind) -> dict[str, Path]:
    """Name -> file of everything of this kind that comes with edgeav, sorted by name."""
    return {path.stem: path for path in sorted(_folder(kind).glob("*.yaml"))}


def find(kind: Kind, name: str) -> Path:
    """The file for a shipped name ("int8") or a path ("my/recipe.yaml"); EdgeavError says what exists."""
    known = shipped(kind)
    if name in known:
        return known[name]
    path = Path(name)
    if path.suffix in SUFFIXES or "/" in name:
        if (found := existing(name)) and found.is_file():
            return found
        raise EdgeavError(_no_such_file(kind, path, known))
    noun = {"recipes": "recipe", "export": "export target", "devices": "device"}[kind]
    raise EdgeavError(f"no {noun} named {name!r}{guess(name, known)}; known: {', '.join(known)}")


def _shown(path: Path) -> str:
    """The path as a person in this folder would write it."""
    here = Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)


def existing(text: str) -> Path | None:
    """The file or folder that a user's text names, `~` included; None where there is, or can be, none."""
    try:
        path = Path(text).expanduser()
        return path if path.exists() else None
    except (OSError, RuntimeError):  # a name that is too long, a folder that is locked, ~nobody
        return None


def _no_such_file(kind: Kind, path: Path, known: dict[str, Path]) -> str:
    if existing(str(path)):
        return f"{path}: is a folder; expected a YAML file"
    neighbours = [str(other) for other in sorted(path.parent.glob("*.yaml"))]
    advice = guess(str(path), neighbours)
    if not advice and path.stem in known:
        advice = f"; edgeav ships one by the name of {path.stem!r}"
    return f"{path}: no such file{advice}; shipped {kind}: {', '.join(known)}"


def _folder(kind: Kind) -> Path:
    """The checkout's top-level folder when we run from one, else the copy in the installed package."""
    package = Path(__file__).parent
    checkout = package.parent
    if (checkout / "pyproject.toml").is_file() and (checkout / kind).is_dir():
        return checkout / kind
    return package / "_shipped" / kind


def _override(data: Any, override: str) -> tuple[str, ...]:
    """Apply one `a.b=c` to `data` IN PLACE; a number indexes a list. Returns the path that was set."""
    path, equals, text = override.partition("=")
    keys = tuple(path.strip().split("."))
    if not equals or not all(keys):
        raise EdgeavError(f"--set {override}: expected KEY.KEY=VALUE, for example --set budget.wer.ci=90")
    node = data
    for depth, key in enumerate(keys[:-1]):
        node = _step_into(node, key, f"--set {override}", ".".join(keys[: depth + 1]))
    value = yaml_text.parse_value(text, f"--set {override}")
    if isinstance(node, list):
        node[_index(node, keys[-1], f"--set {override}", path)] = value
    elif isinstance(node, dict):
        node[keys[-1]] = value
    else:
        raise EdgeavError(f"--set {override}: {'.'.join(keys[:-1])} is {node!r}, which has no keys")
    return keys


def _step_into(node: Any, key: str, source: str, path: str) -> Any:
    if isinstance(node, list):
        return node[_index(node, key, source, path)]
    if isinstance(node, dict):
        if node.get(key) is None:  # absent or `key:` left empty: the check of the whole says if it may exist
            node[key] = {}
        return node[key]
    raise EdgeavError(f"{source}: {path} cannot be set: {node!r} has no keys")


def _index(items: list[Any], key: str, source: str, path: str) -> int:
    if not key.isdigit() or int(key) >= len(items):
        allowed = f"0 to {len(items) - 1}" if items else "nothing: the list is empty"
        raise EdgeavError(f"{source}: {path}: {key!r} is not a position in this list; allowed: {allowed}")
    return int(key)
