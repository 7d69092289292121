"""Speech of other synthesizers: where their words stand, and that a sentence is a function of its arguments."""

from __future__ import annotations

import numpy as np
import pytest

from edgeav.data.align import carry_over, warp
from edgeav.data.speech import Voice, speak
from edgeav.errors import EdgeavError

TEXT = "place white with z seven please"


def test_times_carried_over_to_another_voice_are_that_voice_s_own_times() -> None:
    here, there = speak(TEXT, Voice("en-us+f2", 150)), speak(TEXT, Voice("en-gb-x-rp+m3", 128, 40, 30))
    moved = carry_over(here.words, here.waveform, there.waveform)
    assert [word for word, _, _ in moved] == TEXT.split()
    found, true = (np.array([span[1:] for span in spans]) for spans in (moved, there.words))
    assert np.median(np.abs(found - true)) < 0.02
    assert np.abs(found - true).max() < 0.12


def test_warping_finds_a_known_stretch() -> None:
    random = np.random.default_rng(0)
    frames = np.cumsum(random.standard_normal((60, 8)), axis=0)
    path = warp(frames, np.repeat(frames, 2, axis=0))
    assert np.abs(path[:, 1] - 2 * path[:, 0]).max() <= 2


def test_pico_says_the_words_in_order_and_the_same_each_time() -> None:
    pytest.importorskip("ttspico")
    from edgeav.data.pico import PicoVoice, speak_pico

    voice = PicoVoice("en-GB", rate=95, pitch=110, tract=1.1)
    first, again = speak_pico(TEXT, voice, seed=3), speak_pico(TEXT, voice, seed=3)
    assert np.array_equal(first.waveform, again.waveform)
    assert [word for word, _, _ in first.words] == TEXT.split()
    starts = [start for _, start, _ in first.words]
    assert starts == sorted(starts) and first.words[-1][2] <= len(first.waveform) / 16_000
    spoken = sum(
        float(np.square(first.waveform[round(16_000 * a) : round(16_000 * b)]).sum()) for _, a, b in first.words
    )
    assert spoken > 0.95 * float(np.square(first.waveform).sum())


def test_an_accent_that_pico_lacks_is_named() -> None:
    from edgeav.data.pico import PicoVoice, speak_pico

    with pytest.raises(EdgeavError, match="en-AU"):
        speak_pico(TEXT, PicoVoice("en-AU"))
