"""What a level does over a whole factorial, and how much more two do together: paired by seed, with intervals.

The table compares every cell with the base. A factorial can say more with the same trainings: what `retention = l2`
changes on average over all cells of the other axes (a main effect), and how much more it changes beside `bias = dot`
than beside the base's bias (an interaction of two, the difference of two differences). Each is one number a seed, so
the table's own test and intervals apply, without the normal noise that an analysis of variance takes for granted. Main
effects are one family, interactions another: they are two questions.

Main effects need every two levels of different axes to meet equally often, as they do in a factorial and in a fraction
of it; interactions need every combination. In a fraction where not every three levels meet equally often, what two axes
do together looks like what a third one does, so that what is told of a level there is of both.

A study that declared looks is read at the last one that is over for all of its cells, and its p pays for the others:
read at every look anew, one study without effects in ten would show some.
"""

from __future__ import annotations

import itertools
import math
import statistics
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from miras_search.analysis.caption import interval_kind, usual_interval
from miras_search.analysis.cells import Cell
from miras_search.analysis.comparison import MIN_TEST, JointTest, family_test
from miras_search.analysis.factorial import AS_BASE, Levels
from miras_search.analysis.looks import Looks, scaled, within

Place: TypeAlias = tuple[tuple[str, str], ...]
"""Axis and level, one pair for a main effect, two for an interaction."""
Mean: TypeAlias = Callable[[int, Place], float]
"""Of a seed, over the cells that have these levels."""
Meeting: TypeAlias = Literal["factorial", "fraction", "mixed fraction"]
"""All combinations; some, where main effects are clear of interactions of two axes; or some where they are not."""
_ROUNDING = 1e-12  # of the numbers that it is a difference of: a difference below this is none


class NoContrasts(ValueError):
    """The cells do not say what levels do; the text says why."""


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
    intervals: str = "t"
    """Their kind, in words."""


@dataclass(frozen=True, slots=True)
class Contrasts:
    """The main effects of levels, and the interactions of two."""

    base: str
    """The cell whose levels are the base's."""
    of: Meeting
    seeds: tuple[int, ...]
    """That every cell completed."""
    mains: Family
    interactions: Family
    """Empty where not every combination is a cell."""
    look: int | None = None
    """How many seeds the look has at which they are read; None in a study without looks."""


def contrasts(cells: Sequence[Cell], levels: Mapping[str, Levels], looks: Looks | None = None) -> Contrasts:
    """The contrasts of the cells, whose levels are given by their names; `looks` are those of this metric.

    Raises NoContrasts where fewer than two axes vary, where levels do not meet equally often, below two seeds that all
    completed, before a look is over, and where a cell diverged: the seeds that it lacks are the bad ones.
    """
    axes = _axes([levels[cell.name] for cell in cells])
    if len(axes) < 2:
        raise NoContrasts("fewer than two axes vary around the base")
    combinations = {tuple(levels[cell.name][axis] for axis in axes): cell for cell in cells}
    if len(combinations) < len(cells) or not _meet_equally(list(combinations), len(axes), 2):
        raise NoContrasts(
            "levels do not meet equally often, as in a factorial or a fraction of one that has the base among its "
            "combinations"
        )
    look = None if looks is None else _last_look(cells, looks)
    if looks is not None and look is not None:
        combinations = {names: within(cell, looks.until(look)) for names, cell in combinations.items()}
    if diverged := [cell.name for cell in combinations.values() if cell.diverged]:
        raise NoContrasts(f"{diverged[0]} diverged in some seeds, and what they would have given is not known")
    seeds = tuple(sorted(set.intersection(*(set(cell.values) for cell in combinations.values()))))
    if len(seeds) < MIN_TEST:
        raise NoContrasts("they take two seeds that all cells completed")

    def mean(seed: int, place: Place) -> float:
        at = [(list(axes).index(axis), level) for axis, level in place]
        of = (cell for names, cell in combinations.items() if all(names[i] == level for i, level in at))
        return statistics.fmean(cell.values[seed] for cell in of)

    def family(places: Sequence[Place]) -> Family:
        return _family(places, seeds, mean, (looks, look) if looks is not None and look is not None else None)

    singles: list[Place] = [((axis, level),) for axis, found in axes.items() for level in found if level != AS_BASE]
    pairs = [one + other for one, other in itertools.combinations(singles, 2) if one[0][0] != other[0][0]]
    of: Meeting = "factorial"
    if len(combinations) < math.prod(map(len, axes.values())):
        of, pairs = ("fraction" if _meet_equally(list(combinations), len(axes), 3) else "mixed fraction"), []
    base = next((cell.name for cell in cells if cell.role == "base"), cells[0].name)
    counted = None if looks is None or look is None else looks.counts[look]
    return Contrasts(base, of, seeds, family(singles), family(pairs), counted)


def _axes(found: Sequence[Levels]) -> dict[str, list[str]]:
    """The axes that vary, with their levels; those that the base lacks have nothing to be compared with."""
    names = list(found[0]) if found else []
    axes = {axis: list(dict.fromkeys(one[axis] for one in found)) for axis in names}
    return {axis: levels for axis, levels in axes.items() if len(levels) > 1 and AS_BASE in levels}


def _meet_equally(combinations: Sequence[tuple[str, ...]], axes: int, together: int) -> bool:
    """Whether the levels of any so many axes meet in all combinations, each as often."""
    for places in itertools.combinations(range(axes), together):
        met = Counter(tuple(names[place] for place in places) for names in combinations)
        sizes = (len({names[place] for names in combinations}) for place in places)
        if len(met) < math.prod(sizes) or len(set(met.values())) > 1:
            return False
    return True


def _last_look(cells: Sequence[Cell], looks: Looks) -> int:
    """The last look for which every cell has been trained; a look decides cells, which get no more seeds then."""
    known = [cell.ended | cell.lost if looks.leaves_out else cell.ended for cell in cells]
    over = [look for look in range(len(looks.counts)) if all(looks.until(look) <= one for one in known)]
    if not over:
        raise NoContrasts(f"the look at {looks.counts[0]} seeds, the first, waits for its trainings")
    return over[-1]


def _family(places: Sequence[Place], seeds: Sequence[int], mean: Mean, at: tuple[Looks, int] | None) -> Family:
    """The contrasts at these places, tested together, `at` a look of those that were declared."""
    columns = {number: {seed: _at(place, seed, mean) for seed in seeds} for number, place in enumerate(places)}
    if not columns:
        return Family()
    test = family_test(columns, len(seeds), check=True)
    if at is not None:
        test = scaled(test, *at)
    found = (_contrast(place, number, columns[number], test) for number, place in enumerate(places))
    kind = interval_kind(usual_interval(test, "their mean", "each one's own"), [len(seeds)])
    return Family(tuple(found), test.smallest, test.is_guarded, kind)


def _at(place: Place, seed: int, mean: Mean) -> float:
    """The level's mean less the base's; of two levels, that difference less the same beside the base's other level."""
    corners = []
    for kept in itertools.product((True, False), repeat=len(place)):
        corner = tuple((axis, level if keep else AS_BASE) for (axis, level), keep in zip(place, kept, strict=True))
        corners.append((-1) ** kept.count(False) * mean(seed, corner))
    found = math.fsum(corners)
    return 0.0 if abs(found) <= _ROUNDING * max(map(abs, corners)) else found  # a test sees signs, whatever their size


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
