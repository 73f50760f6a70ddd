"""The rules of the table: pairing, families, marks, what is counted and what is left out."""

from __future__ import annotations

import math
import statistics
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from miras_search.analysis.paired import (
    holm,
    sign_flip_each,
    sign_flip_stepdown,
)
from miras_search.analysis.standing import headline, standing
from miras_search.analysis.table import AblationTable, Row, TableContext, ablation_table, ablation_tables
from miras_search.errors import MirasError
from miras_search.store.types import ResultRow
from miras_search.tasks import Guess

BASE = [0.60, 0.62, 0.58, 0.61, 0.64, 0.59, 0.60, 0.63]
BETTER = [0.81, 0.82, 0.79, 0.80, 0.86, 0.79, 0.81, 0.85]
EQUAL = [0.61, 0.59, 0.60, 0.59, 0.68, 0.55, 0.61, 0.62]
WORSE = [0.50, 0.53, 0.49, 0.50, 0.53, 0.48, 0.51, 0.52]
CHANCE = [0.04, 0.05, 0.04, 0.05, 0.04, 0.03, 0.04, 0.05]


def _table(rows: list[ResultRow], **options: object) -> AblationTable:
    chosen: dict = {"study": "bias", "metric": "accuracy", "task": "recall", **options}
    return ablation_table(rows, **chosen)


def _row(table: AblationTable, cell: str) -> Row:
    return next(row for row in table.rows if row.cell == cell)


def test_numbers_of_a_plain_study(results) -> None:
    table = _table(results({"dot": BASE, "l2": BETTER, "kl": WORSE}))
    row = _row(table, "l2")
    differences = np.array(BETTER) - np.array(BASE)
    low, high = stats.ttest_1samp(differences, 0.0).confidence_interval()
    assert row.mean == pytest.approx(statistics.fmean(BETTER))
    assert row.sd == pytest.approx(statistics.stdev(BETTER))
    assert (row.n, row.of, row.pairs) == (8, 8, 8)
    assert row.difference == pytest.approx(differences.mean())
    assert (row.ci_low, row.ci_high) == pytest.approx((low, high))
    columns = np.stack([differences, np.array(WORSE) - np.array(BASE)], axis=1)
    assert [line.p for line in table.rows[1:]] == pytest.approx(sign_flip_stepdown(columns).tolist())
    assert [line.p_holm for line in table.rows[1:]] == pytest.approx(holm(sign_flip_each(columns)).tolist())
    assert row.p == pytest.approx(2 / 2**8)
    assert row.changes == {"bias": "l2"}
    assert row.params == 1001


def test_the_base_row_has_no_comparison(results) -> None:
    row = _table(results({"dot": BASE, "l2": BETTER})).rows[0]
    assert (row.cell, row.role, row.n) == ("dot", "base", 8)
    assert (row.difference, row.ci_low, row.ci_high, row.p, row.p_holm, row.verdict) == (None,) * 6


def test_the_p_of_a_cell_does_not_depend_on_the_number_of_equal_cells(results) -> None:
    many = _table(results({"dot": BASE, **{f"l2 {k}": BETTER for k in range(12)}}))
    assert {row.p for row in many.rows[1:]} == {2 / 2**8}
    assert many.rows[1].p_holm == pytest.approx(12 * 2 / 2**8)


def test_pairs_are_the_seeds_that_both_completed(results) -> None:
    base = [0.60, "failed", 0.58, 0.61, 0.64, 0.59, 0.60, 0.63]
    cell = ["running", 0.82, 0.79, 0.80, 0.86, 0.79, 0.81, 0.85]
    table = _table(results({"dot": base, "l2": cell}))
    row = _row(table, "l2")
    assert (row.n, row.of, row.pairs) == (7, 8, 6)
    assert row.mean == pytest.approx(statistics.fmean(BETTER[1:]))
    assert row.difference == pytest.approx(statistics.fmean(b - a for a, b in zip(BASE[2:], BETTER[2:], strict=True)))
    assert _row(table, "dot").failed == 1
    assert any("dot: 1 of 8 jobs failed" in note for note in table.notes)
    assert any("1 of 16 jobs not finished yet" in note for note in table.notes)


def test_the_joint_test_uses_the_seeds_that_all_cells_completed(results) -> None:
    part = [*BETTER[:7], "failed"]
    table = _table(results({"dot": BASE, "l2": BETTER, "kl": WORSE, "huber": part}))
    assert {row.p for row in table.rows[1:]} == {2 / 2**7}
    assert any("uses the 7 seeds that all of them completed" in note for note in table.notes)
    assert "n = 7" in table.caption


def test_a_cell_with_few_pairs_does_not_shrink_the_test_of_the_others(results) -> None:
    table = _table(results({"dot": BASE, "l2": BETTER, "late": [*WORSE[:2], *["waiting"] * 6]}))
    assert _row(table, "l2").p == pytest.approx(2 / 2**8)
    assert _row(table, "late").p is None
    assert any("late: 2 paired seeds, too few" in note for note in table.notes)


def test_marks_follow_the_corrected_test(results) -> None:
    assert _row(_table(results({"dot": BASE, "l2": BETTER})), "l2").mark == "‡"
    six = _table(results({"dot": BASE[:6], "l2": BETTER[:6], "huber": EQUAL[:6]}))
    assert _row(six, "l2").p == pytest.approx(2 / 2**6)
    assert _row(six, "l2").mark == "†"
    assert _row(six, "huber").mark == ""


@pytest.mark.parametrize("n", [2, 3, 5])
def test_few_seeds_get_a_note_and_no_mark(results, n: int) -> None:
    table = _table(results({"dot": BASE[:n], "l2": BETTER[:n]}))
    row = _row(table, "l2")
    assert row.p == pytest.approx(2 / 2**n)
    assert row.mark == ""
    assert any(f"With n = {n} the joint test cannot reach p < 0.05" in note for note in table.notes)


def test_six_seeds_need_no_note(results) -> None:
    table = _table(results({"dot": BASE[:6], "l2": BETTER[:6]}))
    assert not any("cannot reach" in note for note in table.notes)


def test_one_seed_has_means_and_differences_only(results) -> None:
    row = _row(_table(results({"dot": BASE[:1], "l2": BETTER[:1]})), "l2")
    assert row.difference == pytest.approx(0.21)
    assert (row.sd, row.ci_low, row.p) == (None, None, None)
    assert row.verdict == "l2 vs dot: not decided; 1 paired seed so far"


def test_a_divergence_takes_mark_and_test_and_is_imputed(results) -> None:
    broken = ["diverged", *BETTER[1:]]
    table = _table(results({"dot": BASE, "lp": broken, "l2": BETTER, "kl": WORSE}))
    row = _row(table, "lp")
    assert (row.n, row.of, row.diverged, row.failed) == (7, 8, 1, 0)
    assert (row.p, row.p_holm, row.mark, row.best) == (None, None, "", False)
    worst = min(WORSE)
    imputed = statistics.fmean(b - a for a, b in zip(BASE, [worst, *BETTER[1:]], strict=True))
    assert row.imputed_difference == pytest.approx(imputed)
    assert row.verdict is not None
    assert row.verdict.startswith("lp: diverged in 1 of 8")
    note = next(note for note in table.notes if note.startswith("lp:"))
    assert "worst attained value of the study (0.480)" in note
    assert f"{imputed:+.3f}" in note
    assert _row(table, "l2").p == pytest.approx(2 / 2**8)  # the others keep all their seeds


def test_the_worst_value_of_a_loss_is_the_largest(results) -> None:
    losses = {"dot": [1.0, 1.2, 1.1], "lp": ["diverged", 0.9, 0.8], "kl": [1.4, 2.0, 1.5]}
    row = _row(_table(results(losses, metric="loss"), metric="loss"), "lp")
    assert row.imputed_difference == pytest.approx(((2.0 - 1.0) + (0.9 - 1.2) + (0.8 - 1.1)) / 3)


def test_a_completed_job_without_a_finite_value_counts_as_diverged(results) -> None:
    row = _row(_table(results({"dot": BASE[:3], "l2": [0.8, math.nan, 0.8]})), "l2")
    assert (row.n, row.diverged) == (2, 1)


def test_a_base_that_diverged_stops_the_test(results) -> None:
    table = _table(results({"dot": [*BASE[:7], "diverged"], "l2": BETTER}))
    row = _row(table, "l2")
    assert (row.p, row.mark) == (None, "")
    assert row.verdict is not None
    assert "not decided; dot diverged in 1 of 8" in row.verdict
    assert any("nothing is tested or marked" in note for note in table.notes)


def test_all_diverged_is_a_row_like_any_other(results) -> None:
    row = _row(_table(results({"dot": BASE[:3], "lp": ["diverged"] * 3})), "lp")
    assert (row.mean, row.difference, row.n, row.diverged) == (None, None, 0, 3)
    assert row.imputed_difference == pytest.approx(min(BASE[:3]) - statistics.fmean(BASE[:3]))


def test_controls_are_a_family_of_their_own_under_the_cells(results) -> None:
    table = _table(
        results({"dot": BASE, "no_write": CHANCE, "l2": BETTER, "ascent": CHANCE}, controls=["no_write", "ascent"])
    )
    assert [row.cell for row in table.rows] == ["dot", "l2", "no_write", "ascent"]
    assert _row(table, "l2").p_holm == _row(table, "l2").p  # a family of one
    assert _row(table, "no_write").p_holm == pytest.approx(2 * 2 / 2**8)
    assert any("Controls are a family of their own" in note for note in table.notes)
    assert "step-down over 1 cell;" in table.caption


def test_a_diverging_control_leaves_the_cells_alone(results) -> None:
    table = _table(results({"dot": BASE, "l2": BETTER, "ascent": ["diverged"] * 8}, controls=["ascent"]))
    assert _row(table, "l2").mark == "‡"
    assert _row(table, "ascent").diverged == 8


@pytest.mark.parametrize(
    ("base", "cell", "side"),
    [([0.99, 1.0, 0.995], [1.0, 1.0, 1.0], "ceiling"), ([0.03, 0.05, 0.04], [0.06, 0.02, 0.05], "floor")],
)
def test_saturated_on_both_sides_is_censored(results, base: list[float], cell: list[float], side: str) -> None:
    table = _table(results({"dot": base * 3, "l2": cell * 3}), chance=0.04)
    row = _row(table, "l2")
    assert row.censored
    assert (row.mark, row.best, row.second) == ("", False, False)
    assert row.verdict is not None
    assert f"censored, all values of both at the {side}" in row.verdict
    assert any(note.startswith("Censored") for note in table.notes)
    assert "§" in table.legend


def test_one_side_at_the_floor_is_a_difference(results) -> None:
    table = _table(results({"dot": BASE, "no_write": CHANCE}, controls=["no_write"]), chance=0.04)
    row = _row(table, "no_write")
    assert not row.censored
    assert row.mark == "‡"


def test_chance_is_told_with_those_who_have_no_more(results) -> None:
    rows = results({"dot": BASE, "l2": BETTER, "no_write": CHANCE}, controls=["no_write"])
    table = _table(rows, chance=0.04)
    assert "Chance is 0.04; no more than 0.02 above it: no_write." in table.notes
    assert table.chance == 0.04
    assert "Chance is 1e-05." in _table(rows, chance=1e-5).notes
    assert not any("Chance" in note for note in _table(rows).notes)


def test_what_can_be_had_without_binding_is_told_and_is_no_floor(results) -> None:
    """A model may hold what it has read and know no keys: below that it may still be better than another."""
    rows = results({"dot": BASE, "l2": BETTER, "no_write": CHANCE}, controls=["no_write"])
    guess = Guess(0.9, "by the order of queries")
    table = _table(rows, chance=0.001, unbound=guess)
    told = "Chance is 0.001; 0.9 can be had without binding a value to a key, by the order of queries; no more than"
    assert f"{told} 0.02 above it: dot, l2, no_write." in table.notes
    assert table.unbound == guess
    assert not table.has_censored


def test_only_accuracy_has_a_chance(results) -> None:
    (table,) = ablation_tables(results({"dot": BASE, "l2": BETTER}, metric="loss"), study="bias", metric="loss",
                               chances={"recall": 0.5})  # fmt: skip
    assert table.chance is None
    assert not table.has_censored
    assert not any("Chance" in note for note in table.notes)


def test_accuracy_in_training_has_no_chance(results) -> None:
    """What is labelled there may be more than what is tested."""
    rows = results({"dot": BASE, "l2": BETTER}, split="train")
    table = _table(rows, split="train", chance=0.04)
    assert table.chance is None
    assert not any("Chance" in note for note in table.notes)


def test_the_limits_can_be_set(results) -> None:
    rows = results({"dot": [0.96, 0.97, 0.96], "l2": [0.98, 0.97, 0.97]})
    assert not _row(_table(rows), "l2").censored
    assert _row(_table(rows, provenance=TableContext(ceiling=0.95)), "l2").censored


def test_best_and_second_are_complete_and_no_controls(results) -> None:
    table = _table(
        results({"dot": BASE, "l2": BETTER, "part": [*[0.99] * 7, "failed"], "oracle": [0.95] * 8}, controls=["oracle"])
    )
    assert [row.cell for row in table.rows if row.best] == ["l2"]
    assert [row.cell for row in table.rows if row.second] == ["dot"]


def test_best_of_a_loss_is_the_lowest(results) -> None:
    table = _table(results({"dot": BASE, "l2": BETTER, "kl": WORSE}, metric="loss"), metric="loss")
    assert table.direction == "minimize"
    assert [row.cell for row in table.rows if row.best] == ["kl"]
    assert [row.cell for row in table.rows if row.second] == ["dot"]


def test_a_tie_is_best_twice(results) -> None:
    table = _table(results({"dot": WORSE, "l2": BETTER, "l2 again": BETTER}))
    assert [row.cell for row in table.rows if row.best] == ["l2", "l2 again"]
    assert not any(row.second for row in table.rows)


def test_a_saturated_best_leaves_nobody_bold(results) -> None:
    table = _table(results({"dot": [0.995] * 3, "l2": [0.999] * 3, "kl": [0.5, 0.6, 0.5]}))
    assert not any(row.best or row.second for row in table.rows)


def test_against_another_cell(results) -> None:
    table = _table(results({"dot": BASE, "l2": BETTER, "kl": WORSE}), against="l2")
    assert table.base == "l2"
    assert [row.cell for row in table.rows] == ["l2", "dot", "kl"]
    assert table.rows[0].verdict is None
    assert _row(table, "dot").difference == pytest.approx(statistics.fmean(BASE) - statistics.fmean(BETTER))
    assert _row(table, "dot").role == "base"


def test_nothing_finished_is_a_table_without_numbers(results) -> None:
    table = _table(results({"dot": ["running", "waiting"], "l2": ["waiting", "waiting"]}))
    assert [(row.mean, row.n, row.of) for row in table.rows] == [(None, 0, 2), (None, 0, 2)]
    assert table.rows[1].verdict == "l2: no result, 0 of 2 seeds finished"
    assert any("4 of 4 jobs not finished yet" in note for note in table.notes)


def test_all_failed_says_so(results) -> None:
    table = _table(results({"dot": BASE[:3], "l2": ["failed"] * 3}))
    assert _row(table, "l2").verdict == "l2: no result, 3 of 3 failed"


def test_costs_are_means_and_the_peak_of_the_memory() -> None:
    costs = [
        {("tokens_per_second", ""): 100.0, ("peak_memory_bytes", ""): 10.0, ("state_bytes", ""): 64.0},
        {("tokens_per_second", ""): 300.0, ("peak_memory_bytes", ""): 30.0, ("state_bytes", ""): 64.0},
        {("tokens_per_second", ""): math.inf},
    ]
    rows = [
        ResultRow("dot", "base", 0, {}, "recall", seed, "complete", 1, {("accuracy", "test"): 0.5, **cost})
        for seed, cost in enumerate(costs)
    ]
    row = _table(rows).rows[0]
    assert (row.tokens_per_second, row.peak_memory_bytes, row.state_bytes, row.params) == (200.0, 30, 64, None)


def test_a_cost_can_be_the_metric(results) -> None:
    table = _table(results({"dot": BASE, "l2": BETTER}), metric="params")
    assert (table.split, table.direction) == ("", "minimize")
    row = _row(table, "l2")
    assert (row.mean, row.sd, row.difference) == (1001.0, 0.0, 1.0)


def test_another_split(results) -> None:
    rows = results({"dot": BASE, "l2": BETTER}, split="validation")
    assert _table(rows, split="validation").rows[0].mean == pytest.approx(statistics.fmean(BASE))
    with pytest.raises(MirasError, match=r"recorded 'accuracy \(test\)'; there are: params, accuracy \(validation\)"):
        _table(rows)


def test_two_cells_of_one_name_are_told_apart(results) -> None:
    rows = results({"dot": BASE, "a": BETTER, "b": WORSE})
    same = [ResultRow("l2", r.role, r.number, r.changes, r.task, r.seed, r.state, 1, r.values) for r in rows[8:]]
    assert [row.cell for row in _table([*rows[:8], *same]).rows] == ["dot", "l2 #1", "l2 #2"]


def test_a_job_that_recorded_nothing_is_named(results) -> None:
    table = _table(results({"dot": BASE[:3], "l2": [0.8, None, 0.8]}))
    assert _row(table, "l2").n == 2
    assert "l2: 1 completed job recorded no value of this metric." in table.notes
    assert not any("not finished" in note for note in table.notes)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"metric": "acuracy"}, "metric: 'acuracy' is not registered.*did you mean 'accuracy'"),
        ({"metric": "loss"}, r"no completed job of task 'recall' recorded 'loss \(test\)'; there are: "),
        ({"task": "recal"}, "no results for 'recal'; there are: recall .did you mean 'recall'"),
        ({"against": "l3"}, "against: no cell is named 'l3'; there are: dot, l2"),
    ],
)
def test_wrong_names_are_one_clear_line(results, options: dict[str, str], message: str) -> None:
    with pytest.raises(MirasError, match=message):
        _table(results({"dot": BASE, "l2": BETTER}), **options)


def test_a_study_without_a_base_needs_a_reference(results) -> None:
    rows = results({"dot": BASE, "l2": BETTER, "kl": WORSE})[8:]
    with pytest.raises(MirasError, match="no base cell; name the cell to compare with"):
        _table(rows)
    assert _table(rows, against="kl").base == "kl"


def test_the_caption_names_what_a_reader_needs(results) -> None:
    context = TableContext(commit="abc1234", date="2026-01-02", execution="chunk 16")
    text = _table(results({"dot": BASE, "l2": BETTER}), provenance=context).caption
    for part in (
        "Study bias, task recall",
        "accuracy (test, higher is better)",
        "n = 8 of 8",
        "95 % t intervals",
        "joint per-seed sign flips (n = 8, exact, smallest p 0.0078)",
        "Execution: chunk 16",
        "Commit abc1234, 2026-01-02.",
    ):
        assert part in text


def test_jobs_on_unlike_devices_are_told(results) -> None:
    def on(*devices: str) -> list[ResultRow]:
        rows = results({"dot": BASE, "l2": BETTER})
        return [replace(row, device=devices[i % len(devices)]) for i, row in enumerate(rows)]

    (note,) = (
        one for one in _table(on("cpu B AVX2", "cpu A AVX512", "cpu A AVX512, pack of 2", "")).notes if "unlike" in one
    )
    assert note.startswith("Jobs ran on unlike devices (8 on cpu A AVX512, 4 on cpu B AVX2), which round otherwise")
    for same in (on("cpu A AVX512"), on("cuda NVIDIA H200", "cuda NVIDIA H200, pack of 8"), on("")):
        assert not any("unlike" in note for note in _table(same).notes)


def test_many_seeds_use_the_bootstrap_and_drawn_flips(results) -> None:
    random = np.random.default_rng(0)
    base = random.normal(0.5, 0.02, 22)
    table = _table(results({"dot": base.tolist(), "l2": (base + random.normal(0.1, 0.02, 22)).tolist()}))
    assert "95 % t and BCa bootstrap (the outer end of both) intervals" in table.caption
    assert "65,535 drawn" in table.caption
    assert table.rows[1].p == pytest.approx(1 / 65_536, abs=1e-4)


STATES = st.sampled_from(["waiting", "running", "diverged", "failed", None])
VALUES = st.one_of(st.sampled_from([0.0, 0.5, 0.625, 1.0]), st.floats(0.0, 1.0), STATES)


@given(st.integers(1, 9).flatmap(lambda n: st.lists(st.lists(VALUES, min_size=n, max_size=n), min_size=2, max_size=5)))
@settings(max_examples=100, deadline=None, derandomize=True)
def test_any_state_of_a_study_is_a_table(results, cells: list[list]) -> None:
    names = ["dot", "l2", "kl", "lp", "ascent"]
    rows = results(dict(zip(names, cells, strict=False)), controls=["ascent"])
    try:
        table = _table(rows, chance=0.1)
    except MirasError as problem:  # completed, and nobody recorded the metric
        assert "recorded" in str(problem)
        return
    assert [row.of for row in table.rows] == [len(cells[0])] * len(cells)
    for row in table.rows:
        assert row.n + row.diverged + row.failed <= row.of
        assert row.p is None or (row.p >= 2 / 2**row.pairs and row.diverged == 0)
        assert (row.mark == "") or (row.p is not None and row.p < 0.05)
        assert (row.verdict is None) == (row.cell == table.base)
        assert row.verdict is None or not row.verdict.endswith("; ")


def test_one_table_a_task(results) -> None:
    rows = results({"dot": BASE, "l2": BETTER}, task="b") + results({"dot": [0.05] * 3, "l2": [0.05] * 3}, task="a")
    tables = ablation_tables(rows, study="bias", metric="accuracy", chances={"a": 0.05})
    assert [table.task for table in tables] == ["b", "a"]
    assert [table.has_censored for table in tables] == [False, True]
    assert ablation_tables([], study="bias", metric="accuracy") == []


def test_the_order_of_the_results_does_not_matter(results) -> None:
    rows = results({"dot": BASE, "l2": BETTER, "kl": WORSE})
    assert _table(rows[::-1]) == _table(rows)


def test_one_pair_is_a_result_that_is_not_decided(results) -> None:
    table = _table(results({"l2": [0.5], "dot": [0.6], "kl": ["waiting"], "lp": ["failed"]}))
    assert [standing(row, table) for row in table.rows[1:]] == ["open", "missing", "missing"]
    assert headline(table) == "Of 3 cells compared with l2: 1 not decided, 2 without a result."
    full = _table(results({"l2": [0.999], "dot": [0.999]}))
    assert standing(full.rows[1], full) == "censored"


def test_too_few_seeds_are_said_of_cells_that_have_too_few(results) -> None:
    some = _table(results({"l2": BASE, "dot": BETTER, "kl": [0.5, 0.6, *["waiting"] * (len(BASE) - 2)]}))
    assert "kl: 2 paired seeds, too few for the joint test." in some.notes
    apart = results({"l2": BASE[:8], "dot": [*BETTER[:4], *["waiting"] * 4], "kl": [*["waiting"] * 4, *BETTER[4:8]]})
    notes = _table(apart).notes
    assert any(note.startswith("No joint test of the cells") for note in notes)
    assert not any("too few" in note for note in notes)
