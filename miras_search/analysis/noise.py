"""Whether the noise of the differences is such that sign flips cannot be trusted with their mean.

Sign flips ask whether a difference is as likely as its negative. Where a cell's *mean* is the reference's but its noise
is skewed, or the reference's is, it is not: eight differences of one sign then come about far more often than twice in
2^8 times, and Holm over the cells' own sign flips, which knows their signs alone, errs as often. No test of so few
seeds is valid for every noise, so what decides there is one that is known to hold for noise as skewed as an
exponential's (`paired.exponential_t_each`), beside the sign flips. That does not reach to rare collapses of one side
alone: where none of few seeds shows one, the differences look sure of a mean that they miss (`bench statistics`
measures both sides).

One cell's few differences tell little of their skewness, and least of all where they have one sign. The cells of a
family tell together: by their mean skewness, if they lean to one side, or by its mean size. A base that is much noisier
than the cells leans all of them to one side at once, so that is looked at too. Cells that share luck of their own, as
those with one level of a factorial may, look the same from here: that costs power, and what is told is what was seen.

Intervals lean to the side of all cells, where they agree on one (`paired.leaning_interval`), and do before the check
finds anything: skewed noise often shows too little in so few seeds. They begin at three fifths of the skewness that it
asks for and lean wholly where it finds it, in proportion between the two; a base found noisier makes them lean at once.

Shapes: `differences [seeds, cells]`, or `[..., seeds, cells]` of many studies at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy import special

from miras_search.analysis.paired import Floats

MUCH = 1.5  # times the cells' sd, and significantly more
LEVEL = 0.05  # of that check
# Of the two checks of skewness. Wide: to miss it lets a study err, and to see it where there is none costs power alone,
# which large effects do not need (`bench statistics` measures both).
SKEW_LEVEL = 0.25
LEAN_FROM = 0.6  # of the skewness that the check asks for
AGREED = 0.5  # of the cells' mean size of skewness: with more than this left in their mean, they lean to one side
FEWEST = 4  # seeds that show anything
_DRAWS = 8_000
_NOTHING = 1e-24  # of the largest difference squared: less of a variance is rounding

Flags: TypeAlias = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Noise:
    """What the differences of a family show of their noise."""

    ratio: float
    """The reference's sd over the cells'."""
    skew: float
    """The mean over cells of the differences' sample skewness."""
    size: float
    """The mean of its absolute values."""
    sides: tuple[float, ...]
    """Of each cell, by its sign, to which side its differences lean: that of all, or its own where they disagree."""
    lean: float
    """How far intervals lean, from 0 for not at all to 1."""
    is_noisier: bool
    is_skewed: bool

    @property
    def is_agreed(self) -> bool:
        """Whether several cells lean to one side."""
        return len(self.sides) > len(set(self.sides)) == 1

    @property
    def is_uneven(self) -> bool:
        """Whether sign flips alone are not to decide."""
        return self.is_noisier or self.is_skewed

    def reason(self, reference: str) -> str:
        """What was found, in words."""
        if self.is_noisier:
            return f"what the differences to {reference} share varies {self.ratio:.1f} times as much as the rest"
        return f"the differences look skewed (skewness {self.skew:+.1f} in the mean, {self.size:.1f} in size)"


def noise_of(differences: Floats) -> Noise | None:
    """What the family shows; None where that is nothing (no noise, or fewer than four seeds).

    A single cell, or copies of one, are looked at for their skewness alone.
    """
    found = _measured(differences)
    if found is None or not found.is_noise:
        return None
    return Noise(
        ratio=float(found.ratio),
        skew=float(found.skew),
        size=float(found.size),
        sides=tuple(sides(differences).tolist()),
        lean=float(found.lean),
        is_noisier=bool(found.is_noisier),
        is_skewed=bool(found.is_skewed),
    )


def uneven_and_lean(differences: Floats) -> tuple[Flags, Floats]:
    """Of each of many studies what `noise_of` finds: whether sign flips alone are not to decide, and how far intervals
    lean.
    """
    found = _measured(differences)
    if found is None:
        studies = differences.shape[:-2]
        return np.zeros(studies, dtype=np.bool_), np.zeros(studies)
    return found.is_noise & (found.is_noisier | found.is_skewed), np.where(found.is_noise, found.lean, 0.0)


class _Measured(NamedTuple):
    """As `Noise`, of many studies."""

    ratio: Floats
    skew: Floats
    size: Floats
    lean: Floats
    is_noisier: Flags
    is_skewed: Flags
    is_noise: Flags


def _measured(differences: Floats) -> _Measured | None:
    seeds, cells = differences.shape[-2:]
    if seeds < FEWEST:
        return None
    scale = np.abs(differences).max(axis=(-2, -1)) ** 2
    ratio, is_noisier = _ratio(differences, scale)
    skews = skewness(differences)
    skew, size = skews.mean(axis=-1), np.abs(skews).mean(axis=-1)
    most_skew, most_size = _limits(seeds, cells)
    share = np.maximum(np.abs(skew) / most_skew, size / most_size)  # of what makes them skewed
    lean = np.where(is_noisier, 1.0, np.clip((share - LEAN_FROM) / (1.0 - LEAN_FROM), 0.0, 1.0))
    is_noise = differences.var(axis=-2).max(axis=-1) > _NOTHING * scale
    return _Measured(ratio, skew, size, lean, is_noisier, share > 1.0, is_noise)


def _ratio(differences: Floats, scale: Floats) -> tuple[Floats, Flags]:
    """The reference's sd over the cells', and whether that is much. The seed's own luck has cancelled: what is left in
    the mean over cells is the reference's, and what is left around that mean is the cells'.
    """
    seeds, cells = differences.shape[-2:]
    if cells < 2:
        return np.ones(scale.shape), np.zeros(scale.shape, dtype=np.bool_)
    common = differences.mean(axis=-1)
    rest = differences - common[..., None]
    rest = rest - rest.mean(axis=-2, keepdims=True)
    freedom = (seeds - 1) * (cells - 1)
    own, shared = (rest**2).sum(axis=(-2, -1)) / freedom, common.var(axis=-1, ddof=1)
    known = own > _NOTHING * scale
    own = np.where(known, own, 1.0)
    ratio: Floats = np.where(known, np.sqrt(np.maximum(shared - own / cells, 0.0) / own), 1.0)
    f = shared / (own * (1 + 1 / cells))
    is_noisier: Flags = known & (ratio > MUCH) & (special.fdtrc(seeds - 1, freedom, f) < LEVEL)
    return ratio, is_noisier


def skewness(differences: Floats) -> Floats:
    """The third standardised moment by cell, `[..., seeds, cells]` to `[..., cells]`; 0 without spread."""
    centred = differences - differences.mean(axis=-2, keepdims=True)
    squares = centred**2
    variance = squares.mean(axis=-2)
    known = variance > _NOTHING * np.abs(differences).max(axis=-2) ** 2
    found: Floats = np.where(known, (squares * centred).mean(axis=-2) / np.where(known, variance, 1.0) ** 1.5, 0.0)
    return found


def sides(differences: Floats) -> Floats:
    """The skewness that tells to which side each cell leans, `[..., seeds, cells]` to `[..., cells]`: the mean of the
    cells where they agree, else a cell's own.
    """
    own = skewness(differences)
    mean, size = own.mean(axis=-1, keepdims=True), np.abs(own).mean(axis=-1, keepdims=True)
    found: Floats = np.where(np.abs(mean) > AGREED * size, mean, own)
    return found


@lru_cache(maxsize=256)
def _limits(seeds: int, cells: int) -> tuple[float, float]:
    """What |mean skewness| and mean |skewness| of so many cells exceed once in so many studies with equal normal noise.

    Simulated: the usual formulas need more seeds than a study has, and the cells share the reference's luck.
    """
    random = np.random.default_rng(0)
    found = []
    for _ in range(_DRAWS // 1_000):
        drawn = random.normal(size=(1_000, seeds, cells)) - random.normal(size=(1_000, seeds, 1))
        found.append(skewness(drawn))
    skews = np.concatenate(found)
    both = np.abs(skews.mean(axis=1)), np.abs(skews).mean(axis=1)
    leaning, size = (float(np.quantile(one, 1 - SKEW_LEVEL)) for one in both)
    return leaning, size
