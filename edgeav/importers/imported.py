"""What an import found, whether it fits our model, and writing it as a model folder.

The weights stay where they are (memory-mapped, in their own dtype) until they are copied, tensor by tensor, to
model.safetensors: an import needs about the memory of its file, whatever its size.
"""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from edgeav.errors import EdgeavError
from edgeav.importers.writing import DTYPES, save_tensors
from edgeav.models import AVModel, ModelConfig

MAX_S = 40  # the longest utterance of an imported model: its table of positions ends there
SHOWN = 8  # problems named in one error; more of them say nothing new
COUNTER = "num_batches_tracked"  # of batch norms: unused once the model is trained


@dataclass(frozen=True)
class Imported:
    """A model of ours with another project's weights."""

    kind: str
    config: ModelConfig
    weights: dict[str, Tensor]  # by our names
    notes: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    tokenizer: bytes | None = None


def fit(
    config: ModelConfig,
    theirs: Mapping[str, Tensor],
    their_name: Callable[[str], str],
    source: str,
    ignored: Iterable[str] = (),
) -> dict[str, Tensor]:
    """Their tensors by our names; EdgeavError names what is missing, unexpected or of another shape, all at once.

    A kernel-1 convolution is a linear layer: shapes may differ by sizes of 1. `ignored` names what may be there unused.
    """
    with torch.device("meta"):  # names and shapes, no memory
        wanted = {name: tuple(w.shape) for name, w in AVModel(config).state_dict().items()}
    names = {name: their_name(name) for name in wanted}
    found = {name: tuple(w.shape) for name, w in theirs.items()}
    expected = {names[name]: shape for name, shape in wanted.items()}
    counters = {name for name in expected if name.endswith(COUNTER)}
    problems = [f"missing {name} {expected[name]}" for name in expected if name not in found.keys() | counters]
    problems += [f"unexpected {name} {found[name]}" for name in found if name not in expected.keys() | set(ignored)]
    problems += [
        f"{name} is {found[name]}, expected {shape}"
        for name, shape in expected.items()
        if name in found and _without_ones(found[name]) != _without_ones(shape)
    ]
    problems += [f"{name} holds {w.dtype}" for name, w in theirs.items() if w.dtype not in DTYPES or w.is_sparse]
    if problems:
        raise EdgeavError(f"{source}: does not fit the model that its own shapes ask for:\n{listed(problems)}")
    zero = torch.zeros((), dtype=torch.int64)
    return {ours: theirs.get(names[ours], zero).reshape(shape) for ours, shape in wanted.items()}


def renamed(name: str, table: Mapping[str, str]) -> str:
    """`name` with every dotted part that stands in `table` replaced, in one pass, longer parts first."""
    parts = "|".join(sorted(map(re.escape, table), key=len, reverse=True))
    return re.sub(rf"(?<![^.])(?:{parts})(?![^.])", lambda part: table[part[0]], name)


def shape_of(weights: Mapping[str, Tensor], name: str, source: str, dimensions: int) -> tuple[int, ...]:
    """The shape of a tensor that the config is derived from."""
    if name not in weights:
        raise EdgeavError(f"{source}: missing {name}, which tells a size of the model. Found:\n{listed(weights)}")
    shape = tuple(weights[name].shape)
    if len(shape) != dimensions:
        raise EdgeavError(f"{source}: {name} is {shape}; expected {dimensions} dimensions")
    return shape


def listed(items: Iterable[str]) -> str:
    """The first of them, one a line, and how many more there are."""
    every = list(items)
    more = [f"… and {len(every) - SHOWN} more"] if len(every) > SHOWN else []
    return "\n".join(f"  {item}" for item in [*every[:SHOWN], *more])


def placeholders(count: int, known: Mapping[int, str]) -> tuple[str, ...]:
    """Tokens for outputs whose text is not known."""
    return tuple(known.get(i, f"<unit {i}>") for i in range(count))


def write(found: Imported, out: Path, source: str) -> None:
    """The model folder `out`, complete or not at all: it is written beside and renamed."""
    out.parent.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    try:
        save_tensors(found.weights, part / "model.safetensors")
        (part / "model.json").write_text(found.config.model_dump_json(indent=1) + "\n", encoding="utf-8")
        (part / "README.md").write_text(_card(found, source), encoding="utf-8")
        if found.tokenizer is not None:
            (part / "tokenizer.model").write_bytes(found.tokenizer)
        part.chmod(0o755)
        part.replace(out)  # an empty folder may stand there
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise


def summary(found: Imported, out: Path) -> dict[str, Any]:
    """What was imported, as plain data."""
    config = found.config
    return {
        "folder": str(out),
        "kind": found.kind,
        "family": config.family,
        "parameters": _parameters(config),
        "size_mb": round((out / "model.safetensors").stat().st_size / 1e6, 2),
        "inputs": list(config.inputs.names),
        "steps_per_second": config.inputs.steps_per_second,
        "tokens": len(config.tokens),
        "attention_decoder": config.decoder is not None,
        "left_out": found.left_out,
        "notes": found.notes,
    }


def _parameters(config: ModelConfig) -> int:
    with torch.device("meta"):
        return sum(prod(p.shape) for p in AVModel(config).parameters())


def _card(found: Imported, source: str) -> str:
    notes = "".join(f"- {note}\n" for note in [*found.notes, *(f"left out: {what}" for what in found.left_out)])
    return (
        f"# {source}\n\nImported by edgeav from {source} ({found.kind}). The weights keep their own licence.\n\n{notes}"
    )


def _without_ones(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(size for size in shape if size != 1)
