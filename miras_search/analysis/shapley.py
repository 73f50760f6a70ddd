"""How much each axis contributes on the way from the base to the best cell: Shapley's shares.

Changing one axis at a time gives each axis another share in another order, wherever axes interact. Shapley's share is
the mean over all orders, and the shares add up to the whole difference. Exactly, it needs all 2^k mixtures of base and
best, which a complete factorial has. Elsewhere none is given: a share from a fitted model is a statement about the
model.

The best cell is chosen on the seeds that its gain is measured on, so the whole is flattered, and so are the shares,
which add up to it.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from miras_search.analysis.factorial import Levels, Observation
from miras_search.analysis.paired import interval

MAX_AXES = 10


@dataclass(frozen=True, slots=True)
class Share:
    """What one axis contributes, in the metric's unit, as mean over seeds."""

    axis: str
    start: str
    end: str
    value: float
    low: float | None
    """95 % interval over seeds; None with one seed."""
    high: float | None


@dataclass(frozen=True, slots=True)
class Shares:
    """The shares of the axes in the difference of two cells."""

    whole: float
    """The mean difference, which the shares add up to."""
    seeds: int
    shares: tuple[Share, ...]


def shapley(observations: Sequence[Observation], start: Levels, end: Levels) -> Shares | None:
    """Shares of the axes on which `start` and `end` differ, over the seeds that all mixtures of them have.

    None where the two are the same, differ in more than `MAX_AXES` axes, or a mixture was not trained.
    """
    axes = [axis for axis in start if start[axis] != end[axis]]
    if not axes or len(axes) > MAX_AXES:
        return None
    values: dict[tuple[tuple[str, str], ...], dict[int, float]] = {}
    for one in observations:
        values.setdefault(_key(one.levels), {})[one.seed] = one.value
    mixtures: dict[frozenset[str], Mapping[int, float]] = {}
    for size in range(len(axes) + 1):
        for chosen in itertools.combinations(axes, size):
            levels = {axis: end[axis] if axis in chosen else start[axis] for axis in start}
            mixtures[frozenset(chosen)] = values.get(_key(levels), {})
    seeds = sorted(set.intersection(*(set(found) for found in mixtures.values())))
    if not seeds:
        return None
    whole = [mixtures[frozenset(axes)][seed] - mixtures[frozenset()][seed] for seed in seeds]
    shares = []
    for axis in axes:
        each = [_share({chosen: found[seed] for chosen, found in mixtures.items()}, axis, len(axes)) for seed in seeds]
        low, high = interval(each) if len(each) > 1 else (None, None)
        shares.append(Share(axis, start[axis], end[axis], math.fsum(each) / len(each), low, high))
    return Shares(math.fsum(whole) / len(whole), len(seeds), tuple(shares))


def _share(worth: Mapping[frozenset[str], float], axis: str, axes: int) -> float:
    """The mean over all orders of what the axis adds when its turn comes."""
    total = 0.0
    for before, value in worth.items():
        if axis not in before:
            weight = math.factorial(len(before)) * math.factorial(axes - len(before) - 1) / math.factorial(axes)
            total += weight * (worth[before | {axis}] - value)
    return total


def _key(levels: Levels) -> tuple[tuple[str, str], ...]:
    return tuple(sorted(levels.items()))
