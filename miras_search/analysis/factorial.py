"""Main effects and interactions of the varied axes.

A complete factorial, every combination trained with every seed, is balanced: the sums of squares of all effects are
orthogonal and exact, with the seed as a block. Anything else (a fraction, one axis at a time, a cell that diverged) is
fitted by least squares with seed effects, and an effect gets what it explains beyond all effects that do not contain it
(type II). F and p take normal noise of one size for granted; the joint sign flips of the table do not.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from scipy import special

from miras_search.analysis.paired import Floats, holm

Levels: TypeAlias = Mapping[str, str]
"""Axis -> level."""
Term: TypeAlias = tuple[str, ...]
"""The axes of an effect: one for a main effect, two for an interaction of two."""
_NOTHING = 1e-12  # of the total: a sum of squares below this is rounding


AS_BASE = "(base)"  # the level of an axis that a cell leaves as it is


@dataclass(frozen=True, slots=True)
class Observation:
    """One training: the levels of its cell, its seed, what it found."""

    levels: Levels
    seed: int
    value: float


@dataclass(frozen=True, slots=True)
class Effect:
    """One line of the analysis of variance."""

    term: Term
    freedom: int
    squares: float
    share: float
    """Of the variation between cells (exact), or of all but the seeds' (least squares, where shares overlap)."""
    f: float | None
    p: float | None
    """None where no freedom is left for the noise."""
    p_holm: float | None = None

    def __str__(self) -> str:
        return " x ".join(self.term)


@dataclass(frozen=True, slots=True)
class Anova:
    """Effects of axes, and what is left of the variation."""

    method: Literal["exact", "least squares"]
    effects: tuple[Effect, ...]
    seed_squares: float
    noise_squares: float
    noise_freedom: int
    left_out: tuple[Term, ...] = ()
    """Interactions that these cells cannot tell apart from other effects."""

    @property
    def noise_sd(self) -> float | None:
        """The sd of a training that neither its cell nor its seed explains."""
        return math.sqrt(self.noise_squares / self.noise_freedom) if self.noise_freedom else None


def anova(observations: Sequence[Observation], *, order: int = 2) -> Anova | None:
    """Effects of all axes that vary, and of their interactions up to `order` (least squares) or all (exact).

    None where nothing varies or fewer than two observations are there. Raises ValueError for observations without the
    same axes, one combination and seed twice, and for numbers that are not finite.
    """
    data = list(observations)
    if any(not math.isfinite(one.value) for one in data):
        raise ValueError("observations contain numbers that are not finite; leave out the diverged seeds first")
    axes = _varied(data)
    if not axes or len(data) < 2:
        return None
    keys = [(*(one.levels[axis] for axis in axes), one.seed) for one in data]
    if len(set(keys)) != len(keys):
        raise ValueError("a combination of levels has two values for one seed")
    levels = {axis: list(dict.fromkeys(one.levels[axis] for one in data)) for axis in axes}
    seeds = list(dict.fromkeys(one.seed for one in data))
    if len(data) == len(seeds) * math.prod(map(len, levels.values())):
        return _exact(data, levels, seeds)
    return _least_squares(data, levels, seeds, order)


def _varied(data: Sequence[Observation]) -> list[str]:
    axes = list(data[0].levels) if data else []
    if any(set(one.levels) != set(axes) for one in data):
        raise ValueError("observations differ in their axes; give every one a level of each")
    return [axis for axis in axes if len({one.levels[axis] for one in data}) > 1]


def _exact(data: Sequence[Observation], levels: Mapping[str, list[str]], seeds: list[int]) -> Anova:
    shape = (*map(len, levels.values()), len(seeds))
    table = np.empty(shape)
    for one in data:
        place = (*(names.index(one.levels[axis]) for axis, names in levels.items()), seeds.index(one.seed))
        table[place] = one.value
    axes, last = list(levels), len(levels)
    total = float(((table - table.mean()) ** 2).sum())
    squares: dict[Term, tuple[int, float]] = {}
    for size in range(1, last + 1):
        for places in itertools.combinations(range(last), size):
            part = interaction(table, places)
            freedom = math.prod(shape[place] - 1 for place in places)
            squares[tuple(axes[place] for place in places)] = freedom, _clean(float((part**2).sum()), total)
    between = math.fsum(found for _, found in squares.values())
    seed_squares = _clean(float((interaction(table, (last,)) ** 2).sum()), total)
    noise = _clean(total - between - seed_squares, total)
    freedom = (math.prod(shape[:-1]) - 1) * (len(seeds) - 1)
    return Anova("exact", _effects(squares, between, noise, freedom), seed_squares, noise, freedom)


def interaction(table: Floats, places: tuple[int, ...]) -> Floats:
    """The interaction effect of these axes at every cell of a full table: means over the rest, by in- and exclusion."""
    found = np.zeros(table.shape)
    for size in range(len(places) + 1):
        for kept in itertools.combinations(places, size):
            others = tuple(place for place in range(table.ndim) if place not in kept)
            found += (-1) ** (len(places) - size) * table.mean(axis=others, keepdims=True)
    return found


def _least_squares(data: Sequence[Observation], levels: Mapping[str, list[str]], seeds: list[int], order: int) -> Anova:
    y = np.array([one.value for one in data])
    y = y - y.mean()
    total = float((y**2).sum())
    blocks: dict[Term, Floats] = {}
    for size in range(1, order + 1):
        for term in itertools.combinations(levels, size):
            blocks[term] = _columns(data, term, levels)
    seeded = np.stack([[float(one.seed == seed) for seed in seeds] for one in data])
    fitted, left_out = dict(blocks), []
    for term in [term for term in blocks if len(term) > 1]:  # interactions that add no column of their own
        rest = np.hstack([seeded, *(columns for other, columns in fitted.items() if other != term)])
        if np.linalg.matrix_rank(np.hstack([rest, fitted[term]])) == np.linalg.matrix_rank(rest):
            del fitted[term]
            left_out.append(term)
    rss, rank = _residual(np.hstack([seeded, *fitted.values()]), y)
    alone, _ = _residual(seeded, y)
    squares: dict[Term, tuple[int, float]] = {}
    for term in fitted:
        others = [columns for other, columns in fitted.items() if not set(term) <= set(other)]
        without, fewer = _residual(np.hstack([seeded, *others]), y)
        having, more = _residual(np.hstack([seeded, *others, fitted[term]]), y)
        squares[term] = more - fewer, _clean(without - having, total)
    freedom = len(data) - rank
    noise = _clean(rss, total)
    found = _effects({term: one for term, one in squares.items() if one[0]}, alone, noise, freedom)
    left_out += [term for term, (own, _) in squares.items() if not own]
    return Anova("least squares", found, _clean(total - alone, total), noise, freedom, tuple(left_out))


def _columns(data: Sequence[Observation], term: Term, levels: Mapping[str, list[str]]) -> Floats:
    """One column for each combination of the axes' levels but the first ones."""
    wanted = itertools.product(*(levels[axis][1:] for axis in term))
    columns = [
        [float(all(one.levels[axis] == level for axis, level in zip(term, names, strict=True))) for one in data]
        for names in wanted
    ]
    return np.array(columns).T


def _residual(design: Floats, y: Floats) -> tuple[float, int]:
    """The residual sum of squares and the rank of the design."""
    solution, _, rank, _ = np.linalg.lstsq(design, y, rcond=None)
    return float(((y - design @ solution) ** 2).sum()), int(rank)


def _clean(squares: float, total: float) -> float:
    return squares if squares > _NOTHING * total else 0.0


def _effects(squares: Mapping[Term, tuple[int, float]], whole: float, noise: float, freedom: int) -> tuple[Effect, ...]:
    found = []
    for term, (own, sum_of_squares) in squares.items():
        f, p = _f_test(sum_of_squares, own, noise, freedom)
        share = sum_of_squares / whole if whole > 0 else 0.0
        found.append(Effect(term, own, sum_of_squares, share, f, p))
    if any(one.p is None for one in found):
        return tuple(found)
    corrected = holm([one.p or 0.0 for one in found])
    return tuple(
        Effect(one.term, one.freedom, one.squares, one.share, one.f, one.p, float(p))
        for one, p in zip(found, corrected, strict=True)
    )


def _f_test(squares: float, own: int, noise: float, freedom: int) -> tuple[float | None, float | None]:
    if not freedom:
        return None, None
    if noise == 0.0:
        return (math.inf, 0.0) if squares > 0 else (0.0, 1.0)
    f = (squares / own) / (noise / freedom)
    return f, float(special.fdtrc(own, freedom, f))
