"""Corpora, the drawn and the real one; noise; batches."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from edgeav.data import augment
from edgeav.data.acoustics import Acoustics, NoiseBank
from edgeav.data.batch import NO_LABEL, Batch, Batches, Source, mask
from edgeav.data.cache import DecodedClips, decode
from edgeav.data.corpus import Media, Utterance, open_corpus
from edgeav.data.disturbance import Disturbance, RoomShare
from edgeav.data.noise import coloured
from edgeav.data.prefetch import Prefetch
from edgeav.data.synthetic import GRAMMAR
from edgeav.data.text import Tokenizer, train_tokenizer
from edgeav.errors import EdgeavError
from edgeav.models import ModelConfig
from edgeav.progress import Progress
from edgeav.runtime.features import hear
from edgeav.runtime.inputs import SAMPLE_RATE_HZ, Features, LogMel, Mouth, Samples

WHITE = Acoustics(NoiseBank({"white": coloured(SAMPLE_RATE_HZ * 20, 0.0, np.random.default_rng(0))}))
SOMETIMES = Disturbance(share=0.5, kinds={"white": 1.0}, rooms=RoomShare(share=0.5))


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer([u.text for u in open_corpus("demo").train], 256)


def test_a_drawn_clip_is_the_same_whenever_and_in_whatever_order_it_is_asked_for() -> None:
    first, second = open_corpus("demo").tests[0].utterances[:2]
    before = first.media()
    second.media()
    after = open_corpus("demo").tests[0].utterances[0].media()
    np.testing.assert_array_equal(before.waveform, after.waveform)
    np.testing.assert_array_equal(before.mouth, after.mouth)


FINGERPRINT = """
import hashlib
from edgeav.data.speech import Voice, speak
print(hashlib.sha256(speak("bin blue at f two now", Voice("en-us+f5"), seed=7).waveform.tobytes()).hexdigest())
"""


def test_a_breathy_voice_sounds_the_same_in_another_process_at_another_time() -> None:
    """espeak-ng seeds its noise with the seconds of the clock: two processes of one second agree by accident."""
    prints = []
    for _ in range(2):
        prints.append(subprocess.check_output([sys.executable, "-c", FINGERPRINT], text=True))
        time.sleep(1.1)
    assert prints[0] == prints[1]


def test_another_seed_draws_another_corpus() -> None:
    texts = [[u.text for u in open_corpus("demo", seed).train[:20]] for seed in (0, 1)]
    assert texts[0] != texts[1]


def test_no_test_voice_or_face_is_trained_on() -> None:
    corpus = open_corpus("demo")
    sets = [{u.speaker.split("/")[0] for u in us} for us in (corpus.train, corpus.valid, corpus.tests[0].utterances)]
    assert not sets[0] & sets[1] and not sets[0] & sets[2] and not sets[1] & sets[2]
    assert len(corpus.tests[0].utterances) >= 200


def test_drawn_words_follow_the_grammar_and_lie_within_the_clip() -> None:
    for utterance in open_corpus("demo").tests[0].utterances[:5]:
        media = utterance.media()
        assert media.waveform is not None and media.mouth is not None
        assert [word for word, _, _ in media.words] == utterance.text.split()
        assert all(word in group for word, group in zip(utterance.text.split(), GRAMMAR, strict=True))
        assert media.words[-1][2] <= len(media.waveform) / SAMPLE_RATE_HZ
        assert abs(len(media.waveform) / SAMPLE_RATE_HZ - len(media.mouth) / 25) < 0.05


def test_the_drawn_mouth_opens_with_the_sound() -> None:
    """Frames within words differ more from their neighbours than frames in the silence before."""
    moving, still = [], []
    for utterance in open_corpus("demo").train[:5]:
        media = utterance.media()
        assert media.mouth is not None
        change = np.abs(np.diff(media.mouth.astype(np.float32), axis=0))[:, 36:64, 24:72].mean(axis=(1, 2))
        start, end = int(media.words[0][1] * 25), int(media.words[-1][2] * 25)
        moving.append(np.median(change[start + 1 : end - 1]))
        still.append(np.median(change[: max(1, start - 2)]))
    assert np.mean(moving) > 1.1 * np.mean(still)


def test_calibration_draws_from_training_clips_and_never_more_than_there_are() -> None:
    corpus = open_corpus("demo")
    drawn = corpus.calibration(50, seed=3)
    assert len({u.id for u in drawn}) == 50 and {u.id for u in drawn} <= {u.id for u in corpus.train}
    with pytest.raises(EdgeavError, match="5000"):
        corpus.calibration(5001, seed=3)


@pytest.mark.parametrize("snr_db", [-5.0, 0.0, 10.0])
def test_noise_is_added_at_exactly_the_asked_for_ratio_to_active_speech(snr_db: float) -> None:
    r = np.random.default_rng(0)
    speech = np.zeros(48_000, np.float32)
    speech[16_000:32_000] = r.standard_normal(16_000) * 0.1
    noise = r.standard_normal(48_000).astype(np.float32)
    words = [("word", 1.0, 2.0)]
    added = augment.add_noise(speech, noise, snr_db, words) - speech
    measured = 10 * np.log10(np.mean(speech[16_000:32_000] ** 2) / np.mean(added**2))
    assert measured == pytest.approx(snr_db, abs=0.1)
    without_times = augment.add_noise(speech, noise, snr_db) - speech
    assert np.mean(without_times**2) == pytest.approx(np.mean(added**2), rel=0.05)


def test_a_faster_clip_is_shorter_in_sound_and_picture_alike() -> None:
    sound, frames = np.zeros(32_000, np.float32), np.zeros((50, 96, 96), np.uint8)
    assert len(augment.stretch(sound, 1.25)) / 640 == len(augment.stretch_frames(frames, 1.25)) == 40


def test_moving_the_camera_keeps_the_crop_size_and_range() -> None:
    frames = np.random.default_rng(0).integers(0, 256, (5, 96, 96), np.uint8)
    moved = augment.move_camera(frames, 88, np.random.default_rng(1))
    assert moved.shape == (5, 88, 88) and moved.min() >= 0 and moved.max() <= 255


def test_text_survives_the_tokenizer_and_grammar_words_are_one_piece(tokenizer: Tokenizer) -> None:
    for utterance in open_corpus("demo").tests[0].utterances[:50]:
        ids = tokenizer.encode(utterance.text)
        assert tokenizer.decode(ids) == utterance.text
        assert len(ids) == 6


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> DecodedClips:
    """The first four clips of the drawn corpus."""
    folder = tmp_path_factory.mktemp("clips") / "clips"
    return decode(list(open_corpus("demo").train[:4]), folder, workers=1, progress=Progress(), label="")


def test_batches_depend_on_seed_step_and_rank_alone(clips: DecodedClips, tokenizer: Tokenizer) -> None:
    utterances: list[Utterance] = list(open_corpus("demo").train[:4])
    assert [clips.rows[i].text for i in range(4)] == [u.text for u in utterances]
    np.testing.assert_array_equal(clips.media(2).mouth, utterances[2].media().mouth)
    batches = Batches([Source(clips, 3, longest_s=10.0)], tokenizer, WHITE, ModelConfig(tokens=tokenizer.tokens))
    one, again, other = (batches.batch(1, 5, rank, SOMETIMES) for rank in (0, 0, 1))
    assert (one.audio == again.audio).all() and (one.video == again.video).all()
    assert one.audio.shape != other.audio.shape or (one.audio != other.audio).any()
    assert len(one.target_lengths) == 3 and one.presence.shape[:2] == one.labels.shape


@pytest.mark.parametrize("processes", [0, 2])
def test_batches_made_ahead_are_those_made_one_by_one(
    processes: int, clips: DecodedClips, tokenizer: Tokenizer
) -> None:
    batches = Batches([Source(clips, 3, longest_s=10.0)], tokenizer, WHITE, ModelConfig(tokens=tokenizer.tokens))

    def make(step: int) -> Batch:
        return batches.batch(1, step, 0, SOMETIMES)

    for step, ahead in zip(range(3, 7), Prefetch(make, range(3, 7), processes), strict=True):
        for name, tensor in vars(make(step)).items():
            assert torch.equal(getattr(ahead, name), tensor), name


@pytest.mark.parametrize(
    ("takes", "audio", "video"),
    [
        (Features(audio=LogMel(mels=64, normalize="none"), video=None), (64,), (0, 0)),
        (Features(audio=None, video=Mouth(crop=64, normalize="fixed")), (), (64, 64)),
        (Features(step_ms=40), (80,), (88, 88)),
        (Features(step_ms=40, audio=Samples()), (), (88, 88)),
    ],
)
def test_batches_are_what_the_model_takes_at_its_own_clock(
    takes: Features, audio: tuple, video: tuple, clips: DecodedClips, tokenizer: Tokenizer
) -> None:
    config = ModelConfig.model_construct(inputs=takes, tokens=("<blank>", *tokenizer.tokens), blank_index=0)
    batch = Batches([Source(clips, 4, longest_s=10.0)], tokenizer, WHITE, config).batch(1, 5, 0, SOMETIMES)
    steps = int(batch.steps.max())
    assert batch.presence.shape == (4, steps, 2) and batch.labels.shape == (4, steps)
    assert batch.audio.shape == (4, takes.audio_frames * steps, *audio)
    assert batch.video.shape == (len(batch.video_rows), takes.video_frames * steps, *video)
    present = batch.presence.amax(dim=(0, 1)) > 0
    assert present.tolist() == [takes.audio is not None, takes.video is not None]
    longest_s = max(row.duration_s for row in clips.rows) / 0.85  # the slowest tempo
    assert steps <= longest_s * takes.steps_per_second + 2
    assert int(batch.labels[batch.labels != NO_LABEL].min()) == 0  # the blank of this model


def test_what_is_masked_of_a_log_mel_that_is_not_normalized_becomes_its_mean() -> None:
    takes = Features(audio=LogMel(normalize="none"), video=None)
    sound = np.random.default_rng(2).standard_normal(SAMPLE_RATE_HZ).astype(np.float32)
    plain = hear(sound, takes)
    assert plain is not None
    masked = mask(plain.copy(), takes, np.random.default_rng(3))
    changed = np.abs(masked - plain) > 1e-3
    mean = np.broadcast_to(plain.mean(axis=0), plain.shape)
    assert 0 < changed.sum() < plain.size / 2
    np.testing.assert_allclose(masked[changed], mean[changed], atol=1e-3)


@dataclass(frozen=True)
class Half:
    """A drawn clip without its lips, or without its sound."""

    kept: str

    def read(self) -> Media:
        whole = open_corpus("demo").train[0].media()
        return Media(whole.waveform if self.kept == "sound" else None, whole.mouth if self.kept == "lips" else None)


@pytest.mark.parametrize("kept", ["sound", "lips"])
def test_clips_that_all_lack_one_modality_are_decoded_too(kept: str, tmp_path: Path) -> None:
    utterance = Utterance("half", "nobody", "bin", Half(kept))
    media = decode([utterance], tmp_path / "clips", workers=1, progress=Progress(), label="").media(0)
    assert (media.waveform is None, media.mouth is None) == (kept == "lips", kept == "sound")


def test_frame_labels_name_the_word_spoken_then_and_blank_in_silence(tokenizer: Tokenizer) -> None:
    batches = Batches([], tokenizer, WHITE, ModelConfig(tokens=tokenizer.tokens))
    labels = batches.labels([("blue", 0.8, 1.6)], 25)  # steps of 80 ms: 10 to 19
    assert set(labels[10:20]) == set(tokenizer.encode("blue"))
    assert set(labels[:10]) == set(labels[20:]) == {len(tokenizer.tokens)}
    assert set(batches.labels([], 25)) == {NO_LABEL}


def test_a_manifest_with_bad_lines_names_every_one(tmp_path: Path) -> None:
    good = {"audio": "a.flac", "text": "go", "speaker": "s1", "split": "test"}
    lines = [json.dumps(good), "{not json", json.dumps({**good, "audio": None}), json.dumps({"audio": "a.flac"})]
    (tmp_path / "manifest.jsonl").write_text("\n".join(lines))
    with pytest.raises(EdgeavError, match=r"(?s):2: .*:3: .*neither.*:4: "):
        open_corpus(str(tmp_path))


def test_an_unknown_corpus_is_a_clear_error() -> None:
    with pytest.raises(EdgeavError, match="neither demo nor demo-pico nor a folder"):
        open_corpus("nowhere")


def test_real_test_speakers_are_reported_apart_and_unseen_ones_are_not_in_training(grid: Path) -> None:
    corpus = open_corpus(str(grid))
    splits = {split.name: split for split in corpus.tests}
    assert splits["test_seen"].speakers == "seen" and splits["test_unseen"].speakers == "unseen"
    trained = {u.speaker for u in corpus.train}
    assert not trained & {u.speaker for u in splits["test_unseen"].utterances}
    assert not any(split.synthetic for split in corpus.tests)


def test_a_real_clip_has_sound_lips_and_word_times(grid: Path) -> None:
    media: Media = open_corpus(str(grid)).valid[0].media()
    assert media.waveform is not None and media.mouth is not None
    assert media.mouth.shape[1:] == (96, 96) and 70 <= len(media.mouth) <= 76
    assert len(media.words) == 6
