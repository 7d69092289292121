"""The features against torch.stft and a second mel filter bank, and what must hold for any input."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from edgeav.runtime import features
from edgeav.runtime.features import HOP, N_FFT, SAMPLE_RATE_HZ, WINDOW


@pytest.fixture
def speech() -> np.ndarray:
    """1.7 s and a bit of amplitude-modulated noise over a 220 Hz tone."""
    random, seconds = np.random.default_rng(0), np.arange(27_333) / SAMPLE_RATE_HZ
    noise = random.standard_normal(len(seconds)) * (1 + np.sin(2 * np.pi * 3 * seconds))
    return (0.1 * noise + 0.2 * np.sin(2 * np.pi * 220 * seconds)).astype(np.float32)


def slaney_filters() -> np.ndarray:
    """(80, 257), the loop of Slaney's Auditory Toolbox written down again."""

    def mel(hz: float) -> float:
        return hz * 3 / 200 if hz < 1000 else 15 + 27 * np.log(hz / 1000) / np.log(6.4)

    def hz(mel: float) -> float:
        return mel * 200 / 3 if mel < 15 else 1000 * 6.4 ** ((mel - 15) / 27)

    edges = [hz(mel(8000) * index / 81) for index in range(82)]
    filters = np.zeros((80, 257))
    for band, (low, mid, high) in enumerate(zip(edges, edges[1:], edges[2:], strict=False)):
        for bin_ in range(257):
            frequency = bin_ * SAMPLE_RATE_HZ / N_FFT
            weight = min((frequency - low) / (mid - low), (high - frequency) / (high - mid))
            filters[band, bin_] = max(0.0, weight) * 2 / (high - low)
    return filters


def torch_log_mel(waveform: np.ndarray) -> np.ndarray:
    """NeMo's front end by torch.stft, in double precision."""
    sound = torch.from_numpy(waveform).double()
    sound = torch.cat([sound[:1], sound[1:] - 0.97 * sound[:-1]])
    window = torch.hann_window(WINDOW, periodic=False, dtype=torch.float64)
    spectrum = torch.stft(sound, N_FFT, HOP, WINDOW, window, center=True, pad_mode="constant", return_complex=True)
    power = spectrum.abs().square()[:, : len(waveform) // HOP]
    return torch.log(torch.from_numpy(slaney_filters()) @ power + 2**-24).T.numpy()


def test_the_log_mel_is_that_of_torch_stft_and_slaneys_filters(speech: np.ndarray) -> None:
    mel = features.log_mel(speech)

    assert mel.shape == (len(speech) // HOP, 80)
    np.testing.assert_allclose(mel, torch_log_mel(speech), atol=2e-3)


def test_the_mel_filters_are_slaneys() -> None:
    np.testing.assert_allclose(features.mel_filters(), slaney_filters(), atol=1e-8)


def test_a_louder_recording_has_the_same_normalized_mel() -> None:
    noise = np.random.default_rng(4).standard_normal(16_000).astype(np.float32)  # far above the log floor

    quiet, loud = (features.normalize_mel(features.log_mel(gain * noise)) for gain in (0.5, 1.0))

    np.testing.assert_allclose(quiet, loud, atol=0.01)


def test_every_mel_band_has_mean_0_and_deviation_1(speech: np.ndarray) -> None:
    mel = features.normalize_mel(features.log_mel(speech))

    np.testing.assert_allclose(mel.mean(axis=0), 0, atol=1e-4)
    np.testing.assert_allclose(mel.std(axis=0, ddof=1), 1, atol=1e-3)


def test_a_clips_lighting_does_not_change_its_standardized_video() -> None:
    clip = np.random.default_rng(1).uniform(50, 100, (10, 88, 88)).astype(np.float32)

    plain, brighter = features.standardize_video(clip), features.standardize_video(2 * clip + 30)

    np.testing.assert_allclose(plain, brighter, atol=1e-3)
    assert abs(plain.mean()) < 1e-3
    assert abs(plain.std() - 1) < 1e-3


def test_the_crop_is_taken_from_the_middle() -> None:
    rows = np.broadcast_to(np.arange(96)[:, None], (2, 96, 96))

    crop = features.center_crop(rows)

    assert crop.shape == (2, 88, 88)
    assert (crop[0, 0, 0], crop[0, -1, 0]) == (4, 91)


@pytest.mark.parametrize(("samples", "frames", "steps"), [(48_000, 75, 38), (12_800, 75, 38), (64_000, 50, 50)])
def test_inputs_are_as_long_as_the_longer_track_and_say_where_the_other_ends(
    samples: int, frames: int, steps: int
) -> None:
    random = np.random.default_rng(2)
    sound = random.standard_normal(samples).astype(np.float32)
    mouth = random.integers(0, 255, (frames, 96, 96), dtype=np.uint8)

    inputs = features.model_inputs(sound, mouth)

    assert inputs.steps == steps
    assert inputs.mel.shape == (1, 8 * steps, 80)
    assert inputs.video.shape == (1, 2 * steps, 88, 88)
    heard, seen = inputs.presence[0].sum(axis=0).astype(int)
    assert (heard, seen) == (-(-samples // 1280), -(-frames // 2))
    assert not inputs.mel[0, 8 * heard :].any()
    assert not inputs.video[0, 2 * seen :].any()


def test_an_absent_track_is_zeros_and_not_present() -> None:
    sound = np.random.default_rng(3).standard_normal(16_000).astype(np.float32)
    mouth = np.full((25, 96, 96), 7, np.uint8)

    heard, seen = features.model_inputs(sound, None), features.model_inputs(None, mouth)

    assert not heard.video.any()
    assert heard.presence[0].sum(axis=0).tolist() == [13, 0]
    assert not seen.mel.any()
    assert seen.presence[0].sum(axis=0).tolist() == [0, 13]


def test_nothing_at_all_is_the_shortest_input_of_padding() -> None:
    inputs = features.model_inputs(np.zeros(100, np.float32), None)

    assert inputs.steps == features.MIN_STEPS
    assert not inputs.presence.any()


def test_the_bundle_settings_are_plain_json_and_complete() -> None:
    import json

    settings = features.settings()

    assert json.loads(json.dumps(settings)) == settings
    assert settings["audio"]["sample_rate_hz"] == 16_000
    assert settings["video"]["fps"] == 25
