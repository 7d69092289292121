"""`edgeav transcribe`: several files through one bundle, and which bundle when none is named."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from edgeav.errors import EdgeavError
from edgeav.progress import Progress
from edgeav.runtime.inputs import Readings


def newest_bundle(runs: Path) -> Path:
    """The newest bundle below `runs`, an int8 one for ONNX Runtime if there is any; says which on stderr."""
    found = [(_preferred(path), path.stat().st_mtime, path.parent) for path in _finished(runs)]
    if not found:
        raise EdgeavError(
            f"no bundle under {runs}/. Name one with --bundle, or make one: edgeav compress recipes/int8.yaml"
        )
    folder = max(found)[2]
    print(f"bundle: {folder}", file=sys.stderr)
    return folder


def transcribe_files(
    files: Sequence[Path],
    bundle: Path,
    progress: Progress,
    threads: int = 1,
    face_model: Path | None = None,
    readings: Readings = "one",
) -> list[dict[str, Any]]:
    """One row per file: {file, text, words, notes, timings_ms}, or {file, error} for one that cannot be used.

    A bad file is said on stderr and does not stop the others. EdgeavError for a bundle that cannot be opened.
    """
    from edgeav.runtime.transcriber import Transcriber

    transcriber = Transcriber(bundle, threads, face_model, readings)
    rows: list[dict[str, Any]] = []
    for path in progress.track(files, "transcribing"):
        try:
            rows.append({"file": str(path), **dataclasses.asdict(transcriber.transcribe(path))})
        except EdgeavError as error:
            print(f"edgeav: {error}", file=sys.stderr)
            rows.append({"file": str(path), "error": str(error)})
    return rows


def _finished(runs: Path) -> Iterator[Path]:
    """Every bundle.json, which is written last; hidden folders are unfinished work."""
    for path in runs.glob("*/bundles/**/bundle.json"):
        if not any(part.startswith(".") for part in path.relative_to(runs).parts):
            yield path


def _preferred(path: Path) -> bool:
    try:
        declared = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        return False  # opening it says what is wrong with it
    return isinstance(declared, dict) and (declared.get("engine"), declared.get("precision")) == (
        "onnxruntime",
        "int8",
    )
