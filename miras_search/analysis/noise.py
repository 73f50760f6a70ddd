"""Whether the noise of the differences is such that sign flips cannot be trusted with their mean.

Sign flips ask whether a difference is as likely as its negative. Where a cell's *mean* is the reference's but its noise
is skewed, or the reference's is, it is not: eight differences of one sign then come about far more often than twice in
2^8 times, and Holm over the cells' own sign flips, which knows their signs alone, errs as often. No test of so few
seeds is valid for every noise, so what decides there is one that is known to hold for noise as skewed as an
exponential's (`paired.exponential_t_p`), beside the sign flips.

One cell's few differences tell little of their skewness, and least of all where they have one sign. The cells of a
family tell together: by their mean skewness, if they lean to one side, or by its mean size. A base that is much noisier
than the cells leans all of them to one side at once, so that is looked at too.

Shapes: `differences [seeds, cells]`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy import special

from miras_search.analysis.paired import Floats

MUCH = 1.5  # times the cells' sd, and significantly more
LEVEL = 0.05  # of that check
# Of the two checks of skewness. Wide: to miss it lets a study err, and to see it where there is none costs power alone,
# which large effects do not need (`bench statistics` measures both).
SKEW_LEVEL = 0.25
_DRAWS = 8_000


@dataclass(frozen=True, slots=True)
class Noise:
    """What the differences of a family show of their noise."""

    ratio: float
    """The reference's sd over the cells'."""
    skew: float
    """The mean over cells of the differences' sample skewness."""
    size: float
    """The mean of its absolute values."""
    is_noisier: bool
    is_skewed: bool

    @property
    def is_uneven(self) -> bool:
        """Whether sign flips alone are not to decide."""
        return self.is_noisier or self.is_skewed

    def reason(self, reference: str) -> str:
        """What was found, in words."""
        if self.is_noisier:
            return f"{reference}'s noise is {self.ratio:.1f} times that of the cells"
        return f"the differences look skewed (skewness {self.skew:+.1f} in the mean, {self.size:.1f} in size)"


def noise_of(differences: Floats) -> Noise | None:
    """What the family shows; None where that is nothing (no noise, or fewer than four seeds).

    A single cell, or copies of one, are looked at for their skewness alone.
    """
    seeds, cells = differences.shape
    scale = float(np.abs(differences).max()) ** 2
    if seeds < 4 or float(differences.var(axis=0).max()) <= 1e-24 * scale:
        return None
    ratio, is_noisier = _ratio(differences, scale)
    skews = [skewness(differences[:, j]) for j in range(cells)]
    skew, size = float(np.mean(skews)), float(np.mean(np.abs(skews)))
    most_skew, most_size = _limits(seeds, cells)
    return Noise(ratio, skew, size, is_noisier, abs(skew) > most_skew or size > most_size)


def _ratio(differences: Floats, scale: float) -> tuple[float, bool]:
    """The reference's sd over the cells', and whether that is much. The seed's own luck has cancelled: what is left in
    the mean over cells is the reference's, and what is left around that mean is the cells'.
    """
    seeds, cells = differences.shape
    if cells < 2:
        return 1.0, False
    common = differences.mean(axis=1)
    rest = differences - common[:, None]
    rest = rest - rest.mean(axis=0)
    freedom = (seeds - 1) * (cells - 1)
    own, shared = float((rest**2).sum()) / freedom, float(common.var(ddof=1))
    if own <= 1e-24 * scale:
        return 1.0, False
    ratio = math.sqrt(max(shared - own / cells, 0.0) / own)
    f = shared / (own * (1 + 1 / cells))
    return ratio, ratio > MUCH and float(special.fdtrc(seeds - 1, freedom, f)) < LEVEL


def skewness(values: Floats) -> float:
    """The third standardised moment of the sample; 0 without spread."""
    centred = values - values.mean()
    variance = float((centred**2).mean())
    if variance <= 1e-24 * float(np.abs(values).max()) ** 2:
        return 0.0
    return float((centred**3).mean() / variance**1.5)


@lru_cache(maxsize=256)
def _limits(seeds: int, cells: int) -> tuple[float, float]:
    """What |mean skewness| and mean |skewness| of so many cells exceed once in so many studies with equal normal noise.

    Simulated: the usual formulas need more seeds than a study has, and the cells share the reference's luck.
    """
    random = np.random.default_rng(0)
    found = []
    for _ in range(_DRAWS // 1_000):
        drawn = random.normal(size=(1_000, seeds, cells)) - random.normal(size=(1_000, seeds, 1))
        centred = drawn - drawn.mean(axis=1, keepdims=True)
        found.append((centred**3).mean(axis=1) / (centred**2).mean(axis=1) ** 1.5)
    skews = np.concatenate(found)
    both = np.abs(skews.mean(axis=1)), np.abs(skews).mean(axis=1)
    leaning, size = (float(np.quantile(one, 1 - SKEW_LEVEL)) for one in both)
    return leaning, size
