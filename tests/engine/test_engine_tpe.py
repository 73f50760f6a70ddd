"""The shared TPE against Optuna's own: the same suggestions, whatever has ended, runs, was pruned or out of bounds."""

from __future__ import annotations

import warnings

import numpy as np
import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution
from optuna.pruners import BasePruner, HyperbandPruner, NopPruner
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.samplers._tpe.sampler import _split_trials, default_gamma
from optuna.search_space.group_decomposed import _SearchSpaceGroup
from optuna.trial import Trial, TrialState

from miras_search.engine.tpe import History, SharedTPESampler, groups


def draw(trial: Trial) -> dict[str, object]:
    """A point of a space whose parameters depend on each other."""
    memory = trial.suggest_categorical("memory", ("matrix", "mlp", "vector"))
    trial.suggest_float("lr", 1e-3, 1e-1, log=True)
    if memory == "mlp":
        trial.suggest_int("expansion", 1, 4)
        if trial.suggest_categorical("gated", (True, False)):
            trial.suggest_float("squash", 0.0, 1.0)
    elif memory == "matrix":
        trial.suggest_categorical("bias", ("dot", "l2"))
    return dict(trial.params)


def sampler(history: History | None, seed: int, group: bool) -> BaseSampler:
    """Ours with a history, else Optuna's."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # group is experimental
        if history is not None:
            return SharedTPESampler(history, seed=seed, n_startup_trials=4, group=group)
        return TPESampler(seed=seed, n_startup_trials=4, multivariate=True, group=group)


def sought(shared: bool, pruner: BasePruner, directions: list[str], trials: int) -> list[dict[str, object]]:
    """What is drawn one after the other, four at a time; some are pruned, fail, or break a constraint."""
    study = optuna.create_study(study_name="one", directions=directions, sampler=RandomSampler(seed=0), pruner=pruner)
    history, noise = History() if shared else None, np.random.default_rng(1)
    group = len(directions) == 1
    found = []
    for first in range(0, trials, 4):
        asked = []
        for place in range(first, first + 4):
            study.sampler = sampler(history, place, group)
            asked.append(study.ask())
            found.append(draw(asked[-1]))
        for trial in reversed(asked):  # they end in another order than they began
            if group:
                trial.report(float(noise.random()), 1)
            trial.set_constraint("size", float(noise.random()) - 0.8)
            state = [TrialState.COMPLETE] * 4 + [TrialState.PRUNED, TrialState.FAIL]
            how = state[int(noise.integers(6))]
            values = list(noise.random(len(directions)))
            study.tell(trial, values if how == TrialState.COMPLETE else None, state=how)
    return found


@pytest.mark.parametrize("pruner", [NopPruner(), HyperbandPruner(1, 9, 3)], ids=["none", "hyperband"])
def test_it_suggests_what_optunas_suggests(pruner: BasePruner) -> None:
    assert sought(True, pruner, ["maximize"], 40) == sought(False, pruner, ["maximize"], 40)


def test_it_suggests_what_optunas_suggests_for_several_objectives() -> None:
    directions = ["maximize", "minimize"]
    assert sought(True, NopPruner(), directions, 24) == sought(False, NopPruner(), directions, 24)


@pytest.mark.parametrize("direction", ["minimize", "maximize"])
@pytest.mark.parametrize("complete", [12, 0])
def test_good_trials_are_those_that_optuna_calls_good(direction: str, complete: int) -> None:
    study, random = optuna.create_study(direction=direction), np.random.default_rng(2)
    for place in range(40):
        trial = study.ask()
        trial.report(float(random.random()), 1)
        trial.set_constraint("size", float(random.random()) - 0.7)
        value = float(random.integers(3))  # many are equal
        study.tell(trial, value if place < complete else None, state=None if place < complete else TrialState.PRUNED)
    study.ask()  # one runs
    trials = study.get_trials(deepcopy=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ours = SharedTPESampler(History(), seed=0, n_startup_trials=4, group=True)
    assert ours._parted(study, trials) == _split_trials(study, trials, default_gamma(40))


def test_groups_are_cut_as_optuna_cuts_them() -> None:
    random = np.random.default_rng(0)
    names = [f"p{place}" for place in range(12)]
    for _ in range(50):
        sets = [[name for name in names if random.random() < 0.4] for _ in range(int(random.integers(1, 8)))]
        theirs = _SearchSpaceGroup()
        given = []
        for place, one in enumerate(sets):
            given.append({name: FloatDistribution(0.0, 1.0 + place) for name in one})
            theirs.add_distributions(given[-1])
        assert groups(given) == theirs.search_spaces


def test_what_a_history_knows_does_not_depend_on_the_order_in_which_trials_ended() -> None:
    study = optuna.create_study(sampler=RandomSampler(seed=0))
    for place in range(6):
        trial = study.ask()
        draw(trial)
        study.tell(trial, float(place))
    trials = study.get_trials()
    forth, back = History(), History()
    forth.take(trials)
    for first in reversed(range(6)):  # the last ended first
        back.take(trials[first:])
    for name in {name for trial in trials for name in trial.params}:
        assert [list(column) for column in forth.column(name)] == [list(column) for column in back.column(name)]
    assert forth.groups(trials) == back.groups(trials)
    assert CategoricalDistribution(("matrix", "mlp", "vector")) in forth.groups(trials)[0].values()
