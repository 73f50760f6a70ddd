"""Optuna's TPE on long studies: the same suggestions, with what its groups of parameters share computed once a trial.

Optuna's sampler goes through all trials again for each group of parameters that occur together. The full space has
dozens of groups, and after thousands of trials an ask takes seconds. Here the split into good and bad trials is made
once an ask, what ended trials have tried stays in arrays between asks (`History`), and groups are found from the
different sets of parameters alone. The tests hold it against Optuna's own.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from optuna import Study
from optuna.distributions import BaseDistribution
from optuna.samplers import TPESampler
from optuna.samplers._tpe.sampler import (
    _get_infeasible_trial_score,
    _split_trials,
    default_gamma,
    default_gamma_multiobjective,
)
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

ENDED = (TrialState.COMPLETE, TrialState.PRUNED)
Array: TypeAlias = NDArray[Any]


class History:
    """What the ended trials of one study have tried, by parameter. It grows, and is shared by the samplers of a run."""

    def __init__(self) -> None:
        self._known: set[int] = set()  # the trials, by number
        self._numbers: dict[str, list[int]] = {}  # by parameter, the trials that have it
        self._values: dict[str, list[float]] = {}  # beside them, as Optuna's estimators see them
        self._sorted: dict[str, tuple[Array, Array]] = {}
        self._found: list[tuple[float, int]] = []  # value and number of those that may be called good
        self._firsts: dict[frozenset[str], FrozenTrial] = {}  # by a set of parameters, the oldest trial with it
        self._groups: tuple[list[frozenset[str]], list[dict[str, BaseDistribution]]] = [], []

    def take(self, ended: Sequence[FrozenTrial]) -> None:
        """Take in those of all ended trials that were not."""
        missing = len(ended) - len(self._known)
        for trial in reversed(ended):  # as a rule the youngest
            if not missing:
                return
            if trial.number in self._known:
                continue
            missing -= 1
            self._known.add(trial.number)
            names = frozenset(trial.distributions)
            if names not in self._firsts or trial.number < self._firsts[names].number:
                self._firsts[names] = trial
            if trial.state == TrialState.COMPLETE and len(trial.values) == 1 and not _get_infeasible_trial_score(trial):
                self._found.append((trial.values[0], trial.number))
            for name, distribution in trial.distributions.items():
                self._numbers.setdefault(name, []).append(trial.number)
                self._values.setdefault(name, []).append(distribution.to_internal_repr(trial.params[name]))
                self._sorted.pop(name, None)

    def best(self, count: int, *, maximize: bool) -> set[int]:
        """The numbers of the best trials with one objective that came to an end within the limits; the older of equals.

        Fewer than `count` where there are fewer.
        """
        sign = -1.0 if maximize else 1.0
        return {number for _, number in heapq.nsmallest(count, [(sign * value, it) for value, it in self._found])}

    def groups(self, ended: Sequence[FrozenTrial]) -> list[dict[str, BaseDistribution]]:
        """The groups of parameters that always occur together in these trials."""
        self.take(ended)
        order = sorted(self._firsts, key=lambda names: self._firsts[names].number)
        if self._groups[0] != order:
            self._groups = order, groups(self._firsts[names].distributions for names in order)
        return self._groups[1]

    def column(self, name: str) -> tuple[Array, Array]:
        """The numbers of the trials with a parameter, ascending, and their values of it."""
        if name not in self._sorted:
            numbers = np.asarray(self._numbers.get(name, []), dtype=np.int64)
            order = np.argsort(numbers)
            self._sorted[name] = numbers[order], np.asarray(self._values.get(name, []))[order]
        return self._sorted[name]


@dataclass(frozen=True, slots=True)
class _Rest:
    """The trials that are not among the good ones."""

    ended: Array
    """By number, whether it is one of them and has ended."""
    running: list[FrozenTrial]

    @classmethod
    def of(cls, trials: Sequence[FrozenTrial]) -> _Rest:
        ended = [it.number for it in trials if it.state != TrialState.RUNNING]
        found = np.zeros(1 + max(ended, default=-1), dtype=bool)
        found[ended] = True
        return cls(found, [it for it in trials if it.state == TrialState.RUNNING])


class SharedTPESampler(TPESampler):
    """For one trial, as every sampler here. Groups are always decomposed as `group=True` does where that is given."""

    def __init__(self, history: History, *, seed: int, n_startup_trials: int, group: bool) -> None:
        super().__init__(seed=seed, n_startup_trials=n_startup_trials, multivariate=True, group=group)
        self._history = history
        self._split: tuple[list[FrozenTrial], list[FrozenTrial]] | None = None
        self._rest: _Rest | None = None
        self._ended: int | None = None

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """As Optuna's: every parameter that may be drawn with others, by name."""
        study._thread_local.cached_all_trials = None  # read once a trial, also where one that was begun goes on
        if not self._group:
            return super().infer_relative_search_space(study, trial)
        assert self._group_decomposed_search_space is not None
        ended = study._get_trials(deepcopy=False, states=ENDED, use_cache=True)
        self._search_space_group = self._group_decomposed_search_space._search_space
        self._search_space_group._search_spaces = self._history.groups(ended)
        spaces = self._search_space_group.search_spaces
        return {name: it for space in spaces for name, it in sorted(space.items()) if not it.single()}

    def _sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        if not search_space:
            return {}
        if self._ended is None:
            self._ended = len(study._get_trials(deepcopy=False, states=ENDED, use_cache=True))
        return {} if self._ended < self._n_startup_trials else self._sample(study, trial, search_space)

    def _sample(self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]) -> dict[str, Any]:
        if self._split is None:
            states = [*ENDED, TrialState.RUNNING]
            # as they were when the trial began: this process alone writes them, one after the other
            trials = study._get_trials(deepcopy=False, states=states, use_cache=True)
            self._split = self._parted(study, [it for it in trials if it.number != trial.number])
        below, above = self._split
        good = self._build_parzen_estimator(study, search_space, below, handle_below=True)
        rest = self._build_parzen_estimator(study, search_space, above, handle_below=False)
        tried = good.sample(self._rng.rng, self._n_ei_candidates)
        best = self._compare(tried, self._compute_acquisition_func(tried, good, rest))
        return {name: it.to_external_repr(best[name]) for name, it in search_space.items()}

    def _parted(self, study: Study, trials: list[FrozenTrial]) -> tuple[list[FrozenTrial], list[FrozenTrial]]:
        """The good trials and the others, each by number."""
        ended = [it for it in trials if it.state != TrialState.RUNNING]
        several = len(study.directions) > 1
        count = (default_gamma_multiobjective if several else default_gamma)(len(ended))
        self._history.take(ended)
        best = set() if several else self._history.best(count, maximize=study.direction == StudyDirection.MAXIMIZE)
        if not best or len(best) < count:  # pruned ones, or some over a limit, may be among the good
            return _split_trials(study, trials, count)
        below: list[FrozenTrial] = []
        above: list[FrozenTrial] = []
        for it in trials:
            (below if it.number in best else above).append(it)
        return below, above

    def _get_internal_repr(
        self, trials: list[FrozenTrial], search_space: dict[str, BaseDistribution], study: Study
    ) -> dict[str, Array]:
        if self._split is None or trials is not self._split[1]:  # the good ones are few
            return super()._get_internal_repr(trials, search_space, study)
        if self._rest is None:
            self._rest = _Rest.of(trials)
        wanted = self._rest.ended
        columns = {name: self._history.column(name) for name in search_space}
        shared = _shared([numbers for numbers, _ in columns.values()])
        shared = shared[shared < len(wanted)]
        shared = shared[wanted[shared]]
        found = {name: values[np.searchsorted(numbers, shared)] for name, (numbers, values) in columns.items()}
        return self._with_open(found, shared, self._rest.running, search_space, study)

    def _with_open(
        self,
        found: dict[str, Array],
        numbers: Array,
        running: Sequence[FrozenTrial],
        search_space: dict[str, BaseDistribution],
        study: Study,
    ) -> dict[str, Array]:
        """The values of ended trials with those of running ones among them, in the order of the trials' numbers."""
        having = [it for it in running if search_space.keys() <= self._get_params(it, study).keys()]
        if not having:
            return found
        more = super()._get_internal_repr(having, search_space, study)
        order = np.argsort(np.concatenate([numbers, [it.number for it in having]]))
        return {name: np.concatenate([values, more[name]])[order] for name, values in found.items()}


def groups(sets: Iterable[Mapping[str, BaseDistribution]]) -> list[dict[str, BaseDistribution]]:
    """The groups of parameters that always occur together, from the sets of them in the order of the trials.

    Groups, their order and each parameter's distribution are Optuna's: as a set comes, the groups that it cuts are cut,
    what it shares with them first, and what is new in it is a group at the end.
    """
    found: list[list[str]] = []
    known: dict[str, BaseDistribution] = {}
    home: dict[str, int] = {}  # by parameter, the place of its group
    for given in sets:
        new = [name for name in given if name not in home]
        met = Counter(home[name] for name in given if name in home)
        cut = {place for place, count in met.items() if count < len(found[place])}
        if cut:
            parts = [
                [[name for name in group if name in given], [name for name in group if name not in given]]
                if place in cut
                else [group]
                for place, group in enumerate(found)
            ]
            found = [part for group in parts for part in group]
        if new:
            known.update({name: given[name] for name in new})
            found.append(new)
        if cut or new:
            home = {name: place for place, group in enumerate(found) for name in group}
    return [{name: known[name] for name in group} for group in found]


def _shared(columns: Sequence[Array]) -> Array:
    """The numbers that all have; parameters of one group come with the same ones as a rule."""
    shared = columns[0]
    for other in columns[1:]:
        if len(other) != len(shared) or not np.array_equal(other, shared):
            shared = np.intersect1d(shared, other, assume_unique=True)
    return shared
