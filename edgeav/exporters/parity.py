"""The first guard: the exported artifact is RELOADED in its own runtime and compared with eager PyTorch.

Tensors first, then transcripts; at lengths it was not exported at, with everything there, with one modality absent, and
padded as in a batch. Steps that are padding are not compared: nobody reads them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeav.measure import eager
from edgeav.models import AVModel
from edgeav.runtime import ctc
from edgeav.runtime.bundle import Bundle
from edgeav.runtime.engines import open_engine
from edgeav.runtime.features import Inputs

Array = NDArray[np.float32]


@dataclass(frozen=True)
class ParityRow:
    """One utterance. `steps` includes padding; `max_abs_diff` is of log-probabilities, padding left out."""

    steps: int
    valid_steps: int
    max_abs_diff: float
    transcripts_equal: bool


@dataclass(frozen=True)
class Parity:
    """How far an artifact is from the model it was made from."""

    rows: tuple[ParityRow, ...]

    @property
    def max_abs(self) -> float:
        return max(row.max_abs_diff for row in self.rows)

    @property
    def transcripts_equal(self) -> bool:
        return all(row.transcripts_equal for row in self.rows)

    @property
    def lengths(self) -> list[int]:
        return sorted({row.steps for row in self.rows})

    def as_dict(self) -> dict[str, Any]:
        summary = {"max_abs": self.max_abs, "transcripts_equal": self.transcripts_equal, "lengths": self.lengths}
        return {"summary": summary, "rows": [asdict(row) for row in self.rows]}


def compare(bundle: Bundle, model: AVModel, cases: Sequence[Inputs]) -> Parity:
    """Reload the bundle's model and run every case through it and through eager PyTorch."""
    engine = open_engine(bundle)
    return Parity(tuple(_compare(bundle, engine.run(*case), eager_log_probs(model, case), case) for case in cases))


def eager_log_probs(model: AVModel, inputs: Inputs) -> Array:
    """(1, N, V) from PyTorch itself."""
    return eager(model)(inputs)


def largest_difference(found: Array, expected: Array, inputs: Inputs) -> float:
    """Over the steps that are not padding. NaN if anything there is NaN."""
    valid = inputs.presence.any(axis=-1)
    return float(np.abs(found - expected)[valid].max(initial=0))


def _compare(bundle: Bundle, found: Array, expected: Array, case: Inputs) -> ParityRow:
    texts = [ctc.decode(x[0], bundle.tokens, bundle.blank, case.presence[0]).text for x in (found, expected)]
    return ParityRow(
        steps=case.steps,
        valid_steps=int(case.presence.any(axis=-1).sum()),
        max_abs_diff=largest_difference(found, expected, case),
        transcripts_equal=texts[0] == texts[1],
    )
