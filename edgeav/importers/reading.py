"""Opening other people's weight files without trusting them.

A pickle can run code: only torch's `weights_only` unpickler is used, which builds tensors and plain values and refuses
the rest. Files are memory-mapped: what is not looked at is not read.
"""

from __future__ import annotations

import argparse
import pickle
import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from edgeav.errors import EdgeavError
from edgeav.importers.imported import listed

# Lightning keeps the training script's arguments beside the weights: a class that only holds values.
HARMLESS: list[Any] = [argparse.Namespace]
# What torch's reader raises where bytes are missing or changed; a missing permission stays itself.
DAMAGED = (RuntimeError, EOFError, ValueError, LookupError, TypeError, AttributeError, struct.error, zipfile.BadZipFile)
AS_SAFETENSORS = "Ask for the weights as safetensors, or save them alone where you trust the file"


def read_tensors(path: Path, called: str = "") -> dict[str, Tensor]:
    """Name -> tensor of a .safetensors file or a torch checkpoint, memory-mapped. `called`: its name in errors."""
    name = called or str(path)
    return _read_safetensors(path, name) if path.suffix == ".safetensors" else _tensors(_read_pickle(path, name), name)


def _read_safetensors(path: Path, name: str) -> dict[str, Tensor]:
    try:
        with safe_open(path, framework="pt") as file:
            return {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118  it is no dict
    except SafetensorError as error:
        raise EdgeavError(f"{name}: not a safetensors file, or truncated ({error}). Copy it again") from error


def _read_pickle(path: Path, name: str) -> Any:
    mapped = zipfile.is_zipfile(path)  # torch before 1.6 wrote a bare pickle, which cannot be mapped
    if not mapped:
        _check_start(path, name)
    try:
        with torch.serialization.safe_globals(HARMLESS):
            return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except pickle.UnpicklingError as error:
        raise EdgeavError(f"{name}: {_why_not(path, error, mapped)}") from None
    except DAMAGED as error:
        first = str(error).partition("\n")[0]
        raise EdgeavError(f"{name}: damaged or truncated: {first}. Copy or download it again") from None


def _check_start(path: Path, name: str) -> None:
    with path.open("rb") as file:
        start = file.read(4)
    if start[:2] == b"PK":
        raise EdgeavError(f"{name}: a truncated archive: its directory, at the end, is missing. Copy it again")
    if start[:1] != b"\x80":  # how every pickle begins
        raise EdgeavError(f"{name}: not a checkpoint: neither a zip archive nor a pickle, as torch.save writes them")


def _why_not(path: Path, error: Exception, mapped: bool) -> str:
    forbidden = torch.serialization.get_unsafe_globals_in_checkpoint(path) if mapped else []
    allowed = {f"{kind.__module__}.{kind.__qualname__}" for kind in HARMLESS}
    names = [name for name in forbidden if name not in allowed]
    if not names and "GLOBAL " in str(error):  # a bare pickle: torch names the one it met first
        names = [str(error).split("GLOBAL ", 1)[1].split()[0]]
    if names:
        return f"holds code ({', '.join(names[:8])}), not only weights; it is not opened. {AS_SAFETENSORS}"
    return f"not a checkpoint of tensors ({str(error).partition(chr(10))[0]}). {AS_SAFETENSORS}"


def _tensors(found: Any, name: str) -> dict[str, Tensor]:
    """The state dict: the file itself, or Lightning's entry of that name."""
    state = found["state_dict"] if isinstance(found, Mapping) and "state_dict" in found else found
    if not isinstance(state, Mapping) or not state:
        raise EdgeavError(f"{name}: holds {type(state).__name__}, expected a dict of tensors (a state_dict)")
    others = [f"{key}: {type(w).__name__}" for key, w in state.items() if not isinstance(w, Tensor)]
    others += [f"{key!r}, which is no text" for key in state if not isinstance(key, str)]
    if others:
        raise EdgeavError(f"{name}: not only tensors, expected a state_dict alone:\n{listed(others)}")
    return dict(state)
