"""What a level does over a whole factorial, and how much more two do together: paired by seed, with intervals.

The table compares every cell with the base. A factorial can say more with the same trainings: what `retention = l2`
changes on average over all cells of the other axes (a main effect), and how much more it changes beside `bias = dot`
than beside the base's bias (an interaction of two, the difference of two differences). Each is one number a seed, so
the table's own test and intervals apply, without the normal noise that an analysis of variance takes for granted. Main
effects are one family, interactions another: they are two questions.

Main effects need every two levels of different axes to meet equally often, as they do in a factorial and in a fraction
of it; interactions need every combination.
"""

from __future__ import annotations

import itertools
import math
import statistics
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from miras_search.analysis.cells import Cell
from miras_search.analysis.comparison import JointTest, family_test
from miras_search.analysis.factorial import AS_BASE, Levels

Place: TypeAlias = tuple[tuple[str, str], ...]
"""Axis and level, one pair for a main effect, two for an interaction."""
Mean: TypeAlias = Callable[[int, Place], float]
"""Of a seed, over the cells that have these levels."""


@dataclass(frozen=True, slots=True)
class Contrast:
    """A level against the base's, or two of different axes."""

    levels: Mapping[str, str]
    """Axis -> level."""
    differences: tuple[float, ...]
    """One a seed, ascending."""
    difference: float
    ci_low: float
    ci_high: float
    p: float
    """Of the joint test over its family."""
    p_holm: float

    def __str__(self) -> str:
        return " x ".join(f"{axis} = {level}" for axis, level in self.levels.items())


@dataclass(frozen=True, slots=True)
class Family:
    """Contrasts that are tested together."""

    contrasts: tuple[Contrast, ...] = ()
    smallest: float = 1.0
    """The smallest p that it can give."""
    is_guarded: bool = False
    """Whether p is Holm's over t tests against skewed noise where that is larger."""


@dataclass(frozen=True, slots=True)
class Contrasts:
    """The main effects of levels, and the interactions of two."""

    seeds: tuple[int, ...]
    """That every cell completed."""
    mains: Family
    interactions: Family
    """Empty where not every combination is a cell."""


def contrasts(cells: Sequence[Cell], levels: Mapping[str, Levels]) -> Contrasts | None:
    """The contrasts of the cells, whose levels are given by their names.

    None where fewer than two axes vary, where levels do not meet equally often, below two seeds that all completed, and
    where a cell diverged: the seeds that it lacks are the bad ones.
    """
    axes = _axes([levels[cell.name] for cell in cells])
    shared = set.intersection(*(set(cell.values) for cell in cells)) if cells else set()
    if len(axes) < 2 or len(shared) < 2 or any(cell.diverged for cell in cells):
        return None
    combinations = {tuple(levels[cell.name][axis] for axis in axes): cell for cell in cells}
    if len(combinations) < len(cells) or not _meet_equally(list(combinations), len(axes)):
        return None
    seeds = tuple(sorted(shared))

    def mean(seed: int, place: Place) -> float:
        at = [(list(axes).index(axis), level) for axis, level in place]
        of = (cell for names, cell in combinations.items() if all(names[i] == level for i, level in at))
        return statistics.fmean(cell.values[seed] for cell in of)

    singles: list[Place] = [((axis, level),) for axis, found in axes.items() for level in found if level != AS_BASE]
    pairs = [one + other for one, other in itertools.combinations(singles, 2) if one[0][0] != other[0][0]]
    if len(combinations) < math.prod(map(len, axes.values())):
        pairs = []
    return Contrasts(seeds, _family(singles, seeds, mean), _family(pairs, seeds, mean))


def _axes(found: Sequence[Levels]) -> dict[str, list[str]]:
    """The axes that vary, with their levels; those that the base lacks have nothing to be compared with."""
    names = list(found[0]) if found else []
    axes = {axis: list(dict.fromkeys(one[axis] for one in found)) for axis in names}
    return {axis: levels for axis, levels in axes.items() if len(levels) > 1 and AS_BASE in levels}


def _meet_equally(combinations: Sequence[tuple[str, ...]], axes: int) -> bool:
    for one, other in itertools.combinations(range(axes), 2):
        met = Counter((names[one], names[other]) for names in combinations)
        first, second = ({names[place] for names in combinations} for place in (one, other))
        if len(met) < len(first) * len(second) or len(set(met.values())) > 1:
            return False
    return True


def _family(places: Sequence[Place], seeds: Sequence[int], mean: Mean) -> Family:
    """The contrasts at these places, tested together."""
    columns = {number: {seed: _at(place, seed, mean) for seed in seeds} for number, place in enumerate(places)}
    if not columns:
        return Family()
    test = family_test(columns, len(seeds), check=True)
    found = (_contrast(place, number, columns[number], test) for number, place in enumerate(places))
    return Family(tuple(found), test.smallest, test.is_guarded)


def _at(place: Place, seed: int, mean: Mean) -> float:
    """The level's mean less the base's; of two levels, that difference less the same beside the base's other level."""
    total = 0.0
    for kept in itertools.product((True, False), repeat=len(place)):
        corner = tuple((axis, level if keep else AS_BASE) for (axis, level), keep in zip(place, kept, strict=True))
        total += (-1) ** kept.count(False) * mean(seed, corner)
    return total


def _contrast(place: Place, number: int, column: Mapping[int, float], test: JointTest) -> Contrast:
    differences = tuple(column.values())
    low, high = test.interval(number, differences)
    return Contrast(
        levels=dict(place),
        differences=differences,
        difference=statistics.fmean(differences),
        ci_low=low,
        ci_high=high,
        p=test.p[number],
        p_holm=test.holm[number],
    )
