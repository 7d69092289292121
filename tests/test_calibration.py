"""Calibration clips are of every length, some in noise of the SNRs that were asked for, one in memory at a time."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from edgeav.data.cache import Row
from edgeav.data.corpus import Media
from edgeav.errors import EdgeavError
from edgeav.quant.calibration import CalibrationInputs, chosen, stratified
from edgeav.quant.plan import CalibrationNoise
from edgeav.runtime.inputs import Features

LENGTHS = [10] * 400 + [20] * 60 + [30] * 30 + [40] * 6


def test_every_length_has_its_turn_until_it_is_used_up() -> None:
    picked = stratified(LENGTHS, 80, seed=1)
    counts = Counter(LENGTHS[i] for i in picked)
    assert len(set(picked)) == 80
    assert counts[40] == 6
    assert all(abs(counts[length] - 74 / 3) <= 1 for length in (10, 20, 30))


def test_the_seed_decides_which_and_equal_lengths_are_no_problem() -> None:
    assert stratified(LENGTHS, 20, seed=1) == stratified(LENGTHS, 20, seed=1) != stratified(LENGTHS, 20, seed=2)
    assert sorted(stratified([7] * 9, 9, seed=0)) == list(range(9))


def test_too_few_training_clips_are_an_error_that_says_how_many_there_are() -> None:
    corpus = SimpleNamespace(name="small", train=[SimpleNamespace(text="a")] * 3)
    with pytest.raises(EdgeavError, match="Set calibration to at most 3"):
        chosen(corpus, 4, 0)  # type: ignore[arg-type]


class Clips:
    """Tones of one second, each of its own pitch; counts what is asked for."""

    folder = Path("tones")

    def __init__(self, count: int) -> None:
        self.rows = [Row("a", "one", (0, 16_000), (0, 25), ()) for _ in range(count)]
        self.asked: list[int] = []

    def __len__(self) -> int:
        return len(self.rows)

    def media(self, index: int) -> Media:
        self.asked.append(index)
        time_s = np.arange(16_000) / 16_000
        sound = 0.1 * np.sin(2 * np.pi * (200 + 10 * index) * time_s)
        return Media(sound.astype(np.float32), np.zeros((25, 96, 96), np.uint8))


def inputs(noise: CalibrationNoise | None, count: int = 16) -> CalibrationInputs:
    return CalibrationInputs(Clips(count), Features(), noise, seed=3)  # type: ignore[arg-type]


def test_without_noise_clips_are_as_they_were_and_one_is_made_at_a_time() -> None:
    plain = inputs(None)
    first = plain[0]
    assert plain.clips.asked == [0]  # type: ignore[attr-defined]
    assert first.presence.min() == 1
    assert plain[6].presence[..., 0].max() == 0 and plain[7].presence[..., 1].max() == 0


def test_noise_has_the_share_and_the_snrs_that_were_asked_for() -> None:
    noisy = inputs(CalibrationNoise(share=0.5, snr_db=(0, 20), kinds=("white",)))
    assert sorted(noisy.snrs.values()) == pytest.approx(np.linspace(0, 20, 8))
    for place, snr_db in noisy.snrs.items():
        clean = noisy.clips.media(place)
        heard = noisy._noisy(clean, place).waveform
        assert clean.waveform is not None and heard is not None
        ratio = np.mean(clean.waveform**2) / np.mean((heard - clean.waveform) ** 2)
        assert abs(10 * np.log10(ratio) - snr_db) < 1
    quiet = next(place for place in range(16) if place not in noisy.snrs)
    media = noisy.clips.media(quiet)
    assert noisy._noisy(media, quiet) is media


def test_the_same_seed_makes_the_same_noise() -> None:
    noise = CalibrationNoise(share=1.0, snr_db=(5, 5), kinds=("white",))
    np.testing.assert_array_equal(inputs(noise)[1].audio, inputs(noise)[1].audio)
    assert (inputs(noise)[1].audio != inputs(None)[1].audio).any()
