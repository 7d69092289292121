"""What a search may choose: values of settings of other stages, by their dotted paths, as in `--set`.

    vary:
      prune: [true, false]                               # with that stage, or without
      prune.budget.macs: {low: 0.3, high: 0.9, step: 0.1}
      quantize.format: [int8, int8-dynamic]

Here a point of the space has a number for each path: of a range its value, of a list the place in it. No torch and no
optuna in here, for recipes are read by it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from typing import Any, TypeVar

from pydantic import BaseModel, JsonValue, ValidationError, model_validator

from edgeav.errors import EdgeavError
from edgeav.explain import Sources, explain
from edgeav.spec import Strict

MOST_LISTED = 10_000  # a space that is larger is not gone through

S = TypeVar("S", bound=Strict)
Point = Mapping[str, int | float]
Settings = dict[str, Any]  # stage -> its settings, as in a recipe


class Range(Strict):
    """All numbers from `low` to `high`; whole ones where both ends are."""

    low: int | float
    high: int | float
    step: int | float | None = None
    """Only `low` and so many steps more."""
    log: bool = False
    """Small and large ones alike often, by their order of magnitude."""

    @model_validator(mode="after")
    def _makes_sense(self) -> Range:
        if self.low >= self.high:
            raise ValueError(f"low: {self.low} must be below high: {self.high}")
        if self.step is not None and (self.step <= 0 or self.log):
            raise ValueError("step must be above 0, and has no meaning with log: true")
        if self.log and self.low <= 0:
            raise ValueError("log: true needs low above 0")
        return self

    @property
    def whole(self) -> bool:
        return all(isinstance(number, int) for number in (self.low, self.high, self.step or 1))

    @property
    def numbers(self) -> list[int | float] | None:
        """All of them, rising; None where they cannot be counted."""
        step = self.step or (1 if self.whole else None)
        if step is None:
            return None
        return [tidy(self.low + place * step) for place in range(math.floor((self.high - self.low) / step + 1e-9) + 1)]


Values = Range | list[JsonValue]
Vary = Mapping[str, Values]


def tidy(number: int | float) -> int | float:
    """0.1 + 2 * 0.1 is meant to be 0.3."""
    return number if isinstance(number, int) else round(number, 10)


def ordered(values: Sequence[JsonValue]) -> bool:
    """Whether neighbours in the list are alike: numbers that rise or fall."""
    numbers = [v for v in values if isinstance(v, int | float) and not isinstance(v, bool)]
    return len(numbers) == len(values) and numbers in (sorted(numbers), sorted(numbers, reverse=True))


def drawn(vary: Vary, point: Point) -> dict[str, JsonValue]:
    """Path -> the value that `point` stands for."""
    return {path: _value(values, point[path]) for path, values in vary.items()}


def settings_of(base: Mapping[str, BaseModel], vary: Vary, point: Point) -> Settings:
    """The settings of every stage that is left at `point`."""
    settings: Settings = {name: stage.model_dump(mode="json") for name, stage in base.items()}
    chosen = drawn(vary, point)
    for path, value in chosen.items():
        if "." in path:
            _put(settings, path.split("."), value)
    return {name: found for name, found in settings.items() if chosen.get(name, True)}


def points(vary: Vary) -> list[dict[str, int | float]] | None:
    """The whole space in a fixed order; None where it has no end or is very large."""
    axes = [_places(values) for values in vary.values()]
    if any(axis is None for axis in axes) or math.prod(len(axis or ()) for axis in axes) > MOST_LISTED:
        return None
    return [dict(zip(vary, place, strict=True)) for place in product(*(axis or () for axis in axes))]


def read(cls: type[S], data: Any, where: str) -> S:
    """Settings as their stage reads them; EdgeavError says what is wrong, all at once, each line after `where`."""
    try:
        return cls.model_validate_json(json.dumps(data))
    except ValidationError as error:
        raise EdgeavError(explain(cls, data, error, Sources(where, {}))) from None


def problems(base: Mapping[str, Strict], vary: Vary) -> Iterator[str]:
    """What is wrong with the space: unknown paths, and values that a stage refuses when it is changed alone."""
    for path, values in vary.items():
        name = path.split(".")[0]
        if name not in base:
            yield f"vary.{path}: names no stage of this search; it has {', '.join(base) or 'none'}"
        elif path == "model":
            yield "vary.model: name what varies in it, like model.preset or model.config.width"
        elif path == name:
            if not isinstance(values, list) or any(not isinstance(value, bool) for value in values):
                yield f"vary.{path}: with the whole stage or without it: write [true, false]"
        else:
            yield from _refused(base[name], path, values)


def _refused(stage: Strict, path: str, values: Values) -> Iterator[str]:
    if isinstance(values, list) and not values:
        yield f"vary.{path}: is an empty list; name the values to choose from"
    for value in [values.low, values.high] if isinstance(values, Range) else values:
        data = stage.model_dump(mode="json")
        try:
            _put({"": data}, ["", *path.split(".")[1:]], value)
            read(type(stage), data, f"vary.{path}: {json.dumps(value)}")
        except EdgeavError as error:
            yield str(error)


def _put(settings: Any, keys: Sequence[str], value: JsonValue) -> None:
    """Set one value IN PLACE, and make the mappings on the way to it."""
    for key in keys[:-1]:
        if not isinstance(settings, dict):
            raise EdgeavError(f"vary.{'.'.join(keys)}: {settings!r} has no keys")
        if settings.get(key) is None:
            settings[key] = {}
        settings = settings[key]
    if not isinstance(settings, dict):
        raise EdgeavError(f"vary.{'.'.join(keys)}: {settings!r} has no keys")
    settings[keys[-1]] = value


def _value(values: Values, number: int | float) -> JsonValue:
    return tidy(number) if isinstance(values, Range) else values[int(number)]


def _places(values: Values) -> Sequence[int | float] | None:
    return values.numbers if isinstance(values, Range) else range(len(values))
