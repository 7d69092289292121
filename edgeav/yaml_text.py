"""YAML text to plain data (what JSON can say), with the line of every value and without YAML's silent traps.

PyYAML follows YAML 1.1: of two equal keys it keeps the last, `1e-3` is a string, `1:30` is 90, `010` is 8,
`no` is false, and a tag or alias can mean anything. Here the words of YAML 1.2 hold
(https://yaml.org/spec/1.2.2/#103-core-schema), equal keys are an error, and there are no tags and no aliases.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, ClassVar

import yaml
from yaml.composer import ComposerError
from yaml.constructor import ConstructorError

from edgeav.errors import EdgeavError

Lines = dict[tuple[str, ...], int]  # ("budget", "wer", "ci") -> line, counted from 1
STRING = "tag:yaml.org,2002:str"


class _Loader(yaml.SafeLoader):
    """SafeLoader with YAML 1.2's idea of numbers, and without what a declaration does not need."""

    yaml_implicit_resolvers: ClassVar[dict[Any, Any]] = {}  # our own dict: a subclass shares its parent's

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        event = self.peek_event()
        if isinstance(event, yaml.AliasEvent):  # ten lines of them expand to more data than memory holds
            raise ComposerError(None, None, "aliases are not supported: write the value out", event.start_mark)
        if tag := getattr(event, "tag", None):
            raise ComposerError(None, None, f"tags are not supported: {tag}", event.start_mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.value in seen:
                word = isinstance(key, yaml.ScalarNode)
                what = f"duplicate key {key.value!r}" if word else "a key must be a word"
                raise ConstructorError(None, None, what, key.start_mark)
            key.tag = STRING
            seen.add(key.value)
        return super().construct_mapping(node, deep)


class _Dumper(yaml.SafeDumper):
    """Quotes a text that any reader, of YAML 1.1 or ours, would take for something else."""


for _kind, _pattern, _first in (
    ("null", r"^(~|null|)$", "~n\0"),
    ("bool", r"^(true|false)$", "tf"),
    ("int", r"^[-+]?(0|[1-9]\d{0,17})$", "-+0123456789"),  # 64 bits; "010" is left to the reader, as a string
    ("float", r"^[-+]?((\d+\.\d*|\.\d+)([eE][-+]?\d+)?|\d+[eE][-+]?\d+|\.inf)$|^\.nan$", "-+.0123456789"),
):
    _places = [*_first.replace("\0", ""), *([""] if "\0" in _first else [])]
    for _class in (_Loader, _Dumper):
        _class.add_implicit_resolver(f"tag:yaml.org,2002:{_kind}", re.compile(_pattern), _places)


def dump(data: Any) -> str:
    """Plain data as YAML, in its order; `parse` reads the same back."""
    return yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=True)


def parse(text: str, path: Path) -> tuple[Any, Lines]:
    """The data of one YAML document and the line of each value; EdgeavError names file, line and problem."""
    loader = _Loader("")
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        if node is None:
            raise EdgeavError(f"{path}: is empty; expected a mapping of settings")
        lines: Lines = {}
        _collect_lines(node, (), lines)
        return loader.construct_document(node), lines
    except yaml.YAMLError as error:
        raise EdgeavError(f"{path}{_where(error)}") from None
    except RecursionError:
        raise EdgeavError(f"{path}: not valid YAML: nested too deeply") from None
    finally:
        loader.dispose()


def parse_value(text: str, source: str) -> Any:
    """One value as YAML reads it: `3` a number, `[a, b]` a list, empty the empty string."""
    if not text.strip():
        return ""
    try:
        return yaml.load(text, Loader=_Loader)
    except (yaml.YAMLError, RecursionError) as error:
        problem = getattr(error, "problem", None) or "nested too deeply"
        raise EdgeavError(f"{source}: not valid YAML: {problem}") from None


def _where(error: yaml.YAMLError) -> str:
    """':line: what' of a YAML error, in one line."""
    mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None)
    mark = mark or getattr(error, "context_mark", None)
    line = f":{mark.line + 1}" if mark else ""
    return f"{line}: not valid YAML: {problem or ' '.join(str(error).split())}"


def _collect_lines(node: yaml.Node, path: tuple[str, ...], lines: Lines) -> None:
    lines[path] = node.start_mark.line + 1
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            _collect_lines(value, (*path, str(key.value)), lines)
            lines[*path, str(key.value)] = key.start_mark.line + 1
    elif isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            _collect_lines(item, (*path, str(index)), lines)
