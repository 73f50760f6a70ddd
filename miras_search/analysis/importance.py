"""What optuna's evaluators make of the axes, labelled as what they are.

Neither is a test, and neither is the variance that an analysis of variance shares out:

    PED-ANOVA   how far the best tenth of the trainings has other levels than the rest: what it takes to be among the
                best, whatever happens elsewhere
    fANOVA      the share of the variance of a *random forest* that was fitted to the trainings; needs scikit-learn

They are made for searches, where levels are drawn and no design is balanced, and so a search's are of all that it
trained and not of what it confirmed. In a factorial, read `factorial.anova`. An axis with more numbers than a list
would have was drawn from a range, and is taken for one; what has the base's own value there is left out.
"""

from __future__ import annotations

import importlib.util
import math
import warnings
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from miras_search.analysis.factorial import AS_BASE, Observation
from miras_search.metrics import Direction

if TYPE_CHECKING:
    import optuna

Method = Literal["PED-ANOVA", "fANOVA"]
LABELS: Mapping[Method, str] = {
    "PED-ANOVA": "share of the difference in levels between the best tenth of the trainings and all of them",
    "fANOVA": "share of the variance of a random forest fitted to the trainings",
}
FEWEST = 10  # trainings: a tenth of fewer is none
WIDE = 10.0  # the ends of a range by whose ratio it was drawn on a log scale
MOST_LISTED = 8  # numbers that a study would list; more of them were drawn from a range


@dataclass(frozen=True, slots=True)
class Importance:
    """An evaluator's shares of the axes, largest first; they sum to 1."""

    method: Method
    label: str
    shares: Mapping[str, float]


def importances(
    observations: Sequence[Observation],
    *,
    direction: Direction = "maximize",
    method: Method = "PED-ANOVA",
    seed: int = 0,
) -> Importance | None:
    """The evaluator's shares over the axes that vary, each training one trial of a search.

    None with fewer than ten trainings, fewer than two axes, the same value everywhere, or for fANOVA without
    scikit-learn. Raises ValueError for numbers that are not finite.
    """
    data = list(observations)
    if any(not math.isfinite(one.value) for one in data):
        raise ValueError("observations contain numbers that are not finite; leave out the diverged seeds first")
    data = _without_gaps(data)
    levels = {axis: list(dict.fromkeys(one.levels[axis] for one in data)) for axis in (data[0].levels if data else ())}
    levels = {axis: names for axis, names in levels.items() if len(names) > 1}
    if len(data) < FEWEST or len(levels) < 2 or len({one.value for one in data}) < 2:
        return None
    if method == "fANOVA" and importlib.util.find_spec("sklearn") is None:
        return None
    study = _study(data, levels, direction)
    from optuna.importance import FanovaImportanceEvaluator, PedAnovaImportanceEvaluator, get_param_importances

    evaluator = FanovaImportanceEvaluator(seed=seed) if method == "fANOVA" else PedAnovaImportanceEvaluator()
    found = get_param_importances(study, evaluator=evaluator)
    if not all(map(math.isfinite, found.values())):  # no level is any commoner among the best
        return None
    shares = {str(axis): float(share) for axis, share in found.items()}
    return Importance(method, LABELS[method], dict(sorted(shares.items(), key=lambda item: -item[1])))


def all_importances(
    observations: Sequence[Observation], *, direction: Direction = "maximize"
) -> tuple[Importance, ...]:
    """By each evaluator that can be had. Raises what `importances` raises."""
    data = list(observations)
    found = (importances(data, direction=direction, method=method) for method in LABELS)
    return tuple(one for one in found if one is not None)


def _study(data: Sequence[Observation], levels: Mapping[str, list[str]], direction: Direction) -> optuna.study.Study:
    """The trainings as the finished trials of a study in memory."""
    import optuna

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        verbosity = optuna.logging.get_verbosity()
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        study = optuna.create_study(direction=direction)
        optuna.logging.set_verbosity(verbosity)
    space: dict[str, optuna.distributions.BaseDistribution] = {}
    for axis, names in levels.items():
        numbers = _range(names)
        if numbers is None:
            space[axis] = optuna.distributions.CategoricalDistribution(names)
        else:
            wide = min(numbers) > 0 and max(numbers) / min(numbers) > WIDE
            space[axis] = optuna.distributions.FloatDistribution(min(numbers), max(numbers), log=wide)
    drawn = {axis for axis, one in space.items() if isinstance(one, optuna.distributions.FloatDistribution)}
    study.add_trials(
        [
            optuna.trial.create_trial(
                params={axis: float(one.levels[axis]) if axis in drawn else one.levels[axis] for axis in space},
                distributions=dict(space),
                value=one.value,
            )
            for one in data
        ]
    )
    return study


def _without_gaps(data: Sequence[Observation]) -> list[Observation]:
    """The trainings with a number on every axis that was drawn from a range."""
    axes = data[0].levels if data else ()
    ranges = [axis for axis in axes if _range({one.levels[axis] for one in data} - {AS_BASE}) is not None]
    return [one for one in data if not any(one.levels[axis] == AS_BASE for axis in ranges)]


def _range(levels: Collection[str]) -> list[float] | None:
    """The numbers of an axis that was drawn from a range; None for an axis of choices."""
    if len(set(levels)) <= MOST_LISTED:
        return None
    try:
        numbers = [float(level) for level in levels]
    except ValueError:
        return None
    return numbers if all(map(math.isfinite, numbers)) else None
