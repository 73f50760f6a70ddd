"""A study from its candidates to its decisions, on a surrogate trainer: select, test, top up.

Every stage in which the data have a say is a chance to err, so the error is measured over all of them. What happens
before the seeds of the comparison are touched (tuning, locking) belongs into `prepare`; it sees trainings of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from miras_search.analysis.comparison import family_test
from miras_search.analysis.looks import Budget, budget
from miras_search.analysis.paired import Floats, t_interval
from miras_search.analysis.verdict import ALPHA
from miras_search.bench.surrogate import Setting

Stage = Callable[[Setting, np.random.Generator, Sequence[int]], Sequence[int]]
"""(setting, random, candidates) -> the candidates that go on, after trainings of its own."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How a study is run."""

    seeds: int
    cells: int = 5
    """That are compared with the base."""
    candidates: int = 10
    """Of which a pilot selects the cells."""
    extra: int = 2
    """Seeds more for what is undecided after the first look."""
    levels: Budget = field(default_factory=lambda: budget(0.05, 2))
    prepare: tuple[Stage, ...] = ()


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a study decided, cells by their place among those that were compared, and what it reports of each."""

    decided: frozenset[int]
    at_once: frozenset[int]
    """What a table of the first seeds alone would decide at 5 %."""
    by_holm: bool
    """Whether the check sent the first look to Holm."""
    intervals: tuple[tuple[float, float], ...]
    """95 % t intervals of the differences at the first look."""


def pilot(cells: int, seeds: int = 3) -> Stage:
    """Select the best `cells` by their means over pilot seeds of their own."""

    def select(setting: Setting, random: np.random.Generator, candidates: Sequence[int]) -> Sequence[int]:
        found = setting.trainings(random, seeds, len(candidates) + 1)[:, 1:].mean(axis=0)
        best = np.argsort(-found, kind="stable")[:cells]
        return sorted(candidates[place] for place in best)

    return select


def run(setting: Setting, plan: Plan, random: np.random.Generator, effect: Floats | None = None) -> Outcome:
    """One study of the setting; `effect [cells]` is planted on top (then nothing is selected)."""
    kept: Sequence[int] = range(1, (plan.cells if effect is not None else plan.candidates) + 1)
    columns = len(kept) + 1
    for stage in plan.prepare if effect is not None else (*plan.prepare, pilot(plan.cells)):
        kept = stage(setting, random, kept)
    values = setting.trainings(random, plan.seeds + plan.extra, columns)
    differences = values[:, list(kept)] - values[:, :1] + (0.0 if effect is None else effect)
    open_, decided, at_once, by_holm = list(range(len(kept))), set[int](), frozenset[int](), False
    for look, seeds in enumerate((plan.seeds, plan.seeds + plan.extra)):
        if not open_:
            break
        columns_of = {j: dict(enumerate(differences[:seeds, j].tolist())) for j in open_}
        test = family_test(columns_of, seeds, check=True)
        if look == 0:
            by_holm = test.by_holm
            at_once = frozenset(j for j, p in test.p.items() if p < ALPHA and _clear(differences[:seeds, j], 1 - ALPHA))
        level = 1 - plan.levels.levels[look]
        found = {j for j in plan.levels.decided(look, test.p) if _clear(differences[:seeds, j], level)}
        decided |= found
        open_ = [j for j in open_ if j not in found]
    intervals = tuple(t_interval(differences[: plan.seeds, j]) for j in range(len(kept)))
    return Outcome(frozenset(decided), at_once, by_holm, intervals)


def _clear(d: Floats, level: float) -> bool:
    low, high = t_interval(d, level)
    return low > 0 or high < 0
