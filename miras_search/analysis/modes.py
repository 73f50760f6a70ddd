"""Seeds that fall into two modes: trainings that solved the task, and trainings that did not.

Where that happens a mean is the mean of two different things. How many seeds solve it, and after how many steps, are
the questions then, and both have exact tests:

    McNemar      seeds that one of two cells solved and the other did not: a fair coin if nothing differs (paired)
    Fisher       the two counts as they are; for cells that share too few seeds
    log-rank     steps to the solution, where a training that never got there counts as longer than it was trained;
                 exactly: cell and reference change places within a seed, which nothing would notice if they were alike

The limit between the modes is found in the pooled values, without a look at which cell they belong to.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from miras_search.analysis.paired import Floats

GAP = 0.3  # of the pooled range, without a value in it, parts two modes
APART = 4.0  # times the next largest gap, or values that merely thin out would be parted too
EXACT_PAIRS = 16  # 2^16 exchanges at most; beyond it they are drawn
DRAWS = 20_000


@dataclass(frozen=True, slots=True)
class Solved:
    """How many of the seeds of a cell and of the reference solved the task."""

    limit: float
    cell: int
    of: int
    reference: int
    reference_of: int
    low: float
    """Clopper-Pearson 95 % interval of the cell's rate."""
    high: float
    mcnemar: float | None
    """Exact, two-sided, over shared seeds; None without any."""
    fisher: float | None

    @property
    def rate(self) -> float:
        """The cell's share."""
        return self.cell / self.of


@dataclass(frozen=True, slots=True)
class Time:
    """The step at which a training first was over the limit; the last step where it never was."""

    step: float
    solved: bool


@dataclass(frozen=True, slots=True)
class Speed:
    """Steps to the solution, cell against reference."""

    median: float | None
    """Half of the seeds have solved it by then (Kaplan-Meier); None where fewer than half ever do."""
    reference_median: float | None
    exact: float | None
    """By exchanging cell and reference within seeds; None without shared seeds."""
    logrank: float | None
    """The usual large-sample p, over all seeds; None where nobody solves it."""


def two_modes(cells: Iterable[Iterable[float]]) -> float | None:
    """The limit between the modes of the cells' values, or None where they do not fall into two.

    They do where one gap is wide, far wider than any other, and some cell has seeds on both sides of it: cells that
    differ are no modes. Raises ValueError for numbers that are not finite.
    """
    groups = [np.asarray(list(values), dtype=np.float64) for values in cells]
    pooled = np.sort(np.concatenate([np.empty(0), *groups]))
    if not np.isfinite(pooled).all():
        raise ValueError("values contain numbers that are not finite; leave out the diverged seeds first")
    if pooled.size < 4:
        return None
    gaps = np.diff(pooled)
    widest = int(gaps.argmax())
    gap, others = float(gaps[widest]), np.delete(gaps, widest)
    if gap <= GAP * float(pooled[-1] - pooled[0]) or gap < APART * float(others.max(initial=0.0)) or gap == 0:
        return None
    limit = float(pooled[widest] + pooled[widest + 1]) / 2
    mixed = any(values.size and values.min() < limit < values.max() for values in groups)
    return limit if mixed else None


def solve_rates(
    cell: Mapping[int, float],
    reference: Mapping[int, float],
    limit: float,
    *,
    higher_is_better: bool = True,
) -> Solved | None:
    """Compare how many seeds solved the task, from seed -> value; None where either has no seed.

    A seed that diverged did not solve it: give it as the worst value there is, an infinity. Raises ValueError for NaN.
    """
    mine, theirs = _solved(cell, limit, higher_is_better), _solved(reference, limit, higher_is_better)
    if not mine or not theirs:
        return None
    from scipy import stats

    shared = sorted(set(mine) & set(theirs))
    only_mine = sum(mine[seed] and not theirs[seed] for seed in shared)
    only_theirs = sum(theirs[seed] and not mine[seed] for seed in shared)
    count, of = sum(mine.values()), len(mine)
    other, other_of = sum(theirs.values()), len(theirs)
    rate = stats.binomtest(count, of).proportion_ci(0.95, method="exact")
    return Solved(
        limit=limit,
        cell=count,
        of=of,
        reference=other,
        reference_of=other_of,
        low=float(rate.low),
        high=float(rate.high),
        mcnemar=mcnemar(only_mine, only_theirs) if shared else None,
        fisher=float(stats.fisher_exact(np.array([[count, of - count], [other, other_of - other]])).pvalue),
    )


def mcnemar(only_cell: int, only_reference: int) -> float:
    """The exact two-sided p of that many seeds solved by one alone; 1 where there are none."""
    from scipy import stats

    together = only_cell + only_reference
    return float(stats.binomtest(only_cell, together).pvalue) if together else 1.0


def time_to(curve: Sequence[tuple[float, float]], limit: float, *, higher_is_better: bool = True) -> Time | None:
    """When the curve, (step, value) in order, first passes the limit; None for an empty one. NaN passes no limit."""
    for step, value in curve:
        if value > limit if higher_is_better else value < limit:
            return Time(step, True)
    return Time(curve[-1][0], False) if curve else None


def solve_speed(cell: Mapping[int, Time], reference: Mapping[int, Time], *, seed: int = 0) -> Speed | None:
    """Compare steps to the solution, from seed -> time; None where either has no seed.

    All 2^n exchanges are counted up to 16 shared seeds, beyond them `DRAWS` are drawn with `seed`.
    """
    if not cell or not reference:
        return None
    shared = sorted(set(cell) & set(reference))
    pairs = [(cell[one], reference[one]) for one in shared]
    return Speed(
        median=_median(cell.values()),
        reference_median=_median(reference.values()),
        exact=_exchanged(pairs, seed) if pairs else None,
        logrank=_logrank(list(cell.values()), list(reference.values())),
    )


def _solved(values: Mapping[int, float], limit: float, higher_is_better: bool) -> dict[int, bool]:
    if any(math.isnan(value) for value in values.values()):
        raise ValueError("values contain NaN; give a diverged seed as the worst value there is")
    return {seed: bool(value > limit if higher_is_better else value < limit) for seed, value in values.items()}


def _exchanged(pairs: Sequence[tuple[Time, Time]], seed: int) -> float:
    """The share of exchanges within pairs whose log-rank score is at least as far from zero.

    The score of a training is 1 (if it solved) minus the hazard that all of them together have gone through by then;
    the cell's scores sum to observed minus expected solutions, the numerator of the log-rank test.
    """
    times = np.array([time.step for pair in pairs for time in pair])
    solved = np.array([time.solved for pair in pairs for time in pair])
    scores = _scores(times, solved).reshape(-1, 2)
    half = (scores[:, 0] - scores[:, 1]) / 2  # an exchange turns its sign; the rest of the sum stays
    n = half.size
    if n <= EXACT_PAIRS:
        signs = 1.0 - 2.0 * ((np.arange(2 ** (n - 1))[:, None] >> np.arange(n)) & 1)
        sums = np.abs(signs @ half)
        return float((sums >= abs(half.sum()) - 1e-9).mean())
    signs = 1.0 - 2.0 * np.random.default_rng(seed).integers(0, 2, size=(DRAWS, n))
    hits = int((np.abs(signs @ half) >= abs(half.sum()) - 1e-9).sum())
    return (hits + 1) / (DRAWS + 1)


def _scores(times: Floats, solved: np.ndarray[tuple[int], np.dtype[np.bool_]]) -> Floats:
    hazard = np.zeros(times.size)
    for step in np.unique(times[solved]):
        risk = float((times >= step).sum())
        events = float((times[solved] == step).sum())
        hazard[times >= step] += events / risk
    return np.asarray(solved, dtype=np.float64) - hazard


def _median(times: Iterable[Time]) -> float | None:
    known = list(times)
    from scipy import stats

    if not any(time.solved for time in known):
        return None
    curve = stats.ecdf(_censored(known)).sf
    below = np.flatnonzero(np.asarray(curve.probabilities) <= 0.5 + 1e-12)
    return float(curve.quantiles[below[0]]) if below.size else None


def _logrank(left: Sequence[Time], right: Sequence[Time]) -> float | None:
    if not any(time.solved for time in (*left, *right)):
        return None
    from scipy import stats

    with np.errstate(divide="ignore", invalid="ignore"):  # no variance where everybody solves it at the same step
        p = float(stats.logrank(_censored(left), _censored(right)).pvalue)
    return p if math.isfinite(p) else 1.0


def _censored(times: Sequence[Time]):  # type: ignore[no-untyped-def]  # scipy's class, imported late
    from scipy import stats

    return stats.CensoredData(
        uncensored=[time.step for time in times if time.solved],
        right=[time.step for time in times if not time.solved],
    )
