"""Evaluation: what a row counts, what is redone, what is refused, and what two modalities are held to."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import jiwer
import numpy as np
import pytest
import soundfile
from media_files import write_media
from tiny_bundle import make_bundle

from edgeav import evaluate as module
from edgeav.catalog import find_model
from edgeav.data.conditions import GRIDS, disturb, parse
from edgeav.data.corpus import Utterance, open_corpus
from edgeav.decoders import Language, open_decoder
from edgeav.errors import EdgeavError
from edgeav.evaluate import Evaluation, Settings, evaluate
from edgeav.measure import recognizer, transcribe_all, word_error_rate
from edgeav.models import load_model, random_model, save_model
from edgeav.progress import Progress
from edgeav.recipe import Recipe
from edgeav.run import Run
from edgeav.runtime.features import Inputs
from edgeav.subject import Subject, open_subject
from edgeav.verdicts import judge, summary, table, wide_table

DEMO = "av-fast-conformer-demo"
SPLITS = {"train": 4, "dev": 2, "test_both": 5, "test_silent": 2}
TEXTS = ["a b", "b bc", "a", "b b a", "a bc"]
ALL = parse(["av", "a", "v", "av@0dB", "a@0dB:white", "av+missing50", "av+frozen"])


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Noise, for ears and eyes: 1 s clips of the words that a random model can write."""
    folder, r, rows = tmp_path_factory.mktemp("evaluate") / "noises", np.random.default_rng(0), []
    folder.mkdir()
    for split, count in SPLITS.items():
        for i in range(count):
            name = f"{split}{i}"
            soundfile.write(folder / f"{name}.flac", r.standard_normal(16_000) * 0.1, 16_000)
            write_media(folder / f"{name}.mkv", pictures=list(r.integers(0, 255, (25, 96, 96), dtype=np.uint8)))
            row = {"audio": f"{name}.flac", "video": f"{name}.mkv", "text": TEXTS[i], "speaker": split, "split": split}
            rows.append(row if split != "test_silent" else {k: v for k, v in row.items() if k != "audio"})
    (folder / "manifest.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return str(folder)


@pytest.fixture(scope="module")
def subject(tmp_path_factory: pytest.TempPathFactory) -> Subject:
    folder = tmp_path_factory.mktemp("models") / "random"
    save_model(random_model(), folder)
    return open_subject(str(folder))


@pytest.fixture(scope="module")
def out(corpus: str, subject: Subject, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One finished evaluation."""
    folder = tmp_path_factory.mktemp("runs")
    evaluate(subject, corpus, Settings(ALL, ("greedy", "lexicon")), folder)
    return folder


def rows_of(subject: Subject, corpus: str, out: Path, **changed: Any) -> list[dict[str, Any]]:
    return evaluate(
        subject, corpus, Settings(**({"conditions": ALL, "decoders": ("greedy", "lexicon")} | changed)), out
    )


def transcripts(out: Path, split: str, condition: str) -> list[dict[str, Any]]:
    lines = (out / "transcripts" / split / f"{condition}-greedy+lexicon" / "transcripts.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def test_every_split_condition_and_decoder_has_a_row_where_its_clips_allow_it(
    subject: Subject, corpus: str, out: Path
) -> None:
    found = {(r["split"], r["condition"], r["decoder"]) for r in rows_of(subject, corpus, out)}
    expected = {("test_both", c.name, d) for c in ALL for d in ("greedy", "lexicon")}
    assert found == expected | {("test_silent", "v", d) for d in ("greedy", "lexicon")}


def test_a_row_counts_what_its_transcripts_say(subject: Subject, corpus: str, out: Path) -> None:
    for row in rows_of(subject, corpus, out):
        lines = transcripts(out, row["split"], row["condition"].replace(":", "-"))
        references, texts = [x["reference"] for x in lines], [x["texts"][row["decoder"]] for x in lines]
        assert row["wer"] == pytest.approx(100 * jiwer.wer(references, texts), abs=0.01)
        assert row["cer"] == pytest.approx(100 * jiwer.cer(references, texts), abs=0.01)
        assert row["low"] <= row["wer"] <= row["high"] and row["cer_low"] <= row["cer"] <= row["cer_high"]
        errors = row["substitutions"] + row["deletions"] + row["insertions"]
        assert row["wer"] == pytest.approx(100 * errors / row["words"], abs=0.01)
        assert row["utterances"] == SPLITS[row["split"]] and row["speakers"] == "unseen" and not row["synthetic"]
        assert row["blank_rate"] == pytest.approx(
            100 * sum(x["blanks"] for x in lines) / sum(x["steps"] for x in lines), abs=0.01
        )


def test_clean_transcripts_are_those_of_the_older_measurement(subject: Subject, corpus: str, out: Path) -> None:
    clips = open_corpus(corpus).tests[0].utterances
    greedy = [x["texts"]["greedy"] for x in transcripts(out, "test_both", "av")]
    assert greedy == transcribe_all(subject.recognizer, clips) and any(greedy)


def test_a_lexicon_decoder_says_nothing_but_training_words(subject: Subject, corpus: str, out: Path) -> None:
    known = {word for text in TEXTS[:4] for word in text.split()}
    said = {word for x in transcripts(out, "test_both", "av") for word in x["texts"]["lexicon"].split()}
    assert said and said <= known
    row = next(row for row in rows_of(subject, corpus, out) if row["decoder"] == "lexicon")
    assert row["unknown_words"] == 0


def count_work(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    done: list[str] = []
    before = Evaluation._measure

    def counted(self, split, condition, out) -> None:
        done.append(f"{split.name} {condition.name}")
        before(self, split, condition, out)

    monkeypatch.setattr(Evaluation, "_measure", counted)
    return done


def test_what_is_finished_is_not_done_again_and_what_changed_is(
    subject: Subject, corpus: str, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = count_work(monkeypatch)
    before = rows_of(subject, corpus, out)
    assert done == []
    more = rows_of(subject, corpus, out, conditions=[*ALL, *parse(["av+black"])])
    assert done == ["test_both av+black", "test_silent av+black"]
    assert [row for row in more if row["condition"] != "av+black"] == before
    done.clear()
    other = Subject(subject.name, subject.engine, subject.recognizer, subject.max_steps, "other weights")
    rows_of(other, corpus, out, conditions=parse(["v"]))
    assert done == ["test_both v", "test_silent v"]


def test_an_evaluation_that_was_killed_goes_on_where_it_was(
    subject: Subject, corpus: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Settings(parse(["a", "a@0dB"]), splits=("test_both",))
    whole = evaluate(subject, corpus, settings, tmp_path / "whole")

    def killed(inputs: Inputs) -> np.ndarray:
        calls.append(1)
        if len(calls) == 8:
            raise KeyboardInterrupt
        return subject.recognizer.recognize(inputs)

    calls: list[int] = []
    fragile = Subject("random", "PyTorch", module.replace(subject.recognizer, recognize=killed), 200, subject.key)
    with pytest.raises(KeyboardInterrupt):
        evaluate(fragile, corpus, settings, tmp_path / "broken")
    done = count_work(monkeypatch)
    assert evaluate(subject, corpus, settings, tmp_path / "broken") == whole
    assert done == ["test_both a@0dB"]


def test_the_seed_decides_the_noise(subject: Subject, corpus: str, tmp_path: Path) -> None:
    condition = parse(["a@-10dB"])
    banks = []
    for number, seed in enumerate([0, 0, 1]):
        run = module.Run(tmp_path / str(number), _recipe(corpus))
        banks.append(Evaluation(subject, Settings(condition, seed=seed), run)._bank(condition[0]).sounds["babble"])
    np.testing.assert_array_equal(banks[0], banks[1])
    assert not np.array_equal(banks[0], banks[2])


def _recipe(corpus: str) -> module.Recipe:
    return module.Recipe.model_validate({"name": "evaluation", "model": "random", "corpus": corpus})


def test_another_drawing_has_other_sentences_by_held_out_voices_too(subject: Subject, tmp_path: Path) -> None:
    def drawn(drawing: int) -> list[Utterance]:
        recipe = Recipe.model_validate({"name": "e", "model": "m", "corpus": "demo", "seed": drawing})
        settings = Settings(parse(["av"]), drawing=drawing)
        (split,) = Evaluation(subject, settings, Run(tmp_path, recipe, Progress())).splits
        return list(split.utterances)

    first, second = drawn(0), drawn(1)
    trained_on = {u.speaker for u in open_corpus("demo").train}
    assert not trained_on & {u.speaker for u in [*first, *second]}
    assert len({u.text for u in first} & {u.text for u in second}) < len(first) / 4


def test_a_limit_takes_clips_from_all_of_a_split(subject: Subject, corpus: str, tmp_path: Path) -> None:
    settings = Settings(parse(["a"]), splits=("test_both", "valid"), limit=3)
    rows = evaluate(subject, corpus, settings, tmp_path)
    assert [(row["split"], row["utterances"]) for row in rows] == [("test_both", 3), ("valid", 2)]
    lines = (tmp_path / "transcripts/test_both/a-greedy/transcripts.jsonl").read_text().splitlines()
    assert [json.loads(line)["id"] for line in lines] == ["test_both0", "test_both2", "test_both4"]


def test_a_bundle_is_evaluated_as_its_engine_recognizes(corpus: str, tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "bundle")
    subject = open_subject(str(tmp_path / "bundle"))
    assert (subject.name, subject.engine, subject.max_steps) == (bundle.name, "onnxruntime fp32", 200)
    rows = evaluate(subject, corpus, Settings(parse(["av+missing50"]), splits=("test_both",)), tmp_path / "run")
    path = tmp_path / "run/transcripts/test_both/av+missing50-greedy/transcripts.jsonl"
    found = [json.loads(line) for line in path.read_text().splitlines()]
    clip = open_corpus(corpus).tests[0].utterances[0]
    inputs = disturb(clip.media(), parse(["av+missing50"])[0], module.NoiseBank({}), (0, clip.id)).inputs(
        bundle.features
    )
    assert 0 < inputs.presence[0, :, 1].mean() < 1
    assert found[0]["blanks"] == (subject.recognizer.recognize(inputs)[0].argmax(-1) == bundle.blank).sum()
    assert len(rows) == 1 and rows[0]["wer"] > 0


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"splits": ("test", "dev")}, "test, dev: not in noises; allowed: test_both, test_silent, valid"),
        ({"decoders": ("beam",)}, "'beam' is not known; allowed: greedy, lexicon, ngram, grammar"),
        ({"decoders": ("grammar",)}, "--grammar grid"),
        ({"conditions": parse(["a@0dB:recording"])}, "--recordings FOLDER"),
        ({"conditions": []}, "nothing to measure"),
        ({"decoders": ("grammar",), "language": Language(grammar="grid")}, "'bin' cannot be spelled"),
        ({"decoders": ("lexicon",), "language": Language(words=Path("none.txt"))}, "none.txt: cannot be read"),
    ],
)
def test_what_cannot_be_measured_is_refused_before_anything_is(
    subject: Subject, corpus: str, tmp_path: Path, changed: dict[str, Any], reason: str
) -> None:
    with pytest.raises(EdgeavError, match=reason):
        rows_of(subject, corpus, tmp_path / "run", **changed)
    assert not (tmp_path / "run").exists()


def test_a_model_without_ears_is_asked_for_no_sound(subject: Subject, corpus: str, tmp_path: Path) -> None:
    features = module.replace(subject.recognizer.features, audio=None)
    deaf = Subject("deaf", "PyTorch", module.replace(subject.recognizer, features=features), 200, "")
    with pytest.raises(EdgeavError, match=r"(?s)condition av: deaf does not hear.*condition a@0dB: deaf does not hear"):
        rows_of(deaf, corpus, tmp_path, conditions=parse(["av", "v", "a@0dB"]))


def test_a_clip_longer_than_the_model_takes_is_named(subject: Subject, corpus: str, tmp_path: Path) -> None:
    short = Subject("short", "PyTorch", subject.recognizer, 10, "")
    with pytest.raises(EdgeavError, match=r"clip test_both0: 1\.0 s, short takes at most 0\.8 s"):
        rows_of(short, corpus, tmp_path)


def row(condition: str, wer: float, split: str = "test", words: int = 60) -> dict[str, Any]:
    rates = {"wer": wer, "low": wer - 1, "high": wer + 1, "cer": 1.0, "cer_low": 0.5, "cer_high": 2.0}
    facts = {"corpus": "c", "split": split, "condition": condition, "decoder": "greedy", "words": words}
    counts = {"utterances": 10, "substitutions": 1, "deletions": 2, "insertions": 3, "blank_rate": 80.0}
    return facts | rates | counts | {"synthetic": False, "speakers": "seen"}


def excess(rows: Sequence[dict[str, Any]]) -> dict[str, float]:
    return {verdict.condition: verdict.excess for verdict in judge(rows)}


def test_two_modalities_are_held_to_the_better_one_under_the_same_disturbance() -> None:
    rows = [row("av", 5), row("a", 4), row("v", 9), row("av@0dB", 9.6), row("a@0dB", 30)]
    rows += [
        row("av+late10", 4.7),
        row("av+frozen", 4.4),
        row("av+missing100", 4.0),
        row("av@0dB+missing50", 28),
        row("v+missing50", 27.6),
    ]
    expected = {
        "av+late10": 0.7,
        "av": 1.0,
        "av@0dB": 0.6,
        "av+frozen": 0.4,
        "av+missing100": 0.0,
        "av@0dB+missing50": 0.4,
    }
    assert excess(rows) == pytest.approx(expected)
    assert [v.passed for v in judge(rows)] == [False, False, False, True, True, True]
    assert "BROKEN in 3 of 6" in summary(judge(rows)) and "test av@0dB (greedy, +0.6)" in summary(judge(rows))


def test_a_verdict_compares_no_other_split_and_no_other_clips() -> None:
    assert judge([row("av", 50, "seen"), row("a", 1, "unseen"), row("v", 1, "seen", words=30)]) == []
    assert "not checked" in summary([])
    assert "holds in all 1" in summary(judge([row("av", 5), row("a", 4.5)]))


def test_tables_have_a_line_a_row_and_a_column_a_condition() -> None:
    rows = [row("av", 5), row("a", 4), row("a", 7, "other")]
    lines = table(rows).splitlines()
    assert len(lines) == 5 and "| av | greedy | 5.0 [4.0, 6.0] | 1 | 2 | 3 | 1.0 [0.5, 2.0] | 80.0 |" in lines[2]
    assert wide_table(rows, {"av": "both", "a": "sound"}).splitlines()[2:] == [
        "| c test | real, seen | 10 | 5.0 [4.0, 6.0] | 4.0 [3.0, 5.0] |",
        "| c other | real, seen | 10 | – | 7.0 [6.0, 8.0] |",
    ]


def test_the_standard_grid_asks_for_every_disturbance_of_the_bar() -> None:
    names = set(GRIDS["standard"])
    snrs = ["", *(f"@{snr}dB" for snr in (10, 5, 0, -5, -10))]
    assert {f"{m}{snr}" for m in ("av", "a") for snr in snrs} | {"v"} <= names
    assert {"av+missing25", "av+missing100", "av+frozen", "av+black", "av+late10", "av+early10"} <= names


def test_the_command_writes_tables_and_prints_json(
    edgeav: Callable[..., CompletedProcess[str]], corpus: str, tmp_path: Path
) -> None:
    make_bundle(tmp_path / "bundle")
    (tmp_path / "words.txt").write_text("one\ntwo\n")
    options = ["--corpus", corpus, "--conditions", "av,a,v", "--split", "test_both", "--out", "found", "--json"]
    options += ["--decoder", "lexicon", "--words", "words.txt", "--word-bonus", "100"]
    result = edgeav("evaluate", "bundle", *options)
    assert result.returncode == 0, result.stderr
    data = json.loads(result.stdout)
    assert data == json.loads((tmp_path / "found/evaluation.json").read_text())
    assert [row["condition"] for row in data["rows"]] == ["av", "a", "v"] and len(data["verdicts"]) == 1
    assert all(row["insertions"] > row["words"] for row in data["rows"])  # so large a bonus has every step say a word
    assert table(data["rows"]) in (tmp_path / "found/evaluation.md").read_text()
    wrong = edgeav("evaluate", "bundle", "--corpus", corpus, "--conditions", "av,b@0dB")
    assert wrong.returncode == 2 and "b@0dB" in wrong.stderr and "Traceback" not in wrong.stderr


def test_the_shipped_model_reads_real_clips_better_with_the_grammar(grid: Path, tmp_path: Path) -> None:
    settings = Settings(
        parse(["av", "a@0dB"]), ("greedy", "grammar"), ("test_seen",), 3, 0, None, None, Language(grammar="grid")
    )
    subject = open_subject(DEMO)
    rows = {(r["condition"], r["decoder"]): r for r in evaluate(subject, str(grid), settings, tmp_path)}
    assert rows["av", "greedy"]["wer"] < 25
    assert rows["a@0dB", "grammar"]["wer"] <= rows["a@0dB", "greedy"]["wer"] and rows["av", "grammar"]["wer"] < 25
    assert all(rows[key]["deletions"] == rows[key]["insertions"] == 0 for key in rows if key[1] == "grammar")


def test_any_text_is_allowed_to_a_decoder_without_words() -> None:
    speech = recognizer(load_model(find_model(DEMO)))
    assert open_decoder("greedy", speech, Language()).fit(["whatever"]) == {}
    found = open_decoder("ngram", speech, Language(("bin blue", "bin red"))).fit(["bin green"])
    assert found["unknown_words"] == 50 and found["perplexity"] > 1
    assert word_error_rate(["bin"], ["bin"]).wer == 0
