"""The statistics against scipy's and statsmodels' on random data, wherever they compute the same thing.

Fifty data sets each here, fewer where the other library is slow; a thousand each with `-m slow`.
"""

from __future__ import annotations

import itertools
import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from statsmodels.formula.api import ols
from statsmodels.stats.anova import anova_lm
from statsmodels.stats.contingency_tables import mcnemar as their_mcnemar
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.weightstats import ttost_paired

from miras_search.analysis.effects import equivalence
from miras_search.analysis.factorial import Observation, anova
from miras_search.analysis.modes import Time, mcnemar, solve_rates, solve_speed
from miras_search.analysis.paired import holm, sign_flip_each, t_interval
from miras_search.analysis.pareto import pareto
from miras_search.analysis.ranks import rank_table

HOW_MANY = [50, pytest.param(1000, marks=pytest.mark.slow)]
FEWER = [10, pytest.param(1000, marks=pytest.mark.slow)]


def draw(random: np.random.Generator, seeds: int) -> np.ndarray:
    """Differences of some shape: normal, skewed, or few distinct values with ties."""
    kind = random.integers(3)
    if kind == 0:
        return random.normal(random.normal(), 1.0, seeds)
    return random.exponential(1.0, seeds) - 0.7 if kind == 1 else random.integers(-3, 5, seeds) / 4.0


@pytest.mark.parametrize("count", HOW_MANY)
def test_one_difference(count: int) -> None:
    random = np.random.default_rng(11)
    for _ in range(count):
        d = draw(random, int(random.integers(3, 11)))
        if np.ptp(d) == 0:
            continue
        expected = stats.ttest_1samp(d, 0.0).confidence_interval(0.95)
        assert t_interval(d) == pytest.approx((expected.low, expected.high))
        theirs = stats.permutation_test((d,), np.mean, permutation_type="samples", n_resamples=np.inf)
        assert sign_flip_each(d[:, None])[0] == pytest.approx(theirs.pvalue)
        margin = float(random.uniform(0.1, 2.0))
        ours = equivalence(d, margin)
        assert ours is not None
        assert ours.p == pytest.approx(ttost_paired(d, np.zeros_like(d), -margin, margin)[0], abs=1e-12)
        assert ours.holds == (-margin < ours.low and ours.high < margin)


@pytest.mark.parametrize("count", FEWER)
def test_corrections(count: int) -> None:
    random = np.random.default_rng(12)
    for _ in range(count):
        p = random.uniform(0, 1, int(random.integers(1, 12))) ** 3
        assert holm(p) == pytest.approx(multipletests(p, method="holm")[1])


@pytest.mark.parametrize("count", HOW_MANY)
def test_solve_rates(count: int) -> None:
    random = np.random.default_rng(13)
    for _ in range(count):
        n = int(random.integers(1, 15))
        cell, reference = random.integers(0, 2, n), random.integers(0, 2, n)
        ours = solve_rates(dict(enumerate(cell * 1.0)), dict(enumerate(reference * 1.0)), 0.5)
        assert ours is not None
        pairs = [[int(((cell == a) & (reference == b)).sum()) for b in (1, 0)] for a in (1, 0)]
        expected = 1.0 if pairs[0][1] + pairs[1][0] == 0 else their_mcnemar(pairs, exact=True).pvalue
        assert ours.mcnemar == pytest.approx(expected)
        assert mcnemar(pairs[0][1], pairs[1][0]) == pytest.approx(expected)
        table = [[cell.sum(), n - cell.sum()], [reference.sum(), n - reference.sum()]]
        assert ours.fisher == pytest.approx(stats.fisher_exact(np.array(table)).pvalue)


@pytest.mark.parametrize("count", HOW_MANY)
def test_steps_to_the_solution(count: int) -> None:
    random = np.random.default_rng(14)
    for _ in range(count):
        n = int(random.integers(2, 7))
        sides = [
            {seed: Time(float(random.integers(1, 8)), bool(random.random() < 0.7)) for seed in range(n)} for _ in "ab"
        ]
        ours = solve_speed(*sides)
        assert ours is not None
        expected = _exchanged([(sides[0][seed], sides[1][seed]) for seed in range(n)])
        assert ours.exact == pytest.approx(expected)


def _score(left: list[Time], right: list[Time]) -> float:
    """Observed minus expected solutions on the left, by the definition of the log-rank test."""
    total = 0.0
    for step in sorted({time.step for time in left + right if time.solved}):
        mine = sum(time.step >= step for time in left)
        risk = mine + sum(time.step >= step for time in right)
        events = sum(time.step == step and time.solved for time in left + right)
        total += sum(time.step == step and time.solved for time in left) - events * mine / risk
    return total


def _exchanged(pairs: list[tuple[Time, Time]]) -> float:
    observed = abs(_score([a for a, _ in pairs], [b for _, b in pairs]))
    hits = 0
    for swaps in itertools.product((False, True), repeat=len(pairs)):
        swapped = [(b, a) if swap else (a, b) for swap, (a, b) in zip(swaps, pairs, strict=True)]
        hits += abs(_score([a for a, _ in swapped], [b for _, b in swapped])) >= observed - 1e-9
    return float(hits / 2 ** len(pairs))


@pytest.mark.parametrize("count", HOW_MANY)
def test_ranks_over_tasks(count: int) -> None:
    random = np.random.default_rng(15)
    for _ in range(count):
        cells, tasks = int(random.integers(3, 7)), int(random.integers(2, 8))
        values = random.integers(0, 6, (tasks, cells)) / 5.0
        ours = rank_table({f"t{t}": {f"c{c}": values[t, c] for c in range(cells)} for t in range(tasks)})
        ranks = np.stack([stats.rankdata(-row) for row in values])
        assert [ours.ranks[f"c{c}"] for c in range(cells)] == pytest.approx(ranks.mean(axis=0))
        if not (ranks == ranks[0, 0]).all():
            assert ours.p == pytest.approx(stats.friedmanchisquare(*values.T).pvalue)


@pytest.mark.parametrize("count", HOW_MANY)
def test_fronts(count: int) -> None:
    random = np.random.default_rng(16)
    for _ in range(count):
        points = {f"c{i}": tuple(random.integers(0, 4, 2) * 1.0) for i in range(int(random.integers(1, 8)))}
        ours = pareto(points, ("maximize", "minimize"))
        expected = [
            name
            for name, (a, b) in points.items()
            if not any(x >= a and y <= b and (x, y) != (a, b) for x, y in points.values())
        ]
        assert list(ours.front) == expected
        assert set(ours.front) | set(ours.dominated) == set(points)
        assert all(better in ours.front for better in ours.dominated.values())


def _observations(random: np.random.Generator, *, whole: bool) -> list[Observation]:
    sizes = [int(random.integers(2, 4)), int(random.integers(2, 4))]
    effects = [random.normal(size=size) for size in sizes]
    together = random.normal(size=sizes)
    luck = random.normal(size=3)
    found = [
        Observation(
            {"a": f"a{i}", "b": f"b{j}"},
            s,
            float(effects[0][i] + effects[1][j] + together[i, j] + luck[s] + random.normal()),
        )
        for i in range(sizes[0])
        for j in range(sizes[1])
        for s in range(3)
    ]
    if not whole:  # every combination keeps at least one seed
        gone = {int(one) for one in random.choice(len(found) // 3, size=2, replace=False)}
        found = [one for place, one in enumerate(found) if not (place % 3 == 2 and place // 3 in gone)]
    return found


# fitting statsmodels' formulas takes most of the time
@pytest.mark.parametrize("count", [12, pytest.param(500, marks=pytest.mark.slow)])
@pytest.mark.parametrize("whole", [True, False])
def test_effects_of_axes(whole: bool, count: int) -> None:
    random = np.random.default_rng(17)
    for _ in range(count):
        data = _observations(random, whole=whole)
        ours = anova(data)
        assert ours is not None
        assert ours.method == ("exact" if whole else "least squares")
        frame = pd.DataFrame([{**one.levels, "seed": one.seed, "y": one.value} for one in data])
        theirs = anova_lm(ols("y ~ C(a) * C(b) + C(seed)", frame).fit(), typ=2)
        assert ours.noise_squares == pytest.approx(theirs.loc["Residual", "sum_sq"])
        assert ours.noise_freedom == theirs.loc["Residual", "df"]
        names = {("a",): "C(a)", ("b",): "C(b)", ("a", "b"): "C(a):C(b)"}
        assert {one.term for one in ours.effects} == set(names)
        for one in ours.effects:
            line = theirs.loc[names[one.term]]
            assert (one.freedom, one.squares) == (line["df"], pytest.approx(line["sum_sq"]))
            assert one.f is not None
            assert one.p is not None
            assert (one.f, one.p) == (pytest.approx(line["F"]), pytest.approx(line["PR(>F)"]))
        if whole:
            assert math.fsum(one.share for one in ours.effects) == pytest.approx(1.0)
            assert ours.seed_squares == pytest.approx(theirs.loc["C(seed)", "sum_sq"])
