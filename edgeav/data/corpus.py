"""A corpus: utterances with a speaker, a text, sound and lips, in splits that share no clip.

`open_corpus("demo")` is generated from a seed; a folder with manifest.jsonl is read from disk. Nothing is decoded until
an utterance is asked for its media, so a corpus of any length opens at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from edgeav.data import BUILT_IN
from edgeav.errors import EdgeavError
from edgeav.runtime.features import Inputs, model_inputs
from edgeav.runtime.inputs import Features

Word = tuple[str, float, float]
Familiarity = Literal["seen", "unseen", "mixed", "unknown"]
UNKNOWN = "unknown"  # the speaker of a clip whose corpus does not say


@dataclass(frozen=True)
class Media:
    """(S,) float32 sound at 16 kHz and (T, 96, 96) gray mouth at 25 fps; either may be missing.

    `words` are (word, start in s, end in s), empty where the times are not known.
    """

    waveform: NDArray[np.float32] | None
    mouth: NDArray[np.uint8] | None
    words: tuple[Word, ...] = ()


class Source(Protocol):
    """Where an utterance's media come from: a file, or a generator."""

    def read(self) -> Media: ...


@dataclass(frozen=True)
class Utterance:
    """One clip."""

    id: str
    speaker: str
    text: str
    source: Source

    def media(self) -> Media:
        return self.source.read()

    def inputs(self, features: Features) -> Inputs:
        """What a model of these features is given."""
        media = self.media()
        return model_inputs(media.waveform, media.mouth, features)


@dataclass(frozen=True)
class Split:
    """Utterances that are reported together, and what kind they are: a result on them means no more than that."""

    name: str
    utterances: Sequence[Utterance]
    synthetic: bool
    speakers: Familiarity  # to the model, if it was trained on this corpus


@dataclass(frozen=True)
class Corpus:
    """`tests` are for reporting alone; calibration and training draw from `train`, early stopping from `valid`."""

    name: str
    train: Sequence[Utterance]
    valid: Sequence[Utterance]
    tests: Sequence[Split]

    def calibration(self, count: int, seed: int) -> list[Utterance]:
        """`count` training utterances, drawn without replacement; EdgeavError when there are fewer."""
        if count > len(self.train):
            raise EdgeavError(
                f"calibration: {count} utterances asked for, corpus {self.name} has {len(self.train)} to train on."
                f" Set calibration to at most {len(self.train)}"
            )
        order = np.random.default_rng(seed).permutation(len(self.train))[:count]
        return [self.train[i] for i in order]


def open_corpus(name: str, seed: int = 0) -> Corpus:
    """ "demo", "demo-pico", or the path of a folder with manifest.jsonl."""
    # Imported here: a folder of real clips must open where no speech synthesizer is installed, and the other way round.
    if name in BUILT_IN:
        from edgeav.data.synthetic import demo_corpus, pico_corpus

        return demo_corpus(seed) if name == "demo" else pico_corpus(seed)
    from edgeav.data.manifest import read_folder

    if not Path(name).is_dir():
        raise EdgeavError(f"corpus: {name!r} is neither {' nor '.join(BUILT_IN)} nor a folder with manifest.jsonl")
    return read_folder(Path(name))
