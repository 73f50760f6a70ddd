"""The sentence of a row in every situation, for metrics of both directions."""

from __future__ import annotations

import numpy as np
import pytest

from miras_search.analysis.paired import more_seeds
from miras_search.analysis.table import TableContext, ablation_table
from miras_search.analysis.verdict import Limits, default_margin, seeds_needed
from miras_search.metrics import METRICS

NINE = [0.60, 0.62, 0.58, 0.61, 0.64, 0.59, 0.60, 0.63, 0.61]


def _verdict(results, differences: list[float], *, metric: str = "accuracy", margin: float | None = None) -> str:
    base = NINE[: len(differences)]
    cell = [value + difference for value, difference in zip(base, differences, strict=True)]
    rows = results({"dot": base, "l2": cell}, metric=metric)
    table = ablation_table(rows, study="bias", metric=metric, task="recall", provenance=TableContext(margin=margin))
    sentence = table.rows[1].verdict
    assert sentence is not None
    return sentence


UP = [0.17, 0.25, 0.14, 0.28, 0.20, 0.22, 0.16, 0.26]
MIXED = [0.02, -0.03, 0.01, -0.02, 0.03, -0.01, 0.02, -0.01]


@pytest.mark.parametrize(
    ("metric", "sign", "expected"),
    [
        ("accuracy", 1, "l2 > dot: +0.21 [0.17, 0.25], decided"),
        ("accuracy", -1, "l2 < dot: -0.21 [-0.25, -0.17], decided"),
        ("loss", 1, "l2 > dot: +0.21 [0.17, 0.25], decided (lower is better)"),
        ("loss", -1, "l2 < dot: -0.21 [-0.25, -0.17], decided (lower is better)"),
    ],
)
def test_decided(results, metric: str, sign: int, expected: str) -> None:
    assert _verdict(results, [sign * d for d in UP], metric=metric) == expected


def test_undecided_says_how_many_more_seeds(results) -> None:
    wanted = more_seeds(MIXED, 0.01)
    assert wanted > 0
    assert _verdict(results, MIXED) == f"l2 vs dot: not decided; about {wanted} more seeds for ±0.01"


def test_a_leaning_interval_counts_by_its_longer_side(results) -> None:
    """Never "about 0 more seeds", and within the margin only where both ends are."""
    random = np.random.default_rng(4)
    margins = np.linspace(0.005, 0.03, 11)
    seen = set()
    for _ in range(12):
        noise = (0.02 * (random.exponential(size=(3, 8)) - 1)).tolist()
        cells = {"l2": [0.5] * 8} | {f"c{j}": [0.5 + d for d in one] for j, one in enumerate(noise)}
        for margin in margins.tolist():
            context = TableContext(margin=margin)
            table = ablation_table(results(cells), study="s", metric="accuracy", task="recall", provenance=context)
            for row in table.rows[1:]:
                assert row.verdict is not None and row.difference is not None
                assert row.ci_low is not None and row.ci_high is not None
                assert "about 0 more" not in row.verdict
                reach = max(row.ci_high - row.difference, row.difference - row.ci_low)
                if "already within" in row.verdict:
                    assert reach <= margin
                    seen.add("within")
                elif reach > margin and f"for ±{margin:.6g}" in row.verdict:
                    seen.add("more")
    assert seen == {"within", "more"}


def test_few_seeds_cannot_decide_however_large_the_difference(results) -> None:
    sentence = _verdict(results, [0.2, 0.2001, 0.1999])
    assert sentence == "l2 vs dot: not decided; 3 seeds cannot reach p < 0.05; at least 3 more"


@pytest.mark.parametrize("n", [3, 8])
def test_equal_differences_have_no_width(results, n: int) -> None:
    base = [0.5 + 0.125 * k for k in range(n)]  # exact in binary: the interval is a point
    for step in (0.25, 0.1):  # the second is equal but for rounding
        cells = {"dot": base, "l2": [value + step for value in base]}
        table = ablation_table(results(cells, metric="loss"), study="bias", metric="loss", task="recall")
        if n == 3:
            expected = "l2 vs dot: not decided; 3 seeds cannot reach p < 0.05; at least 3 more"
        else:
            expected = f"l2 > dot: +{step:.3f} [{step:.3f}, {step:.3f}], decided (lower is better)"
        assert table.rows[1].verdict == expected


def test_few_seeds_and_a_wide_interval_ask_for_the_larger_number(results) -> None:
    wanted = more_seeds(UP[:3], 0.01)
    sentence = _verdict(results, UP[:3])
    assert sentence == f"l2 vs dot: not decided; 3 seeds cannot reach p < 0.05; about {wanted} more seeds for ±0.01"


def test_a_narrow_interval_aims_at_half_of_it(results) -> None:
    sentence = _verdict(results, [d / 10 for d in MIXED])
    assert "already within ±0.01 of its mean" in sentence
    assert "more seeds for ±0.0009" in sentence


def test_an_estimate_out_of_reach_is_not_spelled_out(results) -> None:
    assert _verdict(results, MIXED, margin=0.0005).endswith("more than 999 more seeds for ±0.0005")


def test_a_significant_test_with_an_interval_over_zero_is_not_decided(results) -> None:
    sentence = _verdict(results, [0.001, 0.3, 0.001, 0.3, 0.001, 0.3])
    assert "not decided; p = 0.031, but the interval spans zero" in sentence


def test_a_clear_interval_that_the_family_does_not_confirm(results) -> None:
    base = NINE[:7]
    cell = [b + d for b, d in zip(base, [0.02, 0.03, 0.01, 0.02, 0.03, 0.005, 0.02], strict=True)]
    noise = {
        f"cell {k}": [b + (1 if (k >> i) & 1 else -1) * (0.1 + 0.01 * i) for i, b in enumerate(base)]
        for k in range(1, 60, 4)
    }
    table = ablation_table(results({"dot": base, "l2": cell, **noise}), study="bias", metric="accuracy", task="recall")
    row = table.rows[1]
    assert row.ci_low is not None
    assert row.ci_low > 0
    assert row.p is not None
    assert row.p >= 0.05
    assert row.verdict is not None
    assert f"alone, but p = {row.p:.3f} in the whole family" in row.verdict


def test_equal_cells(results) -> None:
    assert _verdict(results, [0.0] * 6) == "l2 vs dot: no difference in any of 6 seeds"


def test_seeds_needed_is_six() -> None:
    assert seeds_needed() == 6


@pytest.mark.parametrize(
    ("metric", "mean", "margin"),
    [("accuracy", 0.5, 0.01), ("loss", 2.34, 0.02), ("loss", None, 0.01), ("tokens_per_second", 15_321.0, 100.0)],
)
def test_the_margin_is_one_digit_of_a_hundredth(metric: str, mean: float | None, margin: float) -> None:
    assert default_margin(METRICS[metric], mean) == pytest.approx(margin)


def test_limits_need_every_value() -> None:
    limits = Limits(floor=0.06, ceiling=0.99)
    assert limits.side([0.06, 0.01]) == "floor"
    assert limits.side([0.99, 1.0]) == "ceiling"
    assert limits.side([0.99, 0.98]) is None
    assert limits.side([]) is None
    assert Limits().side([0.0]) is None
