"""Reading again: when it happens, what the model is given then, and which reading counts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from tiny_bundle import TOKENS, make_bundle

from edgeav.data.conditions import parse
from edgeav.evaluate import Settings, evaluate
from edgeav.runtime.features import Inputs
from edgeav.runtime.readings import SURE, Surest, alone, doubt, surest
from edgeav.runtime.transcriber import Transcriber
from edgeav.subject import open_subject

BLANK, LABELS = 4, 5
SURE_OF, TORN = 0.98, 0.4  # the probability of what is said in a step: entropies of 0.13 and 1.5 nats


def inputs(steps: int = 6, seen: list[int] | None = None) -> Inputs:
    """Ones throughout; lips in the steps `seen`, in all by default."""
    presence = np.ones((1, steps, 2), np.float32)
    if seen is not None:
        presence[0, :, 1] = np.isin(np.arange(steps), seen)
    video = np.ones((1, 2 * steps, 4, 4), np.float32) * np.repeat(presence[0, :, 1], 2)[:, None, None]
    return Inputs(np.ones((1, 8 * steps, 80), np.float32), video, presence)


def says(label: int, probability: float, steps: int = 6, spoken: int | None = None) -> NDArray[np.float32]:
    """(1, N, V) log-probabilities: `label` in the first `spoken` steps, then certain blanks."""
    probs = np.full((1, steps, LABELS), (1 - probability) / (LABELS - 1))
    probs[0, :, label] = probability
    if spoken is not None:
        probs[0, spoken:] = 1e-4
        probs[0, spoken:, BLANK] = 1 - 4e-4
    return np.log(probs).astype(np.float32)


class Model:
    """Answers by what it is given; keeps it."""

    def __init__(self, both: NDArray, sound: NDArray, lips: NDArray) -> None:
        self.answers, self.given = {"both": both, "sound": sound, "lips": lips}, dict[str, Inputs]()

    def __call__(self, given: Inputs) -> NDArray[np.float32]:
        heard, seen = given.presence[0].any(axis=0)
        name = "both" if heard and seen else "sound" if heard else "lips"
        self.given[name] = given
        return self.answers[name]


def test_a_model_that_is_sure_is_asked_once() -> None:
    model = Model(says(0, SURE_OF), says(1, 0.999), says(2, 0.999))
    again = Surest(model, BLANK)
    np.testing.assert_array_equal(again(inputs()), says(0, SURE_OF))
    assert (again.passes, again.last, list(model.given)) == (1, "both", ["both"])


@pytest.mark.parametrize("surer", ["sound", "lips"])
def test_where_both_leave_it_unsure_the_surer_modality_counts(surer: str) -> None:
    answers = {"sound": says(1, 0.7), "lips": says(2, 0.7)} | {surer: says(3, SURE_OF)}
    again = Surest(Model(says(0, TORN), **answers), BLANK)
    np.testing.assert_array_equal(again(inputs()), answers[surer])
    assert (again.passes, again.last) == (3, surer)


def test_both_count_where_neither_modality_is_surer() -> None:
    again = Surest(Model(says(0, TORN), says(1, 0.3), says(2, 0.3)), BLANK)
    np.testing.assert_array_equal(again(inputs()), says(0, TORN))
    assert again.passes == 3


def test_certainty_that_nothing_was_said_does_not_count() -> None:
    again = Surest(Model(says(0, TORN), says(1, 0.6), says(2, SURE_OF, spoken=1)), BLANK)
    again(inputs())
    assert again.last == "sound"


def test_a_reading_that_is_vague_throughout_does_not_outdo_a_short_clear_one() -> None:
    """A model that sees no lips move gives every word some probability: in sum more than a few real words have."""
    clear, vague = says(0, 0.7, spoken=1), says(BLANK, TORN)
    assert (1 - np.exp(vague[0, :, BLANK])).sum() > 2 * (1 - np.exp(clear[0, :, BLANK])).sum()
    assert surest({"both": clear, "sound": vague, "lips": vague}, inputs(), BLANK) == "both"


def test_a_reading_alone_lacks_the_other_modality_and_its_input() -> None:
    model = Model(says(0, TORN), says(1, 0.5), says(2, 0.5))
    Surest(model, BLANK)(whole := inputs())
    sound, lips = model.given["sound"], model.given["lips"]
    assert sound.presence[0].tolist() == [[1, 0]] * 6 and lips.presence[0].tolist() == [[0, 1]] * 6
    assert not sound.video.any() and not lips.audio.any()
    np.testing.assert_array_equal(sound.audio, whole.audio)
    np.testing.assert_array_equal(lips.video, whole.video)
    assert whole.presence.all() and whole.audio.all() and whole.video.all()


def test_where_lips_are_missing_their_reading_keeps_the_sound() -> None:
    found = alone(inputs(4, seen=[0, 3]))
    assert found["lips"].presence[0].tolist() == [[0, 1], [1, 0], [1, 0], [0, 1]]
    assert found["sound"].presence[0].tolist() == [[1, 0]] * 4
    np.testing.assert_array_equal(found["lips"].audio[0].any(axis=1), np.repeat([0, 1, 1, 0], 8).astype(bool))
    assert not found["sound"].video.any()


@pytest.mark.parametrize("column", [0, 1])
def test_one_modality_leaves_no_choice(column: int) -> None:
    given = inputs()
    given.presence[..., column] = 0
    model = Model(says(0, TORN), says(1, TORN), says(2, TORN))
    again = Surest(model, BLANK)
    again(given)
    assert again.passes == 1 and again.last == "both"


def test_doubt_is_the_entropy_of_the_steps_that_say_something() -> None:
    probs = np.exp(says(0, SURE_OF)[0, 0])
    entropy = -(probs * np.log(probs)).sum()
    assert doubt(says(0, SURE_OF), inputs(), BLANK) == pytest.approx(entropy, rel=1e-5)
    mixed = says(0, SURE_OF, spoken=2)
    assert doubt(mixed, inputs(), BLANK) == pytest.approx(entropy, rel=0.02)  # blanks weigh next to nothing
    assert doubt(says(0, SURE_OF), inputs(), BLANK) < SURE < doubt(says(0, TORN), inputs(), BLANK)


def test_padding_is_not_listened_to() -> None:
    given = inputs()
    given.presence[0, 3:] = 0
    torn_behind = says(0, SURE_OF)
    torn_behind[0, 3:] = says(0, TORN)[0, 3:]
    assert doubt(torn_behind, given, BLANK) == pytest.approx(doubt(says(0, SURE_OF), inputs(), BLANK), rel=1e-5)


def test_of_equal_readings_both_together_count() -> None:
    assert surest({"both": says(0, 0.5), "sound": says(0, 0.5), "lips": says(0, 0.5)}, inputs(), BLANK) == "both"


class Misled:
    """An engine that is torn while it sees lips and sure without them."""

    name, version = "misled", "0"

    def run(self, audio: NDArray, video: NDArray, presence: NDArray) -> NDArray[np.float32]:
        probability = TORN if presence[..., 1].any() else SURE_OF
        probs = np.full((1, presence.shape[1], len(TOKENS) + 1), (1 - probability) / len(TOKENS))
        probs[..., 1] = probability
        return np.log(probs).astype(np.float32)


def test_a_transcript_says_what_it_was_read_from(tmp_path: Path) -> None:
    folder, r = make_bundle(tmp_path / "bundle").folder, np.random.default_rng(0)
    sound, lips = r.standard_normal(16_000).astype(np.float32) * 0.1, r.integers(0, 255, (25, 96, 96), dtype=np.uint8)
    for readings, notes in (("one", []), ("surest", ["0.0 to 1.0 s: read by sound alone, which is surer"])):
        transcriber = Transcriber(folder, readings=readings)  # type: ignore[arg-type]
        transcriber.engine = Misled()  # type: ignore[assignment]
        assert transcriber.transcribe_arrays(sound, lips).notes == notes


@pytest.mark.slow
def test_a_student_with_late_lips_reads_as_well_as_by_sound_alone(tmp_path: Path) -> None:
    wer = {}
    for readings in ("one", "surest"):
        subject = open_subject("av-student-tiny", readings=readings)  # type: ignore[arg-type]
        settings = Settings(parse(["a", "av", "av+late10"]), splits=("valid",))
        rows = evaluate(subject, "demo", settings, tmp_path / readings)
        wer |= {(readings, row["condition"]): row["wer"] for row in rows}
        passes = {row["condition"]: row.get("passes", 0) for row in rows}
        if readings == "surest":
            assert passes["a"] == 1 and 1 < passes["av"] < passes["av+late10"] <= 3
        else:
            assert set(passes.values()) == {0}
    assert wer["one", "av+late10"] > wer["one", "a"] + 5
    assert wer["surest", "av+late10"] <= wer["one", "a"] + 2
    assert wer["surest", "av"] <= wer["one", "av"] + 1
