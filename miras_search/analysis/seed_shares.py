"""How much of the spread over seeds comes from starting weights, from training data, and from evaluation data.

A study's seed sets all three at once. Trained crosswise, every start with every draw of data and every evaluation, the
spread can be taken apart: variance components of a balanced random-effects model, from its mean squares. What is common
to two or three of them only (this start on these data) is a share of its own.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from miras_search.analysis.cells import task_names
from miras_search.analysis.factorial import interaction
from miras_search.analysis.paired import Floats
from miras_search.metrics import METRICS
from miras_search.seeds import crossed
from miras_search.store import queries
from miras_search.store.database import Database

SOURCES = ("init", "data", "eval")


@dataclass(frozen=True, slots=True)
class Component:
    """The variance that one source has by itself, or several have together only."""

    sources: tuple[str, ...]
    variance: float
    """Negative estimates, which chance gives where there is nearly none, count as 0."""
    share: float

    def __str__(self) -> str:
        return " x ".join(self.sources)


def seed_shares(values: ArrayLike, sources: Sequence[str] = SOURCES) -> tuple[Component, ...] | None:
    """Variance components of `values`, one axis a source, crosswise and complete, one training a place.

    Largest first. None where a source has one value only, or nothing varies. The component of all sources together also
    holds whatever is not repeatable. Raises ValueError for a shape that does not fit the sources and for numbers that
    are not finite.
    """
    table: Floats = np.asarray(values, dtype=np.float64)
    if table.ndim != len(sources):
        raise ValueError(f"values have shape {table.shape}; expected one axis for each of {', '.join(sources)}")
    if not np.isfinite(table).all():
        raise ValueError(
            "values contain numbers that are not finite; a crossing with a diverged training has no shares"
        )
    if table.size == 0 or min(table.shape) < 2 or np.ptp(table) == 0:
        return None
    places = range(table.ndim)
    subsets = [chosen for size in range(1, table.ndim + 1) for chosen in itertools.combinations(places, size)]
    squares = {chosen: _mean_square(table, chosen) for chosen in subsets}
    found = {chosen: max(_component(table, chosen, squares), 0.0) for chosen in subsets}
    whole = math.fsum(found.values())
    if whole <= 1e-24 * float(np.abs(table).max()) ** 2:
        return None
    components = [
        Component(tuple(sources[place] for place in chosen), variance, variance / whole)
        for chosen, variance in found.items()
    ]
    return tuple(sorted(components, key=lambda one: -one.variance))


@dataclass(frozen=True, slots=True)
class TaskShares:
    """What the crossed trainings of a stored study say on one task."""

    task: str
    mean: float
    sd: float
    components: tuple[Component, ...] | None
    why: str = ""
    """There are no components."""


def stored_shares(db: Database, name: str, levels: int) -> list[TaskShares]:
    """The shares of the study called `name`, whose seeds are crossed by so many of each source, a task each.

    Raises StudyNotFound.
    """
    study = queries.study(db, name)
    results = queries.results(db, study.id)
    key = (study.metric, METRICS[study.metric].split)
    found = []
    for task in task_names(results):
        rows = [row for row in results if row.task == task]
        values = {
            place: row.values.get(key, math.nan)
            for row in rows
            if (place := crossed(row.seed)) is not None and max(place) < levels  # an earlier crossing may be larger
        }
        table = np.full((levels,) * len(SOURCES), math.nan)
        for place, value in values.items():
            table[place] = value
        known = table[np.isfinite(table)]
        mean, sd = (float(known.mean()), float(known.std(ddof=1))) if known.size > 1 else (math.nan, math.nan)
        if known.size < table.size:
            why = f"{table.size - known.size} of {table.size} trainings have no value, so the crossing is not complete"
            found.append(TaskShares(task, mean, sd, None, why))
        else:
            shares = seed_shares(table)
            found.append(TaskShares(task, mean, sd, shares, "" if shares else "nothing varies"))
    return found


def _mean_square(table: Floats, chosen: tuple[int, ...]) -> float:
    return float((interaction(table, chosen) ** 2).sum() / np.prod([table.shape[place] - 1 for place in chosen]))


def _component(table: Floats, chosen: tuple[int, ...], squares: Mapping[tuple[int, ...], float]) -> float:
    """The expected mean square of a term sums the components of all terms that contain it; this turns that round."""
    total = 0.0
    for other, square in squares.items():
        if set(chosen) <= set(other):
            total += _sign(len(other) - len(chosen)) * square
    return total / float(np.prod([table.shape[place] for place in range(table.ndim) if place not in chosen]))


def _sign(count: int) -> float:
    return -1.0 if count % 2 else 1.0
