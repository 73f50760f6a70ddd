"""Optuna's samplers and pruners as a study names them, and how they are kept reproducible.

A sampler is made anew for each trial, seeded by the trial's place: a run that goes on draws what it would have drawn.
What the samplers need to remember (populations, positions in a sequence) they keep in Optuna's own tables.
"""

from __future__ import annotations

import hashlib
import importlib.util
import warnings
from collections.abc import Callable, Container

import optuna
from optuna.exceptions import ExperimentalWarning
from optuna.pruners import BasePruner, HyperbandPruner, MedianPruner, NopPruner, SuccessiveHalvingPruner, WilcoxonPruner
from optuna.samplers import (
    BaseSampler,
    CmaEsSampler,
    GPSampler,
    NSGAIIISampler,
    NSGAIISampler,
    QMCSampler,
    RandomSampler,
)
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState

from miras_search.engine.tpe import History, SharedTPESampler
from miras_search.errors import EnvironmentProblem
from miras_search.study.search import Search
from miras_search.training.config import TrainConfig

NEEDS = {"cmaes": "cmaes", "gp": "torch"}  # sampler -> what has to be installed


def sampler(search: Search, place: int, history: History) -> BaseSampler:
    """The sampler for the trial at this place, from 0; `history` is kept from trial to trial of one study.

    Raises EnvironmentProblem where its library is missing.
    """
    needed = NEEDS.get(search.sampler)
    if needed is not None and importlib.util.find_spec(needed) is None:
        raise EnvironmentProblem(f"sampler: {search.sampler}: pip install {needed}, or take sampler: tpe")
    seed = _seed(search.sampler_seed, place)
    first = max(4, min(10, search.trials // 4))  # drawn at random before a model has anything to learn from
    crowd = max(8, min(50, search.trials // 5))
    independent = RandomSampler(seed=seed)
    several = len(search.objectives) > 1
    make: dict[str, Callable[[], BaseSampler]] = {
        "tpe": lambda: SharedTPESampler(history, seed=seed, n_startup_trials=first, group=not several),
        "random": lambda: RandomSampler(seed=seed),
        "nsga2": lambda: NSGAIISampler(seed=seed, population_size=crowd),
        "nsga3": lambda: NSGAIIISampler(seed=seed, population_size=crowd),
        "gp": lambda: GPSampler(seed=seed, n_startup_trials=first, independent_sampler=independent),
        # one sequence for all trials: its scrambling has the study's seed, its position is stored
        "qmc": lambda: QMCSampler(
            seed=search.sampler_seed,
            scramble=True,
            independent_sampler=independent,
            warn_independent_sampling=False,
        ),
        "cmaes": lambda: CmaEsSampler(
            seed=seed, n_startup_trials=first, independent_sampler=independent, warn_independent_sampling=False
        ),
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)  # what is experimental is tested here
        return make[search.sampler]()


def pruner(search: Search, train: TrainConfig) -> BasePruner:
    """The pruner. It counts looks at the validation split, not steps; wilcoxon counts jobs of a trial."""
    looks = train.steps // train.eval_every if train.eval_every else 1
    make: dict[str, Callable[[], BasePruner]] = {
        "hyperband": lambda: HyperbandPruner(min_resource=1, max_resource=looks, reduction_factor=3),
        "asha": lambda: SuccessiveHalvingPruner(min_resource=1, reduction_factor=3),
        "median": lambda: MedianPruner(n_startup_trials=5, n_warmup_steps=1),
        "wilcoxon": lambda: WilcoxonPruner(p_threshold=0.1),
        "none": NopPruner,
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        return make[search.pruner]()


def judged(study: optuna.Study, trial: FrozenTrial, *, by_ended: bool) -> bool:
    """Whether the study's pruner would end the trial now.

    `by_ended` compares it with trials that were told before alone: how far those beside it are depends on the machine.
    """
    if not by_ended:
        return study.pruner.prune(study, trial)
    storage = _Ended(study._storage, trial.number)
    beside = optuna.Study(study.study_name, storage, pruner=study.pruner)  # type: ignore[arg-type]  # a storage in use
    return study.pruner.prune(beside, trial)


class _Ended:
    """A storage that shows the ended trials and one other."""

    def __init__(self, storage: BaseStorage, number: int) -> None:
        self._storage, self._number = storage, number

    def __getattr__(self, name: str) -> object:
        return getattr(self._storage, name)

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        """As a storage's."""
        found = self._storage.get_all_trials(study_id, deepcopy=deepcopy, states=states)
        return [trial for trial in found if trial.state.is_finished() or trial.number == self._number]


def _seed(study: int, place: int) -> int:
    return int.from_bytes(hashlib.sha256(f"{study}/{place}".encode()).digest()[:4], "big")
