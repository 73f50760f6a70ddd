"""How large a paired effect is, beside whether it is there: equivalence with a margin, effect size, share of seeds won.

"Not decided" does not say that a choice makes no difference. Two one-sided tests do: they ask whether the mean
difference lies within +-margin, where the reader says what margin is too small to matter.

Shapes: `d [seeds]`, cell minus reference within a seed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from miras_search.analysis.paired import Floats, is_flat, t_interval


@dataclass(frozen=True, slots=True)
class Equivalence:
    """Two one-sided paired t tests of a mean difference within +-margin."""

    margin: float
    p: float
    """The larger of the two one-sided p."""
    low: float
    """The ends of the interval that goes with the tests: 90 % for tests at 5 %."""
    high: float
    alpha: float = 0.05

    @property
    def holds(self) -> bool:
        """Whether the difference is shown to be smaller than the margin."""
        return self.p < self.alpha


@dataclass(frozen=True, slots=True)
class Wins:
    """On how many seeds the cell is better than the reference."""

    wins: int
    ties: int
    losses: int

    @property
    def share(self) -> float:
        """The probability of superiority, seed by seed: wins and half of the ties."""
        return (self.wins + self.ties / 2) / (self.wins + self.ties + self.losses)


def equivalence(d: ArrayLike, margin: float, alpha: float = 0.05) -> Equivalence | None:
    """Whether the mean difference is within +-`margin`; None below two seeds, where nothing can be shown.

    Differences that are all equal have no spread: p is 0 inside of the margin and 1 elsewhere. Raises ValueError for a
    margin that is not positive and for numbers that are not finite.
    """
    if not (margin > 0 and math.isfinite(margin)):
        raise ValueError(f"margin is {margin}; it must be positive")
    values = finite(d)
    if values.size < 2:
        return None
    mean = float(values.mean())
    if is_flat(values):
        return Equivalence(margin, 0.0 if abs(mean) < margin else 1.0, mean, mean, alpha)
    error = float(values.std(ddof=1)) / math.sqrt(values.size)
    p = float(special.stdtr(values.size - 1, -(margin - abs(mean)) / error))  # the nearer end has the larger p
    return Equivalence(margin, p, *t_interval(values, 1 - 2 * alpha), alpha)


def paired_d(d: ArrayLike) -> float | None:
    """Cohen's d of the paired differences, mean over sd, with Hedges' correction for few seeds; None below three seeds.

    Without any spread it is 0 where all differences are zero, and infinite with their sign elsewhere. Raises ValueError
    for numbers that are not finite.
    """
    values = finite(d)
    if values.size < 3:  # with two the corrected estimate is always zero
        return None
    mean = float(values.mean())
    if is_flat(values):
        return math.copysign(math.inf, mean) if values.any() else 0.0
    return _unbiased(values.size - 1) * mean / float(values.std(ddof=1))


def wins(d: ArrayLike, *, higher_is_better: bool = True) -> Wins | None:
    """Seeds won, tied and lost; None without seeds. Differences within rounding of zero are ties.

    Raises ValueError for numbers that are not finite.
    """
    values = finite(d) if higher_is_better else -finite(d)
    if not values.size:
        return None
    tie = 1e-12 * max(1.0, float(np.abs(values).max()))
    won, lost = int((values > tie).sum()), int((values < -tie).sum())
    return Wins(won, values.size - won - lost, lost)


def finite(d: ArrayLike) -> Floats:
    """The differences as numbers. Raises ValueError for another shape, and where one is not finite."""
    values = np.asarray(d, dtype=np.float64)
    if values.ndim != 1:
        raise ValueError(f"differences have shape {values.shape}; expected [seeds]")
    if not np.isfinite(values).all():
        raise ValueError("differences contain numbers that are not finite; leave out the diverged seeds first")
    return values


def _unbiased(freedom: int) -> float:
    """Hedges' J: the factor that makes mean / sd unbiased for normal differences (exact, by gamma functions)."""
    half = freedom / 2
    return math.exp(special.gammaln(half) - special.gammaln(half - 0.5)) / math.sqrt(half)
