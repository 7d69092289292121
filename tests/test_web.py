"""The browser page's modules under node, against the Python runtime: features, CTC, bundles, clocks."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_bundle import TOKENS, make_bundle
from web_tools import RUNTIME, ask, needs_runtime, raw

from edgeav.errors import EdgeavError
from edgeav.runtime.bundle import read_bundle, write_bundle, write_golden
from edgeav.runtime.clip import Clip
from edgeav.runtime.ctc import decode
from edgeav.runtime.features import Inputs, hear, model_inputs
from edgeav.runtime.inputs import Features, LogMel, Mouth, Samples, settings
from edgeav.runtime.media import at_25_fps
from edgeav.runtime.readings import Surest

RNG = np.random.default_rng


def noise(samples: int, seed: int = 0) -> np.ndarray:
    return (0.1 * RNG(seed).standard_normal(samples)).astype(np.float32)


@pytest.mark.parametrize(
    "audio",
    [
        LogMel(),
        LogMel(padding="reflect", log_guard="clamp", log_floor=1e-10, normalize="none", pre_emphasis=0.0),
        LogMel(mel_scale="htk", mel_norm="none", mel_corners="bins", mels=40, low_hz=20, high_hz=7600),
        LogMel(window=320, n_fft=400, window_function="hann-periodic"),
    ],
    ids=["nemo", "reflect-clamp", "htk-bins", "no-power-of-two"],
)
def test_log_mel_is_that_of_python_under_every_setting(audio: LogMel, tmp_path: Path) -> None:
    wave = noise(8000) * np.linspace(1e-4, 1, 8000, dtype=np.float32)
    expected = hear(wave, Features(audio=audio))

    found = ask("mel", waveform=raw(tmp_path / "wave", wave), settings=asdict(audio))

    assert expected is not None
    np.testing.assert_allclose(np.reshape(found, expected.shape), expected, atol=1e-4)


@pytest.mark.parametrize(
    "features",
    [
        Features(),
        Features(video=Mouth(crop=80, normalize="fixed", mean=0.421, deviation=0.165)),
        Features(step_ms=40, audio=Samples(), video=None),
        Features(audio=None),
    ],
    ids=["both", "fixed-video", "samples", "lips-alone"],
)
def test_inputs_are_those_of_python_when_a_face_is_lost_on_the_way(features: Features, tmp_path: Path) -> None:
    wave, mouth = noise(16_000), RNG(1).integers(0, 256, (23, 96, 96), dtype=np.uint8)
    present = np.ones(23, bool)
    present[6:11] = False
    hears, sees = features.audio is not None, features.video is not None
    clip = Clip(wave if hears else None, mouth if sees else None, present if sees else present[:0], [], features)
    expected = clip.inputs(0, clip.steps)

    files = {"waveform": raw(tmp_path / "wave", wave), "mouth": raw(tmp_path / "mouth", mouth)}
    found = ask("inputs", **files, present=present.tolist(), features=settings(features))

    for name, array in expected._asdict().items():
        np.testing.assert_allclose(found[name], array.ravel(), atol=1e-4, err_msg=name)


def test_nothing_to_hear_nor_to_see_gives_no_inputs(tmp_path: Path) -> None:
    silence = raw(tmp_path / "wave", np.zeros(16_000, np.float32))
    assert ask("inputs", waveform=silence, mouth=None, present=[], features=settings(Features())) is None


def test_ctc_words_times_and_confidences_are_those_of_python(tmp_path: Path) -> None:
    tokens = ["▁go", "od", "▁", "▁day", "s"]
    scores = RNG(3).standard_normal((60, 6)).astype(np.float32) * 3
    log_probs = scores - np.log(np.exp(scores).sum(axis=1, keepdims=True))
    presence = np.ones((60, 2), np.float32)
    presence[40:45] = 0
    expected = decode(log_probs, tokens, 5, presence)

    spec = {"tokens": tokens, "blank": 5, "steps": {"per_second": 12.5}}
    found = ask("ctc", logProbs=raw(tmp_path / "lp", log_probs), presence=presence.ravel().tolist(), spec=spec)

    assert found["text"] == expected.text
    for word, other in zip(found["words"], expected.words, strict=True):
        assert (word["word"], round(word["startS"], 3), round(word["endS"], 3)) == (
            other.word,
            other.start_s,
            other.end_s,
        )
        assert word["confidence"] == pytest.approx(other.confidence, abs=1e-4)


@pytest.mark.parametrize("seed", range(6))
def test_the_page_reads_again_when_python_does_and_takes_the_same_reading(seed: int) -> None:
    r, steps, blank = RNG(seed), 12, 5
    sharpness = r.permutation([1.0, 3.0, 9.0])  # of each reading: who is surest is drawn
    scores = [r.standard_normal((1, steps, 6)).astype(np.float32) * sharp for sharp in sharpness]
    answers = [score - np.log(np.exp(score).sum(axis=-1, keepdims=True)) for score in scores]
    presence = (r.random((1, steps, 2)) < 0.8).astype(np.float32)
    audio, video = (r.random((1, n * steps, 3)).astype(np.float32) for n in (4, 2))
    given: list[Inputs] = []

    def run(inputs: Inputs) -> np.ndarray:
        given.append(inputs)
        return answers[len(given) - 1]

    again = Surest(run, blank)
    log_probs = again(Inputs(audio, video, presence))

    flat = {"presence": presence, "audio": audio, "video": video}
    asked = {name: array.ravel().tolist() for name, array in flat.items()}
    found = ask("readings", answers=[a.ravel().tolist() for a in answers], spec={"blank": blank}, **asked)
    assert found["reading"] == again.last
    np.testing.assert_allclose(found["logProbs"], log_probs.ravel(), rtol=1e-6)
    assert len(found["given"]) == len(given) in (1, 3)
    for ours, theirs in zip(given, found["given"], strict=True):
        for name in flat:
            np.testing.assert_allclose(theirs[name], getattr(ours, name).ravel(), rtol=1e-6)


def test_the_address_chooses_and_what_it_cannot_mean_is_refused_all_at_once() -> None:
    folders = ["small", "tiny"]
    chosen = ask("address", search="?model=tiny&readings=surest&lips_ms=120&again", folders=folders)
    assert chosen == {"model": "tiny", "readings": "surest", "lipsS": 0.12}
    assert ask("address", search="", folders=folders) == {"model": "small", "readings": "one", "lipsS": 0}
    refused = ask("address", search="?model=huge&readings=all&lips_ms=late", folders=folders)["refused"]
    for part in ("?model=huge: not here; allowed: small, tiny", "?readings=all: allowed: one, surest", "?lips_ms=late"):
        assert part in refused


@pytest.fixture
def golden_bundle(tmp_path: Path) -> Path:
    """The tiny bundle with a golden clip made from a waveform, as exported bundles have it."""
    folder = make_bundle(tmp_path / "tiny").folder
    from tiny_bundle import expected, named

    wave = noise(20_480)
    inputs = model_inputs(wave, RNG(5).integers(0, 256, (32, 96, 96), dtype=np.uint8), Features())
    arrays = {**named(inputs), "log_probs": expected(inputs), "waveform": wave}
    text = decode(arrays["log_probs"][0], TOKENS, len(TOKENS), inputs.presence[0]).text
    spec = json.loads((folder / "bundle.json").read_text())
    spec["golden"] = [write_golden(folder, "clip", arrays, transcript=text, tolerance=1e-4)]
    write_bundle(folder, spec={key: value for key, value in spec.items() if key not in ("schema", "files")})
    return folder


def test_the_golden_clip_comes_out_the_same_through_onnx_runtime_web(golden_bundle: Path) -> None:
    needs_runtime()
    (found,) = ask("golden", folder=golden_bundle, runtime=RUNTIME)

    assert found["mel"] < 1e-4
    assert found["logProbs"] < 1e-4
    assert found["transcript"] == found["expected"] == read_bundle(golden_bundle).golden_cases()[0].transcript
    assert found["ok"]


def test_an_int8_bundle_runs_in_onnx_runtime_web(tmp_path: Path) -> None:
    needs_runtime()
    results = ask("golden", folder=make_bundle(tmp_path / "tiny", precision="int8").folder, runtime=RUNTIME)
    assert [result["ok"] for result in results] == [True, True]


def test_a_golden_clip_that_comes_out_wrong_is_noticed(tmp_path: Path) -> None:
    needs_runtime()
    results = ask("golden", folder=make_bundle(tmp_path / "tiny", off=0.01).folder, runtime=RUNTIME)
    assert [result["ok"] for result in results] == [False, False]


def edited(folder: Path, edit: Any) -> None:
    spec = json.loads((folder / "bundle.json").read_text())
    edit(spec)
    (folder / "bundle.json").write_text(json.dumps(spec))


DAMAGES: dict[str, Any] = {
    "a byte of the model changed": lambda folder: flip(folder / "model.onnx"),
    "golden vectors cut off": lambda folder: cut(next((folder / "golden").iterdir())),
    "an older schema": lambda folder: edited(folder, lambda spec: spec.update(schema="edgeav-bundle/1")),
    "a key too much": lambda folder: edited(folder, lambda spec: spec.update(extra=1)),
    "a key missing": lambda folder: edited(folder, lambda spec: spec.pop("tokens")),
    "an unknown mel scale": lambda folder: edited(
        folder, lambda spec: spec["features"]["audio"].update(mel_scale="bark")
    ),
    "a blank that is none": lambda folder: edited(folder, lambda spec: spec.update(blank=9)),
    "a file outside": lambda folder: edited(
        folder, lambda spec: spec["files"].update({"../x": spec["files"]["model.onnx"]})
    ),
    "half of bundle.json": lambda folder: cut(folder / "bundle.json"),
}


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


@pytest.mark.parametrize("damage", DAMAGES)
def test_what_python_refuses_the_page_refuses_too(damage: str, tmp_path: Path) -> None:
    folder = make_bundle(tmp_path / "tiny").folder
    assert "error" not in ask("bundle", folder=folder)

    DAMAGES[damage](folder)

    with pytest.raises(EdgeavError):
        read_bundle(folder)
    assert ask("bundle", folder=folder)["error"]


@pytest.mark.parametrize("rate", [16_000, 22_050, 44_100, 48_000])
def test_a_resampled_tone_is_the_tone_and_has_no_delay(rate: int, tmp_path: Path) -> None:
    wave = np.sin(2 * np.pi * 1000 * np.arange(rate) / rate).astype(np.float32)

    found = np.array(ask("resample", waveform=raw(tmp_path / "wave", wave), **{"from": rate}, chunks=rate // 25))

    inner = slice(800, 15_200)
    assert 16_000 <= len(found) <= 16_002
    np.testing.assert_allclose(
        found[inner], np.sin(2 * np.pi * 1000 * np.arange(len(found)) / 16_000)[inner], atol=2e-4
    )


def test_what_16_khz_cannot_carry_is_gone_and_packets_do_not_matter(tmp_path: Path) -> None:
    wave = np.sin(2 * np.pi * 10_000 * np.arange(12_000) / 48_000).astype(np.float32) + noise(12_000)
    tone = raw(tmp_path / "tone", (wave - noise(12_000)).astype(np.float32))
    assert np.abs(ask("resample", waveform=tone, **{"from": 48_000}, chunks=1000)[400:3600]).max() < 1e-3

    both = raw(tmp_path / "both", wave)
    once, pieces = (ask("resample", waveform=both, **{"from": 48_000}, chunks=chunks) for chunks in (12_000, 77))
    np.testing.assert_array_equal(once[:3900], pieces[:3900])


@pytest.mark.parametrize("rate", [16, 25, 30, 60])
def test_pictures_are_placed_on_the_grid_as_those_of_a_file(rate: int) -> None:
    times = (np.arange(3 * rate) / rate + RNG(rate).uniform(0, 0.2 / rate, 3 * rate)).tolist()
    pictures = [np.full((1, 1), index, np.uint8) for index in range(len(times))]
    expected = [int(picture[0, 0]) for picture in at_25_fps(zip(times, pictures, strict=True))]

    found = ask("grid", times=times)

    assert [tick for tick, _ in found] == list(range(found[0][0], found[0][0] + len(found)))
    assert [picture for _, picture in found] == expected[found[0][0] : found[0][0] + len(found)]
    assert len(found) > 70


def test_sound_is_placed_by_its_earliest_packet_and_a_lasting_loss_becomes_silence() -> None:
    ramp = np.arange(1, 6401, dtype=float)
    late_s = (0.03, 0.01, 0.02, 0.0)
    packets = [
        {"samples": ramp[i * 640 : (i + 1) * 640].tolist(), "time": 1 + (i + 1) * 0.04 + late_s[i]} for i in range(4)
    ]
    found = np.array(ask("track", packets=packets, **{"from": 16_000 - 10, "to": 16_000 + 2560}))
    np.testing.assert_array_equal(found, np.concatenate([np.zeros(10), ramp[:2560]]))

    late = [{"samples": ramp[:640].tolist(), "time": 1 + (5 + i) * 0.04 + 0.5} for i in range(51)]
    busy = ask("track", packets=packets + late[:10], **{"from": 16_000 + 2560, "to": 16_000 + 2560 + 640})
    np.testing.assert_array_equal(busy, ramp[:640])  # ten late packets: the page was busy, nothing is lost

    end = 16_000 + (4 + 50) * 640
    lost = ask("track", packets=packets + late, **{"from": end, "to": end + 8640})
    np.testing.assert_array_equal(lost, np.concatenate([np.zeros(8000), ramp[:640]]))


def speech_levels(*spans: tuple[int, int], length: int, noise_db: float) -> list[float]:
    levels = noise_db + RNG(0).uniform(-1, 1, length)
    for start, stop in spans:
        levels[start:stop] = -20
    return levels.tolist()


@pytest.mark.parametrize("noise_db", [-75.0, -50.0])
def test_each_stretch_of_speech_becomes_one_caption(noise_db: float) -> None:
    levels = speech_levels((40, 60), (90, 91), (100, 140), length=200, noise_db=noise_db)

    spans = ask("segments", levels=levels, perSecond=12.5, longest=200)

    assert [(span["start"], span["stop"]) for span in spans] == [(36, 64), (96, 144)]  # a click of one step is none


def test_endless_speech_is_cut_where_it_is_quietest_and_nothing_is_lost() -> None:
    levels = speech_levels((40, 400), length=440, noise_db=-70)
    levels[40:400:4] = [-45.0] * 90  # between syllables
    levels[210] = -55

    spans = ask("segments", levels=levels, perSecond=12.5, longest=200)

    assert all(span["stop"] - span["start"] <= 200 for span in spans)
    assert spans[0]["stop"] in (210, 211)
    assert [span["start"] for span in spans[1:]] == [span["stop"] for span in spans[:-1]]
    assert spans[0]["start"] <= 40 and spans[-1]["stop"] >= 400


def test_the_snr_is_the_power_of_the_voice_over_that_of_the_noise() -> None:
    speech, room = 10 ** (-20 / 10), 10 ** (-40 / 10)
    level = float(10 * np.log10(speech + room))
    assert ask("snr", levels=[level] * 10 + [-40.0] * 10, noise=-40) == pytest.approx(20, abs=1e-6)
    assert ask("snr", levels=[-40.0] * 10, noise=-40) is None


def test_words_are_sure_as_far_as_two_readings_agree() -> None:
    assert ask("agreed", before=["bin", "blue", "at"], now=["bin", "blue", "by", "g"]) == 2
    assert ask("agreed", before=[], now=["bin"]) == 0


def test_a_declared_mel_is_not_guessed(tmp_path: Path) -> None:
    """The page reads settings of the bundle, not those of the demo model: another one gives other features."""
    wave = raw(tmp_path / "wave", noise(4000))
    one, other = (
        ask("mel", waveform=wave, settings=asdict(audio)) for audio in (LogMel(), replace(LogMel(), pre_emphasis=0.5))
    )
    assert not np.allclose(one, other, atol=1e-2)
