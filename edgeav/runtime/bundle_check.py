"""What can be wrong with bundle.json and the files it lists: everything is checked, and all of it is said at once."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from edgeav.errors import EdgeavError
from edgeav.runtime.inputs import MIN_STEPS, Features, features_from_json

OUTPUTS = ("log_probs",)
ENGINES = ("onnxruntime", "openvino", "executorch", "aoti")
PRECISIONS = ("fp32", "int8", "int8-dynamic", "int8-weights", "int4-weights", "fp8-e4m3", "fp8-e5m2", "fp16", "bf16")

_KEYS: dict[str, type] = {
    "schema": str, "name": str, "engine": str, "precision": str, "model": str,
    "inputs": list, "outputs": list, "steps": dict, "features": dict, "tokens": list,
    "blank": int, "golden": list, "quality": dict, "exported": dict, "files": dict,
}  # fmt: skip
_OPTIONAL: dict[str, type] = {"buckets": list}
Check = tuple[str, Any, Any, bool]  # a key, what it is, what it must be, whether it is
_GOLDEN = ("name", "files", "transcript", "tolerance")


def input_entries(features: Features) -> list[dict[str, Any]]:
    """bundle.json's "inputs": the model's inputs in order, their first two sides in words of N steps."""
    audio, video, presence = features.shapes(1, 1)
    shapes = {"mel": audio, "samples": audio, "video": video, "presence": presence}
    return [_tensor(name, shapes[name]) for name in features.names]


def output_entries(tokens: Sequence[str], blank: int) -> list[dict[str, Any]]:
    """bundle.json's "outputs"."""
    return [_tensor("log_probs", (1, 1, labels(tokens, blank)))]


def labels(tokens: Sequence[str], blank: int) -> int:
    """How many outputs a model has: the tokens, and the blank unless one of them stands for it."""
    return max(len(tokens), blank + 1)


def step_entries(features: Features, longest: int) -> dict[str, Any]:
    """bundle.json's "steps" for a model that takes at most `longest` steps at once."""
    frames = {"audio_frames": features.audio_frames, "video_frames": features.video_frames}
    return {"per_second": features.steps_per_second, **frames, "min": MIN_STEPS, "max": longest}


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def key_problems(spec: dict[str, Any]) -> list[str]:
    missing = [f"{key}: missing" for key in _KEYS if key not in spec]
    known = _KEYS | _OPTIONAL
    unknown = [f"{key}: unknown key; allowed: {', '.join(known)}" for key in spec if key not in known]
    wrong = [
        f"{key}: {type(spec[key]).__name__}, must be {kind.__name__}"
        for key, kind in known.items()
        if key in spec and (not isinstance(spec[key], kind) or isinstance(spec[key], bool))
    ]
    return missing + unknown + wrong


def value_problems(spec: dict[str, Any]) -> list[str]:
    """What is wrong inside the right keys, so that no later line has to ask."""
    wanted = [
        ("engine", spec["engine"], f"one of {', '.join(ENGINES)}", spec["engine"] in ENGINES),
        ("precision", spec["precision"], f"one of {', '.join(PRECISIONS)}", spec["precision"] in PRECISIONS),
        ("model", spec["model"], "listed in files", spec["model"] in spec["files"]),
        *_label_checks(spec["tokens"], spec["blank"], spec["outputs"]),
        _bucket_check(spec.get("buckets", []), spec["steps"]),
    ]
    problems, names = [], ()
    try:
        features = features_from_json(spec["features"])
        names = features.names
        wanted += _feature_checks(features, spec["inputs"], spec["steps"])
    except EdgeavError as error:
        problems = [f"features.{line}" for line in str(error).splitlines()]
    problems += [f"{key}: {value!r}; must be {must}" for key, value, must, right in wanted if not right]
    return problems + [text for case in spec["golden"] for text in _golden_problems(case, spec["files"], names)]


def _bucket_check(buckets: list[Any], steps: dict[str, Any]) -> Check:
    whole = all(isinstance(bucket, int) and not isinstance(bucket, bool) for bucket in buckets)
    right = whole and buckets == sorted(set(buckets))
    if right and buckets and isinstance(steps.get("max"), int):
        right = buckets[0] >= MIN_STEPS and buckets[-1] <= steps["max"]
    return "buckets", buckets, "ascending whole numbers of steps that the model takes", right


def _label_checks(tokens: list[Any], blank: int, outputs: list[Any]) -> list[Check]:
    blanks = 0 <= blank <= len(tokens)
    right = output_entries(tokens, max(blank, 0))
    return [
        ("tokens", "…", "strings", all(isinstance(token, str) for token in tokens)),
        ("blank", blank, f"0..{len(tokens)}: one of the {len(tokens)} tokens, or the output after them", blanks),
        ("outputs", outputs, right, not blanks or outputs == right),
    ]


def _feature_checks(features: Features, inputs: list[Any], steps: dict[str, Any]) -> list[Check]:
    """Inputs and clock follow from the features; they are written out for readers that need no more."""
    longest: Any = steps.get("max")
    fits = isinstance(longest, int) and not isinstance(longest, bool) and longest >= MIN_STEPS
    right = step_entries(features, longest)
    return [
        ("inputs", inputs, input_entries(features), inputs == input_entries(features)),
        ("steps.max", longest, f"a whole number of at least {MIN_STEPS}", fits),
        ("steps", steps, right, not fits or steps == right),
    ]


def _tensor(name: str, sides: tuple[int, ...]) -> dict[str, Any]:
    """(1, frames in a step, …) -> {"name", "dtype", "shape": ["1", "8N", …]}."""
    frames = "N" if sides[1] == 1 else f"{sides[1]}N"
    return {"name": name, "dtype": "float32", "shape": ["1", frames, *sides[2:]]}


def _golden_problems(case: Any, files: dict[str, Any], inputs: tuple[str, ...]) -> list[str]:
    if not isinstance(case, dict) or sorted(case) != sorted(_GOLDEN) or not isinstance(case["files"], dict):
        return [f"golden: every case must have {', '.join(_GOLDEN)}; found {case!r:.80}"]
    where = f"golden {case['name']}"
    problems = [f"{where}: {key} missing" for key in (*inputs, *OUTPUTS) if key not in case["files"]]
    for key, entry in case["files"].items():
        if not isinstance(entry, dict) or entry.get("file") not in files or entry.get("dtype") != "float32":
            problems.append(f"{where}.{key}: must name a listed float32 file; found {entry!r:.80}")
        elif not _holds(files[entry["file"]], entry.get("shape")):
            problems.append(f"{where}.{key}: {entry['file']} does not hold shape {entry.get('shape')}")
    return problems


def _holds(file: Any, shape: Any) -> bool:
    """Whether a file of the list has the bytes of a float32 array of that shape."""
    return isinstance(file, dict) and isinstance(shape, list) and file.get("bytes") == 4 * math.prod(shape)


def file_problems(folder: Path, files: dict[str, Any]) -> list[str]:
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
