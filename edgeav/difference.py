"""What changed between two profiles or two reports? Causes first (recipe, data, versions, device), then the numbers.

A latency that moved is a riddle until one knows that the clock governor, the library or the clips moved with it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from edgeav.errors import EdgeavError

KINDS = ("recipe", "data", "versions", "device", "model", "numbers")
SCHEMAS = ("edgeav-profile/1", "edgeav-report/1")
# The first part of a field's path that decides what it is about; everything else is a number.
ABOUT = {
    "recipe": "recipe", "stages": "recipe", "corpus": "data", "runtime": "versions", "commit": "versions",
    "versions": "versions", "device": "device", "emulated": "device", "arch": "device", "cpu": "device",
    "isa": "device", "governor": "device", "board": "device", "cores": "device", "memory_mb": "device",
    "threads": "device", "model_sha256": "model", "bundle": "model", "engine": "model", "precision": "model",
    "model": "model", "n": "device", "warmup": "device", "seconds": "data", "steps": "data",
}  # fmt: skip
NAMES = ("target", "precision", "device", "name", "type", "at_s")  # what tells the rows of a list apart
PASSING = ("date",)  # differs always and says nothing


def difference(first: Path, second: Path) -> list[dict[str, Any]]:
    """[{what, field, a, b, change}], causes first; `change` in percent for numbers. Empty: nothing differs."""
    a, b = _read(first), _read(second)
    if a["schema"] != b["schema"]:
        raise EdgeavError(f"{first} is {a['schema']} and {second} is {b['schema']}: only two of a kind can be compared")
    left, right = dict(_fields(a)), dict(_fields(b))
    rows = [_row(path, left.get(path), right.get(path)) for path in dict.fromkeys([*left, *right])
            if left.get(path) != right.get(path)]  # fmt: skip
    return sorted(rows, key=lambda row: KINDS.index(row["what"]))


def _read(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise EdgeavError(f"{path}: {error.strerror}") from None
    except ValueError as error:
        raise EdgeavError(f"{path} is not JSON: {error}") from None
    found = data.get("schema") if isinstance(data, dict) else None
    if found not in SCHEMAS:
        raise EdgeavError(f"{path}: schema is {found!r}; only {' and '.join(SCHEMAS)} can be compared")
    return data


def _fields(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """(path, value) of everything that is no container; rows of a list go by their names, not their places."""
    if isinstance(value, dict) and value:
        for key, item in value.items():
            if key not in PASSING:
                yield from _fields(item, (*path, str(key)))
    elif isinstance(value, list) and value and all(isinstance(item, dict) for item in value):
        for index, item in enumerate(value):
            names = [str(item[key]) for key in NAMES if key in item]
            yield from _fields(item, (*path, "/".join(names) or str(index)))
    else:
        yield path, value


def _row(path: tuple[str, ...], a: Any, b: Any) -> dict[str, Any]:
    return {"what": _about(path), "field": ".".join(path), "a": a, "b": b, "change": _change(a, b)}


def _about(path: tuple[str, ...]) -> str:
    """Reports nest what profiles have at the top: the first part that says something decides, `environment` aside."""
    if path[0] == "environment":
        path = path[1:]
    if path[0] == "bundles" and "profile" in path:
        path = path[path.index("profile") + 2 :]
    if path[0] in ABOUT and not (path[0] == "model" and len(path) == 1):
        return ABOUT[path[0]]
    return "numbers"


def _change(a: Any, b: Any) -> str | None:
    numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in (a, b))
    return f"{100 * (b - a) / abs(a):+.1f} %" if numbers and a else None
