"""The search without models: resumed, shared, complete, and honest about what it predicts and cannot find."""

from __future__ import annotations

import itertools
import multiprocessing
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from tiny_search import VARY, Stub, candidate_of, plan, study, truth

from edgeav.errors import EdgeavError
from edgeav.progress import Progress
from edgeav.search.alive import Pulse
from edgeav.search.budget import Measures, SearchBudget, choose, front, proof
from edgeav.search.prediction import errors, fit, hopeless, left_out, mape, summary
from edgeav.search.space import Range, drawn, points
from edgeav.search.study import Study
from edgeav.search.worker import work


def done(found: Study) -> list[tuple[Any, ...]]:
    """What was tried, in order, and what was measured."""
    return [(candidate_of(t.params).key, t.state.name, t.values) for t in found.trials]


def everything() -> dict[str, Measures]:
    """Brute force: every candidate once."""
    every = [candidate_of(point) for point in points(VARY) or []]
    return {candidate.key: truth(candidate) for candidate in every}


@pytest.mark.parametrize("sampler", ["tpe", "nsga2", "random"])
def test_a_space_smaller_than_the_trials_is_tried_completely_and_its_front_is_the_true_one(
    tmp_path: Path, sampler: str
) -> None:
    found, bench = study(tmp_path, trials=50, sampler=sampler), Stub()
    assert work(found, candidate_of, bench, Progress()) == len(everything()) == 12
    assert sorted(bench.measured) == sorted(everything())
    by_number = {t.number: Measures(*t.values) for t in found.trials}
    best = {by_number[number] for number in front(by_number)}
    true = {m for m in everything().values() if not any(o.dominates(m) for o in everything().values())}
    assert best == true and 1 < len(true) < 12


@pytest.mark.parametrize("sampler", ["tpe", "nsga2"])
def test_a_killed_search_goes_on_as_if_it_had_not_been_killed(tmp_path: Path, sampler: str) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    whole.mkdir()
    killed.mkdir()
    work(study(whole, trials=9, sampler=sampler), candidate_of, Stub(), Progress())
    with pytest.raises(KeyboardInterrupt):
        work(study(killed, trials=9, sampler=sampler), candidate_of, Stub(dies_at=6), Progress())
    again = Stub()
    resumed = study(killed, "two", lambda name: name == "two", trials=9, sampler=sampler)
    work(resumed, candidate_of, again, Progress())
    assert len(again.measured) == 3, "the trial that was lost and the two that were left"
    assert done(resumed) == done(study(whole, trials=9))


def test_more_trials_go_on_with_those_that_there_are(tmp_path: Path) -> None:
    first, more = Stub(), Stub()
    work(study(tmp_path, trials=5), candidate_of, first, Progress())
    work(study(tmp_path, trials=8), candidate_of, more, Progress())
    assert (len(first.measured), len(more.measured)) == (5, 3)
    assert not set(first.measured) & set(more.measured)


def test_the_same_seed_tries_the_same_and_another_does_not(tmp_path: Path) -> None:
    tried = []
    for place, seed in (("a", 3), ("b", 3), ("c", 4)):
        (tmp_path / place).mkdir()
        bench = Stub()
        work(study(tmp_path / place, trials=8, seed=seed), candidate_of, bench, Progress())
        tried.append(bench.measured)
    assert tried[0] == tried[1] != tried[2]


def _work_in(folder: Path, turn: int, tests: str, queue: Any) -> None:
    sys.path.insert(0, tests)
    bench = Stub()
    with Pulse(folder / "workers").beating() as pulse:
        work(Study(folder / "study.log", plan(11), pulse.name, pulse.alive, turn), candidate_of, bench, Progress())
    queue.put(bench.measured)


def test_two_workers_on_one_study_do_each_trial_once(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    here = str(Path(__file__).parent)
    workers = [context.Process(target=_work_in, args=(tmp_path, turn, here, queue)) for turn in (0, 1)]
    for worker in workers:
        worker.start()
    each = [queue.get(timeout=200) for _ in workers]
    for worker in workers:
        worker.join()
    everyone = [key for keys in each for key in keys]
    assert len(everyone) == len(set(everyone)) == 11
    finished = [t for t in study(tmp_path, trials=11).trials if t.values is not None]
    assert len(finished) == 11


def test_a_candidate_that_has_a_number_and_no_settings_yet_is_waited_for(tmp_path: Path) -> None:
    one, other = study(tmp_path, "one", trials=11), study(tmp_path, "other", trials=11)
    unnamed, claims = one.study.ask(), []
    waiting = threading.Thread(target=lambda: claims.append(other.claim()), daemon=True)
    waiting.start()
    waiting.join(1)
    assert not claims
    one.study.tell(unnamed, state=one.optuna.trial.TrialState.FAIL)
    waiting.join(60)
    assert len(claims) == 1 and claims[0] is not None


def test_a_worker_that_was_given_up_too_early_does_no_harm(tmp_path: Path) -> None:
    slow, other = study(tmp_path, "slow", trials=12), study(tmp_path, "other", lambda name: name == "other", trials=12)
    claim = slow.claim()
    assert claim is not None
    again = other.claim()
    assert again is not None and again.point == claim.point and again.number > claim.number
    for end in (lambda: slow.failed(claim, "late"), lambda: slow.measured(claim, Measures(1, 1, 1), {"mb": 1.0}, {})):
        end()
    assert [t.number for t in other.trials] == [again.number], "what came late does not count"
    other.measured(again, Measures(1, 2, 3), {"mb": 1.0}, {})
    assert other.trials[0].values == [1, 2, 3]


def test_a_trial_that_nobody_has_signed_yet_is_not_lost(tmp_path: Path) -> None:
    found = study(tmp_path, "one", lambda name: False, trials=12)
    found.study.ask(fixed_distributions=found.space)
    assert found.requeue() == 0 and len(found.running) == 1


def test_a_worker_that_is_gone_is_noticed_and_one_that_works_is_left_alone(tmp_path: Path) -> None:
    with Pulse(tmp_path).beating() as one:
        with Pulse(tmp_path).beating() as other:
            assert one.alive(other.name) and other.alive(one.name)
        assert not one.alive(other.name)
        host, process, _ = one.name.split("/")
        dead = f"{host}/4194305/x"  # above the largest number that a process can have
        (tmp_path / dead.replace("/", "_")).touch()
        assert not one.alive(dead) and process.isdigit()


def test_a_candidate_that_cannot_be_made_counts_and_is_not_tried_again(tmp_path: Path) -> None:
    bench = Stub()
    bench.refused = set(list(everything())[:2])
    found = study(tmp_path, trials=12)
    work(found, candidate_of, bench, Progress())
    failed = [t for t in found.trials if t.state.name == "FAIL"]
    assert {candidate_of(t.params).key for t in failed} == bench.refused and len(found.trials) == 12
    assert {t.user_attrs["error"] for t in failed} == {"prune: the budget cannot be reached"}


def test_what_is_hopeless_by_prediction_is_not_measured_and_all_else_is(tmp_path: Path) -> None:
    bench = Stub({"ms": 9.0})
    found = study(tmp_path, trials=12)
    work(found, candidate_of, bench, Progress())
    discarded = [t for t in found.trials if t.state.name == "PRUNED"]
    assert discarded and len(bench.measured) + len(discarded) == 12
    assert all(truth(candidate_of(t.params)).ms > 9.0 for t in discarded)
    assert all("predicted, give or take" in t.user_attrs["why"] for t in discarded)


def test_the_fit_recovers_factors_and_constant_and_leaves_each_out_in_turn() -> None:
    rows = [{"fp32": a, "int8": b} for a, b in itertools.product((4.0, 9.0, 20.0), (3.0, 10.0))]
    measured = [1.25 * row["fp32"] + 0.4 * row["int8"] + 2.0 for row in rows]
    found = fit(rows, measured)
    assert found.factors == pytest.approx({"fp32": 1.25, "int8": 0.4}, rel=0.02)
    assert found.constant == pytest.approx(2.0, rel=0.05)
    off = [*measured[:-1], 2 * measured[-1]]
    assert left_out(rows, off)[5] == pytest.approx(measured[-1], rel=0.03), "it does not know its own measurement"
    assert errors([110.0, 80.0], [100.0, 100.0]) == pytest.approx([0.1, 0.2])
    assert mape([110.0, 80.0], [100.0, 100.0]) == 15.0 and mape([], []) is None
    assert summary(rows[:1], measured[:1])["calibrated_mape"] is None, "one says nothing about another"
    assert summary([], []) == {"n": 0, "raw_mape": None, "calibrated_mape": None}
    alone = [{"fp32": 40.0}, {"int8": 40.0, "fp32": 0.4}, {"fp32": 20.0}]
    assert set(left_out(alone, [39.0, 18.0, 20.0])) == {0, 2}, "no other has int8"
    assert fit(alone[1:2], [18.0]).of(alone[0]) == pytest.approx(40, rel=0.05), "int8 says nothing about float"
    figures = summary(rows, measured)
    by_hand = sum(abs(sum(row.values()) - m) / m for row, m in zip(rows, measured, strict=True)) / len(rows)
    assert figures["raw_mape"] == pytest.approx(100 * by_hand, abs=0.01)
    assert figures["calibrated_mape"] is not None and figures["calibrated_mape"] < 2


def test_nothing_is_called_hopeless_on_little_evidence() -> None:
    rows, measured = [{"fp32": ms} for ms in (10.0, 20.0, 30.0, 40.0)], [11.0, 21.0, 31.0, 41.0]
    assert hopeless({"fp32": 90.0}, rows, measured, 50.0) is not None
    assert hopeless({"fp32": 49.0}, rows, measured, 50.0) is None, "it may fit"
    assert hopeless({"fp32": 90.0}, rows[:3], measured[:3], 50.0) is None, "three are too few"
    assert hopeless({"int8": 90.0}, rows, measured, 50.0) is None, "no int8 was measured yet"
    noisy = [11.0, 31.0, 21.0, 61.0]
    assert hopeless({"fp32": 60.0}, rows, noisy, 50.0) is None, "predictions were wrong by more than that"


def test_the_best_wer_within_the_budget_is_chosen_and_of_equals_the_fastest() -> None:
    found = {1: Measures(9, 50, 9), 2: Measures(10, 20, 5), 3: Measures(10, 15, 6), 4: Measures(14, 5, 2)}
    assert choose(found, {"ms": 30.0, "mb": 8.0}) == 3
    assert choose(found, {"mb": 5.5}) == 2
    assert choose(found, {"wer": 8.0}) is None
    assert front(found | {5: Measures(11, 21, 6)}) == [4, 3, 2, 1]


def test_a_budget_in_rtf_and_increase_becomes_limits_in_ms_and_wer() -> None:
    asked = SearchBudget(size_mb=8, rtf=0.05, wer_increase_abs=0.5)
    assert asked.limits(seconds=4.0, wer=12.0) == {"wer": 12.5, "ms": 200.0, "mb": 8}


def test_the_proof_that_nothing_fits_names_the_nearest_and_what_each_budget_misses() -> None:
    found = {3: Measures(12.0, 30.0, 9.0), 7: Measures(11.0, 22.0, 8.5), 8: Measures(30.0, 5.0, 1.0)}
    text = proof(found, {"wer": 10.0, "ms": 20.0, "mb": 8.0}, ["2 were discarded"])
    lines = text.splitlines()
    assert lines[0] == "search: none of 3 measured candidates keeps the budget (10 % WER, 20 ms, 8 MB)."
    assert lines[1] == "  trial 7: 11.00 % WER, 22 ms, 8.5 MB: misses +1 % WER, +2 ms, +0.5 MB"
    assert lines[2].startswith("  trial 3") and lines[3] == "  trial 8: 30.00 % WER, 5 ms, 1 MB: misses +20 % WER"
    assert "the least of each alone, not of one candidate: 11 % WER, 5 ms, 1 MB" in lines[4]
    assert "2 were discarded" in text and "what was measured is kept" in lines[-1]


def test_a_range_with_steps_is_counted_and_one_without_has_no_end() -> None:
    assert Range(low=0.3, high=0.9, step=0.2).numbers == [0.3, 0.5, 0.7, 0.9]
    assert Range(low=8, high=11).numbers == [8, 9, 10, 11]
    assert Range(low=0.3, high=0.9).numbers is None and points({"a": Range(low=0.3, high=0.9)}) is None
    assert drawn({"a": [[1], [2, 3]], "b": Range(low=0.1, high=0.3, step=0.1)}, {"a": 1, "b": 0.1 + 0.2}) == {
        "a": [2, 3],
        "b": 0.3,
    }


def test_without_optuna_the_error_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(EdgeavError, match=r"pip install 'edgeav\[search\]'"):
        study(tmp_path)
