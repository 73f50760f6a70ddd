"""Studies without any effect, or with a planted one, from a surrogate trainer: numbers with the noise of trainings.

A surrogate training is the luck of its seed and noise of its own. Where no choice changes anything at all, whatever the
noise looks like, and wherever the noise is symmetric, sign flips are exact. In the other settings cell and base have
the same mean and unlike, skewed noise: no test of so few seeds is exact for that, so these are what the check of the
noise (analysis/noise.py) is for. Collapses too rare to show in a study's seeds are beyond it, as they are beyond any
test of means: they are here so that the bench says by how much.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from miras_search.analysis.paired import Floats

Noise = Callable[[np.random.Generator, int, int], Floats]
"""(random, seeds, columns) -> noise [seeds, columns] of mean zero; column 0 is the base."""


@dataclass(frozen=True, slots=True)
class Setting:
    """One kind of noise."""

    name: str
    help: str
    noise: Noise

    def trainings(self, random: np.random.Generator, seeds: int, columns: int) -> Floats:
        """The values of a null study, [seeds, columns]: noise around the luck that all cells share within a seed."""
        found: Floats = self.noise(random, seeds, columns) + random.normal(size=(seeds, 1))
        return found


def _normal(random: np.random.Generator, seeds: int, columns: int) -> Floats:
    return random.normal(size=(seeds, columns))


def _skewed(random: np.random.Generator, seeds: int, columns: int) -> Floats:
    found: Floats = np.exp(random.normal(size=(seeds, columns))) - math.exp(0.5)
    return found / math.sqrt((math.e - 1) * math.e)


def _heavy(random: np.random.Generator, seeds: int, columns: int) -> Floats:
    return random.standard_t(3, size=(seeds, columns))


def _modes(random: np.random.Generator, seeds: int, columns: int) -> Floats:
    solved = (random.random((seeds, columns)) < 0.7).astype(np.float64)
    return solved - 0.7 + 0.05 * random.normal(size=(seeds, columns))


def _uneven_cells(random: np.random.Generator, seeds: int, columns: int) -> Floats:
    scale: Floats = np.concatenate([[1.0], np.linspace(0.3, 3.0, columns - 1)])
    return random.normal(size=(seeds, columns)) * scale


def _uneven_seeds(random: np.random.Generator, seeds: int, columns: int) -> Floats:
    scale: Floats = np.exp(random.normal(size=(seeds, 1)))
    return random.normal(size=(seeds, columns)) * scale


def _noisy_base(random: np.random.Generator, seeds: int, columns: int) -> Floats:
    scale: Floats = np.concatenate([[3.0], np.ones(columns - 1)])
    return random.normal(size=(seeds, columns)) * scale


def _skewed_base(random: np.random.Generator, seeds: int, columns: int) -> Floats:
    base: Floats = 3.0 * (random.exponential(size=(seeds, 1)) - 1)
    return np.hstack([base, random.normal(size=(seeds, columns - 1))])


def _alike_cells(random: np.random.Generator, seeds: int, columns: int) -> Floats:
    base: Floats = 3.0 * (random.exponential(size=(seeds, 1)) - 1)
    return np.hstack([base, np.repeat(random.normal(size=(seeds, 1)), columns - 1, axis=1)])


def _skewed_cells(random: np.random.Generator, seeds: int, columns: int) -> Floats:
    cells: Floats = 3.0 * (random.exponential(size=(seeds, columns - 1)) - 1)
    return np.hstack([random.normal(size=(seeds, 1)), cells])


def _one_skewed(random: np.random.Generator, seeds: int, columns: int) -> Floats:
    found: Floats = random.normal(size=(seeds, columns))
    found[:, 1::5] = 3.0 * (random.exponential(size=found[:, 1::5].shape) - 1)
    return found


def _mixed_skews(random: np.random.Generator, seeds: int, columns: int) -> Floats:
    found = _skewed_cells(random, seeds, columns)
    found[:, 1::2] *= -1
    return found


def _long_tails(random: np.random.Generator, seeds: int, columns: int) -> Floats:
    found = 3.0 * _skewed(random, seeds, columns)
    found[:, 0] /= 3.0
    return found


def _collapses(random: np.random.Generator, seeds: int, columns: int) -> Floats:
    lost = (random.random((seeds, columns - 1)) < 0.1).astype(np.float64)
    base: Floats = 0.05 * random.normal(size=(seeds, 1))
    return np.hstack([base, 0.1 - lost + 0.05 * random.normal(size=lost.shape)])


def _base_collapses(random: np.random.Generator, seeds: int, columns: int) -> Floats:
    lost = (random.random((seeds, 1)) < 0.1).astype(np.float64)
    cells: Floats = 0.05 * random.normal(size=(seeds, columns - 1))
    return np.hstack([0.1 - lost + 0.05 * random.normal(size=lost.shape), cells])


SETTINGS: Mapping[str, Setting] = {
    one.name: one
    for one in (
        Setting("normal", "normal noise", _normal),
        Setting("skewed", "log-normal noise, the same everywhere", _skewed),
        Setting("heavy", "Student's t with 3 degrees of freedom", _heavy),
        Setting("modes", "seven of ten trainings solve it", _modes),
        Setting("uneven cells", "normal, the cells' sd from 0.3 to 3 times the base's", _uneven_cells),
        Setting("uneven seeds", "normal, some seeds far noisier than others", _uneven_seeds),
        Setting("noisy base", "normal, the base's sd three times the cells'", _noisy_base),
        Setting("skewed base", "equal means: the base's noise exponential, three times the cells'", _skewed_base),
        Setting("skewed base, alike cells", "the same, and the cells are copies of one", _alike_cells),
        Setting("skewed cells", "equal means: the cells' noise exponential, three times the base's", _skewed_cells),
        Setting("mixed skews", "the same, every other cell the other way round", _mixed_skews),
        Setting("one skewed", "the same, one cell in five; the others normal", _one_skewed),
        Setting("long tails", "log-normal noise, the cells' three times the base's", _long_tails),
        Setting("cells collapse", "equal means: one training in ten of a cell fails, none of the base", _collapses),
        Setting("base collapses", "the same, of the base, and none of a cell", _base_collapses),
    )
}
