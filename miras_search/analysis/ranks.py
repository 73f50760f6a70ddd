"""Cells over several tasks: mean ranks, Friedman's test, and how far apart two mean ranks must lie (Nemenyi).

Tasks have scales that do not compare, ranks do. The price is that a rank knows nothing of how large a difference is,
and that few tasks decide little: the critical difference says so.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from miras_search.analysis.paired import Floats


@dataclass(frozen=True, slots=True)
class RankTable:
    """Mean ranks over tasks, best first; rank 1 is the best."""

    tasks: tuple[str, ...]
    ranks: Mapping[str, float]
    p: float | None
    """Friedman's chi-square test of no difference at all; None with fewer than three cells or two tasks."""
    critical_difference: float | None
    """Mean ranks closer than this are not told apart at 5 %."""
    left_out: tuple[str, ...] = ()
    """Cells without a number on one of the tasks."""

    @property
    def groups(self) -> list[tuple[str, ...]]:
        """The largest runs of cells, best first, whose mean ranks are not told apart; cells may be in several."""
        if self.critical_difference is None:
            return []
        names, found, end = list(self.ranks), [], 0
        for start, name in enumerate(names):
            last = start
            while last + 1 < len(names) and self.ranks[names[last + 1]] - self.ranks[name] < self.critical_difference:
                last += 1
            if last > start and last + 1 > end:
                found.append(tuple(names[start : last + 1]))
            end = max(end, last + 1)
        return found


def rank_table(scores: Mapping[str, Mapping[str, float | None]], *, higher_is_better: bool = True) -> RankTable:
    """Rank the cells on each task; `scores` is task -> cell -> mean, None where there is none.

    A mean of minus infinity (plus, where lower is better) ranks last: that is what becomes of a cell that diverged. A
    cell without a number on some task is left out of all; equal means share their places. Raises ValueError for NaN.
    """
    tasks = tuple(scores)
    cells = list(dict.fromkeys(cell for task in tasks for cell in scores[task]))
    kept = [cell for cell in cells if all(scores[task].get(cell) is not None for task in tasks)]
    left_out = tuple(cell for cell in cells if cell not in kept)
    if not tasks or not kept:
        return RankTable(tasks, {}, None, None, left_out)
    values = np.array([[scores[task][cell] for cell in kept] for task in tasks], dtype=np.float64)
    if np.isnan(values).any():
        raise ValueError("scores contain NaN; give None for a cell without a number")
    ranks = np.stack([_ranked(-row if higher_is_better else row) for row in values])
    means = dict(zip(kept, ranks.mean(axis=0).tolist(), strict=True))
    enough = len(kept) > 2 and len(tasks) > 1
    return RankTable(
        tasks,
        dict(sorted(means.items(), key=lambda item: item[1])),
        _friedman(ranks) if enough else None,
        critical_difference(len(kept), len(tasks)) if enough else None,
        left_out,
    )


def critical_difference(cells: int, tasks: int, alpha: float = 0.05) -> float:
    """Nemenyi's: two mean ranks that differ by this much differ at `alpha`, over all pairs of cells.

    Raises ValueError for fewer than two cells or no task.
    """
    if cells < 2 or tasks < 1:
        raise ValueError(f"{cells} cells on {tasks} tasks: two cells and a task are needed")
    from scipy import stats  # most of a second to import, for those who have several tasks

    q = float(stats.studentized_range.ppf(1 - alpha, cells, np.inf)) / math.sqrt(2)
    return q * math.sqrt(cells * (cells + 1) / (6 * tasks))


def _ranked(values: Floats) -> Floats:
    """Ranks from 1, ties with their mean rank."""
    from scipy import stats

    return np.asarray(stats.rankdata(values), dtype=np.float64)


def _friedman(ranks: Floats) -> float:
    """The p of Friedman's chi-square, corrected for ties; 1 where all cells are tied everywhere."""
    if (ranks == ranks.mean()).all():
        return 1.0
    from scipy import stats

    return float(stats.friedmanchisquare(*ranks.T).pvalue)
