"""Rooms: reverberation times, lips in step with the sound, energy, and the noise on top."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from edgeav.data import rooms
from edgeav.data.acoustics import Acoustics, NoiseBank, build_acoustics, load_acoustics
from edgeav.data.corpus import Media
from edgeav.data.disturbance import Disturbance, RoomShare
from edgeav.runtime.inputs import SAMPLE_RATE_HZ


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def measured(r: np.random.Generator, delay: int = 300) -> np.ndarray:
    """(L,) as from a microphone: hiss while the sound is on its way, an early tap, the direct sound, a tail."""
    tail = r.standard_normal(SAMPLE_RATE_HZ // 2) * np.exp(-np.arange(SAMPLE_RATE_HZ // 2) / 900) * 0.05
    response = np.concatenate([1e-4 * r.standard_normal(delay), [0.8], tail])
    response[delay - 5] = 0.2
    return response.astype(np.float32)


@pytest.mark.parametrize("decay_s", [0.2, 0.5, 1.5])
def test_the_reverberation_time_of_a_pure_decay_is_that_of_its_formula(decay_s: float) -> None:
    time_s = np.arange(round(2 * decay_s * SAMPLE_RATE_HZ)) / SAMPLE_RATE_HZ
    envelope = (10 ** (-3 * time_s / decay_s)).astype(np.float32)  # -60 dB after decay_s
    assert rooms.reverberation_time_s(envelope) == pytest.approx(decay_s, rel=0.01)


@pytest.mark.parametrize("direct_db", [-3.0, 0.0, 9.0])
@pytest.mark.parametrize("rt60_s", [0.15, 0.3, 0.8, 2.0])
def test_a_synthetic_room_has_the_asked_for_reverberation_time_and_direct_sound(
    rt60_s: float, direct_db: float
) -> None:
    response = rooms.synthetic_room(rt60_s, direct_db, rng())
    assert rooms.reverberation_time_s(response) == pytest.approx(rt60_s, rel=0.1)
    assert 10 * np.log10(response[0] ** 2 / np.sum(response[1:] ** 2)) == pytest.approx(direct_db, abs=0.01)


def test_a_clip_in_a_room_is_the_convolution_cut_to_its_length() -> None:
    r = rng(1)
    sound, response = r.standard_normal(3000).astype(np.float32), rooms.synthetic_room(0.1, 0.0, r)
    for longer in (response, np.concatenate([response, np.zeros(9000, np.float32)])):
        heard = rooms.reverberate(sound, longer)
        assert heard.shape == sound.shape and heard.dtype == np.float32
        np.testing.assert_allclose(heard, np.convolve(sound, longer)[:3000], atol=1e-5)


@pytest.mark.parametrize("seed", range(5))
def test_lips_and_sound_stay_together_in_every_room(seed: int) -> None:
    r = rng(seed)
    dry = r.standard_normal(4 * SAMPLE_RATE_HZ).astype(np.float32)
    for response in (rooms.aligned(measured(r)), rooms.synthetic_room(0.3 + 0.1 * seed, -3.0, r)):
        wet = rooms.reverberate(dry, response)
        size = 2 * len(dry)
        correlation = np.fft.irfft(np.fft.rfft(wet, size) * np.conj(np.fft.rfft(dry, size)))
        assert int(np.argmax(np.abs(correlation))) == 0


def test_a_measured_response_begins_with_its_direct_sound_and_has_energy_one() -> None:
    raw = measured(rng(2))
    response = rooms.aligned(raw)
    assert np.argmax(np.abs(response)) == 0 and np.sum(response**2) == pytest.approx(1, abs=1e-5)
    np.testing.assert_allclose(response[:1000] / response[0], raw[300:1300] / raw[300], rtol=1e-4)
    assert len(response) < len(raw) - 300  # the tail below -60 dB is cut off


def test_a_room_keeps_the_energy() -> None:
    r = rng(3)
    dry = r.standard_normal(6 * SAMPLE_RATE_HZ).astype(np.float32)
    for response in (rooms.aligned(measured(r)), rooms.synthetic_room(0.5, 0.0, r)):
        assert np.mean(rooms.reverberate(dry, response) ** 2) == pytest.approx(np.mean(dry**2), rel=0.05)


def test_measured_rooms_are_read_from_a_folder_and_drawn_as_often_as_declared(tmp_path: Path) -> None:
    (tmp_path / "rooms").mkdir()
    for number in range(3):
        soundfile.write(tmp_path / "rooms" / f"{number}.wav", measured(rng(number)), SAMPLE_RATE_HZ, subtype="FLOAT")
    wanted = RoomShare(share=1.0, responses=str(tmp_path / "rooms"), synthetic=0.25)
    folder = build_acoustics(Disturbance(share=0.0, rooms=wanted), [], 0, tmp_path / "acoustics")
    known = load_acoustics(folder).rooms
    assert [len(a) for a in known] == [len(rooms.aligned(measured(rng(n)))) for n in range(3)]
    r = rng(4)
    drawn = [rooms.room(known, wanted, r) for _ in range(400)]
    real = sum(any(response is a for a in known) for response in drawn)
    assert real == pytest.approx(300, abs=4 * np.sqrt(400 * 0.75 * 0.25))


def test_noise_in_a_room_stands_at_the_asked_for_ratio_to_the_reverberant_speech() -> None:
    r = rng(5)
    sound = np.zeros(3 * SAMPLE_RATE_HZ, np.float32)
    sound[SAMPLE_RATE_HZ : 2 * SAMPLE_RATE_HZ] = 0.1 * r.standard_normal(SAMPLE_RATE_HZ)
    media = Media(sound, None, (("word", 1.0, 2.0),))
    acoustics = Acoustics(NoiseBank({"white": r.standard_normal(5 * SAMPLE_RATE_HZ).astype(np.float32)}))
    noisy = Disturbance(share=1.0, snr_db=(0.0, 0.0), kinds={"white": 1.0}, rooms=RoomShare(share=1.0))
    wet = acoustics.disturb(media, "", noisy.model_copy(update={"share": 0.0}), rng(6)).waveform
    both = acoustics.disturb(media, "", noisy, rng(6)).waveform
    assert wet is not None and both is not None and (wet != sound).any()
    spoken, added = wet[SAMPLE_RATE_HZ : 2 * SAMPLE_RATE_HZ], both - wet
    assert 10 * np.log10(np.mean(spoken**2) / np.mean(added**2)) == pytest.approx(0.0, abs=0.1)


def test_rooms_come_as_often_as_declared() -> None:
    media = Media(rng(7).standard_normal(2000).astype(np.float32), None)
    wanted, r = Disturbance(share=0.0, rooms=RoomShare(share=0.3)), rng(8)
    changed = sum(
        Acoustics(NoiseBank({})).disturb(media, "", wanted, r).waveform is not media.waveform for _ in range(400)
    )
    assert changed == pytest.approx(120, abs=4 * np.sqrt(400 * 0.3 * 0.7))
