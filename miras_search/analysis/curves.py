"""Learning curves in numbers: what a cell's seeds have in common over the steps, as one line and a band.

Never an average of something else than it says: the line and the band name their kind, and each point knows its n. A
seed that diverged leaves the line where it ended.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from miras_search.store.types import CurveRow, ResultRow

Kind = Literal["median", "mean"]
KINDS: dict[Kind, str] = {
    "median": "median of the seeds; the band reaches from the 10th to the 90th percentile",
    "mean": "mean of the seeds; the band is one standard deviation (n - 1) to each side",
}


@dataclass(frozen=True, slots=True)
class BandPoint:
    """The seeds of one cell at one step."""

    step: int
    centre: float
    low: float
    high: float
    n: int


@dataclass(frozen=True, slots=True)
class End:
    """Where a seed's curve ends because the training diverged."""

    cell: str
    seed: int
    step: int
    value: float


def bands(rows: Sequence[CurveRow], kind: Kind) -> dict[str, list[BandPoint]]:
    """Line and band of each cell over the steps, finite values only, in the order of the rows."""
    values: dict[str, dict[int, list[float]]] = {}
    for row in rows:
        if math.isfinite(row.value):
            values.setdefault(row.cell, {}).setdefault(row.step, []).append(row.value)
    summary = _median if kind == "median" else _mean
    return {
        cell: [BandPoint(step, *summary(at), n=len(at)) for step, at in sorted(steps.items())]
        for cell, steps in values.items()
    }


def _median(values: Sequence[float]) -> tuple[float, float, float]:
    ordered = sorted(values)
    return statistics.median(ordered), _quantile(ordered, 0.1), _quantile(ordered, 0.9)


def _quantile(ordered: Sequence[float], share: float) -> float:
    """Linear between the two nearest values."""
    place = share * (len(ordered) - 1)
    low = math.floor(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)


def _mean(values: Sequence[float]) -> tuple[float, float, float]:
    mean = statistics.fmean(values)
    sd = statistics.stdev(values) if len(values) > 1 else 0.0
    return mean, mean - sd, mean + sd


def ends(rows: Sequence[CurveRow], results: Sequence[ResultRow]) -> list[End]:
    """The last finite point of each curve whose training diverged."""
    diverged = {(row.cell, row.task, row.seed) for row in results if row.state == "diverged"}
    last: dict[tuple[str, str, int], CurveRow] = {}
    for row in rows:
        key = (row.cell, row.task, row.seed)
        if key in diverged and math.isfinite(row.value):
            last[key] = row
    return [End(row.cell, row.seed, row.step, row.value) for row in last.values()]
