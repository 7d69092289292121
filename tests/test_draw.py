"""Clips of a batch: shuffled, trimmed to their speech, dealt out by length."""

from __future__ import annotations

import numpy as np
import pytest

from edgeav.data.cache import Row
from edgeav.data.corpus import Media
from edgeav.data.draw import LEAST_S, TOGETHER, dealt, draw, margins, span, trimmed

WORDS = (("set", 1.0, 1.2), ("blue", 1.2, 1.6))


def rows(count: int) -> list[Row]:
    """Of 1 s and longer; what is said lies in their middle."""
    lengths = 1 + np.random.default_rng(3).uniform(0, 2, count)
    return [Row("", "", (0, round(s * 16000)), (0, 0), (("a", s / 2 - 0.2, s / 2 + 0.2),)) for s in lengths]


def test_every_clip_comes_once_in_each_turn() -> None:
    usable = [3, 5, 7, 9]
    drawn = [draw(rows(10), usable, 0.5, [1, 2], position).index for position in range(8)]
    assert sorted(drawn[:4]) == sorted(drawn[4:]) == usable
    assert drawn == [draw(rows(10), usable, 0.5, [1, 2], position).index for position in range(8)]


def test_short_clips_share_a_batch_and_none_is_lost() -> None:
    drawn = [draw(rows(64), range(64), 0.8, [1], position) for position in range(TOGETHER * 4)]
    order = [2, 0, 1, 3, 4, 5, 7, 6]
    batches = dealt(drawn, 4, order)
    assert sorted(one.index for batch in batches for one in batch) == sorted(one.index for one in drawn)
    longest = {place: max(one.duration_s for one in batch) for place, batch in zip(order, batches, strict=True)}
    assert [longest[place] for place in range(TOGETHER)] == sorted(longest.values())


def test_a_drawn_length_is_that_of_the_trimmed_clip() -> None:
    for position in range(40):
        one = draw(rows(10), range(10), 0.7, [4], position)
        row = rows(10)[one.index]
        media = Media(np.zeros(row.samples[1], np.float32), None, row.words)
        left = trimmed(media, one.margins_s)
        assert left.waveform is not None
        assert len(left.waveform) / 16000 == pytest.approx(one.duration_s, abs=1e-4)


def test_what_is_left_is_the_speech_with_its_sound_pictures_and_times_together() -> None:
    sound, mouth = np.arange(3 * 16000, dtype=np.float32), np.arange(75)[:, None, None] * np.ones((1, 96, 96))
    left = trimmed(Media(sound, mouth.astype(np.uint8), WORDS), (0.2, 0.4))
    assert left.waveform is not None and left.mouth is not None
    assert left.waveform[0] == 0.8 * 16000 and left.mouth[0, 0, 0] == 20  # 0.2 s before the first word, in both
    assert len(left.waveform) == 1.2 * 16000 and len(left.mouth) == 30
    assert [(round(a, 6), round(b, 6)) for _, a, b in left.words] == [(0.2, 0.4), (0.4, 0.8)]


def test_a_margin_longer_than_the_silence_takes_no_more_than_there_is() -> None:
    assert span(WORDS, 1.7, (5.0, 5.0)) == (0.0, 1.7)


def test_clips_without_word_times_and_those_not_chosen_stay_whole() -> None:
    r = np.random.default_rng(0)
    assert margins((), 1.0, r) == (np.inf, np.inf)
    media = Media(np.zeros(16000, np.float32), None, WORDS)
    assert trimmed(media, margins(WORDS, 0.0, r)) is media
    chosen = [margins(WORDS, 0.25, r)[0] for _ in range(4000)]
    assert np.isfinite(chosen).mean() == pytest.approx(0.25, abs=0.03)
    assert min(chosen) >= LEAST_S
