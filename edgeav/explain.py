"""What is wrong with a declaration, said for the person who wrote it: every error, each in one line.

A line names the file and line (or the `--set`), the dotted path, the value, and what is allowed, with a "did
you mean" for a mistyped key or name. The allowed keys and names come from the JSON schema, so they cannot go
stale.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

LONGEST_VALUE = 60  # characters of a wrong value that an error repeats


class Sources(NamedTuple):
    """Where the values of a declaration came from."""

    file: str
    lines: dict[tuple[str, ...], int]
    overridden: Sequence[tuple[str, ...]] = ()

    def where(self, path: tuple[str, ...]) -> str:
        """'file:12' or '--set a.b', for one path; a missing key gets the line of what should hold it."""
        for override in self.overridden:
            if path[: len(override)] == override:
                return f"--set {'.'.join(override)}"
        known = next((path[:n] for n in range(len(path), 0, -1) if path[:n] in self.lines), None)
        return f"{self.file}:{self.lines[known]}" if known else self.file


def explain(cls: type[BaseModel], data: Any, error: ValidationError, sources: Sources) -> str:
    """All findings of pydantic as lines, in the order of the file."""
    schema = cls.model_json_schema(by_alias=True)
    says: dict[tuple[str, ...], list[str]] = {}
    shown: dict[tuple[str, ...], str] = {}
    for detail in error.errors(include_url=False):
        path = _keys_only(detail["loc"], data, missing=detail["type"] == "missing")
        shown[path] = _shown(detail, path)
        says.setdefault(path, []).append(_say(detail, schema, path))
    ordered = sorted(says, key=lambda path: sources.lines.get(path, 1 << 30))
    return "\n".join(f"{sources.where(p)}: {shown[p]}: {_either(says[p])}" for p in ordered)


def guess(word: str, known: Iterable[str]) -> str:
    """'; did you mean …?' for a mistyped word, or nothing."""
    names = list(known)
    close = difflib.get_close_matches(word, names, n=1, cutoff=0.6)
    if not close and len(word) > 2:  # "onnx" is too far from "onnxruntime" for difflib
        close = [name for name in names if name.startswith(word)]
    return f"; did you mean {close[0]!r}?" if close else ""


def _shown(detail: ErrorDetails, path: tuple[str, ...]) -> str:
    """'a.b = 3', or 'a.b' where there is no value or only a key that is wrong."""
    name = ".".join(path) or "the file"
    if not path or detail["type"] in ("missing", "extra_forbidden"):
        return name
    text = repr(detail["input"])
    return f"{name} = {text if len(text) <= LONGEST_VALUE else text[: LONGEST_VALUE - 1] + '…'}"


def _either(says: list[str]) -> str:
    """What each branch of a union says, as one sentence."""
    first, *others = dict.fromkeys(says)
    return " or ".join([first, *(say.removeprefix("must be ") for say in others)])


def _say(detail: ErrorDetails, schema: dict[str, Any], path: tuple[str, ...]) -> str:
    """What is wrong at `path`, and what is allowed there."""
    kind = detail["type"]
    if kind == "missing":
        return "is missing"
    if kind == "extra_forbidden":
        known = _allowed_keys(schema, path[:-1])
        return f"unknown key{guess(path[-1], known)}; allowed: {', '.join(known)}"
    if kind == "value_error":
        return str(detail.get("ctx", {}).get("error", detail["msg"]))
    message = _plain(detail["msg"])
    if kind in ("literal_error", "enum"):
        known = _allowed_names(schema, path[:-1]) if detail["loc"][-1] == "[key]" else _allowed_values(schema, path)
        message += guess(str(detail["input"]), known)
    return message


def _plain(message: str) -> str:
    """pydantic's sentence in the words of a YAML writer."""
    for theirs, ours in (
        ("Input should be", "must be"),
        ("String should", "must"),
        ("List should", "must"),
        ("an object", "a mapping of settings"),
        ("a valid array", "a list, like [a, b]"),
        ("a valid string", "a text"),
        ("a valid boolean", "true or false"),
        ("a valid integer", "an integer"),
        ("a valid ", "a "),
    ):
        message = message.replace(theirs, ours)
    return message


def _keys_only(loc: tuple[Any, ...], data: Any, missing: bool) -> tuple[str, ...]:
    """pydantic's location without the tags that it adds for the branches of a union."""
    path: list[str] = []
    for i, key in enumerate(loc):
        in_mapping = isinstance(data, dict) and key in data
        if in_mapping or (isinstance(data, list) and isinstance(key, int) and key < len(data)):
            data = data[key]
        elif not (missing and i == len(loc) - 1):
            continue
        path.append(str(key))
    return tuple(path)


def _allowed_keys(schema: dict[str, Any], path: tuple[str, ...]) -> list[str]:
    nodes = _nodes(schema, path)
    return list(dict.fromkeys(key for node in nodes for key in node.get("properties", {})))


def _allowed_values(schema: dict[str, Any], path: tuple[str, ...]) -> list[str]:
    nodes = _nodes(schema, path)
    return [str(value) for node in nodes for value in (*node.get("enum", ()), *_constant(node))]


def _allowed_names(schema: dict[str, Any], path: tuple[str, ...]) -> list[str]:
    """The keys of a mapping whose keys are a fixed set of names."""
    rules = [node["propertyNames"] for node in _nodes(schema, path) if "propertyNames" in node]
    return [str(name) for rule in rules for node in _branches(rule, schema) for name in node.get("enum", ())]


def _constant(node: dict[str, Any]) -> tuple[Any, ...]:
    return (node["const"],) if "const" in node else ()


def _nodes(schema: dict[str, Any], path: tuple[str, ...]) -> list[dict[str, Any]]:
    """Every schema node that may describe the value at `path`, through $ref and the branches of unions."""
    nodes = _branches(schema, schema)
    for key in path:
        below = [_child(node, key) for node in nodes]
        nodes = [branch for child in below if child is not None for branch in _branches(child, schema)]
    return nodes


def _child(node: dict[str, Any], key: str) -> dict[str, Any] | None:
    if key in node.get("properties", {}):
        return node["properties"][key]
    if key.isdigit() and "items" in node:
        return node["items"]
    other = node.get("additionalProperties")
    return other if isinstance(other, dict) else None


def _branches(node: dict[str, Any], schema: dict[str, Any]) -> list[dict[str, Any]]:
    if "$ref" in node:
        return _branches(schema["$defs"][node["$ref"].rsplit("/", 1)[-1]], schema)
    parts = [*node.get("anyOf", ()), *node.get("oneOf", ()), *node.get("allOf", ())]
    return [node] if not parts else [branch for part in parts for branch in _branches(part, schema)]
