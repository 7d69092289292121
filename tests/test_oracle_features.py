"""Our features against torch with torchaudio, against Hugging Face's Parakeet extractor, and against the formulas."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from feature_oracles import (
    LIPS,
    LOG_MEL,
    NORMALIZED,
    SAMPLES,
    Function,
    our_log_mel,
    our_normalized_log_mel,
    slaney_hz,
    slaney_mel,
    speech_like,
)

from edgeav.runtime.inputs import LogMel
from edgeav.runtime.log_mel import mel_filters

LENGTHS = (16_000, 16_001, 12_345, 4_000, 400)


@pytest.mark.parametrize("samples", LENGTHS)
@pytest.mark.parametrize("comparison", [LOG_MEL, NORMALIZED, SAMPLES], ids=["log-mel", "normalized", "samples"])
def test_sound_at_any_length_is_what_torch_makes_of_it(comparison: Function, samples: int) -> None:
    comparison = replace(comparison, given=speech_like(samples))
    assert comparison.difference(comparison.subject()) <= 1e-5


def test_lips_are_what_torch_makes_of_them() -> None:
    assert LIPS.difference(LIPS.subject()) <= 1e-5


def test_the_normalized_log_mel_is_that_of_hugging_face() -> None:
    from transformers import ParakeetFeatureExtractor

    waves = [speech_like(samples) for samples in LENGTHS]
    theirs = ParakeetFeatureExtractor()(waves, sampling_rate=16_000, return_tensors="np")
    for wave, features, there in zip(waves, theirs["input_features"], theirs["attention_mask"], strict=True):
        ours = our_normalized_log_mel(wave)
        assert len(ours) == there.sum() == len(wave) // 160
        np.testing.assert_allclose(ours, features[: len(ours)], atol=1e-4, rtol=0)


def test_one_frame_is_what_the_formulas_say() -> None:
    wave = speech_like(4_000).astype(np.float64)
    frame, band = 7, 20
    emphasized = np.append(wave[0], wave[1:] - 0.97 * wave[:-1])
    around = emphasized[160 * frame - 200 : 160 * frame + 200]  # 25 ms around 70 ms
    windowed = around * (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(400) / 399))
    edges = np.array([slaney_hz(slaney_mel(8000) * (band + n) / 81) for n in range(3)])
    energy = 0.0
    for k in range(257):
        bin_hz = k * 16_000 / 512
        rotation = np.exp(-2j * np.pi * k * np.arange(400) / 512)
        height = min((bin_hz - edges[0]) / (edges[1] - edges[0]), (edges[2] - bin_hz) / (edges[2] - edges[1]))
        energy += max(0.0, height) * 2 / (edges[2] - edges[0]) * abs(np.sum(windowed * rotation)) ** 2
    assert our_log_mel(wave.astype(np.float32))[frame, band] == pytest.approx(math.log(energy + 2**-24), abs=1e-5)


def test_silence_is_the_logarithm_of_the_floor_and_normalizes_to_zero() -> None:
    silence = our_log_mel(np.zeros(1600, np.float32))
    np.testing.assert_allclose(silence, -24 * math.log(2), atol=1e-6)
    assert not our_normalized_log_mel(np.zeros(1600, np.float32)).any()


@pytest.mark.parametrize(("hz", "mel"), [(0, 0), (200, 3), (1000, 15), (6400, 42)])
def test_the_scale_has_slaneys_fixed_points(hz: float, mel: float) -> None:
    assert slaney_mel(hz) == pytest.approx(mel)
    assert slaney_hz(mel) == pytest.approx(hz)


def test_filters_are_triangles_of_unit_area_between_equally_spaced_mels() -> None:
    filters = mel_filters(LogMel())
    edges = np.array([slaney_hz(slaney_mel(8000) * n / 81) for n in range(82)])
    bins = np.arange(257) * 31.25
    for band, weights in enumerate(filters):
        inside = (bins > edges[band]) & (bins < edges[band + 2])
        assert (weights[inside] > 0).all() and not weights[~inside].any()
        expected = np.interp(bins, edges[band : band + 3], [0, 2 / (edges[band + 2] - edges[band]), 0])
        np.testing.assert_allclose(weights, expected, atol=1e-8)


@pytest.mark.parametrize("hz", [250, 1000, 3000, 6400])
def test_a_pure_tone_is_loudest_in_the_band_whose_centre_is_nearest(hz: int) -> None:
    tone = (0.5 * np.sin(2 * np.pi * hz * np.arange(8_000) / 16_000)).astype(np.float32)
    centres = np.array([slaney_hz(slaney_mel(8000) * n / 81) for n in range(1, 81)])
    loudest = int(our_log_mel(tone)[10:40].mean(axis=0).argmax())
    assert abs(centres[loudest] - hz) <= np.abs(centres - hz).min() + 31.25  # or the neighbour within one FFT bin
