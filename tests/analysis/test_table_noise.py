"""What a table says and does where its differences look skewed: p, intervals, and the words for both."""

from __future__ import annotations

import numpy as np
import pytest

from miras_search.analysis.noise import noise_of
from miras_search.analysis.paired import exponential_t_each, leaning_interval, t_interval
from miras_search.analysis.table import AblationTable, ablation_table
from miras_search.store.types import ResultRow

BASE = [0.60, 0.62, 0.58, 0.61, 0.64, 0.59, 0.60, 0.63]


def _table(rows: list[ResultRow]) -> AblationTable:
    return ablation_table(rows, study="bias", metric="accuracy", task="recall")


def test_skewed_differences_get_a_careful_p_and_leaning_intervals(results) -> None:
    random = np.random.default_rng(2)
    base = [0.5] * 8
    cells = {f"c{j}": (0.6 - 0.03 * random.exponential(size=8)).tolist() for j in range(4)}
    table = _table(results({"l2": base, **cells}))
    assert "p: because the differences look skewed (skewness -" in table.caption
    careful = "t tests against noise as skewed as an exponential's"
    assert "with 95 % intervals for each cell alone, by t that leans with the cells' mean skewness." in table.caption
    assert f"and Holm's over the cells' {careful}; smallest p 0.0078" in table.caption
    for row in table.rows[1:]:
        d = np.asarray(cells[row.cell]) - 0.5
        assert (row.ci_low, row.ci_high) == pytest.approx(leaning_interval(d, side=-1))
        assert row.ci_low is not None and row.ci_low < t_interval(d)[0]
        assert row.p is not None and row.p >= exponential_t_each(d[:, None])[0]


def test_intervals_lean_part_of_the_way_where_differences_look_somewhat_skewed(results) -> None:
    """Between Student's and the leaning interval, and p is that of the sign flips alone."""
    base, noise = np.full(8, 0.5), np.random.default_rng(5).normal(size=(4, 8))
    noise[:, 0] += 1.3
    cells = {f"c{j}": base + 0.02 * noise[j] for j in range(4)}
    table = _table(results({"l2": base.tolist(), **{name: one.tolist() for name, one in cells.items()}}))
    found = noise_of(np.stack([one - base for one in cells.values()], axis=1))
    assert found is not None
    assert 0.1 < found.lean < 0.9
    assert not found.is_uneven
    way = f"by t that leans {100 * found.lean:.0f} % of the way with the cells' mean skewness"
    assert f"intervals for each cell alone, {way}. p: joint per-seed sign flips" in table.caption
    for row in table.rows[1:]:
        d = cells[row.cell] - base
        ends = leaning_interval(d, side=found.skew, lean=found.lean)
        assert (row.ci_low, row.ci_high) == pytest.approx(ends)
        student, whole = t_interval(d), leaning_interval(d, side=found.skew)
        for one, usual, far in zip(ends, student, whole, strict=True):
            assert min(usual, far) < one < max(usual, far)


def test_the_smallest_p_is_that_of_all_tests_that_decide_and_intervals_of_controls_stay_t(results) -> None:
    random = np.random.default_rng(2)
    noise = {f"c{j}": (0.6 - 0.03 * random.exponential(size=16)).tolist() for j in range(4)}
    table = _table(results({"l2": [0.5] * 16, **noise, "no_write": BASE * 2}, controls=["no_write"]))
    assert f"smallest p {4 / 65_537:.2g};" in table.caption  # flips alone would reach 2/2^16
    assert min(row.p for row in table.rows[1:5] if row.p is not None) >= 4 / 65_537
    assert "t that leans with the cells' mean skewness; of controls by t. p" in table.caption
    control = next(row for row in table.rows if row.cell == "no_write")
    assert (control.ci_low, control.ci_high) == pytest.approx(t_interval(np.asarray(BASE * 2) - 0.5))
