"""New sentences from old clips: words exchanged between clips at their word times, sound and picture together.

A speaker who says "set blue at s" and "lay red by t" has also shown how "set red by s" sounds and looks; without this
a model learns whole sentences of the few people it knows. Cuts lie on the picture grid (40 ms), and the sound is faded
over 5 ms at them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from edgeav.data.cache import DecodedClips
from edgeav.data.corpus import Media, Word
from edgeav.runtime.inputs import SAMPLE_RATE_HZ, VIDEO_FPS

SAMPLES_PER_FRAME = SAMPLE_RATE_HZ // VIDEO_FPS  # 640
FADE = SAMPLE_RATE_HZ // 200  # 80: 5 ms
EXCHANGED = 0.4  # of the words
STRANGER = 0.5  # how often a letter may come from another speaker: see `splice`
LETTER = 3  # its place in a GRID sentence


class Donors:
    """Which clips can give words to which: those with sound, lips and equally many timed words."""

    def __init__(self, clips: DecodedClips, usable: Sequence[int]) -> None:
        self.clips = clips
        self.by_speaker: dict[tuple[str, int], list[int]] = defaultdict(list)
        self.by_count: dict[int, list[int]] = defaultdict(list)
        for index in usable:
            row = clips.rows[index]
            if row.words and row.samples[0] < row.samples[1] and row.frames[0] < row.frames[1]:
                self.by_speaker[row.speaker, len(row.words)].append(index)
                self.by_count[len(row.words)].append(index)

    def splice(self, index: int, r: np.random.Generator) -> tuple[Media, str]:
        """The clip with some of its words from others, and what it now says.

        A letter comes from anybody now and then: people of whom only few letters are known would else tell the model
        by their face which letters to expect.
        """
        row, media = self.clips.rows[index], self.clips.media(index)
        family = self.by_speaker.get((row.speaker, len(row.words)), [])
        if media.waveform is None or media.mouth is None or len(family) < 2:
            return media, row.text
        pieces = [_piece(media, 0.0, media.words[0][1])]
        words: list[Word] = []
        for place, word in enumerate(media.words):
            source = media
            if r.random() < EXCHANGED:
                anybody = place == LETTER and r.random() < STRANGER
                donors = self.by_count[len(row.words)] if anybody else family
                source = self.clips.media(donors[int(r.integers(len(donors)))])
                word = source.words[place]
            piece = _piece(source, word[1], word[2])
            start_s = sum(len(frames) for _, frames in pieces) / VIDEO_FPS
            words.append((word[0], start_s, start_s + len(piece[1]) / VIDEO_FPS))
            pieces.append(piece)
        pieces.append(_piece(media, media.words[-1][2], media.words[-1][2] + 9.0))
        sound, mouth = _joined([sound for sound, _ in pieces]), np.concatenate([frames for _, frames in pieces])
        return Media(sound, mouth, tuple(words)), " ".join(word for word, _, _ in words)


def _piece(media: Media, start_s: float, end_s: float) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """Sound and pictures between two times, as many frames of the one as of the other."""
    assert media.waveform is not None and media.mouth is not None
    last = min(len(media.mouth), len(media.waveform) // SAMPLES_PER_FRAME)
    start, end = (min(last, round(time_s * VIDEO_FPS)) for time_s in (start_s, end_s))
    return media.waveform[start * SAMPLES_PER_FRAME : end * SAMPLES_PER_FRAME], media.mouth[start:end]


def _joined(pieces: list[NDArray[np.float32]]) -> NDArray[np.float32]:
    ramp = np.linspace(0, 1, FADE, dtype=np.float32)
    faded = []
    for piece in pieces:
        piece = piece.copy()
        if len(piece) >= 2 * FADE:
            piece[:FADE] *= ramp
            piece[-FADE:] *= ramp[::-1]
        faded.append(piece)
    return np.concatenate(faded)
