"""Word times for clips that have none: a CTC model says where the words of a known text stand.

The most probable path through the text (Viterbi; Kürzinger et al. 2020, https://arxiv.org/abs/2007.09127), by
torchaudio. A poor recognizer may align well: it need not find the words, only their places. CTC speaks in spikes, so a
word reaches from its first spike to its last, and further into the silence around it. What has to hold is that the
spikes stand where the words are, which CTC alone does not ask for: see edgeav/losses.py.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from edgeav.data.cache import LIPS, SOUND, DecodedClips, made_once, write_rows
from edgeav.data.corpus import Word
from edgeav.data.text import Tokenizer, load_tokenizer
from edgeav.measure import recognizer
from edgeav.models import load_model
from edgeav.progress import Progress
from edgeav.runtime.features import model_inputs

REACH_S = 0.12  # into the silence on each side of a word's spikes, half of it where another word is nearer


def timed(clips: DecodedClips, model: Path, folder: Path, progress: Progress) -> DecodedClips:
    """The same clips in `folder`, with word times by the model of that folder where there are none; made once.

    A clip too short for its text, as the model counts, stays without.
    """

    def write() -> None:
        for name in (SOUND, LIPS):
            os.link(clips.folder / name, folder / name)
        found = _words(clips, model, progress)
        write_rows([asdict(row) | {"words": words} for row, words in zip(clips.rows, found, strict=True)], folder)

    return made_once(folder, write)


def _words(clips: DecodedClips, model: Path, progress: Progress) -> list[tuple[Word, ...]]:
    speech, tokenizer = recognizer(load_model(model)), load_tokenizer(model)
    step_s, found = speech.features.step_ms / 1000, []
    for index in progress.track(range(len(clips)), f"word times of {clips.folder.name}"):
        row, media = clips.rows[index], clips.media(index)
        if row.words or not row.text.split():
            found.append(row.words)
            continue
        log_probs = torch.from_numpy(
            np.asarray(speech.recognize(model_inputs(media.waveform, media.mouth, speech.features)))
        )
        found.append(align(log_probs[0], row.text.split(), tokenizer, speech.blank, step_s))
    return found


def align(log_probs: Tensor, words: Sequence[str], tokenizer: Tokenizer, blank: int, step_s: float) -> tuple[Word, ...]:
    """(N, V) log-probabilities -> (word, start s, end s) of each of `words`, in order; nothing if they do not fit."""
    from torchaudio.functional import forced_align, merge_tokens

    pieces = [tokenizer.encode(word) for word in words]
    targets = torch.tensor([[token for ids in pieces for token in ids]], dtype=torch.int32)
    repeats = int((targets[0, 1:] == targets[0, :-1]).sum())
    if targets.shape[1] + repeats > len(log_probs) or not all(pieces):
        return ()
    path, scores = forced_align(log_probs[None].float(), targets, blank=blank)
    spikes = merge_tokens(path[0], scores[0].exp(), blank=blank)
    ends = np.cumsum([len(ids) for ids in pieces])
    spans = [(spikes[end - len(ids)].start, spikes[end - 1].end) for end, ids in zip(ends, pieces, strict=True)]
    return _widened(words, [(start * step_s, end * step_s) for start, end in spans], len(log_probs) * step_s)


def _widened(words: Sequence[str], spans: Sequence[tuple[float, float]], end_s: float) -> tuple[Word, ...]:
    """Each word into the silence around it, at most to the middle of a gap between two."""
    middles = [(left[1] + right[0]) / 2 for left, right in pairwise(spans)]
    first, last = [0.0, *middles], [*middles, end_s]
    return tuple(
        (word, max(low, start - REACH_S), min(high, end + REACH_S))
        for word, (start, end), low, high in zip(words, spans, first, last, strict=True)
    )
