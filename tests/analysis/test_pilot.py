"""The smallest difference that a number of seeds can find, against tabled values and against the test that decides."""

from __future__ import annotations

import numpy as np
import pytest

from miras_search.analysis.paired import sign_flip_stepdown, t_interval
from miras_search.analysis.pilot import detectable


# power.t.test(n, power = .8, type = "paired")$delta of R, sd 1
@pytest.mark.parametrize(("seeds", "delta"), [(10, 0.9960), (20, 0.6604)])
def test_one_comparison_is_the_paired_t_tests(seeds: int, delta: float) -> None:
    assert detectable(1.0, seeds, 1) == pytest.approx(delta, abs=1e-4)


def test_it_grows_with_the_spread_and_the_family_and_shrinks_with_the_seeds() -> None:
    one = detectable(1.0, 10, 1)
    assert one is not None
    assert detectable(0.02, 10, 1) == pytest.approx(0.02 * one)
    assert (detectable(1.0, 10, 5) or 0.0) > one > (detectable(1.0, 16, 1) or 9.0)
    assert detectable(0.0, 10, 3) == 0.0


def test_few_seeds_find_nothing_however_large() -> None:
    assert detectable(1.0, 5, 1) is None
    assert detectable(1.0, 6, 1) is not None


@pytest.mark.parametrize(("seeds", "family"), [(6, 1), (7, 3), (10, 4)])
def test_such_a_difference_is_decided_about_four_times_in_five(seeds: int, family: int) -> None:
    random, rounds = np.random.default_rng(20261121), 400
    shift, decided = detectable(np.sqrt(2.0), seeds, family), 0
    assert shift is not None
    for _ in range(rounds):
        differences = random.normal(size=(seeds, family)) - random.normal(size=(seeds, 1))
        differences[:, 0] += shift
        low, high = t_interval(differences[:, 0])
        decided += bool(sign_flip_stepdown(differences)[0] < 0.05 and not low <= 0.0 <= high)
    assert 0.73 <= decided / rounds <= 0.87
