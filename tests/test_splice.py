"""New sentences from old clips, and lips that fail: what training makes of the clips it has."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgeav.data.batch import Source
from edgeav.data.cache import DecodedClips, decode
from edgeav.data.corpus import Media, Utterance
from edgeav.data.lip_faults import missing, untold
from edgeav.data.splice import FADE, SAMPLES_PER_FRAME, Donors
from edgeav.data.variants import Variation, vary
from edgeav.progress import Progress
from edgeav.runtime.features import model_inputs
from edgeav.runtime.inputs import Features

WORDS = ("bin", "blue", "at", "f", "two", "now")
FRAMES = 4  # of each word, and of the silence on both sides


class Labelled:
    """A clip whose every sample and pixel says which clip and which word it belongs to."""

    def __init__(self, number: int) -> None:
        self.number = number

    def read(self) -> Media:
        level = np.repeat(np.arange(len(WORDS) + 2), FRAMES) + 10 * self.number
        words = tuple((f"{w}{self.number}", (i + 1) * 0.16, (i + 2) * 0.16) for i, w in enumerate(WORDS))
        sound = np.repeat(level / 100, SAMPLES_PER_FRAME).astype(np.float32)
        return Media(sound, np.tile(level[:, None, None], (1, 96, 96)).astype(np.uint8), words)


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> DecodedClips:
    speakers = ["s1", "s1", "s1", "s2"]
    utterances = [
        Utterance(str(n), speaker, " ".join(f"{w}{n}" for w in WORDS), Labelled(n))
        for n, speaker in enumerate(speakers)
    ]
    folder: Path = tmp_path_factory.mktemp("clips") / "decoded"
    return decode(utterances, folder, workers=1, progress=Progress(), label="clips")


def test_sound_lips_words_and_text_of_a_spliced_clip_say_the_same(clips: DecodedClips) -> None:
    donors, r, sources = Donors(clips, range(4)), np.random.default_rng(0), set()
    for _ in range(30):
        media, text = donors.splice(0, r)
        assert media.waveform is not None and media.mouth is not None
        assert text == " ".join(word for word, _, _ in media.words)
        assert [word[:-1] for word, _, _ in media.words] == list(WORDS)
        assert len(media.waveform) == len(media.mouth) * SAMPLES_PER_FRAME
        for place, (word, start, end) in enumerate(media.words):
            expected = 10 * int(word[-1]) + place + 1
            frames = media.mouth[round(start * 25) : round(end * 25)]
            assert (frames == expected).all()
            inside = media.waveform[round(start * 16_000) + FADE : round(end * 16_000) - FADE]
            np.testing.assert_allclose(inside, expected / 100, atol=1e-4)
            sources.add((place, int(word[-1])))
    assert {number for place, number in sources if place != 3} == {0, 1, 2}  # only a letter comes from a stranger
    assert (3, 3) in sources


def test_a_clip_without_a_fellow_stays_as_it_is(clips: DecodedClips) -> None:
    media, text = Donors(clips, range(4)).splice(3, np.random.default_rng(0))
    assert text == clips.rows[3].text
    assert np.array_equal(media.mouth, clips.media(3).mouth)  # type: ignore[arg-type]


def test_copies_are_spliced_and_at_other_tempos_once_and_then_taken_as_they_are(
    clips: DecodedClips, tmp_path: Path
) -> None:
    source = Source(clips, 1, longest_s=clips.rows[0].duration_s, splice=1.0, leave_out=("s2",))
    copies = vary(source, Variation(5, tempo_share=0.5, seed=3), tmp_path / "a", Progress())
    again = vary(source, Variation(5, tempo_share=0.5, seed=3), tmp_path / "b", Progress())
    assert (tmp_path / "a" / "lips.u8").read_bytes() == (tmp_path / "b" / "lips.u8").read_bytes()
    assert [row.speaker for row in copies.rows] == ["s1"] * 3 * 5
    assert all(row.text == " ".join(word for word, _, _ in row.words) for row in copies.rows)
    assert any(row.text not in {old.text for old in clips.rows} for row in again.rows)
    lengths = [row.duration_s for row in copies.rows]
    assert min(lengths) < clips.rows[0].duration_s < max(lengths)

    varied, r = Source(copies, 1, source.longest_s, splice=1.0, varied=True), np.random.default_rng(0)
    assert varied.usable == list(range(15))  # a slower copy is not too long
    assert {varied.tempo(1.0, r) for _ in range(20)} == {1.0}
    assert all(varied.clip(i, r)[1] == row.text for i, row in enumerate(copies.rows))


def test_faults_change_the_lips_alone_and_say_whether_they_still_fit() -> None:
    clip, seen = Labelled(0).read(), set()
    assert clip.mouth is not None
    for seed in range(60):
        media, fits = untold(clip, np.random.default_rng(seed))
        assert media.mouth is not None and media.mouth.shape == clip.mouth.shape
        assert media.waveform is clip.waveform and media.words == clip.words
        assert not np.array_equal(media.mouth, clip.mouth) or fits
        seen.add((bool((media.mouth == 0).all()), fits))
    assert (True, False) in seen and (False, True) in seen and (False, False) in seen


def test_missing_pictures_are_zero_and_the_model_is_told() -> None:
    clip, features = Labelled(0).read(), Features()
    inputs = missing(model_inputs(clip.waveform, clip.mouth, features), features, np.random.default_rng(3))
    gone = inputs.presence[0, :, 1] == 0
    assert gone.any() and inputs.presence[0, :, 0].all()
    assert not inputs.video[0, np.repeat(gone, features.video_frames)].any()
