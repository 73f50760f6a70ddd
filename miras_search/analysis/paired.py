"""Statistics of paired differences: one number a seed, cell minus reference.

All cells of a study share their seeds, so a comparison looks at the difference within a seed, where the luck of the
data and of the initial weights largely cancels. The test flips the sign of a seed's *whole* vector of differences at
once. That keeps the correlation between cells (they share the reference's luck), so the correction for many cells
costs little and the smallest attainable p stays 2 / 2^n however many cells there are. Holm on one cell at a time, by
contrast, multiplies that floor by the number of cells.

Shapes: `differences [seeds, cells]`, or `[..., seeds, cells]` of many studies at once; `d [seeds]`.
"""

from __future__ import annotations

import math
import warnings
from functools import lru_cache
from typing import TypeAlias, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from miras_search.seeds import DRAWS, EXACT_SEEDS

Floats: TypeAlias = NDArray[np.float64]
Lean = TypeVar("Lean", float, Floats)  # of one interval or of many, 0 to 1

EXPONENTIAL_DRAWS = 65_536
MOST_SKEWED = 64  # seeds: with more of them skewness matters less, and the table for so many is conservative
STUDENTS_SHARE = 0.43  # of the way from an exponential's short side to Student's
BCA_SEEDS = 20  # below this, a bootstrap is too coarse and the t interval alone is reported
_BLOCK = 4_096  # flips handled at once: bounds the memory at 4,096 x cells numbers
_ROUNDING = 1e-12  # of the subtraction that makes a difference, as a share of the largest one
_TIE = 1e-9  # accuracies are shares with few distinct values: equal statistics must not be split by rounding


def sign_flip_stepdown(
    differences: ArrayLike, *, draws: int = DRAWS, seed: int = 0, exact: int = EXACT_SEEDS
) -> Floats:
    """Two-sided p for every cell by joint sign flips of the seeds, corrected step-down over the cells (max |t|).

    `differences [..., seeds, cells]` gives `p [..., cells]`. All 2^n flips are counted for n <= `exact`; above that
    `draws` flips are drawn with `seed` and the unflipped data are counted as one more. A cell whose differences are all
    zero gets p = 1. Raises ValueError for a wrong shape, no seeds, or numbers that are not finite.
    """
    unit = _unit_columns(_table(differences))
    observed = _statistic(unit.sum(axis=-2), unit.shape[-2])
    order = np.argsort(-observed, axis=-1, kind="stable")
    unit, ranked = np.take_along_axis(unit, order[..., None, :], -1), np.take_along_axis(observed, order, -1)
    shares = _share_at_least(unit, ranked, draws=draws, seed=seed, exact=exact, stepdown=True)
    p = np.empty(observed.shape)
    np.put_along_axis(p, order, np.maximum.accumulate(shares, axis=-1), -1)  # a smaller effect never gets the smaller p
    return p


def sign_flip_each(differences: ArrayLike, *, draws: int = DRAWS, seed: int = 0) -> Floats:
    """Two-sided sign-flip p of every cell on its own, not corrected: what Holm starts from.

    Shapes, flips and errors as in `sign_flip_stepdown`.
    """
    unit = _unit_columns(_table(differences))
    observed = _statistic(unit.sum(axis=-2), unit.shape[-2])
    return _share_at_least(unit, observed, draws=draws, seed=seed, exact=EXACT_SEEDS, stepdown=False)


def _table(differences: ArrayLike) -> Floats:
    table = np.asarray(differences, dtype=np.float64)
    if table.ndim < 2 or table.shape[-2] == 0:
        raise ValueError(f"differences have shape {table.shape}; expected [seeds, cells] with at least one seed")
    if not np.isfinite(table).all():
        raise ValueError("differences contain numbers that are not finite; leave out the diverged seeds first")
    return table


def _statistic(sums: Floats, seeds: int) -> Floats:
    """|sum| / sqrt(n) of unit columns, which grows with |t| and lies in [0, 1]."""
    found: Floats = np.abs(sums)
    found /= math.sqrt(seeds)
    return found


def _share_at_least(unit: Floats, observed: Floats, *, draws: int, seed: int, exact: int, stepdown: bool) -> Floats:
    """The share of flips whose statistic reaches the observed one.

    With `stepdown` the columns are ranked and the cell of rank k is held against the largest statistic of the cells
    of rank k and below.
    """
    seeds = unit.shape[-2]
    counted = seeds <= exact
    total = 2 ** (seeds - 1) if counted else draws
    random = np.random.default_rng(seed)
    hits, columns = np.zeros(observed.shape, dtype=np.int64), np.ascontiguousarray(unit.swapaxes(-1, -2))
    for start in range(0, total, _BLOCK):
        count = min(_BLOCK, total - start)
        signs = _enumerated(start, count, seeds) if counted else _drawn(random, count, seeds)
        flipped = _statistic(columns @ signs, seeds)  # [..., cells, flips]: what follows goes along the flips
        if stepdown:
            for rank in range(flipped.shape[-2] - 1, 0, -1):
                np.maximum(flipped[..., rank - 1, :], flipped[..., rank, :], out=flipped[..., rank - 1, :])
        hits += np.count_nonzero(flipped >= (observed - _TIE)[..., None], axis=-1)
    return hits / total if counted else (hits + 1) / (total + 1)


def _unit_columns(table: Floats) -> Floats:
    """Every column scaled to length one.

    A flip leaves the sum of squares alone, so |t| grows with u = |sum| / sqrt(n * sum of squares), which stays finite
    where t does not: differences that are all equal give u = 1, |t| = infinity.
    """
    largest = np.abs(table).max(axis=-2, keepdims=True)
    scaled = table / np.where(largest > 0, largest, 1.0)  # squares of tiny differences would underflow
    length = np.sqrt((scaled**2).sum(axis=-2, keepdims=True))
    unit: Floats = scaled / np.where(length > 0, length, 1.0)
    return unit


@lru_cache(maxsize=8)
def _enumerated(start: int, count: int, seeds: int) -> Floats:
    """Flips `start .. start + count` of the 2^(n-1) that leave the first seed alone, `[seeds, flips]`.

    Flipping every seed only changes the sign of the sum, so the other half of the 2^n flips repeats these.
    """
    bits = (np.arange(start, start + count) >> np.arange(seeds - 1)[:, None]) & 1
    signs = np.ones((seeds, count))
    signs[1:] -= 2.0 * bits
    signs.flags.writeable = False  # handed out again: every family of a study has the same flips
    return signs


def _drawn(random: np.random.Generator, count: int, seeds: int) -> Floats:
    signs = np.ones((count, seeds))
    signs -= 2.0 * random.integers(0, 2, size=(count, seeds))
    return signs.T


def holm(p: ArrayLike) -> Floats:
    """Holm's step-down correction of independent p values `[..., cells]`: monotone, at most 1, in the order given."""
    raw = np.asarray(p, dtype=np.float64)
    order = np.argsort(raw, axis=-1, kind="stable")
    ranked = np.take_along_axis(raw, order, -1) * np.arange(raw.shape[-1], 0, -1)
    corrected = np.empty(raw.shape)
    np.put_along_axis(corrected, order, np.minimum(np.maximum.accumulate(ranked, axis=-1), 1.0), -1)
    return corrected


def exponential_t_each(differences: Floats) -> Floats:
    """Two-sided p of the paired t statistic of every cell held against exponential noise instead of normal noise.

    Of `[..., seeds, cells]`, `[..., cells]`, not corrected. Exponential noise (skewness 2) around an unchanged mean
    often gives differences that nearly all have one sign and lie close together, so |t| is large by chance far more
    often than Student's table says: at 6 seeds 4.1 and not 2.6 has a p of .05. Conservative for less skewed noise. The
    smallest p is 1 / 65,537; 1 if all differences are zero, 0 if they are equal and not zero.
    """
    seeds = differences.shape[-2]
    mean, spread = np.abs(differences.mean(axis=-2)), differences.std(axis=-2, ddof=1)
    flat = np.ptp(differences, axis=-2) <= _ROUNDING * np.abs(differences).max(axis=-2)
    t = mean / (np.where(flat, 1.0, spread) / math.sqrt(seeds))
    null = _exponential_size(min(seeds, MOST_SKEWED))
    found = (null.size - np.searchsorted(null, t * (1 - _TIE)) + 1) / (null.size + 1)
    p: Floats = np.where(flat, np.where(mean > 0, 0.0, 1.0), found)
    return p


def leaning_interval(
    d: ArrayLike, level: float = 0.95, *, side: float | None = None, lean: float = 1.0
) -> tuple[float, float]:
    """The interval for the mean difference where the noise may be skewed: longer to the side to which it leans.

    There a skewed distribution hides what few seeds have not shown. The side is that of the sample's own skewness, or
    the sign of `side`, which many cells know better than one. `lean` says how much of the way it goes from Student's
    interval (0) to this one (1). `bench statistics` measures what such intervals cover in families of five: about 93 to
    97 % for every kind of noise there but rare collapses of one side, where symmetric ones that hold for exponential
    noise cover 98 to 99.5 % without it. Raises ValueError below two seeds.
    """
    values = _differences(d)
    mean, scale = float(values.mean()), float(values.std(ddof=1)) / math.sqrt(values.size)
    long, short = (scale * one for one in leaning_t(values.size, level, lean=lean))
    if side is None:
        side = float(((values - mean) ** 3).sum())
    return (mean - short, mean + long) if side >= 0 else (mean - long, mean + short)


def leaning_t(seeds: int, level: float = 0.95, *, lean: Lean) -> tuple[Lean, Lean]:
    """How many standard errors an interval that leans so far reaches to its longer and to its shorter side.

    Wholly, the longer is what exponential noise needs; the shorter lies between what that needs and Student's, because
    the side may be the wrong one. Less far, both are on the way there from Student's.
    """
    null = _exponential_t(min(seeds, MOST_SKEWED))
    beyond = round((1.0 - level) / 2.0 * null.size)
    student, short = student_t(seeds, level), float(null[-1 - beyond])
    long, short = max(-float(null[beyond]), student), short + STUDENTS_SHARE * (student - short)
    return student + lean * (long - student), student + lean * (short - student)


@lru_cache(maxsize=64)
def _exponential_t(seeds: int) -> Floats:
    """t of exponential noise around its mean, drawn and sorted: there is no formula."""
    random = np.random.default_rng(0)
    found = []
    for _ in range(EXPONENTIAL_DRAWS // _BLOCK):
        drawn = random.exponential(size=(_BLOCK, seeds)) - 1.0
        found.append(drawn.mean(axis=1) / (drawn.std(axis=1, ddof=1) / math.sqrt(seeds)))
    null: Floats = np.sort(np.concatenate(found))
    null.flags.writeable = False
    return null


@lru_cache(maxsize=64)
def _exponential_size(seeds: int) -> Floats:
    """|t| of the same draws, sorted."""
    null: Floats = np.sort(np.abs(_exponential_t(seeds)))
    null.flags.writeable = False
    return null


def t_interval(d: ArrayLike, level: float = 0.95) -> tuple[float, float]:
    """Student's interval for the mean difference. Raises ValueError below two seeds."""
    values = _differences(d)
    mean = float(values.mean())
    half = student_t(values.size, level) * float(values.std(ddof=1)) / math.sqrt(values.size)
    return mean - half, mean + half


def bca_interval(d: ArrayLike, level: float = 0.95, seed: int = 0) -> tuple[float, float]:
    """Bias-corrected accelerated bootstrap interval for the mean difference, seeded.

    Differences that are all equal give that number twice. Raises ValueError below two seeds.
    """
    values = _differences(d)
    if is_flat(values):
        return float(values.mean()), float(values.mean())
    from scipy import stats  # most of a second to import, and most tables have fewer than 20 seeds

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", stats.DegenerateDataWarning)  # answered below, by the t interval
        found = stats.bootstrap(
            (values,),
            np.mean,
            confidence_level=level,
            n_resamples=9_999,
            method="BCa",
            rng=np.random.default_rng(seed),
        ).confidence_interval
    low, high = float(found.low), float(found.high)
    if not (math.isfinite(low) and math.isfinite(high)):
        return t_interval(values, level)
    return low, high


def interval(d: ArrayLike, level: float = 0.95) -> tuple[float, float]:
    """The interval a table reports: t below 20 seeds; from there the outer ends of t and widened BCa.

    BCa leans with the skew, which t does not, but alone it covers 92 to 93 % at 20 and 30 seeds with normal noise and
    87 % with heavy tails. Its level is therefore raised to what makes it as wide as t, and it only ever moves an end of
    t's outwards. Raises ValueError below two seeds.
    """
    values = _differences(d)
    low, high = t_interval(values, level)
    if values.size < BCA_SEEDS:
        return low, high
    left, right = bca_interval(values, widened(level, values.size))
    return min(low, left), max(high, right)


def widened(level: float, n: int) -> float:
    """The level at which a bootstrap of n numbers is as wide as t: it lacks t's tails, and 1/n of the variance."""
    return float(1.0 - 2.0 * special.ndtr(-math.sqrt(n / (n - 1)) * student_t(n, level)))


def more_seeds(d: ArrayLike, half_width: float, level: float = 0.95) -> int:
    """About how many more seeds bring the t interval to +-`half_width`, if the sd stays as it is; 0 if it is there.

    Raises ValueError below two seeds or for a half width that is not positive.
    """
    values = _differences(d)
    if not half_width > 0:
        raise ValueError(f"half_width is {half_width}; it must be positive")
    sd = float(values.std(ddof=1))

    def wide(n: int) -> bool:
        return student_t(n, level) * sd / math.sqrt(n) > half_width

    low = values.size
    if not wide(low):
        return 0
    high = 2 * low
    while wide(high):
        low, high = high, 2 * high
    while high - low > 1:  # the interval at `low` seeds is too wide, at `high` it is not
        middle = (low + high) // 2
        low, high = (middle, high) if wide(middle) else (low, middle)
    return high - values.size


def student_t(seeds: int, level: float = 0.95) -> float:
    """How many standard errors Student's interval reaches to both sides."""
    return float(special.stdtrit(seeds - 1, 0.5 + level / 2.0))


def _differences(d: ArrayLike) -> Floats:
    values = np.asarray(d, dtype=np.float64)
    if values.ndim != 1 or values.size < 2:
        raise ValueError(f"paired differences have shape {values.shape}; at least two seeds are needed")
    return values


def is_flat(values: Floats) -> bool:
    """Whether all differences are equal, up to the rounding of the subtraction that made them."""
    return bool(np.ptp(values) <= _ROUNDING * np.abs(values).max())
