"""Whether the reference is much noisier or more skewed than the cells, which is where a joint test is weakest.

Sign flips ask whether a cell and the reference have the same distribution within a seed: then their difference is as
likely as its negative, whatever that distribution is. A cell whose *mean* is the reference's, but whose noise is not,
is outside of that: where the reference alone is noisy and skewed, its rare luck leans all differences to one side at
once, and all the cells of a family share the error. Holm over the cells' own tests pays for each of them.

What the cells share in a difference is the reference's luck (the seed's own has cancelled): the mean over cells of a
seed's differences shows it, and what is left around that mean is the cells' noise.

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
LEVEL = 0.05  # of both checks: one study in twenty with equal normal noise is sent to Holm by each
_DRAWS = 20_000


@dataclass(frozen=True, slots=True)
class ReferenceNoise:
    """The reference's noise beside the cells'."""

    ratio: float
    """Its sd over theirs."""
    skew: float
    """The sample skewness of its luck, and the mean one of the cells' noise."""
    cells_skew: float
    is_noisier: bool
    is_skewed: bool

    @property
    def is_uneven(self) -> bool:
        """Whether Holm is to decide."""
        return self.is_noisier or self.is_skewed

    def reason(self, reference: str) -> str:
        """What was found, in words."""
        if self.is_noisier:
            return f"{reference}'s noise is {self.ratio:.1f} times that of the cells"
        return f"{reference}'s noise is skewed ({self.skew:+.1f}), the cells' is not ({self.cells_skew:+.1f})"


def reference_noise(differences: Floats) -> ReferenceNoise | None:
    """Compare the noise; None where it cannot be told apart (one cell, or copies of one; fewer than four seeds).

    With one cell the joint test is that cell's own, and Holm over one would not differ.
    """
    seeds, cells = differences.shape
    if cells < 2 or seeds < 4:
        return None
    common = differences.mean(axis=1)
    rest = differences - common[:, None]
    rest = rest - rest.mean(axis=0)
    freedom = (seeds - 1) * (cells - 1)
    own = float((rest**2).sum()) / freedom
    shared = float(common.var(ddof=1))
    scale = float(np.abs(differences).max()) ** 2
    if min(shared, own) <= 1e-24 * scale:  # nobody has noise, or the cells are one: the joint test is that of one cell
        return None
    ratio = math.sqrt(max(shared - own / cells, 0.0) / own)
    f = shared / (own * (1 + 1 / cells))
    is_noisier = ratio > MUCH and float(special.fdtrc(seeds - 1, freedom, f)) < LEVEL
    skew = -skewness(common)  # a difference is cell minus reference
    cells_skew = float(np.mean([skewness(rest[:, j]) for j in range(cells)]))
    is_skewed = abs(skew) > _skew_limit(seeds) and abs(skew) > 2 * abs(cells_skew)
    return ReferenceNoise(ratio, skew, cells_skew, is_noisier, is_skewed)


def skewness(values: Floats) -> float:
    """The third standardised moment of the sample; 0 without spread."""
    centred = values - values.mean()
    variance = float((centred**2).mean())
    if variance <= 1e-24 * float(np.abs(values).max()) ** 2:
        return 0.0
    return float((centred**3).mean() / variance**1.5)


@lru_cache(maxsize=64)
def _skew_limit(seeds: int) -> float:
    """What |skewness| of that many normal numbers exceeds once in twenty samples. Simulated: the usual formulas need
    more seeds than a study has.
    """
    drawn = np.random.default_rng(0).normal(size=(_DRAWS, seeds))
    centred = drawn - drawn.mean(axis=1, keepdims=True)
    skews = (centred**3).mean(axis=1) / (centred**2).mean(axis=1) ** 1.5
    return float(np.quantile(np.abs(skews), 1 - LEVEL))
