"""YAML text to plain data, with the line of every value and without YAML's two silent traps.

PyYAML keeps the last of two equal keys and reads `1e-3` as a string; here the first is an error and the
second a number, as in YAML 1.2 (https://yaml.org/spec/1.2.2/#1032-tag-resolution).
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml
from yaml.composer import ComposerError
from yaml.constructor import ConstructorError

from edgeav.errors import EdgeavError

Lines = dict[tuple[str, ...], int]  # ("budget", "wer", "ci") -> line, counted from 1


class _Loader(yaml.SafeLoader):
    """SafeLoader that rejects duplicate keys and knows `1e-3`.

    It has no aliases (`*name`): ten lines of them expand to more data than memory holds.
    """

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark
            raise ComposerError(None, None, "aliases are not supported: write the value out", mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = key_node.value if isinstance(key_node, yaml.ScalarNode) else None
            if key is None:
                raise ConstructorError(None, None, "a key must be a word", key_node.start_mark)
            if key in seen:
                raise ConstructorError(None, None, f"duplicate key {key!r}", key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+0123456789.")
)


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
