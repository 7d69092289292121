"""A bundle: the folder a device gets. Model file(s), golden vectors, and bundle.json, which explains and
hashes them all.

bundle.json is the sole contract with Python, C++, Kotlin and JavaScript, so reading is strict: every key,
every file and every hash is checked before an engine sees a byte, and all that is wrong is said at once.
Plain dataclasses and json: the device needs no schema library.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeav.errors import EdgeavError
from edgeav.runtime.bundle_check import file_problems, key_problems, labels, sha256, value_problems
from edgeav.runtime.inputs import Features, features_from_json

SCHEMA = "edgeav-bundle/2"
FILE = "bundle.json"
GOLDEN = "golden"  # the folder of the golden vectors inside a bundle
AGAIN = "Export it again (edgeav compress or edgeav export), or copy the whole folder again."


@dataclass(frozen=True)
class Steps:
    """The clock of the model: steps a second, frames in one step, and how many steps it takes at once."""

    per_second: float
    audio_frames: int  # log-mel frames or samples; 0 for a model that does not hear
    video_frames: int  # 0 for a model that does not see
    min: int
    max: int


@dataclass(frozen=True)
class Golden:
    """One recorded run of the eager model.

    `arrays`: the model's inputs by name, log_probs, and waveform where there was sound.
    """

    name: str
    arrays: dict[str, NDArray[np.float32]]
    transcript: str
    tolerance: float


@dataclass(frozen=True)
class Bundle:
    """A verified bundle folder; fields as in bundle.json.

    `tokens[i]` is the text of output i; `blank` is the output after the last token, or the token that stands for it.
    """

    folder: Path
    name: str
    engine: str
    precision: str
    model: str
    inputs: list[dict[str, Any]]
    outputs: list[dict[str, Any]]
    steps: Steps
    features: Features
    tokens: list[str]
    blank: int
    golden: list[dict[str, Any]]
    quality: dict[str, Any]
    exported: dict[str, Any]
    files: dict[str, dict[str, Any]]
    buckets: tuple[int, ...] = ()
    """Lengths in steps, ascending, that are worth a fixed shape; the model file itself takes every length."""

    @property
    def model_path(self) -> Path:
        return self.folder / self.model

    @property
    def input_names(self) -> tuple[str, ...]:
        """What the model file takes, in order."""
        return self.features.names

    @property
    def labels(self) -> int:
        """V, the number of the model's outputs."""
        return labels(self.tokens, self.blank)

    @property
    def size_bytes(self) -> int:
        """Bytes of the model alone: model.xml and model.bin count, golden vectors do not."""
        stem = self.model.split(".")[0] + "."
        return sum(entry["bytes"] for name, entry in self.files.items() if name.startswith(stem))

    def golden_cases(self) -> list[Golden]:
        """The golden vectors, loaded from their raw little-endian float32 files."""
        return [_load_golden(self.folder, case) for case in self.golden]


def read_bundle(folder: str | Path) -> Bundle:
    """The bundle in `folder`, every file of it verified.

    Raises EdgeavError naming all that is missing, unknown, of the wrong type or changed since the export.
    """
    folder = Path(folder)
    spec = _read_json(folder)
    problems = key_problems(spec)
    if not problems:  # the values can only be judged where the keys are what they should be
        problems = value_problems(spec) + file_problems(folder, spec["files"])
    if problems:
        raise EdgeavError("\n  ".join([f"{folder / FILE} is not a usable bundle:", *problems]) + f"\n{AGAIN}")
    plain = [field.name for field in fields(Bundle) if field.name not in ("folder", "buckets")]
    values: dict[str, Any] = {name: spec[name] for name in plain} | {"buckets": tuple(spec.get("buckets", ()))}
    values |= {"folder": folder, "steps": Steps(**spec["steps"]), "features": features_from_json(spec["features"])}
    return Bundle(**values)


def write_bundle(folder: str | Path, *, spec: dict[str, Any]) -> Bundle:
    """Make a bundle of a folder that already holds the files: hash them, write bundle.json last, read it.

    `spec` holds every key of bundle.json but "schema" and "files". A killed export leaves no bundle.json,
    so it can never be taken for a bundle.
    """
    folder = Path(folder)
    (folder / FILE).unlink(missing_ok=True)
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    files = {name: _describe(folder / name) for name in names if not name.endswith(".partial")}
    _write_json(folder, {"schema": SCHEMA} | spec | {"files": files})
    return read_bundle(folder)


def write_golden(
    folder: str | Path, name: str, arrays: dict[str, NDArray], *, transcript: str, tolerance: float
) -> dict[str, Any]:
    """Store `arrays` as golden/<name>.<array>.f32 and return the entry for bundle.json's "golden" list."""
    place = Path(folder) / GOLDEN
    place.mkdir(parents=True, exist_ok=True)
    files = {}
    for key, array in arrays.items():
        path = place / f"{name}.{key}.f32"
        np.ascontiguousarray(array, dtype="<f4").tofile(path)
        files[key] = {"file": f"{GOLDEN}/{path.name}", "shape": list(array.shape), "dtype": "float32"}
    return {"name": name, "files": files, "transcript": transcript, "tolerance": tolerance}


def update_quality(bundle: Bundle, quality: dict[str, Any]) -> Bundle:
    """Record what was measured on this bundle after its export; no hashed file changes."""
    spec = json.loads((bundle.folder / FILE).read_text("utf-8"))
    _write_json(bundle.folder, spec | {"quality": quality})
    return read_bundle(bundle.folder)


def with_buckets(bundle: Bundle, buckets: Sequence[int]) -> Bundle:
    """Record fixed lengths; no hashed file changes, and a reader that ignores them is right as well."""
    spec = json.loads((bundle.folder / FILE).read_text("utf-8"))
    _write_json(bundle.folder, spec | {"buckets": sorted(buckets)})
    return read_bundle(bundle.folder)


def _describe(path: Path) -> dict[str, Any]:
    return {"sha256": sha256(path), "bytes": path.stat().st_size}


def _write_json(folder: Path, spec: dict[str, Any]) -> None:
    """Write bundle.json whole or not at all: a rename is atomic, a write is not."""
    partial = folder / f"{FILE}.partial"
    with partial.open("w", encoding="utf-8") as file:
        file.write(json.dumps(spec, indent=1, ensure_ascii=False, allow_nan=False) + "\n")
        file.flush()
        os.fsync(file.fileno())
    partial.replace(folder / FILE)


def _read_json(folder: Path) -> dict[str, Any]:
    path = folder / FILE
    if not path.is_file():
        exists = "has no bundle.json: not a bundle, or its export was interrupted"
        what = exists if folder.is_dir() else "does not exist"
        raise EdgeavError(f"{folder} {what}. A bundle is a folder like runs/<name>/bundles/<target>. {AGAIN}")
    try:
        spec = json.loads(path.read_text("utf-8"))
    except ValueError as error:  # bad JSON and bad UTF-8 alike
        raise EdgeavError(f"{path} is truncated or not JSON ({error}). {AGAIN}") from error
    found = spec.get("schema") if isinstance(spec, dict) else type(spec).__name__
    if found != SCHEMA:
        raise EdgeavError(f"{path}: schema is {found!r}; this edgeav reads {SCHEMA!r}. {AGAIN}")
    return spec


def _load_golden(folder: Path, case: dict[str, Any]) -> Golden:
    arrays = {
        key: np.fromfile(folder / entry["file"], dtype="<f4").reshape(entry["shape"]).astype(np.float32)
        for key, entry in case["files"].items()
    }
    return Golden(case["name"], arrays, case["transcript"], float(case["tolerance"]))
