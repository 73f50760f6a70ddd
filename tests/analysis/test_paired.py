"""The statistics against hand-counted cases, scipy, and the properties that the tables rely on."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy import stats

from miras_search.analysis.paired import (
    bca_interval,
    holm,
    interval,
    more_seeds,
    sign_flip_each,
    sign_flip_stepdown,
    t_interval,
    widened,
)
from miras_search.seeds import smallest_p

TABLES = arrays.arrays(
    np.float64,
    st.tuples(st.integers(1, 7), st.integers(1, 4)),
    elements=st.integers(-4, 4).map(lambda k: k / 8.0),  # few values: ties are the hard case
)


@pytest.mark.parametrize(
    ("d", "expected"),
    [
        ([1.0, 2.0, 3.0], 2 / 8),  # only all as they are, and all flipped, reach |sum| = 6
        ([3.0, -1.0, 2.0], 4 / 8),  # |sum| = 4; flips of the second seed reach 6
        ([1.0, 2.0, -3.0], 1.0),
        ([0.5, 0.5, 0.5], 2 / 8),  # no spread: |t| is infinite
        ([0.0, 0.0, 0.0], 1.0),
        ([1e-200, 2e-200, 3e-200], 2 / 8),  # squares would underflow
    ],
)
def test_one_cell_by_hand(d: list[float], expected: float) -> None:
    assert sign_flip_stepdown(np.array(d)[:, None]) == pytest.approx([expected])


def test_two_cells_by_hand() -> None:
    # Both columns have the sum of squares 14, so |sum| ranks as |t|. With the first seed kept, the flips of seeds 2
    # and 3 give (|a|, |b|) = ++ (6, 4), -+ (2, 6), +- (0, 0), -- (4, 2). a: the maximum reaches 6 in two of four.
    # b alone reaches 4 in two of four.
    a, b = [1.0, 2.0, 3.0], [3.0, -1.0, 2.0]
    assert sign_flip_stepdown(np.array([a, b]).T) == pytest.approx([0.5, 0.5])
    assert sign_flip_each(np.array([a, b]).T) == pytest.approx([0.25, 0.5])


def test_identical_columns_cost_nothing() -> None:
    d = np.array([0.1, 0.3, 0.2, 0.5, 0.4, 0.2])
    many = np.repeat(d[:, None], 30, axis=1)
    assert sign_flip_stepdown(many) == pytest.approx(np.full(30, 2 / 2**6))
    assert holm(sign_flip_each(many)) == pytest.approx(np.full(30, 30 * 2 / 2**6))


def test_one_cell_agrees_with_scipy() -> None:
    d = np.random.default_rng(3).normal(0.3, 1.0, 9)
    theirs = stats.permutation_test((d,), np.mean, permutation_type="samples", n_resamples=np.inf)
    assert sign_flip_stepdown(d[:, None])[0] == pytest.approx(theirs.pvalue)


def _slow_stepdown(table: np.ndarray) -> list[float]:
    """The same by definition: all 2^n flips, t statistics, the step-down maxima."""
    seeds, cells = table.shape

    def statistic(column: np.ndarray) -> float:
        spread = column.std(ddof=1) if seeds > 1 else 0.0
        mean = abs(float(column.mean()))
        if spread < 1e-12:
            return math.inf if mean > 1e-12 else 0.0
        return mean / float(spread)

    observed = [statistic(table[:, j]) for j in range(cells)]
    order = sorted(range(cells), key=lambda j: -observed[j])
    p = [0.0] * cells
    running = 0.0
    for rank, j in enumerate(order):
        hits = 0
        for signs in itertools.product((1.0, -1.0), repeat=seeds):
            flipped = table * np.array(signs)[:, None]
            hits += max(statistic(flipped[:, k]) for k in order[rank:]) >= observed[j] * (1 - 1e-9)
        running = max(running, hits / 2**seeds)
        p[j] = running
    return p


@pytest.mark.parametrize("seed", range(3))
def test_agrees_with_the_definition(seed: int) -> None:
    random = np.random.default_rng(seed)
    table = random.normal(0.4, 1.0, (6, 4)) + random.normal(size=(6, 1))
    assert sign_flip_stepdown(table) == pytest.approx(_slow_stepdown(table))


@given(TABLES)
@settings(max_examples=60, deadline=None, derandomize=True)
def test_properties(table: np.ndarray) -> None:
    p = sign_flip_stepdown(table)
    alone = sign_flip_each(table)
    assert (p >= smallest_p(table.shape[0]) - 1e-12).all()
    assert (p <= 1.0).all()
    assert (p >= alone - 1e-12).all()
    assert (p <= holm(alone) + 1e-12).all()  # the joint test never loses to Holm on the same flips
    assert (sign_flip_stepdown(table[:, ::-1])[::-1] == p).all()  # the order of the cells does not matter
    assert sign_flip_stepdown(-table) == pytest.approx(p)
    u = np.abs(table.sum(axis=0)) / np.sqrt(np.maximum((table**2).sum(axis=0), 1e-300))
    ranked = p[np.argsort(-u, kind="stable")]
    assert (np.diff(ranked) >= -1e-12).all()


def test_seventeen_seeds_are_drawn_near_the_exact_share() -> None:
    random = np.random.default_rng(0)
    table = random.normal(0.0, 1.0, (17, 3)) + np.array([2.0, 0.3, 0.1])
    signs = 1.0 - 2.0 * ((np.arange(2**17)[:, None] >> np.arange(17)) & 1)
    exact = (np.abs(signs @ table) >= np.abs(table.sum(axis=0)) - 1e-9).mean(axis=0)
    assert sign_flip_each(table) == pytest.approx(exact, abs=0.006)  # three standard errors of 65,535 draws
    p = sign_flip_stepdown(table)
    assert (p == sign_flip_stepdown(table)).all()
    assert (p != sign_flip_stepdown(table, seed=1)).any()


def test_drawn_flips_count_the_data_themselves() -> None:
    assert sign_flip_stepdown(np.ones((40, 1)))[0] == pytest.approx(1 / 65_536)


def test_family_wise_error_under_the_null() -> None:
    """Six correlated cells without any effect: at most one study in twenty finds something (heavy tails, too)."""
    random = np.random.default_rng(7)
    studies, found = 1_500, 0
    for _ in range(studies):
        shared = random.standard_t(3, size=(8, 1))  # the reference's luck, common to all differences
        found += bool((sign_flip_stepdown(shared + random.standard_t(3, size=(8, 6))) < 0.05).any())
    assert 0.01 < found / studies <= 0.06


def test_no_cells_gives_no_p() -> None:
    assert sign_flip_stepdown(np.empty((4, 0))).shape == (0,)


@pytest.mark.parametrize(
    ("bad", "message"),
    [([1.0, 2.0], r"shape \(2,\)"), (np.empty((0, 2)), "at least one seed"), ([[math.nan]], "not finite")],
)
def test_bad_differences_are_refused(bad: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        sign_flip_stepdown(np.asarray(bad))


def test_smallest_p() -> None:
    assert [smallest_p(n) for n in (0, 1, 3, 6, 10)] == [1.0, 1.0, 0.25, 2 / 64, 2 / 1024]


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03, 0.5]) == pytest.approx([0.04, 0.09, 0.09, 0.5])
    assert holm([0.9, 0.8]) == pytest.approx([1.0, 1.0])
    assert holm([]).shape == (0,)


def test_the_t_interval_agrees_with_scipy() -> None:
    d = np.random.default_rng(1).normal(0.2, 0.5, 7)
    theirs = stats.ttest_1samp(d, 0.0)
    expected = theirs.confidence_interval(0.9)
    assert t_interval(d, 0.9) == pytest.approx((expected.low, expected.high))


def test_bca_agrees_with_scipy_and_leans_with_the_skew() -> None:
    d = np.random.default_rng(2).exponential(1.0, 24)
    theirs = stats.bootstrap((d,), np.mean, method="BCa", rng=np.random.default_rng(0)).confidence_interval
    low, high = bca_interval(d)
    assert (low, high) == pytest.approx((theirs.low, theirs.high))
    assert high - d.mean() > d.mean() - low


def test_bca_without_spread_is_a_point() -> None:
    assert bca_interval([0.25] * 20) == (0.25, 0.25)


def test_the_interval_changes_at_twenty_seeds() -> None:
    d = np.random.default_rng(4).normal(0.1, 1.0, 20)
    low, high = zip(t_interval(d), bca_interval(d, widened(0.95, 20)), strict=True)
    assert interval(d) == (min(low), max(high))
    assert interval(d[:19]) == t_interval(d[:19])


def test_a_widened_bootstrap_is_as_wide_as_t() -> None:
    d = np.random.default_rng(6).normal(0.0, 1.0, 25)
    normal = -stats.norm.ppf((1 - widened(0.95, 25)) / 2) * d.std(ddof=0) / 5  # what the bootstrap's spread comes to
    low, high = t_interval(d)
    assert normal == pytest.approx((high - low) / 2)
    assert 0.95 < widened(0.95, 25) < widened(0.95, 20) < 0.98


@pytest.mark.parametrize("half_width", [0.2, 0.05, 0.001])
def test_more_seeds_is_the_first_count_that_is_enough(half_width: float) -> None:
    d = np.random.default_rng(5).normal(0.0, 0.3, 6)
    sd = d.std(ddof=1)

    def half(n: int) -> float:
        return float(stats.t.ppf(0.975, n - 1) * sd / math.sqrt(n))

    n = d.size + more_seeds(d, half_width)
    assert half(n) <= half_width < half(n - 1)


def test_more_seeds_is_zero_once_there() -> None:
    assert more_seeds([0.1, 0.1, 0.1], 0.01) == 0


@pytest.mark.parametrize("function", [t_interval, bca_interval])
def test_one_seed_has_no_interval(function: object) -> None:
    assert callable(function)
    with pytest.raises(ValueError, match="at least two seeds"):
        function([0.1])


def test_more_seeds_needs_a_width() -> None:
    with pytest.raises(ValueError, match="must be positive"):
        more_seeds([0.1, 0.2], 0.0)
