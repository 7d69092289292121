"""hama's Conformer against hama's own engine, on real speech. Needs the package: pip install 'edgeav[hama]'."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from conftest import REPOSITORY, Result
from torch import Tensor

from edgeav.errors import EdgeavError
from edgeav.importers import import_model
from edgeav.models import AVModel, load_model
from edgeav.runtime.inputs import LogMel
from edgeav.runtime.log_mel import log_mel, mel_filters

AN4 = REPOSITORY.parent / "shared" / "data" / "an4" / "flac"
EVERY = 180  # of the clips: 7 of GRID, 6 of AN4


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> AVModel:
    pytest.importorskip("hama")
    folder = tmp_path_factory.mktemp("models") / "hama"
    import_model("hama", folder)
    return load_model(folder)


@pytest.fixture(scope="module")
def speech() -> list[np.ndarray]:
    grid = REPOSITORY.parent / "shared" / "data" / "grid" / "audio"
    if not grid.is_dir():
        pytest.skip("needs the real clips, which are not here")
    files = [*sorted(grid.glob("*.flac"))[::EVERY], *sorted(AN4.rglob("*.flac"))[::EVERY]]
    return [soundfile.read(file, dtype="float32")[0] for file in files]


def test_log_probabilities_on_real_speech_are_those_of_hamas_engine(model: AVModel, speech: list[np.ndarray]) -> None:
    engine = _engine()
    worst = 0.0
    for wave in speech:
        expected = engine(wave)
        worst = max(worst, float((_run(model, _theirs(wave)) - expected).abs().max()))
    assert worst <= 0.01


def test_our_features_are_hamas_but_for_its_last_frame_and_its_coarse_arithmetic(
    model: AVModel, speech: list[np.ndarray]
) -> None:
    settings = _settings(model)
    for wave in speech[::6]:
        ours, theirs = torch.from_numpy(log_mel(wave, settings)), _theirs(wave, half=False)
        assert len(ours) == len(wave) // 160 == len(theirs) - 1
        difference = (ours - theirs[:-1]).abs()
        # Their angles are up to 1e-4 off, which shows where almost no energy is.
        assert difference.max() <= 0.2 and difference.median() <= 1e-3


def test_from_sound_alone_the_best_phoneme_is_hamas_in_99_of_100_steps(
    model: AVModel, speech: list[np.ndarray]
) -> None:
    engine, same, steps = _engine(), 0, 0
    for wave in speech:
        expected = engine(wave).argmax(-1)
        ours = _run(model, torch.from_numpy(log_mel(wave, _settings(model)))).argmax(-1)
        same += int((ours == expected[: len(ours)]).sum())
        steps += len(ours)
    assert same / steps >= 0.99


def test_the_command_imports_the_installed_package(edgeav: Callable[..., Result]) -> None:
    pytest.importorskip("hama")
    result = edgeav("models", "import", "hama", "--out", "phonemes")
    assert result.returncode == 0, result.stderr
    assert "2005247" in result.stdout and "IPA" in result.stdout


def test_without_the_package_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("edgeav.importers.hama.find_spec", lambda name: None)
    with pytest.raises(EdgeavError, match=r"pip install 'edgeav\[hama\]'"):
        import_model("hama", tmp_path / "model")


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"HAMAPK\x01\x02\x05\x00", "truncated"),
        (b"HAMAPK\x01\x03" + bytes(40), "not a .hama file of version"),
        (b"HAMAPK\x01\x02\x01\x00\x00\x00\x01\x00w\x00\x01\xff\xff\xff\x7f" + bytes(16), "truncated"),
        (b"HAMAPK\x01\x02\x00\x00\x00\x00", "mel_fb"),
    ],
)
def test_a_damaged_file_is_a_clear_error(content: bytes, problem: str, tmp_path: Path) -> None:
    (tmp_path / "asr.hama").write_bytes(content)
    with pytest.raises(EdgeavError, match=problem):
        import_model(tmp_path / "asr.hama", tmp_path / "model")
    assert not (tmp_path / "model").exists()


def _settings(model: AVModel) -> LogMel:
    settings = model.config.inputs.audio
    assert isinstance(settings, LogMel)
    return settings


def _engine() -> Callable[[np.ndarray], Tensor]:
    """(S,) -> (N, V) log-probabilities by hama."""
    import hama  # type: ignore[import-not-found]

    session = hama.ASRModel().session

    def run(wave: np.ndarray) -> Tensor:
        feeds = {"waveform": wave[None], "waveform_lengths": np.array([len(wave)])}
        log_probs, lengths = session.run(["log_probs", "out_lengths"], feeds)
        return torch.from_numpy(np.array(log_probs[0][: int(np.reshape(lengths, -1)[0])]))

    return run


def _theirs(wave: np.ndarray, half: bool = True) -> Tensor:
    """(S // 160 + 1, 80): one frame more than we count, by waves from single-precision angles, rounded to halves.

    Each of these is a property of their engine that its log-probabilities show.
    """
    angle = 2 * torch.pi * torch.arange(201.0)[:, None] * torch.arange(400.0) / 400  # rounded in this order
    window = torch.hann_window(400)
    padded = torch.nn.functional.pad(torch.from_numpy(wave)[None, None], (200, 200), mode="reflect")
    real, imaginary = (torch.conv1d(padded, (f(angle) * window)[:, None], stride=160) for f in (torch.cos, torch.sin))
    settings = LogMel(n_fft=400, low_hz=40.0, high_hz=7600.0, mel_corners="bins")
    mel = (torch.from_numpy(mel_filters(settings)) @ (real**2 + imaginary**2)[0]).clamp(min=1e-10).log().T
    return mel.half().float() if half else mel


def _run(model: AVModel, mel: Tensor) -> Tensor:
    """(T, 80) -> (N, V)."""
    steps = -(-len(mel) // 2)
    whole = torch.nn.functional.pad(mel, (0, 0, 0, 2 * steps - len(mel)))
    with torch.inference_mode():
        return model(whole[None], torch.empty(0), torch.ones(1, steps, 2))[0]
