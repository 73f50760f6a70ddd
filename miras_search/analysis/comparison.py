"""One cell against the reference: the differences within shared seeds, and the joint test of a family of cells."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from miras_search.analysis.cells import Cell
from miras_search.analysis.noise import Flags, Noise, noise_of
from miras_search.analysis.paired import (
    BCA_SEEDS,
    EXPONENTIAL_DRAWS,
    Floats,
    exponential_t_each,
    holm,
    interval,
    leaning_interval,
    sign_flip_each,
    sign_flip_stepdown,
)
from miras_search.seeds import DRAWS, EXACT_SEEDS, smallest_p

MIN_TEST = 2  # one seed has no spread and a p of 1 whatever happens
ENOUGH = 3  # a cell with fewer pairs than this waits outside while others have more


@dataclass(frozen=True, slots=True)
class Comparison:
    """Cell minus reference over the seeds that both completed; the numbers are None where pairs are too few."""

    cell: Cell
    reference: Cell
    differences: tuple[float, ...]  # one a shared seed, in the order of the seeds
    difference: float | None
    ci_low: float | None
    ci_high: float | None
    imputed: float | None  # mean difference with the worst attained value for every diverged seed; None without any

    @property
    def pairs(self) -> int:
        """The number of seeds that both cells completed."""
        return len(self.differences)


def compare(cell: Cell, reference: Cell, *, worst: float | None) -> Comparison:
    """Pair the two cells by seed. `worst` is the study's worst attained value, for the seeds that diverged."""
    differences: Floats = np.asarray([*by_seed(cell, reference).values()], dtype=np.float64)
    low, high = interval(differences) if differences.size >= 2 else (None, None)
    return Comparison(
        cell=cell,
        reference=reference,
        differences=tuple(differences.tolist()),
        difference=float(differences.mean()) if differences.size else None,
        ci_low=low,
        ci_high=high,
        imputed=_imputed(cell, reference, worst),
    )


def _imputed(cell: Cell, reference: Cell, worst: float | None) -> float | None:
    if worst is None or not (cell.diverged or reference.diverged):
        return None
    left = {**cell.values, **dict.fromkeys(cell.diverged, worst)}
    right = {**reference.values, **dict.fromkeys(reference.diverged, worst)}
    seeds = sorted(set(left) & set(right))
    return float(np.mean([left[seed] - right[seed] for seed in seeds])) if seeds else None


def by_seed(cell: Cell, reference: Cell) -> dict[int, float]:
    """The differences within the seeds that gave a value in both cells, ascending."""
    shared = sorted(set(cell.values) & set(reference.values))
    return {seed: cell.values[seed] - reference.values[seed] for seed in shared}


@dataclass(frozen=True, slots=True)
class JointTest:
    """The joint sign-flip test of one family of cells against the reference."""

    size: int = 0  # cells that take part
    seeds: tuple[int, ...] = ()  # the seeds that all of them and the reference completed
    p: Mapping[int, float] = field(default_factory=dict)  # trial number -> the p that decides
    holm: Mapping[int, float] = field(default_factory=dict)  # trial number -> Holm p of the cells' own sign-flip tests
    noise: Noise | None = None  # of the differences, where that was looked at
    factor: float = 1.0  # what p and Holm p have been multiplied by, of a test in several looks
    look: int = 0  # which of them it is, from 0

    @property
    def smallest(self) -> float:
        """The smallest p that it can give, by all tests that decide together."""
        drawn = self.size / (EXPONENTIAL_DRAWS + 1) if self.is_guarded else 0.0
        return min(1.0, max(smallest_p(len(self.seeds)), drawn) * self.factor)

    @property
    def is_guarded(self) -> bool:
        """Whether sign flips alone do not decide, because of the noise that was found."""
        return self.noise is not None and self.noise.is_uneven

    @property
    def lean(self) -> float:
        """How far intervals lean, because of the noise that was found."""
        return 0.0 if self.noise is None else self.noise.lean

    def interval(
        self, number: int, differences: Sequence[float], usual: tuple[float, float] | None = None
    ) -> tuple[float, float]:
        """The interval of a cell: the usual one, or as far as `lean` says one that leans, to the side that the test's
        seeds show if the cell took part.

        `usual` is the usual one where it is known, since a bootstrap takes its time. From 20 seeds on, where that leans
        by itself, nothing narrower is given. Raises ValueError below two seeds.
        """
        low, high = usual or interval(differences)
        if self.noise is None or self.lean == 0:
            return low, high
        side = dict(zip(self.p, self.noise.sides, strict=True)).get(number)
        left, right = leaning_interval(differences, side=side, lean=self.lean)
        return (min(low, left), max(high, right)) if len(differences) >= BCA_SEEDS else (left, right)


def by_test(found: Comparison, test: JointTest) -> Comparison:
    """The comparison with the interval that its test asks for (`JointTest.interval`)."""
    if found.ci_low is None or found.ci_high is None:
        return found
    low, high = test.interval(found.cell.number, found.differences, (found.ci_low, found.ci_high))
    return replace(found, ci_low=low, ci_high=high)


def joint_test(reference: Cell, family: Sequence[Cell], *, check: bool = False) -> JointTest:
    """Test the family on the seeds that all cells taking part completed.

    With `check`, where the reference is much noisier than the cells or the differences look skewed (noise.py), p is the
    larger of the step-down p and Holm's over t tests that hold under such noise. Controls are not checked: a
    control is asked whether it changes anything at all, and under that null sign flips are exact.

    A cell with a divergence takes no part: its missing seeds are the bad ones. If the reference diverged, nobody
    does. A cell with fewer than three pairs takes no part while others have more, since it would shrink the seeds
    of all. Without two common seeds there is no test.
    """
    if reference.diverged:
        return JointTest()
    columns = {cell.number: by_seed(cell, reference) for cell in family}
    most = max(map(len, columns.values()), default=0)
    return family_test({cell.number: columns[cell.number] for cell in family if not cell.diverged}, most, check=check)


def family_test(columns: Mapping[int, Mapping[int, float]], most: int, *, check: bool = False) -> JointTest:
    """Test columns of differences, seed -> difference, on the seeds that all have; `most` is how many any has."""
    enough = max(MIN_TEST, min(ENOUGH, most))
    taking_part = {number: column for number, column in columns.items() if len(column) >= enough}
    if not taking_part:
        return JointTest()
    seeds = sorted(set.intersection(*(set(column) for column in taking_part.values())))
    if len(seeds) < MIN_TEST:
        return JointTest()
    table = np.asarray([[column[seed] for column in taking_part.values()] for seed in seeds], dtype=np.float64)
    corrected = dict(zip(taking_part, holm(sign_flip_each(table)).tolist(), strict=True))
    noise = noise_of(table) if check else None
    p = deciding_p(table, np.array(noise is not None and noise.is_uneven))
    deciding = dict(zip(taking_part, p.tolist(), strict=True))
    return JointTest(size=len(taking_part), seeds=tuple(seeds), p=deciding, holm=corrected, noise=noise)


def deciding_p(differences: Floats, uneven: Flags, *, draws: int = DRAWS, exact: int = EXACT_SEEDS) -> Floats:
    """The p that decides, `[..., seeds, cells]` to `[..., cells]`; `uneven [...]` says where sign flips alone do not.

    That of the joint sign flips, and where those alone are not to decide the larger of it and Holm's over t tests
    against exponential noise. `draws` and `exact` as in `sign_flip_stepdown`.
    """
    p = sign_flip_stepdown(differences, draws=draws, exact=exact)
    if not uneven.any():
        return p
    p[uneven] = np.maximum(p[uneven], holm(exponential_t_each(differences[uneven])))
    return p
