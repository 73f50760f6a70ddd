"""The smallest difference that a number of seeds can find, against tabled values and against the test that decides."""

from __future__ import annotations

import numpy as np
import pytest

from miras_search.analysis.comparison import family_test
from miras_search.analysis.pilot import detectable


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
