"""What an evaluation is of: a PyTorch model or an exported bundle, behind the same call."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from edgeav.catalog import find_model
from edgeav.measure import Recognizer, recognizer
from edgeav.run import digest, model_hash
from edgeav.runtime.inputs import Readings
from edgeav.runtime.readings import Surest


@dataclass(frozen=True)
class Subject:
    """`max_steps` is the longest input that it takes; `key` stands for its files."""

    name: str
    engine: str
    recognizer: Recognizer
    max_steps: int
    key: str
    surest: Surest | None = None  # who reads again where both modalities leave it unsure


def open_subject(name: str, threads: int = 1, readings: Readings = "one") -> Subject:
    """A bundle's folder, a model's folder, or a shipped model's name; EdgeavError for anything else."""
    subject = _opened(name, threads)
    if readings == "one":
        return subject
    surest = Surest(subject.recognizer.recognize, subject.recognizer.blank)
    speech, key = replace(subject.recognizer, recognize=surest), digest([subject.key, readings, surest.sure])
    return replace(subject, recognizer=speech, key=key, surest=surest)


def _opened(name: str, threads: int) -> Subject:
    folder = Path(name)
    if (folder / "bundle.json").is_file():
        return _bundle(folder, threads)
    from edgeav.models import load_model

    folder = find_model(name)
    model = load_model(folder)
    return Subject(folder.name, "PyTorch", recognizer(model), model.config.max_steps, model_hash(folder))


def _bundle(folder: Path, threads: int) -> Subject:
    from edgeav.runtime.bundle import read_bundle
    from edgeav.runtime.engines import open_engine

    bundle = read_bundle(folder)
    engine = open_engine(bundle, threads)
    speech = Recognizer(lambda x: engine.run(*x), bundle.features, bundle.tokens, bundle.blank)
    key = digest([bundle.files, engine.version])
    return Subject(bundle.name, f"{bundle.engine} {bundle.precision}", speech, bundle.steps.max, key)
