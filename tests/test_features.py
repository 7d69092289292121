"""The features against torch.stft and a second mel filter bank, and what must hold for any input."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from edgeav.errors import EdgeavError
from edgeav.runtime import features
from edgeav.runtime.features import Inputs
from edgeav.runtime.inputs import (
    MIN_STEPS,
    SAMPLE_RATE_HZ,
    Features,
    LogMel,
    Mouth,
    Samples,
    features_from_json,
    settings,
)
from edgeav.runtime.log_mel import log_mel, mel_filters, normalize_mel

OURS = Features()
HOP, N_FFT, WINDOW = LogMel().hop, LogMel().n_fft, LogMel().window


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
    mel = log_mel(speech)

    assert mel.shape == (len(speech) // HOP, 80)
    np.testing.assert_allclose(mel, torch_log_mel(speech), atol=2e-3)


def test_the_mel_filters_are_slaneys() -> None:
    np.testing.assert_allclose(mel_filters(), slaney_filters(), atol=1e-8)


def test_a_louder_recording_has_the_same_normalized_mel() -> None:
    noise = np.random.default_rng(4).standard_normal(16_000).astype(np.float32)  # far above the log floor

    quiet, loud = (normalize_mel(log_mel(gain * noise)) for gain in (0.5, 1.0))

    np.testing.assert_allclose(quiet, loud, atol=0.01)


def test_every_mel_band_has_mean_0_and_deviation_1(speech: np.ndarray) -> None:
    mel = normalize_mel(log_mel(speech))

    np.testing.assert_allclose(mel.mean(axis=0), 0, atol=1e-4)
    np.testing.assert_allclose(mel.std(axis=0, ddof=1), 1, atol=1e-3)


def test_a_clips_lighting_does_not_change_its_standardized_video() -> None:
    clip = np.random.default_rng(1).uniform(50, 100, (10, 88, 88)).astype(np.float32)

    plain, brighter = features.normalize_video(clip, Mouth()), features.normalize_video(2 * clip + 30, Mouth())

    np.testing.assert_allclose(plain, brighter, atol=1e-3)
    assert abs(plain.mean()) < 1e-3
    assert abs(plain.std() - 1) < 1e-3


def test_the_crop_is_taken_from_the_middle() -> None:
    rows = np.broadcast_to(np.arange(96)[:, None], (2, 96, 96))

    crop = features.center_crop(rows, 88)

    assert crop.shape == (2, 88, 88)
    assert (crop[0, 0, 0], crop[0, -1, 0]) == (4, 91)


@pytest.mark.parametrize(("samples", "frames", "steps"), [(48_000, 75, 38), (12_800, 75, 38), (64_000, 50, 50)])
def test_inputs_are_as_long_as_the_longer_track_and_say_where_the_other_ends(
    samples: int, frames: int, steps: int
) -> None:
    random = np.random.default_rng(2)
    sound = random.standard_normal(samples).astype(np.float32)
    mouth = random.integers(0, 255, (frames, 96, 96), dtype=np.uint8)

    inputs = features.model_inputs(sound, mouth, OURS)

    assert inputs.steps == steps
    assert inputs.audio.shape == (1, 8 * steps, 80)
    assert inputs.video.shape == (1, 2 * steps, 88, 88)
    heard, seen = inputs.presence[0].sum(axis=0).astype(int)
    assert (heard, seen) == (-(-samples // 1280), -(-frames // 2))
    assert not inputs.audio[0, 8 * heard :].any()
    assert not inputs.video[0, 2 * seen :].any()


def test_an_absent_track_is_zeros_and_not_present() -> None:
    sound = np.random.default_rng(3).standard_normal(16_000).astype(np.float32)
    mouth = np.full((25, 96, 96), 7, np.uint8)

    heard, seen = features.model_inputs(sound, None, OURS), features.model_inputs(None, mouth, OURS)

    assert not heard.video.any()
    assert heard.presence[0].sum(axis=0).tolist() == [13, 0]
    assert not seen.audio.any()
    assert seen.presence[0].sum(axis=0).tolist() == [0, 13]


def test_nothing_at_all_is_the_shortest_input_of_padding() -> None:
    inputs = features.model_inputs(np.zeros(100, np.float32), None, OURS)

    assert inputs.steps == MIN_STEPS
    assert not inputs.presence.any()


TORCHAUDIO = (
    LogMel(mels=64, window=512, mel_scale="htk", mel_norm="none", padding="reflect", window_function="hann-periodic"),
    LogMel(mels=40, window=320, n_fft=400, low_hz=40, high_hz=7600, mel_scale="htk", window_function="hann-periodic"),
    LogMel(n_fft=1024, hop=320, mel_norm="none", window_function="hann-periodic"),
)


@pytest.mark.parametrize("settings", TORCHAUDIO)
def test_other_settings_are_those_of_torchaudios_mel_spectrogram(speech: np.ndarray, settings: LogMel) -> None:
    transforms = pytest.importorskip("torchaudio.transforms", reason="pip install torchaudio")
    theirs = transforms.MelSpectrogram(
        SAMPLE_RATE_HZ,
        n_fft=settings.n_fft,
        win_length=settings.window,
        hop_length=settings.hop,
        f_min=settings.low_hz,
        f_max=settings.high_hz,
        n_mels=settings.mels,
        pad_mode={"zeros": "constant", "reflect": "reflect"}[settings.padding],
        norm={"area": "slaney", "none": None}[settings.mel_norm],
        mel_scale=settings.mel_scale,
    )
    expected = torch.log(theirs(torch.from_numpy(speech)) + settings.log_floor).T.numpy()

    mel = log_mel(speech, replace(settings, pre_emphasis=0.0))

    assert mel.shape == (len(speech) // settings.hop, settings.mels)
    np.testing.assert_allclose(mel, expected[: len(mel)], atol=2e-3)


def test_without_normalization_the_log_mel_stays_as_it_is(speech: np.ndarray) -> None:
    plain = Features(audio=LogMel(normalize="none"), video=None)

    heard = features.hear(speech, plain)

    np.testing.assert_array_equal(heard, log_mel(speech))


def test_samples_are_layer_normalized_and_fill_whole_steps() -> None:
    sound = np.random.default_rng(5).uniform(-0.2, 0.3, 700).astype(np.float32)
    takes = Features(step_ms=40, audio=Samples())
    expected = torch.nn.functional.layer_norm(torch.from_numpy(sound), (700,), eps=1e-8)

    inputs = features.model_inputs(sound, None, takes)

    assert inputs.audio.shape == (1, 1280)
    np.testing.assert_allclose(inputs.audio[0, :700], expected, atol=1e-5)
    assert inputs.presence[0].tolist() == [[1, 0], [1, 0]]


def test_fixed_normalization_is_the_same_for_every_clip() -> None:
    takes = Features(step_ms=40, audio=None, video=Mouth(crop=90, normalize="fixed", mean=0.421, deviation=0.165))
    mouth = np.full((3, 96, 96), 51, np.uint8)

    inputs = features.model_inputs(None, mouth, takes)

    assert inputs.video.shape == (1, 3, 90, 90)
    np.testing.assert_allclose(inputs.video, (0.2 - 0.421) / 0.165, rtol=1e-5)


def test_a_modality_that_a_model_lacks_has_no_frames_and_is_never_present() -> None:
    sound, mouth = np.ones(16_000, np.float32), np.ones((25, 96, 96), np.uint8)

    deaf, blind = (features.model_inputs(sound, mouth, f) for f in (Features(audio=None), Features(video=None)))

    assert (deaf.audio.size, deaf.presence[..., 0].sum(), deaf.presence[..., 1].sum()) == (0, 0, 13)
    assert (blind.video.size, blind.presence[..., 0].sum(), blind.presence[..., 1].sum()) == (0, 13, 0)


@pytest.mark.parametrize("takes", [OURS, Features(audio=None), Features(video=None), Features(40, Samples())])
def test_inputs_by_name_are_what_the_model_declares_and_read_back(takes: Features) -> None:
    inputs = Inputs(*(np.ones(shape, np.float32) for shape in takes.shapes(1, 3)))

    named = inputs.named(takes.names)
    again = features.from_named({**named, "log_probs": np.zeros(1, np.float32)}, takes)

    assert tuple(named) == takes.names
    for before, after in zip(inputs, again, strict=True):
        assert before.shape[1] == after.shape[1]


@pytest.mark.parametrize(
    "takes", [OURS, Features(audio=None), Features(20, TORCHAUDIO[0], None), Features(40, Samples())]
)
def test_features_survive_json(takes: Features) -> None:
    assert features_from_json(json.loads(json.dumps(settings(takes)))) == takes


def test_everything_wrong_with_features_in_json_is_said_at_once() -> None:
    data: dict = settings(OURS) | {"sample_rate_hz": 8000, "colour": 1}
    data["audio"] |= {"window": 600.5, "mel_scale": "bark"}
    del data["audio"]["hop"]
    data["video"] = {**data["video"], "crop": 200}

    with pytest.raises(EdgeavError) as caught:
        features_from_json(data)

    assert str(caught.value).splitlines() == [
        "sample_rate_hz: 8000, must be 16000",
        "colour: unknown key; allowed: step_ms, audio, video",
        "audio.hop: missing",
        "audio.window: 600.5, must be a whole number",
        "audio.mel_scale: 'bark', must be 'slaney' or 'htk'",
        "video.crop: 200 must be in 1..96",
    ]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"audio": None, "video": None}, "audio and video are both null"),
        ({"step_ms": 50}, "step_ms: 50 is no whole number of pictures"),
        ({"audio": {"kind": "mfcc"}}, "audio.kind: 'mfcc', must be 'log-mel' or 'samples'"),
        ({"audio": settings(OURS)["audio"] | {"hop": 100}}, "audio.hop: a step of 80 ms is no whole number"),
        ({"audio": settings(OURS)["audio"] | {"window": 600}}, "audio.window: 600 samples are more than n_fft 512"),
    ],
)
def test_features_that_contradict_themselves_are_refused(change: dict, said: str) -> None:
    with pytest.raises(EdgeavError, match=said.replace(".", r"\.")):
        features_from_json(settings(OURS) | change)
