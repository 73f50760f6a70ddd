"""A study from its candidates to its decisions, on a surrogate trainer: tune, select, test, top up.

Every stage in which the data have a say is a chance to err, so the error is measured over all of them. What happens
before the seeds of the comparison are touched belongs into `prepare`; it sees trainings of its own. The test and its
looks are those of the table.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from miras_search.analysis.cells import Cell
from miras_search.analysis.comparison import by_test, compare, joint_test
from miras_search.analysis.looks import Looks, test_in_looks
from miras_search.analysis.paired import Floats
from miras_search.analysis.verdict import is_decided
from miras_search.bench.surrogate import Setting

Stage = Callable[[Setting, np.random.Generator, Sequence[int]], Sequence[int]]
"""(setting, random, candidates) -> the candidates that go on, after trainings of its own."""


def tune(settings: int, seeds: int = 2) -> Stage:
    """Of every so many candidates, the settings of one cell, keep the best by its mean over tuning seeds."""

    def choose(setting: Setting, random: np.random.Generator, candidates: Sequence[int]) -> Sequence[int]:
        found = setting.trainings(random, seeds, max(candidates) + 1).mean(axis=0)
        groups = [candidates[start : start + settings] for start in range(0, len(candidates), settings)]
        return [max(group, key=lambda column: found[column]) for group in groups]

    return choose


def pilot(cells: int, seeds: int = 3) -> Stage:
    """Select the best `cells` by their means over pilot seeds of their own."""

    def select(setting: Setting, random: np.random.Generator, candidates: Sequence[int]) -> Sequence[int]:
        found = setting.trainings(random, seeds, max(candidates) + 1).mean(axis=0)
        return sorted(sorted(candidates, key=lambda column: -found[column])[:cells])

    return select


@dataclass(frozen=True, slots=True)
class Plan:
    """How a study is run."""

    seeds: int
    cells: int = 5
    """That are compared with the base."""
    candidates: int = 40
    """Ten cells in four settings each; their tuning and a pilot select what is compared."""
    extra: int = 2
    """Seeds more for what is undecided after the first look."""
    levels: tuple[float, ...] = (0.025, 0.025)
    prepare: tuple[Stage, ...] = (tune(4), pilot(5))

    @property
    def looks(self) -> Looks:
        """As a study would declare them."""
        most = self.seeds + self.extra
        return Looks(tuple(range(most)), (self.seeds, most), self.levels)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a study decided, cells by their place among those that were compared, and what it reports of each."""

    decided: frozenset[int]
    at_once: frozenset[int]
    """What a table of the first seeds alone would decide at 5 %."""
    guarded: bool
    """Whether the noise of the first look let sign flips alone not decide."""
    intervals: tuple[tuple[float, float], ...]
    """95 % intervals of the differences, as a table of the first seeds has them."""


def run(setting: Setting, plan: Plan, random: np.random.Generator, effect: Floats | None = None) -> Outcome:
    """One study of the setting; `effect [cells]` is planted on top (then nothing is tuned or selected)."""
    kept: Sequence[int] = range(1, (plan.cells if effect is not None else plan.candidates) + 1)
    for stage in plan.prepare if effect is None else ():
        kept = stage(setting, random, kept)
    values = setting.trainings(random, plan.seeds + plan.extra, max(kept) + 1)[:, [0, *kept]]
    if effect is not None:
        values[:, 1:] += effect
    base, *cells = (_cell(number, values[:, number]) for number in range(values.shape[1]))
    looked = test_in_looks(base, cells, plan.looks, check=True)
    first, *others = (_cell(number, values[: plan.seeds, number]) for number in range(values.shape[1]))
    test, found = joint_test(first, others, check=True), [compare(cell, first, worst=None) for cell in others]
    found = [by_test(one, test) for one in found]
    at_once = frozenset(j for j, one in enumerate(found) if is_decided(one, test.p.get(j + 1)))
    intervals = tuple((one.ci_low or 0.0, one.ci_high or 0.0) for one in found)
    return Outcome(frozenset(number - 1 for number in looked.decided), at_once, test.is_guarded, intervals)


def _cell(number: int, values: Floats) -> Cell:
    seeds = range(len(values))
    by_seed = dict(zip(seeds, values.tolist(), strict=True))
    return Cell(str(number), "cell", number, {}, by_seed, len(seeds), 0, frozenset(), ended=frozenset(seeds))
