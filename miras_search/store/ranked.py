"""The trials of a search by what they found: which may be compared, which come first, which are on the front.

A trial counts with the mean over its jobs of the search; those of the confirmation are left out, for a choice must not
see the data that is to confirm it. Used by the engine to choose and by the readers to show.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from miras_search.seeds import confirms
from miras_search.store.types import ResultRow

Sought = Sequence[tuple[str, str, str]]
"""Objectives as (metric, split, direction)."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A trial of which every job of the search is complete."""

    number: int
    cell: str
    jobs: int
    values: tuple[float, ...]
    """The mean of each objective over the jobs."""


def candidates(results: Iterable[ResultRow], sought: Sought, limits: Mapping[str, float]) -> list[Candidate]:
    """The trials that may be compared, the best by the first objective first; none over a limit."""
    jobs: dict[int, list[ResultRow]] = {}
    for row in results:
        if not confirms(row.seed):
            jobs.setdefault(row.number, []).append(row)
    found = []
    for number, rows in jobs.items():
        if any(row.state != "complete" for row in rows):
            continue
        values = [row.values for row in rows]
        means = tuple(mean(values, metric, split) for metric, split, _ in sought)
        over = any(mean(values, name, "") > limit for name, limit in limits.items())
        if all(map(math.isfinite, means)) and not over:
            found.append(Candidate(number, rows[0].cell, len(rows), means))
    return sorted(found, key=lambda it: (-it.values[0] if sought[0][2] == "maximize" else it.values[0], it.number))


def front(found: Sequence[Candidate], sought: Sought) -> list[Candidate]:
    """Those that no other one is as good as in every objective and better in one, in their order."""
    signs = [-1.0 if direction == "maximize" else 1.0 for _, _, direction in sought]
    costs = [tuple(sign * value for sign, value in zip(signs, it.values, strict=True)) for it in found]
    return [
        it
        for it, mine in zip(found, costs, strict=True)
        if not any(other != mine and all(o <= m for o, m in zip(other, mine, strict=True)) for other in costs)
    ]


def chosen(found: Sequence[Candidate], sought: Sought, top: int) -> list[Candidate]:
    """What is confirmed: the best by one objective; of a front so many points, its ends among them."""
    if len(sought) == 1 or top < 1:
        return list(found[: max(0, top)])
    points = front(found, sought)
    if len(points) <= top:
        return points
    last = len(points) - 1
    return [points[round(i * last / max(1, top - 1))] for i in range(top)]


def mean(jobs: Collection[Mapping[tuple[str, str], float]], metric: str, split: str) -> float:
    """Over the values of jobs; not a number where one has not recorded it."""
    return math.fsum(values.get((metric, split), math.nan) for values in jobs) / len(jobs)
