"""Equivalence, effect size and wins by hand, and what they answer where there is little to say."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest

from miras_search.analysis.effects import Wins, equivalence, paired_d, wins


def test_equivalence_needs_the_whole_interval_inside() -> None:
    d = [0.01, -0.02, 0.015, 0.005, -0.01]
    close, wide = equivalence(d, 0.03), equivalence(d, 0.005)
    assert close is not None
    assert wide is not None
    assert close.holds
    assert -0.03 < close.low < close.high < 0.03
    assert not wide.holds


def test_effect_size_is_corrected_for_few_seeds() -> None:
    # mean 2, sd 1; J(2 degrees of freedom) = gamma(1) / gamma(1/2) = 1 / sqrt(pi)
    assert paired_d([1.0, 2.0, 3.0]) == pytest.approx(2 / math.sqrt(math.pi))
    random = np.random.default_rng(0)
    found = [paired_d(random.normal(0.8, 1.0, 6)) or 0.0 for _ in range(4_000)]
    assert float(np.mean(found)) == pytest.approx(0.8, abs=0.03)


def test_wins_count_ties_as_half() -> None:
    assert wins([0.1, 0.2, 0.0, -0.1]) == Wins(2, 1, 1)
    assert wins([0.1, 0.2, 0.0, -0.1], higher_is_better=False) == Wins(1, 1, 2)
    assert Wins(2, 1, 1).share == 2.5 / 4
    assert wins([0.3 - 0.1 - 0.2]) == Wins(0, 1, 0)  # rounding is no win


def test_few_seeds_and_no_spread_have_an_answer() -> None:
    assert equivalence([0.1], 0.5) is None
    assert paired_d([0.1, 0.2]) is None
    assert wins([]) is None
    assert paired_d([0.0, 0.0, 0.0]) == 0.0
    assert paired_d([-0.2, -0.2, -0.2]) == -math.inf
    inside, outside, at = (equivalence([x, x, x], 0.5) for x in (0.1, 0.9, 0.5))
    assert inside is not None
    assert outside is not None
    assert at is not None
    assert (inside.p, inside.holds) == (0.0, True)
    assert (outside.p, outside.holds) == (1.0, False)
    assert not at.holds


@pytest.mark.parametrize("function", [paired_d, wins, lambda d: equivalence(d, 1.0)])
def test_numbers_that_are_not_finite_are_refused(function: Callable[[list[float]], object]) -> None:
    with pytest.raises(ValueError, match="not finite"):
        function([0.1, math.nan, 0.2])


@pytest.mark.parametrize("margin", [0.0, -1.0, math.nan, math.inf])
def test_a_margin_is_positive(margin: float) -> None:
    with pytest.raises(ValueError, match="must be positive"):
        equivalence([0.1, 0.2], margin)
