"""Reading a clip once more by sound alone and by lips alone where both together leave a model unsure.

What is fused can be misled: by lips that lag behind or have frozen, by noise in which a model hears words. One set of
weights reads sound, lips and both, `presence` says which; so whoever runs it can ask again and take the reading that
is surest. Weighing streams by the entropy of their posteriors: Gurban & Thiran 2008
(https://doi.org/10.1145/1452392.1452442); here whole readings compete, and CTC's blanks do not count.

A model that is sure at once is asked once; one that is not costs three times as much.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgeav.runtime.features import Inputs

SURE = 0.5  # nats: both together are believed below that; chosen on validation clips, see docs/distill.md
LEAST = 0.5  # a reading that speaks in fewer steps than this share of the fullest one's has missed something
Recognize = Callable[[Inputs], NDArray[np.float32]]  # Inputs of one row -> (1, N, V) log-probabilities


@dataclass
class Surest:
    """A `Recognize` over another one. `last` says which reading was taken; `passes` counts how often the model ran."""

    run: Recognize
    blank: int
    sure: float = SURE
    passes: int = 0
    last: str = "both"

    def __call__(self, inputs: Inputs) -> NDArray[np.float32]:
        """(1, N, V) of the surest reading; all readings have something to go by at the same steps."""
        found = {"both": self._read(inputs)}
        if doubt(found["both"], inputs, self.blank) > self.sure:
            found |= {name: self._read(one) for name, one in alone(inputs).items()}
        self.last = surest(found, inputs, self.blank)
        return found[self.last]

    def _read(self, inputs: Inputs) -> NDArray[np.float32]:
        self.passes += 1
        return self.run(inputs)


def alone(inputs: Inputs) -> dict[str, Inputs]:
    """The same without the lips wherever something is heard, and without the sound wherever lips are seen.

    Nothing where no step has both: there is no choice.
    """
    both = inputs.presence.min(axis=-1) > 0  # (1, N)
    return {name: _without(inputs, both, column) for column, name in ((1, "sound"), (0, "lips"))} if both.any() else {}


def _without(inputs: Inputs, steps: NDArray[np.bool_], column: int) -> Inputs:
    """Modality `column` of `presence` absent in `steps` (1, N): its input is zero there, and the model told so."""
    audio, video, presence = (array.copy() for array in inputs)
    presence[..., column][steps] = 0
    stream = (audio, video)[column]
    stream[0, np.repeat(steps[0], stream.shape[1] // steps.shape[1])] = 0
    return Inputs(audio, video, presence)


def surest(found: dict[str, NDArray[np.float32]], inputs: Inputs, blank: int) -> str:
    """The reading of least doubt among those that say about as much as the fullest; of equals the first."""
    said = {name: _speaks(log_probs, inputs, blank) for name, log_probs in found.items()}
    full = [name for name in found if said[name] >= LEAST * max(said.values())]
    return min(full, key=lambda name: doubt(found[name], inputs, blank))


def _speaks(log_probs: NDArray[np.float32], inputs: Inputs, blank: int) -> int:
    """In how many steps the blank is not the best: what is probable in sum but nowhere certain is not counted."""
    return int(((log_probs[0].argmax(axis=-1) != blank) & inputs.presence[0].any(axis=-1)).sum())


def doubt(log_probs: NDArray[np.float32], inputs: Inputs, blank: int) -> float:
    """(1, N, V) -> nats: mean entropy of the steps, each weighed by how certainly it is no blank; 0 for none."""
    weights = (1 - np.exp(log_probs[0, :, blank])) * inputs.presence[0].any(axis=-1)
    entropy = -(np.exp(log_probs[0]) * log_probs[0]).sum(axis=-1)
    return float((entropy * weights).sum() / max(float(weights.sum()), 1e-3))
