"""The committed weights do what their card says, on a sample of the clips it was measured on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from edgeav.catalog import find_model, list_models
from edgeav.data.corpus import Utterance, open_corpus
from edgeav.data.text import load_tokenizer
from edgeav.macs import gmac_per_second
from edgeav.measure import recognizer, transcribe_all, word_error_rate
from edgeav.models import AVModel, load_model

DEMO, TEACHER = "av-fast-conformer-demo", "av-teacher"
STUDENTS = {  # megabytes at most
    "av-student-compact": 4,
    "av-student-tiny": 5,
    "av-student-small": 8,
    "av-student-medium": 12,
}
SAMPLE = 25  # clips: 150 words, so the interval reaches about 8 points to both sides of the card's 11 %


@pytest.fixture(scope="module")
def model() -> AVModel:
    return load_model(find_model(DEMO))


def wer(model: AVModel, utterances: Sequence[Utterance]) -> float:
    return word_error_rate([u.text for u in utterances], transcribe_all(recognizer(model), utterances)).wer


def test_it_recognizes_voices_and_faces_it_never_met(model: AVModel) -> None:
    clips = open_corpus("demo").tests[0].utterances[:SAMPLE]
    assert wer(model, clips) < 20


def test_it_recognizes_real_clips_of_a_speaker_it_knows(model: AVModel, grid: Path) -> None:
    clips = next(s for s in open_corpus(str(grid)).tests if s.name == "test_seen").utterances[:SAMPLE]
    assert wer(model, clips) < 15


@pytest.mark.parametrize(("name", "most_mb"), [(DEMO, 20), (TEACHER, 60), *STUDENTS.items()])
def test_tokens_are_the_tokenizers_files_are_small_and_a_card_is_there(name: str, most_mb: float) -> None:
    folder = find_model(name)
    assert load_model(folder).config.tokens == load_tokenizer(folder).tokens
    assert sum(path.stat().st_size for path in folder.iterdir()) < most_mb * 1e6
    assert (folder / "README.md").read_text().startswith(f"# {name}\n")
    assert name in [row["name"] for row in list_models()]


def test_the_teacher_is_a_conformer_of_more_than_20_million_parameters_as_good_as_its_card_says() -> None:
    teacher = load_model(find_model(TEACHER))
    assert sum(p.numel() for p in teacher.parameters()) > 20e6
    assert wer(teacher, open_corpus("demo").tests[0].utterances[:SAMPLE]) < 14  # 4.1 % on all 300


@pytest.mark.parametrize("name", list(STUDENTS))
def test_a_student_costs_a_tenth_of_its_teacher_and_is_about_as_good(name: str) -> None:
    student, teacher = (load_model(find_model(one)) for one in (name, TEACHER))
    assert gmac_per_second(student) <= 0.1 * gmac_per_second(teacher)
    assert wer(student, open_corpus("demo").tests[0].utterances[:SAMPLE]) < 16
