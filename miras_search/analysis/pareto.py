"""Which cells nobody beats in quality and in cost at once."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from miras_search.metrics import Direction


@dataclass(frozen=True, slots=True)
class Front:
    """The cells that no other cell dominates, and for each of the rest one that dominates it."""

    front: tuple[str, ...]
    dominated: Mapping[str, str]
    left_out: tuple[str, ...]
    """Cells with a number missing or not finite: they cannot be placed."""


def pareto(points: Mapping[str, Sequence[float | None]], directions: Sequence[Direction]) -> Front:
    """The front of `points`, cell -> one number an objective.

    A cell dominates another that is nowhere better and somewhere worse; equal cells are on the front together. Raises
    ValueError where a point has another number of values than there are directions.
    """
    signs = [1.0 if direction == "maximize" else -1.0 for direction in directions]
    placed: dict[str, list[float]] = {}
    for cell, values in points.items():
        if len(values) != len(signs):
            raise ValueError(f"{cell}: {len(values)} values for {len(signs)} objectives")
        if all(value is not None and math.isfinite(value) for value in values):
            placed[cell] = [sign * value for sign, value in zip(signs, values, strict=True) if value is not None]
    front: list[str] = []
    dominated: dict[str, str] = {}
    for cell, own in placed.items():
        better = next((other for other, theirs in placed.items() if _dominates(theirs, own)), None)
        if better is None:
            front.append(cell)
        else:
            dominated[cell] = better
    # the one that is named is on the front itself
    for cell in dominated:
        dominated[cell] = next(other for other in front if _dominates(placed[other], placed[cell]))
    return Front(tuple(front), dominated, tuple(cell for cell in points if cell not in placed))


def _dominates(left: Sequence[float], right: Sequence[float]) -> bool:
    pairs = list(zip(left, right, strict=True))
    return all(a >= b for a, b in pairs) and any(a > b for a, b in pairs)
