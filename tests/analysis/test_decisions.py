"""Who decides: the check of the noise, ranks over tasks, fronts."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from miras_search.analysis.cells import Cell
from miras_search.analysis.comparison import by_test, compare, family_test
from miras_search.analysis.noise import noise_of, skewness, uneven_and_lean
from miras_search.analysis.paired import (
    exponential_t_each,
    holm,
    interval,
    leaning_interval,
    sign_flip_each,
    sign_flip_stepdown,
    t_interval,
)
from miras_search.analysis.pareto import pareto
from miras_search.analysis.ranks import critical_difference, rank_table


def differences(base: float, seeds: int = 8, cells: int = 5, seed: int = 0) -> np.ndarray:
    random = np.random.default_rng(seed)
    return random.normal(size=(seeds, cells)) - base * random.normal(size=(seeds, 1))


def test_a_much_noisier_base_is_found() -> None:
    found = [noise_of(differences(3.0, seed=seed)) for seed in range(200)]
    assert sum(one is not None and one.is_noisier for one in found) > 160
    ratios = sorted(one.ratio for one in found if one is not None)
    assert ratios[100] == pytest.approx(3.0, abs=0.4)


def test_equal_noise_is_taken_for_skewed_as_often_as_the_checks_say() -> None:
    found = [noise_of(differences(1.0, seed=seed)) for seed in range(400)]
    assert 60 < sum(one is not None and one.is_skewed for one in found) < 200
    assert sum(one is not None and one.is_noisier for one in found) < 35


@pytest.mark.parametrize("sign", [1, -1])
def test_skewed_cells_and_a_skewed_base_are_found_with_their_sign(sign: int) -> None:
    random = np.random.default_rng(0)
    cells = sign * (random.exponential(size=(12, 5)) - 1) + 0.3 * random.normal(size=(12, 1))
    base = sign * (random.exponential(size=(30, 1)) - 1) + 0.1 * random.normal(size=(30, 5))
    for table in (cells, base):
        found = noise_of(table)
        assert found is not None
        assert found.is_skewed
        assert sign * found.skew > 0.6
        assert found.is_agreed
        assert set(found.sides) == {found.skew}
    assert skewness(np.array([[0.0], [0.0], [0.0], [1.0]])) == pytest.approx(2 / math.sqrt(3))


def test_cells_that_lean_to_different_sides_are_found_by_the_size() -> None:
    drawn = np.random.default_rng(0).exponential(size=(12, 6)) - 1
    found = noise_of(drawn * np.array([1, -1, 1, -1, 1, -1]))
    assert found is not None
    assert found.is_skewed
    assert abs(found.skew) < 0.5 < found.size
    assert not found.is_agreed
    assert [side > 0 for side in found.sides] == [True, False] * 3


def test_little_to_compare_is_not_checked() -> None:
    assert noise_of(differences(1.0, seeds=3)) is None
    assert noise_of(np.ones((8, 3))) is None
    assert noise_of(np.zeros((8, 3))) is None
    for one in (differences(1.0, cells=1), np.repeat(differences(1.0, cells=1), 4, axis=1)):  # copies of one cell
        found = noise_of(one)
        assert found is not None
        assert not found.is_noisier


@pytest.mark.parametrize("n", [6, 12])
def test_leaning_intervals_cover_skewed_and_plain_noise_alike(n: int) -> None:
    random = np.random.default_rng(n)
    drawn = {"right": random.exponential(size=(2500, n)) - 1, "even": random.normal(size=(2500, n))}
    drawn["left"] = -drawn["right"]
    for name, noise in drawn.items():
        ends = [leaning_interval(one) for one in noise]
        share = np.mean([low <= 0 <= high for low, high in ends])
        assert 0.925 <= share <= 0.97, (name, share)
    students = [t_interval(one) for one in drawn["right"]]
    assert np.mean([low <= 0 <= high for low, high in students]) < 0.92  # what the leaning is for


def test_a_leaning_interval_is_longer_where_the_sample_leans() -> None:
    d = np.array([0.1, 0.12, 0.11, 0.1, 0.13, 0.6])
    low, high = leaning_interval(d)
    assert high - d.mean() > t_interval(d)[1] - d.mean() > d.mean() - low > 0
    assert leaning_interval(-d) == pytest.approx((-high, -low))
    assert leaning_interval(np.full(5, 0.25)) == (0.25, 0.25)
    inner = leaning_interval(d, 0.8)
    assert low < inner[0] < d.mean() < inner[1] < high
    with pytest.raises(ValueError, match="at least two seeds"):
        leaning_interval(d[:1])


def test_an_interval_leans_as_far_as_the_noise_looks_skewed() -> None:
    """Not at all where there is little of the skewness that the check asks for, wholly where it finds it; no jump."""
    d = np.array([0.1, 0.12, 0.11, 0.1, 0.13, 0.6])
    none, half, whole = (np.array(leaning_interval(d, lean=lean)) for lean in (0.0, 0.5, 1.0))
    assert none.tolist() == pytest.approx(t_interval(d))
    assert half == pytest.approx((none + whole) / 2)
    even = np.array([-3.0, -2, -1, 1, 2, 3])[:, None]
    drift = np.array([-1.0, -1, -1, -1, -1, 5])[:, None]
    leans = []
    for share in np.linspace(0, 1, 201):
        found = noise_of(even + share * drift)
        assert found is not None
        assert found.is_uneven == found.is_skewed
        assert found.lean == 1 if found.is_skewed else found.lean < 1
        leans.append(found.lean)
    assert leans[0] == 0
    assert leans[-1] == 1
    steps = np.diff(leans)
    assert steps.min() >= 0
    assert steps.max() < 0.1


def test_many_studies_are_checked_as_one_is() -> None:
    random = np.random.default_rng(3)
    studies = np.exp(random.normal(size=(60, 7, 4))) - random.normal(size=(60, 7, 1))
    studies[0] = 0.25 + 1e-17 * random.normal(size=(7, 4))  # what rounding leaves of no noise
    is_uneven, lean = uneven_and_lean(studies)
    for one, uneven, far in zip(studies, is_uneven, lean, strict=True):
        found = noise_of(one)
        assert uneven == (found is not None and found.is_uneven)
        assert far == pytest.approx(found.lean if found else 0.0)
    assert 0 < is_uneven.mean() < 1
    assert np.any((lean > 0) & (lean < 1))
    few = uneven_and_lean(studies[:, :3])
    assert not few[0].any()
    assert not few[1].any()


def test_a_noisier_base_makes_intervals_lean_wholly() -> None:
    random = np.random.default_rng(1)
    noise = 0.2 * random.normal(size=(8, 4)) - np.array([-4.0, -3, -2, -1, 1, 2, 3, 4.1])[:, None]
    found = noise_of(noise)
    assert found is not None
    assert (found.is_noisier, found.is_skewed, found.lean) == (True, False, 1)
    test = family_test({j: dict(enumerate(noise[:, j].tolist())) for j in range(4)}, 8, check=True)
    for j, side in enumerate(found.sides):
        assert test.interval(j, noise[:, j].tolist()) == pytest.approx(leaning_interval(noise[:, j], side=side))


def test_intervals_lean_in_part_beside_the_bootstrap_too() -> None:
    """From 20 seeds on nothing narrower than usual is given."""
    random = np.random.default_rng(2)
    leans = []
    for _ in range(40):
        d = random.normal(size=24)
        test = family_test({0: dict(enumerate(d.tolist()))}, 24, check=True)
        low, high = interval(d)
        left, right = leaning_interval(d, lean=test.lean)
        assert test.interval(0, d.tolist()) == pytest.approx((min(low, left), max(high, right)))
        leans.append(test.lean)
    assert 0 in leans
    assert 1 in leans
    assert any(0 < lean < 1 for lean in leans)


def test_an_interval_leans_to_the_side_of_all_cells_even_where_its_own_sample_hides_it() -> None:
    drawn = np.random.default_rng(5).exponential(size=(8, 6)) - 1
    drawn[:, 0] = -0.2 * drawn[:, 0]  # what a skewed cell of few seeds may look like
    columns = {j: dict(enumerate(drawn[:, j].tolist())) for j in range(6)}
    test = family_test(columns, 8, check=True)
    assert test.is_guarded
    base = Cell("l2", "base", 9, {}, dict.fromkeys(range(8), 0.0), 8, 0, frozenset())
    cells = [Cell(f"c{j}", "cell", j, {}, column, 8, 0, frozenset()) for j, column in columns.items()]
    low, high = leaning_interval(drawn[:, 0])
    assert drawn[:, 0].mean() - low > high - drawn[:, 0].mean()
    for j, cell in enumerate(cells):
        found = by_test(compare(cell, base, worst=None), test)
        assert (found.ci_low, found.ci_high) == pytest.approx(leaning_interval(drawn[:, j], side=1))
        assert found.ci_low is not None and found.ci_high is not None and found.difference is not None
        assert found.ci_high - found.difference > found.difference - found.ci_low


def test_the_t_test_against_exponential_noise_holds_for_it_and_is_careful_with_normal_noise() -> None:
    random = np.random.default_rng(3)
    exponential, normal = random.exponential(size=(1500, 7)) - 1, random.normal(size=(1500, 7))
    for drawn, least, most in ((exponential, 0.035, 0.065), (normal, 0.0, 0.03)):
        assert least <= np.mean(exponential_t_each(drawn.T) < 0.05) <= most
    d = np.array([-0.62, -0.6, -0.66, -0.58, -0.63, -0.61, -0.65])
    one, turned = exponential_t_each(np.stack([d, -d], axis=1))
    assert one == turned < 0.001
    flat = np.array([[0.0, 0.2, 0.9 - 0.6]] * 4 + [[0.0, 0.2, 0.7 - 0.4]])  # the last is equal but for rounding
    assert exponential_t_each(flat).tolist() == [1.0, 0.0, 0.0]
    assert (stats.ttest_1samp(normal[:20].T, 0.0).pvalue < exponential_t_each(normal[:20].T)).all()


@pytest.mark.parametrize("base", [0.5, 6.0])
def test_sign_flips_do_not_decide_alone_where_the_noise_is_uneven(base: float) -> None:
    table = differences(base, seeds=10, seed=4) + 1.0
    columns = {j: dict(enumerate(table[:, j].tolist())) for j in range(5)}
    checked, unchecked = family_test(columns, 10, check=True), family_test(columns, 10)
    assert checked.is_guarded == (base > 1)
    assert list(unchecked.p.values()) == pytest.approx(sign_flip_stepdown(table).tolist())
    guarded = np.maximum(sign_flip_stepdown(table), holm(exponential_t_each(table)))
    assert list(checked.p.values()) == pytest.approx(guarded.tolist() if base > 1 else list(unchecked.p.values()))
    assert list(checked.holm.values()) == pytest.approx(holm(sign_flip_each(table)).tolist())


def test_ranks_over_tasks() -> None:
    scores = {
        "a": {"l2": 0.9, "dot": 0.8, "kl": 0.1},
        "b": {"l2": 0.9, "dot": 0.7, "kl": -math.inf},
        "c": {"l2": 0.8, "dot": 0.8, "kl": 0.2},
    }
    found = rank_table(scores)
    assert found.ranks == pytest.approx({"l2": 3.5 / 3, "dot": 5.5 / 3, "kl": 3.0})
    assert found.critical_difference == pytest.approx(critical_difference(3, 3))
    assert found.groups == [("l2", "dot", "kl")]  # three tasks tell nothing apart
    assert list(rank_table(scores, higher_is_better=False).ranks) == ["kl", "dot", "l2"]


def test_critical_differences_of_the_tables() -> None:
    # Demsar 2006: q.05 = 2.343 for three cells, 2.728 for five
    assert critical_difference(3, 10) == pytest.approx(2.343 * math.sqrt(12 / 60), abs=2e-3)
    assert critical_difference(5, 30) == pytest.approx(2.728 * math.sqrt(30 / 180), abs=2e-3)
    with pytest.raises(ValueError, match="two cells"):
        critical_difference(1, 5)


def test_groups_overlap_and_end() -> None:
    scores = {f"t{t}": {"a": 4.0, "b": 3.0, "c": 2.0, "d": 1.0} for t in range(12)}
    found = rank_table(scores)
    assert found.p is not None
    assert found.p < 0.001
    assert found.critical_difference is not None
    assert 1.0 < found.critical_difference < 2.0
    assert found.groups == [("a", "b"), ("b", "c"), ("c", "d")]


def test_ranks_that_cannot_be_tested() -> None:
    assert rank_table({}).ranks == {}
    two = rank_table({"a": {"l2": 0.9, "dot": None}, "b": {"l2": 0.9, "dot": 0.8}})
    assert (two.ranks, two.left_out, two.p) == ({"l2": 1.0}, ("dot",), None)
    tied = rank_table({task: dict.fromkeys("xyz", 0.5) for task in "ab"})
    assert tied.p == 1.0
    with pytest.raises(ValueError, match="NaN"):
        rank_table({"a": {"l2": math.nan}})


def test_front() -> None:
    points = {"a": (0.9, 10.0), "b": (0.8, 20.0), "c": (0.7, 5.0), "d": (0.9, 10.0), "e": (None, 99.0)}
    found = pareto(points, ("maximize", "maximize"))
    assert found.front == ("a", "b", "d")
    assert found.dominated == {"c": "a"}
    assert found.left_out == ("e",)
    with pytest.raises(ValueError, match="1 values for 2 objectives"):
        pareto({"a": (1.0,)}, ("maximize", "minimize"))
