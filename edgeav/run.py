"""A run: a folder of steps, each done once. Kill it when you like; the next start goes on where it stopped.

A step's work fills a hidden folder, which is renamed when it is complete: what has its final name is whole. A step is
keyed by its settings, the keys of the steps it reads, the code and the versions: what changed is redone, and what
follows from it; the rest is kept.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeav.errors import EdgeavError
from edgeav.progress import Progress

if TYPE_CHECKING:
    from edgeav.data.cache import DecodedClips
    from edgeav.data.corpus import Corpus, Utterance
    from edgeav.recipe import Recipe

DONE = "done.json"
DECODE_WORKERS = 2
NUMERIC = ("numpy", "torch", "torchao", "onnx", "onnxruntime", "openvino", "nncf", "executorch")


@dataclass(frozen=True)
class Step:
    """One unit of work: `name` is its folder under the run, `work` fills the empty folder it is given.

    `needs` are the steps whose results it reads; `settings` everything else its result depends on.
    """

    name: str
    settings: Mapping[str, Any]
    work: Callable[[Path], object]
    needs: tuple[Step, ...] = ()

    @cached_property
    def facts(self) -> dict[str, str]:
        """What the key is made of, each hashed apart, so that a change can be named."""
        facts = {f"setting {name}": digest(value) for name, value in self.settings.items()}
        facts |= {f"step {step.name}": step.key for step in self.needs}
        return facts | {"edgeav's code": code_hash(), "installed versions": digest(versions())}

    @cached_property
    def key(self) -> str:
        return digest(self.facts)


@dataclass
class Run:
    """The folder of one recipe's run."""

    folder: Path
    recipe: Recipe
    progress: Progress = field(default_factory=Progress)

    @cached_property
    def corpus(self) -> Corpus:
        """Opened on first use: a run whose steps are all done needs none."""
        from edgeav.data.corpus import open_corpus

        return open_corpus(self.recipe.corpus, self.recipe.seed)

    def decoded(self, corpus: str, seed: int, part: str, utterances: Sequence[Utterance]) -> DecodedClips:
        """Some clips of a corpus, decoded once for every step that reads them, also when the run is killed."""
        from edgeav.data.cache import decode

        key = digest([corpus, seed, corpus_manifest(corpus), code_hash("data")])[:8]
        folder = self.scratch("clips") / f"{Path(corpus).name}-{part}-{key}"
        label = f"decode {Path(corpus).name} {part}"
        return decode(utterances, folder, workers=DECODE_WORKERS, progress=self.progress, label=label)

    def once(self, step: Step) -> Path:
        """Do `step` unless its folder holds the same step's result; returns that folder."""
        folder = self.folder / step.name
        if self.why_missing(step) is None:
            return folder
        part = folder.with_name(f".{folder.name}.part")
        for stale in (part, folder):
            shutil.rmtree(stale, ignore_errors=True)
        part.mkdir(parents=True)
        start = time.monotonic()
        with self.progress.busy(step.name), _stdout_to_stderr():
            step.work(part)
        done = {"key": step.key, "facts": step.facts, "seconds": round(time.monotonic() - start, 1)}
        (part / DONE).write_text(json.dumps(done, indent=1))
        _flush(part)
        part.rename(folder)
        return folder

    def why_missing(self, step: Step) -> str | None:
        """None when the result is there; otherwise why it must be made."""
        path = self.folder / step.name / DONE
        if not path.is_file():
            return "not done yet"
        done = json.loads(path.read_text())
        if done["key"] == step.key:
            return None
        before, now = done["facts"], step.facts
        changed = [name for name in {**before, **now} if before.get(name) != now.get(name)]
        return "changed: " + ", ".join(changed)

    def seconds(self, step: Step) -> float:
        """How long the work took when it was done."""
        return json.loads((self.folder / step.name / DONE).read_text())["seconds"]

    def scratch(self, name: str) -> Path:
        """A folder for a step's unfinished work, kept when the run is killed: checkpoints live here."""
        folder = self.folder / "work" / name
        folder.mkdir(parents=True, exist_ok=True)
        return folder


@lru_cache
def code_hash(part: str = "") -> str:
    """Of every Python file of this package, or of a part of it: other code, other results."""
    return folder_hash(Path(__file__).parent / part, "*.py")


@lru_cache
def versions(packages: tuple[str, ...] = NUMERIC) -> dict[str, str]:
    """The installed versions, by default of what computes; a package that is absent is left out."""
    found = {}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def corpus_manifest(corpus: str) -> str | None:
    """The hash of a corpus folder's manifest, by which it is known: hashing every clip would take too long."""
    path = Path(corpus) / "manifest.jsonl"
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else None


def folder_hash(folder: Path, pattern: str = "*") -> str:
    """Of the names and bytes of all files in a folder, such as a model's."""
    found = hashlib.sha256()
    for path in sorted(p for p in folder.rglob(pattern) if p.is_file()):
        found.update(str(path.relative_to(folder)).encode() + b"\0" + path.read_bytes())
    return found.hexdigest()


def model_hash(folder: Path) -> str:
    """Of what a model computes with, quantized or not: its card may be reworded, and it answers as before."""
    return digest([folder_hash(folder, pattern) for pattern in ("model.*", "tokenizer.model", "quantization.json")])


def write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError) as error:
        raise EdgeavError(f"{path}: cannot be read ({error}). Delete its folder and run again") from None


def digest(value: Any) -> str:
    """16 hexadecimal digits that stand for plain data."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:16]


@contextmanager
def _stdout_to_stderr() -> Iterator[None]:
    """Quantizers draw bars on stdout, also from C++; stdout is for results, which a program may be reading."""
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        yield
    finally:
        sys.stdout.flush()
        os.dup2(kept, 1)
        os.close(kept)


def _flush(folder: Path) -> None:
    """To the disk before the rename, or a power cut could leave a whole name on half a file."""
    for path in folder.rglob("*"):
        if path.is_file():
            descriptor = os.open(path, os.O_RDONLY)
            os.fsync(descriptor)
            os.close(descriptor)
