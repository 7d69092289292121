"""What goes wrong with lips while the sound goes on, for training: a model that never met it trusts a dead camera.

The faults are those of `edgeav evaluate` (conditions.py): frozen, black, late or early pictures, of which a device
would not know, and missing ones, of which it does.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from edgeav.data.augment import delayed
from edgeav.data.conditions import bursts, spoil
from edgeav.data.corpus import Media
from edgeav.runtime.features import Inputs
from edgeav.runtime.inputs import Features

UNTOLD = ("frozen", "black", "late")
MOST_LATE = 12  # frames: 0.48 s
WHOLE = 0.4  # how often a fault lasts from the first frame to the last
READABLE = 3  # frames: lips as late as this still say what the sound says


def untold(media: Media, r: np.random.Generator) -> tuple[Media, bool]:
    """The clip with one fault of which the model is not told, and whether its lips still fit the words in time."""
    assert media.mouth is not None
    fault = str(r.choice(UNTOLD))
    if fault == "late":
        late = int(r.integers(1, MOST_LATE + 1)) * int(r.choice([-1, 1]))
        return replace(media, mouth=delayed(media.mouth, late)), abs(late) <= READABLE
    percent = 100.0 if r.random() < WHOLE else float(r.uniform(20, 100))
    mouth, _ = spoil(media.mouth, bursts(len(media.mouth), percent, r), fault)  # type: ignore[arg-type]
    return replace(media, mouth=mouth), False


def missing(inputs: Inputs, features: Features, r: np.random.Generator) -> Inputs:
    """The same with bursts of its steps unseen, and the model told so; changes `inputs`."""
    gone = bursts(inputs.steps, float(r.uniform(10, 100)), r)
    inputs.video[:, np.repeat(gone, features.video_frames)] = 0
    inputs.presence[:, gone, 1] = 0
    return inputs
