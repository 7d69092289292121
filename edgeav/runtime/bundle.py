"""A bundle: the folder a device gets. Model file(s), golden vectors, and bundle.json, which explains and
hashes them all.

bundle.json is the sole contract with Python, C++, Kotlin and JavaScript, so reading is strict: every key,
every file and every hash is checked before an engine sees a byte, and all that is wrong is said at once.
Plain dataclasses and json: the device needs no schema library.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from dataclasses import dataclass, fields
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeav.errors import EdgeavError

SCHEMA = "edgeav-bundle/1"
FILE = "bundle.json"
GOLDEN = "golden"  # the folder of the golden vectors inside a bundle
INPUTS, OUTPUTS = ("mel", "video", "presence"), ("log_probs",)
ENGINES, PRECISIONS = ("onnxruntime", "openvino", "executorch"), ("fp32", "int8")
AGAIN = "Export it again (edgeav compress or edgeav export), or copy the whole folder again."

_KEYS: dict[str, type] = {
    "schema": str, "name": str, "engine": str, "precision": str, "model": str,
    "inputs": list, "outputs": list, "steps": dict, "audio": dict, "video": dict, "tokens": list,
    "blank": int, "golden": list, "quality": dict, "exported": dict, "files": dict,
}  # fmt: skip
_STEPS = ("per_second", "mel_frames", "video_frames", "min", "max")
_GOLDEN = ("name", "files", "transcript", "tolerance")


@dataclass(frozen=True)
class Steps:
    """The clock of the model: steps a second, frames in one step, and how many steps it takes at once."""

    per_second: float
    mel_frames: int
    video_frames: int
    min: int
    max: int


@dataclass(frozen=True)
class Golden:
    """One recorded run of the eager model.

    `arrays`: mel, video, presence, log_probs, and waveform where there was sound.
    """

    name: str
    arrays: dict[str, NDArray[np.float32]]
    transcript: str
    tolerance: float


@dataclass(frozen=True)
class Bundle:
    """A verified bundle folder; fields as in bundle.json. `tokens[i]` is the text of output i."""

    folder: Path
    name: str
    engine: str
    precision: str
    model: str
    inputs: list[dict[str, Any]]
    outputs: list[dict[str, Any]]
    steps: Steps
    audio: dict[str, Any]
    video: dict[str, Any]
    tokens: list[str]
    blank: int
    golden: list[dict[str, Any]]
    quality: dict[str, Any]
    exported: dict[str, Any]
    files: dict[str, dict[str, Any]]

    @property
    def model_path(self) -> Path:
        return self.folder / self.model

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
    problems = _key_problems(spec)
    if not problems:  # the values can only be judged where the keys are what they should be
        problems = _value_problems(spec) + _file_problems(folder, spec["files"])
    if problems:
        raise EdgeavError("\n  ".join([f"{folder / FILE} is not a usable bundle:", *problems]) + f"\n{AGAIN}")
    values: dict[str, Any] = {field.name: spec[field.name] for field in fields(Bundle) if field.name != "folder"}
    values |= {"folder": folder, "steps": Steps(**spec["steps"])}
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


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


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


def _key_problems(spec: dict[str, Any]) -> list[str]:
    missing = [f"{key}: missing" for key in _KEYS if key not in spec]
    unknown = [f"{key}: unknown key; allowed: {', '.join(_KEYS)}" for key in spec if key not in _KEYS]
    wrong = [
        f"{key}: {type(spec[key]).__name__}, must be {kind.__name__}"
        for key, kind in _KEYS.items()
        if key in spec and (not isinstance(spec[key], kind) or isinstance(spec[key], bool))
    ]
    return missing + unknown + wrong


def _value_problems(spec: dict[str, Any]) -> list[str]:
    """What is wrong inside the right keys, so that no later line has to ask."""
    steps, outputs = spec["steps"], len(spec["tokens"])
    numbers = all(isinstance(value, int | float) for value in steps.values())
    inputs_found, outputs_found = _names(spec["inputs"]), _names(spec["outputs"])
    wanted = [
        ("engine", spec["engine"], f"one of {', '.join(ENGINES)}", spec["engine"] in ENGINES),
        ("precision", spec["precision"], " or ".join(PRECISIONS), spec["precision"] in PRECISIONS),
        ("model", spec["model"], "listed in files", spec["model"] in spec["files"]),
        ("inputs", inputs_found, list(INPUTS), inputs_found == list(INPUTS)),
        ("outputs", outputs_found, list(OUTPUTS), outputs_found == list(OUTPUTS)),
        ("steps", steps, f"numbers named {_STEPS}", sorted(steps) == sorted(_STEPS) and numbers),
        ("tokens", "…", "strings", all(isinstance(token, str) for token in spec["tokens"])),
        ("blank", spec["blank"], f"{outputs}: it comes after the {outputs} tokens", spec["blank"] == outputs),
    ]
    problems = [f"{key}: {value!r}; must be {must}" for key, value, must, right in wanted if not right]
    return problems + [text for case in spec["golden"] for text in _golden_problems(case, spec["files"])]


def _names(entries: list[Any]) -> list[Any]:
    return [entry.get("name") if isinstance(entry, dict) else entry for entry in entries]


def _golden_problems(case: Any, files: dict[str, Any]) -> list[str]:
    if not isinstance(case, dict) or sorted(case) != sorted(_GOLDEN) or not isinstance(case["files"], dict):
        return [f"golden: every case must have {', '.join(_GOLDEN)}; found {case!r:.80}"]
    where = f"golden {case['name']}"
    problems = [f"{where}: {key} missing" for key in (*INPUTS, *OUTPUTS) if key not in case["files"]]
    for key, entry in case["files"].items():
        if not isinstance(entry, dict) or entry.get("file") not in files or entry.get("dtype") != "float32":
            problems.append(f"{where}.{key}: must name a listed float32 file; found {entry!r:.80}")
        elif not _holds(files[entry["file"]], entry.get("shape")):
            problems.append(f"{where}.{key}: {entry['file']} does not hold shape {entry.get('shape')}")
    return problems


def _holds(file: Any, shape: Any) -> bool:
    """Whether a file of the list has the bytes of a float32 array of that shape."""
    return isinstance(file, dict) and isinstance(shape, list) and file.get("bytes") == 4 * math.prod(shape)


def _file_problems(folder: Path, files: dict[str, Any]) -> list[str]:
    return [text for name, entry in files.items() if (text := _file_problem(folder, name, entry))]


def _file_problem(folder: Path, name: str, entry: Any) -> str | None:
    if not isinstance(entry, dict) or sorted(entry) != ["bytes", "sha256"]:
        return f"files: {name} must have sha256 and bytes; found {entry!r:.80}"
    if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
        return f"files: {name} points outside the bundle"
    path = folder / name
    if not path.is_file():
        return f"{name}: missing (expected {entry['bytes']} bytes)"
    found = sha256(path)
    if found != entry["sha256"]:
        size = path.stat().st_size
        return (
            f"{name}: changed or truncated: sha256 is {found}, expected {entry['sha256']}; "
            f"{size} bytes, expected {entry['bytes']}"
        )
    return None


def _load_golden(folder: Path, case: dict[str, Any]) -> Golden:
    arrays = {
        key: np.fromfile(folder / entry["file"], dtype="<f4").reshape(entry["shape"]).astype(np.float32)
        for key, entry in case["files"].items()
    }
    return Golden(case["name"], arrays, case["transcript"], float(case["tolerance"]))
