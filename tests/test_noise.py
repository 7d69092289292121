"""Noise: kinds, their spectra, exact SNRs, and the bank."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import soundfile

from edgeav.data import augment, noise
from edgeav.data.acoustics import Acoustics, NoiseBank, build_acoustics, load_acoustics, make_bank
from edgeav.data.cache import DecodedClips
from edgeav.data.corpus import Media
from edgeav.data.disturbance import Curriculum, Disturbance, RoomShare
from edgeav.errors import EdgeavError
from edgeav.recipe import Recipe
from edgeav.run import Run
from edgeav.runtime.inputs import SAMPLE_RATE_HZ
from edgeav.stages import train as train_stage

SNRS_DB = (20.0, 10.0, 5.0, 0.0, -5.0, -10.0)
KINDS = ("babble", "white", "pink", "brown", "speech-shaped", "music", "recording")
WORDS = (("bin", 1.0, 1.4), ("blue", 1.4, 2.0))  # of 3 s: two thirds are silence


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def speech(r: np.random.Generator, amplitude: float = 0.1) -> np.ndarray:
    """(48000,): noise that swells and fades eight times a second from 1 s to 2 s, digital silence around it."""
    time_s = np.arange(SAMPLE_RATE_HZ) / SAMPLE_RATE_HZ
    out = np.zeros(3 * SAMPLE_RATE_HZ, np.float32)
    loud = r.standard_normal(SAMPLE_RATE_HZ) * (1.2 + np.cos(2 * np.pi * 8 * time_s))
    out[SAMPLE_RATE_HZ : 2 * SAMPLE_RATE_HZ] = amplitude * loud
    return out


def tone(frequency_hz: float, seconds: float = 2.0) -> np.ndarray:
    return (
        0.3 * np.sin(2 * np.pi * frequency_hz * np.arange(round(seconds * SAMPLE_RATE_HZ)) / SAMPLE_RATE_HZ)
    ).astype(np.float32)


def clips_of(sounds: Sequence[np.ndarray], folder: Path) -> DecodedClips:
    """As decode() leaves them, without lips."""
    folder.mkdir(parents=True)
    ends = np.cumsum([0, *map(len, sounds)]).tolist()
    rows = [
        {"text": "", "speaker": "", "samples": [a, b], "frames": [0, 0], "words": []}
        for a, b in itertools.pairwise(ends)
    ]
    (folder / "rows.json").write_text(json.dumps(rows))
    (folder / "sound.i16").write_bytes((np.concatenate(sounds) * 32767).astype("<i2").tobytes())
    (folder / "lips.u8").write_bytes(b"")
    return DecodedClips(folder)


@pytest.fixture(scope="module")
def bank(tmp_path_factory: pytest.TempPathFactory) -> NoiseBank:
    """One of every kind; the recording is silent for more than half of its time."""
    folder = tmp_path_factory.mktemp("bank")
    hum = rng(5).standard_normal(8 * SAMPLE_RATE_HZ) * 0.1
    hum[SAMPLE_RATE_HZ : 6 * SAMPLE_RATE_HZ] = 0
    (folder / "recordings").mkdir()
    soundfile.write(folder / "recordings" / "hum.flac", hum, SAMPLE_RATE_HZ)
    voices = clips_of([speech(rng(i)) for i in range(8)], folder / "clips")
    wanted = Disturbance(kinds=dict.fromkeys(KINDS, 1.0), recordings=str(folder / "recordings"))
    return NoiseBank.load(_saved(make_bank(wanted, [voices], seed=0), folder / "saved"))


def _saved(bank: NoiseBank, folder: Path) -> Path:
    folder.mkdir()
    bank.save(folder)
    return folder


def snr_db(clean: np.ndarray, added: np.ndarray) -> float:
    """Measured by hand: the second in which something is said, against all that was added."""
    spoken = clean[SAMPLE_RATE_HZ : 2 * SAMPLE_RATE_HZ].astype(np.float64)
    return float(10 * np.log10(np.mean(spoken**2) / np.mean(added.astype(np.float64) ** 2)))


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_mixed_within_a_tenth_of_a_decibel_in_a_clip_that_is_mostly_silent(
    kind: str, bank: NoiseBank
) -> None:
    r = rng(1)
    for asked_db in SNRS_DB:
        clean = speech(r)
        drawn = bank.draw(kind, len(clean), r)
        assert snr_db(clean, augment.add_noise(clean, drawn, asked_db, WORDS) - clean) == pytest.approx(
            asked_db, abs=0.1
        )
        by_loudness = augment.add_noise(clean, drawn, asked_db) - clean  # without word times
        assert snr_db(clean, by_loudness) == pytest.approx(asked_db, abs=0.1)


def test_a_draw_is_never_silent_where_the_recording_is(bank: NoiseBank) -> None:
    r = rng(2)
    assert np.mean(bank.sounds["recording"] == 0) > 0.5
    assert all(np.any(bank.draw("recording", SAMPLE_RATE_HZ, r)) for _ in range(200))
    with pytest.raises(ValueError, match="hold any sound"):
        NoiseBank({"recording": np.zeros(SAMPLE_RATE_HZ, np.float32)}).draw("recording", 100, r)
    with pytest.raises(ValueError, match="silent"):
        augment.add_noise(speech(r), np.zeros(3 * SAMPLE_RATE_HZ, np.float32), 0.0)


def test_a_draw_longer_than_the_bank_goes_round() -> None:
    short = noise.coloured(1000, 0.0, rng())
    drawn = NoiseBank({"white": short}).draw("white", 2500, rng(1))
    np.testing.assert_array_equal(drawn[:1000], drawn[1000:2000])
    np.testing.assert_array_equal(np.sort(drawn[:1000]), np.sort(short))


def test_floats_do_not_clip_and_sixteen_bits_are_lowered_and_say_by_how_much() -> None:
    r = rng(3)
    clean = speech(r, amplitude=0.4)
    drawn = noise.coloured(len(clean), 0.0, r)
    mixed = augment.add_noise(clean, drawn, -10.0, WORDS)
    assert np.abs(mixed).max() > 2
    written, gain_db = noise.to_int16(mixed)
    assert gain_db == pytest.approx(-20 * np.log10(np.abs(mixed).max()), abs=1e-6)
    assert int(np.abs(written.astype(int)).max()) == 32767
    gain = 10 ** (gain_db / 20)
    np.testing.assert_allclose(written / (32767 * gain), mixed, atol=0.51 / (32767 * gain), rtol=1e-6)  # half a step
    quiet, none = noise.to_int16((clean / 10).astype(np.float32))
    assert none == 0 and np.abs(quiet / 32767 - clean / 10).max() < 1e-4


def in_white(wanted: Disturbance, times: int = 50) -> list[float]:
    """The SNRs that come out."""
    acoustics = Acoustics(NoiseBank({"white": noise.coloured(10 * SAMPLE_RATE_HZ, 0.0, rng())}))
    r, out = rng(4), []
    for _ in range(times):
        clean = speech(r)
        heard = acoustics.disturb(Media(clean, None, WORDS), "", wanted, r).waveform
        assert heard is not None
        out.append(snr_db(clean, heard - clean))
    return out


def test_zero_decibels_asked_for_are_zero_decibels_and_not_a_random_ratio() -> None:
    # `[snr] if snr else random` is how another project trains at random ratios where 0 dB was asked for
    zero = Disturbance(share=1.0, snr_db=(0.0, 0.0), kinds={"white": 1.0}, curriculum=Curriculum(first_share=1.0))
    assert in_white(zero) == pytest.approx([0.0] * 50, abs=0.1)
    from_zero = zero.model_copy(update={"snr_db": (-10.0, 0.0), "curriculum": Curriculum(lowest_snr_db=0.0)})
    assert from_zero.at(0.0).snr_db == (0.0, 0.0)
    assert from_zero.at(0.0).share == pytest.approx(0.3)
    assert from_zero.at(1.0).snr_db == (-10.0, 0.0)


def test_every_clip_draws_its_own_ratio_and_kind() -> None:
    wanted = Disturbance(share=1.0, snr_db=(-5.0, 15.0), kinds={"white": 1.0})
    found = in_white(wanted, 200)
    assert -5.1 < min(found) < -4 and 14 < max(found) < 15.1 and np.mean(found) == pytest.approx(5, abs=1.5)
    level = np.ones(SAMPLE_RATE_HZ, np.float32)
    acoustics = Acoustics(NoiseBank({"white": level, "pink": -level}))
    wanted = Disturbance(share=1.0, kinds={"white": 3.0, "pink": 1.0})
    r, clean = rng(5), speech(rng(6))
    heard = [acoustics.disturb(Media(clean, None), "", wanted, r).waveform for _ in range(400)]
    white = sum(float(sound[0]) > 0 for sound in heard if sound is not None)
    assert white == pytest.approx(300, abs=4 * np.sqrt(400 * 0.75 * 0.25))


def test_lips_are_left_alone_and_clips_without_sound_too() -> None:
    lips = np.zeros((5, 96, 96), np.uint8)
    media = Acoustics(NoiseBank({})).disturb(Media(None, lips), "", Disturbance(share=1.0), rng())
    assert media.waveform is None and media.mouth is lips


@pytest.mark.parametrize(("exponent", "decibels_a_decade"), [(0.0, 0.0), (1.0, -10.0), (2.0, -20.0)])
def test_the_power_of_a_colour_falls_as_its_name_says(exponent: float, decibels_a_decade: float) -> None:
    sound = noise.coloured(60 * SAMPLE_RATE_HZ, exponent, rng())
    width = 4096
    frames = sound[: len(sound) // width * width].reshape(-1, width) * np.hanning(width)
    density = np.mean(np.abs(np.fft.rfft(frames, axis=1)) ** 2, axis=0)
    frequency = np.fft.rfftfreq(width, 1 / SAMPLE_RATE_HZ)
    part = (frequency > 50) & (frequency < 7000)
    slope = np.polyfit(np.log10(frequency[part]), 10 * np.log10(density[part]), 1)[0]
    assert slope == pytest.approx(decibels_a_decade, abs=0.3)
    assert np.sqrt(np.mean(sound**2)) == pytest.approx(1, abs=1e-3)


def third_octaves_db(sound: np.ndarray) -> np.ndarray:
    """Level of the bands from 200 Hz to 5 kHz."""
    power = np.abs(np.fft.rfft(sound)) ** 2
    frequency = np.fft.rfftfreq(len(sound), 1 / SAMPLE_RATE_HZ)
    centres = 200 * 2 ** (np.arange(15) / 3)
    bands = [power[(frequency >= c * 2 ** (-1 / 6)) & (frequency < c * 2 ** (1 / 6))].sum() for c in centres]
    return 10 * np.log10(np.array(bands) / power.sum())


def test_speech_shaped_noise_has_the_spectrum_of_the_voices_and_none_of_their_pauses() -> None:
    r = rng(7)
    voices = [speech(r) for _ in range(5)]
    formants = np.exp(-((np.fft.rfftfreq(48_000, 1 / SAMPLE_RATE_HZ) - 600) ** 2) / 2 / 400**2) + 0.05
    voices = [np.fft.irfft(np.fft.rfft(v) * formants).astype(np.float32) for v in voices]
    shaped = noise.speech_shaped(voices, 30 * SAMPLE_RATE_HZ, r)
    np.testing.assert_allclose(third_octaves_db(shaped), third_octaves_db(np.concatenate(voices)), atol=1.0)
    loudness = np.sqrt(np.mean(shaped[: len(shaped) // 1600 * 1600].reshape(-1, 1600) ** 2, axis=1))
    assert loudness.min() > 0.6 and loudness.max() < 1.5


def test_a_clip_never_speaks_in_its_own_babble(tmp_path: Path) -> None:
    frequencies = 400 * 1.2 ** np.arange(9)  # every clip is a tone of its own, so who speaks can be seen
    clips = clips_of([tone(f) for f in frequencies], tmp_path / "clips")
    bank = make_bank(Disturbance(), [clips], seed=1)
    r = rng(8)
    heard = np.zeros((9, 9), int)
    for index in range(9):
        for _ in range(20):
            drawn = bank.draw("babble", 3 * SAMPLE_RATE_HZ, r, f"clips/{index}")
            spectrum = np.abs(np.fft.rfft(drawn * np.hanning(len(drawn)))) / len(drawn)
            heard[index] += [spectrum[int(f * 3) - 6 : int(f * 3) + 7].max() > 0.005 for f in frequencies]
    assert heard.diagonal().sum() == 0
    assert (heard.sum(axis=0) > 20).all()  # everyone is heard behind others
    with pytest.raises(EdgeavError, match="at least two"):
        make_bank(Disturbance(), [clips_of([tone(300)], tmp_path / "one")], seed=1)


def test_babble_holds_from_one_talker_to_as_many_as_are_asked_for() -> None:
    _, who = noise.babble_of([tone(200 * (i + 1), 10.0) for i in range(40)], 2000, rng(9), talkers=4)
    assert {len(voices) for voices in who} == {1, 2, 3, 4}


def test_the_bank_is_the_same_for_the_same_seed_and_what_is_drawn_for_the_same_generator(tmp_path: Path) -> None:
    clips = clips_of([speech(rng(i)) for i in range(4)], tmp_path / "clips")
    wanted = Disturbance(kinds=dict.fromkeys(("babble", "pink", "music"), 1.0), rooms=RoomShare(share=0.5))
    one, again = (build_acoustics(wanted, [clips], 3, tmp_path / name) for name in ("one", "again"))
    assert (one / "babble.npy").read_bytes() == (again / "babble.npy").read_bytes()
    assert (one / "pink.npy").read_bytes() == (again / "pink.npy").read_bytes()
    media = clips.media(0)
    first, second, other = (
        load_acoustics(folder).disturb(media, "clips/0", wanted.model_copy(update={"share": 1.0}), rng(seed)).waveform
        for folder, seed in ((one, 1), (again, 1), (one, 2))
    )
    np.testing.assert_array_equal(first, second)
    assert first is not None and other is not None and (first != other).any()


def test_recordings_come_from_a_plain_folder_at_any_rate_and_silent_ones_are_named(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    time_s = np.arange(8000 * 2) / 8000
    soundfile.write(tmp_path / "deep" / "phone.wav", 0.5 * np.sin(2 * np.pi * 440 * time_s), 8000)
    (sound,) = noise.read_recordings(tmp_path)
    assert len(sound) == pytest.approx(2 * SAMPLE_RATE_HZ, abs=32)
    assert np.argmax(np.abs(np.fft.rfft(sound))) * SAMPLE_RATE_HZ / len(sound) == pytest.approx(440, abs=1)
    soundfile.write(tmp_path / "nothing.wav", np.zeros(8000), 8000)
    with pytest.raises(EdgeavError, match=r"nothing\.wav"):
        noise.read_recordings(tmp_path)
    (tmp_path / "manifest.jsonl").write_text('{"path": "deep/phone.wav"}\n{"file": "x"}\n[]\n')
    with pytest.raises(EdgeavError, match=r"(?s):2: KeyError.*:3: TypeError"):
        noise.read_recordings(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(EdgeavError, match="neither manifest"):
        noise.read_recordings(tmp_path / "empty")


def test_music_is_what_was_recorded_where_a_folder_is_given_and_chords_where_none_is(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "song.flac", tone(440.0), SAMPLE_RATE_HZ)
    song, chords = (
        make_bank(Disturbance(kinds={"music": 1.0}, music=folder), [], 0).sounds["music"]
        for folder in (str(tmp_path), None)
    )
    np.testing.assert_allclose(song, np.sqrt(2) / 0.3 * tone(440.0), atol=1e-3)
    spectrum = np.abs(np.fft.rfft(chords[: 60 * SAMPLE_RATE_HZ])) ** 2
    cents = 1200 * np.log2(np.maximum(np.fft.rfftfreq(60 * SAMPLE_RATE_HZ, 1 / SAMPLE_RATE_HZ), 1) / 55)
    in_tune = np.abs((cents + 50) % 100 - 50) < 25  # half of all frequencies are so near to a semitone
    assert spectrum[in_tune].sum() > 0.9 * spectrum.sum()


def test_only_training_speakers_are_heard_in_the_babble_of_a_training_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = []
    for speaker, split in (("ann", "train"), ("bob", "train"), ("eve", "dev"), ("dan", "test")):
        soundfile.write(tmp_path / f"{speaker}.wav", tone(300.0), SAMPLE_RATE_HZ)
        rows.append({"audio": f"{speaker}.wav", "text": "bin", "speaker": speaker, "split": split})
    (tmp_path / "manifest.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "model.safetensors").touch()  # a model that is trained further

    def heard(noise: Disturbance, clips: Sequence[Path], seed: int, work: Path) -> Path:
        raise EdgeavError(" ".join(row.speaker for folder in clips for row in DecodedClips(folder).rows))

    monkeypatch.setattr(train_stage, "_acoustics", heard)
    stage = train_stage.Train.model_validate({"mix": [{"corpus": str(tmp_path), "per_batch": 1}], "steps": 1})
    with pytest.raises(EdgeavError, match=r"^ann bob$"):
        stage.apply(tmp_path, tmp_path / "out", Run(tmp_path / "run", Recipe.load("train-demo")))
