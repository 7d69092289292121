"""How a smaller model is made good again: training, nested in the settings of the stage that made it smaller.

An example; with a teacher it is the `distill` stage, without one `train`:

    - prune:
        budget: {macs: 0.5}
        finetune: {teacher: before, mix: [{corpus: demo, per_batch: 8}], steps: 1000}
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import AfterValidator, Discriminator, Tag

from edgeav.stages.distill import Distill
from edgeav.stages.stage import Stage
from edgeav.stages.train import Train

if TYPE_CHECKING:
    from edgeav.run import Run

BEFORE = "before"  # as a teacher: the model as it was before the stage


def _kind(settings: Any) -> str:
    named = settings if isinstance(settings, dict) else dict(settings)
    return "distill" if named.get("teacher") is not None else "train"


def _no_student(recovery: Train | Distill) -> Train | Distill:
    if isinstance(recovery, Distill) and recovery.student is not None:
        raise ValueError("name no `student`: it is the model that this stage makes smaller")
    return recovery


Recovery = Annotated[
    Annotated[Train, Tag("train")] | Annotated[Distill, Tag("distill")],
    Discriminator(_kind),
    AfterValidator(_no_student),
]
"""Settings of `train`; with a `teacher`, of `distill`. `teacher: before` is the model as it was before the stage."""


def facts_of(recovery: Train | Distill | None) -> dict[str, str]:
    """What the result of `recovery` depends on beside its settings."""
    if recovery is None or (isinstance(recovery, Distill) and recovery.teacher == BEFORE):
        return {}
    return recovery.facts()


def recover(recovery: Train | Distill, smaller: Path, before: Path, out: Path, run: Run) -> None:
    """Train the model in `smaller` and write it into the empty folder `out`."""
    if isinstance(recovery, Distill) and recovery.teacher == BEFORE:
        recovery = recovery.model_copy(update={"teacher": str(before)})
    recovery.apply(smaller, out, run)


def scratch(name: str, stage: Stage, model_folder: Path, run: Run) -> Path:
    """Where this stage keeps what is half done, apart for everything that it depends on."""
    from edgeav.run import code_hash, corpus_manifest, digest, model_hash

    settings = [stage.model_dump(mode="json"), stage.facts(), run.recipe.seed, run.recipe.corpus]
    key = digest([settings, corpus_manifest(run.recipe.corpus), model_hash(model_folder), code_hash()])
    return run.scratch(f"{name}-{key[:8]}")


def once(folder: Path, make: Callable[[Path], None]) -> Path:
    """`folder`, filled by `make` unless it was before; its name says that it is whole."""
    if not folder.exists():
        part = folder.with_name(f".{folder.name}.part")
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        make(part)
        part.rename(folder)
    return folder
