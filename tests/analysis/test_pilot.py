"""The smallest difference that a number of seeds can find, against tabled values and against the test that decides."""

from __future__ import annotations

import numpy as np
import pytest

from miras_search.analysis.cells import Cell
from miras_search.analysis.comparison import by_test, compare, family_test
from miras_search.analysis.noise import sides, uneven_and_lean
from miras_search.analysis.pilot import _decided, detectable
from miras_search.analysis.verdict import ALPHA, is_decided


def smallest(*given: float) -> float:
    found = detectable(*given)
    assert found is not None
    return found.difference


# power.t.test(n, power = .8, type = "paired")$delta of R, sd 1
@pytest.mark.parametrize(("seeds", "delta"), [(10, 0.9960), (20, 0.6604)])
def test_it_is_more_than_the_paired_t_test_finds_which_asks_nothing_of_the_noise(seeds: int, delta: float) -> None:
    assert 1.05 * delta < smallest(1.0, seeds, 1) < 1.6 * delta


def test_it_grows_with_the_spread_and_the_family_and_shrinks_with_the_seeds() -> None:
    one = smallest(1.0, 10, 1)
    assert smallest(0.02, 10, 1) == pytest.approx(0.02 * one)
    assert smallest(1.0, 10, 5) > one > smallest(1.0, 16, 1)
    assert smallest(0.0, 10, 3) == 0.0


def test_few_seeds_find_nothing_however_large() -> None:
    assert detectable(1.0, 5, 1) is None
    assert detectable(1.0, 6, 1) is not None


def test_large_families_have_fewer_studies_and_say_so() -> None:
    few, many = detectable(1.0, 6, 3), detectable(1.0, 6, 120)
    assert few is not None and many is not None
    assert (few.studies, many.studies) == (400, 200)
    assert few.error == pytest.approx(0.039, abs=1e-3)
    assert many.error > few.error


@pytest.mark.parametrize(("seeds", "family"), [(6, 1), (7, 3), (10, 4), (13, 2)])
def test_such_a_difference_is_decided_about_four_times_in_five_by_the_tables_own_test(seeds: int, family: int) -> None:
    random, rounds = np.random.default_rng(20261121), 400
    shift, decided = smallest(np.sqrt(2.0), seeds, family), 0
    for _ in range(rounds):
        differences = random.normal(size=(seeds, family)) - random.normal(size=(seeds, 1))
        differences[:, 0] += shift
        columns = {j: dict(enumerate(differences[:, j].tolist())) for j in range(family)}
        test = family_test(columns, seeds, check=True)
        low, high = test.interval(0, [*columns[0].values()])
        decided += test.p[0] < 0.05 and not low <= 0.0 <= high
    assert 0.74 <= decided / rounds <= 0.87


@pytest.mark.parametrize("seeds", [6, 8, 20])
def test_it_decides_as_the_table_does_whatever_the_noise(seeds: int) -> None:
    random = np.random.default_rng(seeds)
    shape, studies = (60, seeds, 3), []
    for noise in (random.normal(size=shape), random.exponential(size=shape) - 1, -np.exp(random.normal(size=shape))):
        base = random.normal(size=(60, seeds, 1))
        studies += [noise - noise.mean() - base, 0.3 * noise - 0.3 * noise.mean() - base]
    all_of = np.concatenate(studies)
    all_of[:, :, 0] += random.choice([-1.0, 1.0], size=(len(all_of), 1)) * random.uniform(0.5, 2.0, (len(all_of), 1))
    is_uneven, lean = uneven_and_lean(all_of)
    assert np.any((lean > 0) & (lean < 1))
    found = _decided(all_of, is_uneven, np.where(sides(all_of)[:, 0] < 0, -lean, lean), ALPHA)
    tables = []
    for one in all_of:
        columns = {j: dict(enumerate(one[:, j].tolist())) for j in range(3)}
        base = Cell("l2", "base", 9, {}, dict.fromkeys(range(seeds), 0.0), seeds, 0, frozenset())
        cell = Cell("c", "cell", 0, {}, columns[0], seeds, 0, frozenset())
        test = family_test(columns, seeds, check=True)
        tables.append(is_decided(by_test(compare(cell, base, worst=None), test), test.p[0]))
    different = int(np.count_nonzero(found != np.array(tables)))
    assert different <= (3 if seeds >= 20 else 0)  # from 20 seeds on flips are drawn, and the table bootstraps too
    assert 0.1 < np.mean(tables) < 0.9
