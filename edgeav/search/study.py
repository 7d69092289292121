"""Which candidate is next: optuna's study on a file that several processes, also of several machines, work on.

Multi-objective: WER, milliseconds and megabytes are all made small; the budget's limits are constraints. TPE (Ozaki et
al. 2020, https://doi.org/10.1145/3377930.3389817) or NSGA-II (Deb et al. 2002, https://doi.org/10.1109/4235.996017).

Every trial has a claim by the worker that does it. A worker that was killed leaves a trial behind that runs forever;
whoever notices puts its candidate back in the queue. Such a trial does not count, nor does one whose candidate another
has, or one more than was asked for: they end as failures without an error. The sampler is seeded anew for each trial,
by how many counted before it, so a search that was killed goes on as if nothing had happened.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from edgeav.errors import needs
from edgeav.search.budget import UNITS, Measures
from edgeav.search.space import Point, Range, Vary, ordered, points

if TYPE_CHECKING:
    import optuna
    from optuna.distributions import BaseDistribution
    from optuna.trial import FrozenTrial, Trial, TrialState

Sampler = Literal["tpe", "nsga2", "random"]
NAME = "search"
ERROR = "error"  # why a candidate cannot be made; a trial that failed without one does not count
UNSIGNED = timedelta(minutes=2)  # after which a trial without a worker's name is lost
ATTEMPTS = 20  # draws in a space without end before a candidate is taken twice


@dataclass(frozen=True)
class Plan:
    """What is searched. `key_of`: of the candidate that a point of the space stands for; two points may have one."""

    vary: Vary
    key_of: Callable[[Point], str]
    trials: int
    sampler: Sampler = "tpe"
    seed: int = 0
    population: int = 10


@dataclass(frozen=True)
class Claim:
    """A trial that this worker has to do: its number in the study, and the point."""

    trial: Trial
    point: Point

    @property
    def number(self) -> int:
        return self.trial.number


class Study:
    """One worker's view of the shared study. `alive`: whether the worker of that name still works."""

    def __init__(self, path: Path, plan: Plan, worker: str, alive: Callable[[str], bool], turn: int = 0) -> None:
        self.optuna = _optuna()
        self.plan, self.worker, self.alive, self.turn = plan, worker, alive, turn
        self.space = {name: self._distribution(name) for name in plan.vary}
        self.study = self._open(path)

    @property
    def trials(self) -> list[FrozenTrial]:
        """Those that count, in their order."""
        failed = self.optuna.trial.TrialState.FAIL
        return [t for t in self.study.get_trials(deepcopy=False) if t.state != failed or ERROR in t.user_attrs]

    @property
    def running(self) -> list[FrozenTrial]:
        return [trial for trial in self.trials if not trial.state.is_finished()]

    def claim(self) -> Claim | None:
        """The next candidate; None: all that were asked for are taken, or the space has no more."""
        self.requeue()
        for attempt in range(ATTEMPTS + 1):
            waiting = any(t.state == self.optuna.trial.TrialState.WAITING for t in self.trials)
            if len(self.trials) >= self.plan.trials and not waiting:
                return None
            claim = self._ask(attempt)
            before = self._before(claim.number)
            if len(before) >= self.plan.trials:
                self._void(claim.number)
                return None
            if attempt == ATTEMPTS or self.plan.key_of(claim.point) not in {self._key(t) for t in before}:
                return claim
            self._void(claim.number)
            if not self._enqueue_untried():
                return None
        return None

    def requeue(self) -> int:
        """Put the candidates of workers that are gone back in the queue; how many."""
        return sum(self._requeue(trial) for trial in self._running(self.trials) if self._lost(trial))

    def measured(self, claim: Claim, measures: Measures, limits: Mapping[str, float], facts: dict[str, Any]) -> None:
        """The candidate was measured; `facts` are kept with it."""
        over = {unit: getattr(measures, unit) - limit for unit, limit in limits.items()}
        self._end(claim, over, facts, self.optuna.trial.TrialState.COMPLETE, measures.all)

    def discarded(self, claim: Claim, over: Mapping[str, float], facts: dict[str, Any]) -> None:
        """It was not measured: by prediction it misses these limits by so much."""
        self._end(claim, over, facts, self.optuna.trial.TrialState.PRUNED)

    def failed(self, claim: Claim, why: str) -> None:
        """It cannot be made; it counts and is not tried again."""
        self._end(claim, {}, {ERROR: why}, self.optuna.trial.TrialState.FAIL)

    def _end(
        self, claim: Claim, over: Mapping[str, float], facts: dict[str, Any], state: TrialState,
        values: Sequence[float] | None = None,
    ) -> None:  # fmt: skip
        try:
            for unit, amount in over.items():
                claim.trial.set_constraint(unit, amount)
            for name, value in facts.items():
                claim.trial.set_user_attr(name, value)
            self.study.tell(claim.trial, values, state)
        except (ValueError, self.optuna.exceptions.UpdateFinishedTrialError):
            # A worker that gave no sign of life for long has lost its candidate: somebody else measures it by now.
            if not self.study.get_trials(deepcopy=False)[claim.number].state.is_finished():
                raise

    def _ask(self, attempt: int) -> Claim:
        self.study.sampler = self._sampler([self.plan.seed, len(self.trials), self.turn, attempt])
        trial = self.study.ask(fixed_distributions=self.space)
        trial.set_user_attr("worker", self.worker)
        return Claim(trial, trial.params)

    def _running(self, trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
        """Those that a worker has begun."""
        return [t for t in trials if t.state == self.optuna.trial.TrialState.RUNNING]

    def _before(self, number: int) -> list[FrozenTrial]:
        """The trials ahead of one, once all say what they are: a worker gets its number a moment earlier."""
        while True:
            before = [t for t in self.trials if t.number < number]
            unnamed = [t for t in self._running(before) if not set(self.space) <= set(t.params)]
            if all(self._lost(t) for t in unnamed):
                return before
            time.sleep(0.02)

    def _key(self, trial: FrozenTrial) -> str:
        point = {**trial.system_attrs.get("fixed_params", {}), **trial.params}  # a waiting one has no others yet
        return self.plan.key_of(point) if set(self.space) <= set(point) else f"unknown {trial.number}"

    def _enqueue_untried(self) -> bool:
        """A candidate that no trial has, from a space that can be gone through; False: there is none left."""
        every = points(self.plan.vary)
        if every is None:
            return True
        taken = {self._key(trial) for trial in self.trials}
        order = np.random.default_rng(self.plan.seed).permutation(len(every))
        untried = next((every[i] for i in order if self.plan.key_of(every[i]) not in taken), None)
        if untried is not None:
            self.study.enqueue_trial(dict(untried))
        return untried is not None

    def _lost(self, trial: FrozenTrial) -> bool:
        name = trial.user_attrs.get("worker")
        if name is not None:
            return not self.alive(name)
        begun = trial.datetime_start  # its worker is about to sign it, or died before it could
        return begun is not None and datetime.now() - begun > UNSIGNED

    def _requeue(self, trial: FrozenTrial) -> bool:
        if not self._void(trial.number):
            return False
        if set(self.space) <= set(trial.params):
            self.study.enqueue_trial(dict(trial.params))
        return True

    def _void(self, number: int) -> bool:
        """End a trial that does not count. False: it has ended meanwhile, by its worker or somebody else."""
        try:
            self.study.tell(number, state=self.optuna.trial.TrialState.FAIL)
        except (ValueError, self.optuna.exceptions.UpdateFinishedTrialError):
            return False
        return True

    def _open(self, path: Path) -> optuna.Study:
        storages = self.optuna.storages
        backend = storages.journal.JournalFileBackend(str(path))
        return self.optuna.create_study(
            storage=storages.JournalStorage(backend),
            study_name=NAME,
            directions=["minimize"] * len(UNITS),
            load_if_exists=True,
        )

    def _sampler(self, seeds: Sequence[int]) -> optuna.samplers.BaseSampler:
        seed = int(np.random.SeedSequence(seeds).generate_state(1)[0])
        samplers = self.optuna.samplers
        match self.plan.sampler:
            case "tpe":
                return samplers.TPESampler(seed=seed, n_startup_trials=self.plan.population)
            case "nsga2":
                return samplers.NSGAIISampler(seed=seed, population_size=self.plan.population)
            case "random":
                return samplers.RandomSampler(seed=seed)

    def _distribution(self, name: str) -> BaseDistribution:
        values, kinds = self.plan.vary[name], self.optuna.distributions
        if isinstance(values, Range):
            kind = kinds.IntDistribution if values.whole else kinds.FloatDistribution
            return kind(values.low, values.high, log=values.log, step=values.step or (1 if values.whole else None))
        if ordered(values) and len(values) > 1:
            return kinds.IntDistribution(0, len(values) - 1)
        return kinds.CategoricalDistribution(tuple(range(len(values))))


def _optuna() -> Any:
    try:
        import optuna
    except ImportError as error:
        raise needs("search", "optuna") from error
    optuna.logging.set_verbosity(logging.WARNING)
    return optuna
