"""The run that a candidate's stages see: one worker's scratch folder, and decoded clips that all workers share."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from edgeav.run import Run

if TYPE_CHECKING:
    from edgeav.data.cache import DecodedClips
    from edgeav.data.corpus import Utterance


@dataclass
class TrialRun(Run):
    """`folder` is the whole run's, `shared` the search's, `place` belongs to the candidate in work, `turn` is ours."""

    shared: Path = field(kw_only=True)
    place: Path = field(kw_only=True)
    turn: int = field(kw_only=True)

    def scratch(self, name: str) -> Path:
        if name == "clips":
            return super().scratch(name)
        # A teacher says the same to every student, but two workers cannot write down what it says in one place.
        folder = self.shared / f"posteriors-{self.turn}" if name == "posteriors" else self.place / name
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def decoded(self, corpus: str, seed: int, part: str, utterances: Sequence[Utterance]) -> DecodedClips:
        with locked(self.shared / "decoding.lock"):
            return super().decoded(corpus, seed, part, utterances)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """One process at a time; a process that is killed lets go."""
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
