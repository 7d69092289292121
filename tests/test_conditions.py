"""Conditions of recognition: their names, what they do to a clip, and what the model is told of it."""

from __future__ import annotations

import numpy as np
import pytest

from edgeav.data.acoustics import NoiseBank
from edgeav.data.augment import active_power
from edgeav.data.conditions import GRIDS, NOISES, Condition, bursts, disturb, parse, possible
from edgeav.data.corpus import Media
from edgeav.errors import EdgeavError
from edgeav.runtime.features import model_inputs
from edgeav.runtime.inputs import Features

KEY = (0, "clip")
WORDS = (("one", 0.5, 1.0), ("two", 1.25, 2.0))
SOUND = np.random.default_rng(5).standard_normal(16_000).astype(np.float32)  # shorter than the clip
NOISE = NoiseBank({"babble": SOUND})


@pytest.fixture(scope="module")
def media() -> Media:
    r = np.random.default_rng(1)
    mouth = np.arange(75, dtype=np.uint8)[:, None, None] + r.integers(1, 9, (75, 96, 96), dtype=np.uint8)
    return Media(r.standard_normal(48_000).astype(np.float32) * np.float32(0.1), mouth, WORDS)


def only(name: str) -> Condition:
    return parse([name])[0]


@pytest.mark.parametrize("name", [*GRIDS["standard"], *GRIDS["short"], "av@-2.5dB:white+frozen30+early3"])
def test_a_condition_is_named_as_it_was_written(name: str) -> None:
    assert only(name).name == name


def test_parts_are_read_as_they_are_meant() -> None:
    assert only("av@-5dB:white+black30+late10") == Condition("av", -5.0, "white", "black", 30, 10)
    assert only("a") == Condition("a")
    assert only("v+early4").late == -4
    assert only("av+missing0") == only("av")
    assert parse(["av", "a", "av"]) == [Condition("av"), Condition("a")]


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("sound", "is not MODALITY"),
        ("a@5", "is not MODALITY"),
        ("v@0dB", "no sound to disturb"),
        ("a+frozen", "no pictures to spoil"),
        ("a+late3", "no pictures to spoil"),
        ("av@0dB:rain", f"allowed: {', '.join(NOISES)}"),
        ("av+missing", "0 to 100"),
        ("av+missing101", "0 to 100"),
        ("av+black+frozen", "no other fault"),
        ("av+late", "1 to 50"),
        ("av+late51", "1 to 50"),
        ("av+torn5", "allowed: missing, frozen, black, late, early"),
        ("v+missing100", "leaves nothing"),
    ],
)
def test_a_wrong_name_is_refused_with_the_reason(name: str, reason: str) -> None:
    with pytest.raises(EdgeavError, match=reason):
        parse(["av", name])


def test_all_wrong_names_are_told_at_once() -> None:
    with pytest.raises(EdgeavError, match=r"(?s)'x'.*'v@0dB'.*look like these"):
        parse(["x", "av", "v@0dB"])


@pytest.mark.parametrize("snr_db", [10, 0, -10])
def test_the_noise_has_its_snr_over_active_speech(media: Media, snr_db: int) -> None:
    found = disturb(media, only(f"a@{snr_db}dB"), NOISE, KEY)
    assert media.waveform is not None and found.waveform is not None and found.mouth is None
    added = found.waveform - media.waveform
    measured = 10 * np.log10(active_power(media.waveform, WORDS) / np.mean(added**2))
    assert measured == pytest.approx(snr_db, abs=0.01)


def test_a_clip_gets_the_same_stretch_of_noise_at_every_snr_and_another_clip_another_one(media: Media) -> None:
    def added(name: str, key: tuple[int, str]) -> np.ndarray:
        noise = disturb(media, only(name), NOISE, key).waveform - media.waveform  # type: ignore[operator]
        return noise / noise.std()

    np.testing.assert_allclose(added("a@0dB", KEY), added("av@-5dB+missing50", KEY), atol=1e-3)
    assert np.abs(added("a@0dB", KEY) - added("a@0dB", (0, "other"))).max() > 0.1
    assert np.abs(added("a@0dB", KEY) - added("a@0dB", (1, "clip"))).max() > 0.1


@pytest.mark.parametrize("percent", [0, 1, 25, 50, 75, 99, 100])
@pytest.mark.parametrize("frames", [1, 7, 75, 76])
def test_exactly_the_share_of_frames_is_spoilt(frames: int, percent: int) -> None:
    for seed in range(20):
        assert bursts(frames, percent, np.random.default_rng(seed)).sum() == round(frames * percent / 100)


def test_spoilt_frames_come_in_bursts_anywhere_in_the_clip() -> None:
    masks = np.array([bursts(75, 50, np.random.default_rng(seed)) for seed in range(400)])
    begun = masks[:, 0].sum() + (masks[:, 1:] & ~masks[:, :-1]).sum()
    assert masks.sum() / begun == pytest.approx(37.5 / 4, abs=1.0)  # 38 frames in four bursts, some touching
    assert masks.mean(axis=0).min() > 0.4 and masks.mean(axis=0).max() < 0.6


def test_missing_pictures_are_told_to_the_model_and_leave_the_others_as_they_are(media: Media) -> None:
    found = disturb(media, only("av+missing40"), NOISE, KEY)
    inputs, features = found.inputs(Features()), Features()
    assert media.mouth is not None and (~found.present).sum() == 30
    told = [bool(found.present[2 * step : 2 * step + 2].all()) for step in range(inputs.steps)]
    np.testing.assert_array_equal(inputs.presence[0, : len(told), 1], told)
    assert inputs.presence[0, :, 0].all()
    kept = np.repeat(told, 2)[:75]
    alone = model_inputs(None, media.mouth[kept], features).video[0, : kept.sum()]
    np.testing.assert_allclose(inputs.video[0, :75][kept], alone, atol=1e-5)
    assert not inputs.video[0, :75][~kept].any()


def test_all_pictures_missing_is_sound_alone(media: Media) -> None:
    gone = disturb(media, only("av+missing100"), NOISE, KEY).inputs(Features())
    alone = disturb(media, only("a"), NOISE, KEY).inputs(Features())
    for one, other in zip(gone, alone, strict=True):
        np.testing.assert_array_equal(one, other)


def test_frozen_and_black_pictures_are_not_told(media: Media) -> None:
    assert media.mouth is not None
    frozen, black = (disturb(media, only(f"av+{fault}"), NOISE, KEY) for fault in ("frozen", "black"))
    assert frozen.mouth is not None and black.mouth is not None
    assert (frozen.mouth == media.mouth[0]).all() and not black.mouth.any()
    assert frozen.inputs(Features()).presence.all() and black.inputs(Features()).presence.all()


def test_a_frozen_burst_shows_the_last_good_picture(media: Media) -> None:
    assert media.mouth is not None
    found = disturb(media, only("v+frozen30"), NOISE, KEY).mouth
    changed = [i for i in range(75) if (found[i] != media.mouth[i]).any()]  # type: ignore[index]
    assert changed and all((found[i] == found[i - 1]).all() for i in changed)  # type: ignore[index]


def test_late_pictures_come_behind_the_sound_and_early_ones_before_it(media: Media) -> None:
    late, early = (disturb(media, only(f"av+{name}"), NOISE, KEY).mouth for name in ("late10", "early10"))
    assert media.mouth is not None and late is not None and early is not None
    np.testing.assert_array_equal(late[10:], media.mouth[:-10])
    np.testing.assert_array_equal(early[:-10], media.mouth[10:])
    assert (late[:10] == media.mouth[0]).all() and (early[-10:] == media.mouth[-1]).all()


def test_an_undisturbed_clip_is_fed_as_ever_and_the_original_is_never_changed(media: Media) -> None:
    before = media.mouth.copy(), media.waveform.copy()  # type: ignore[union-attr]
    for ours, theirs in zip(
        disturb(media, only("av"), NOISE, KEY).inputs(Features()),
        model_inputs(media.waveform, media.mouth, Features()),
        strict=True,
    ):
        np.testing.assert_array_equal(ours, theirs)
    for name in ("av@0dB+black50+late3", "av+frozen50", "av+missing50"):
        disturb(media, only(name), NOISE, KEY).inputs(Features())
    np.testing.assert_array_equal(media.mouth, before[0])
    np.testing.assert_array_equal(media.waveform, before[1])


def test_what_a_clip_lacks_cannot_be_asked_of_it(media: Media) -> None:
    mute, blind = Media(None, media.mouth), Media(media.waveform, None)
    assert [possible(only(name), mute) for name in ("a", "v", "av")] == [False, True, False]
    assert [possible(only(name), blind) for name in ("a", "v", "av")] == [True, False, False]


def test_av_is_compared_with_each_modality_under_its_own_disturbance() -> None:
    condition = only("av@0dB:white+black30+late2")
    assert (condition.alone("a").name, condition.alone("v").name) == ("a@0dB:white", "v+black30")
