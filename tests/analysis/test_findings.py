"""What goes beyond a table, from results as the store hands them over, and how it reads."""

from __future__ import annotations

import json

import numpy as np
import pytest

from miras_search.analysis.findings import findings, ranks
from miras_search.analysis.table import AblationTable, ablation_table
from miras_search.export.findings import to_plain, to_text
from miras_search.store.types import CurveRow, ResultRow

MEANS = {("l2", "matrix"): 0.6, ("l2", "mlp"): 0.7, ("dot", "matrix"): 0.65, ("dot", "mlp"): 0.9}


def _row(
    number: int,
    cell: str,
    changes: dict[str, str],
    seed: int,
    value: float | str,
    *,
    role: str = "cell",
    speed: float = 1.0,
) -> ResultRow:
    values = {("accuracy", "test"): value, ("tokens_per_second", ""): speed} if isinstance(value, float) else {}
    state = value if isinstance(value, str) else "complete"
    return ResultRow(cell, role, number, changes, "recall", seed, state, 300, values)


def _factorial(seeds: int = 4) -> list[ResultRow]:
    random = np.random.default_rng(0)
    luck = random.normal(0, 0.05, seeds)
    rows = []
    for number, ((bias, memory), mean) in enumerate(MEANS.items()):
        changes = {
            name: level for name, level, base in (("bias", bias, "l2"), ("memory", memory, "matrix")) if level != base
        }
        role = "cell" if changes else "base"
        for seed in range(seeds):
            value = float(mean + luck[seed] + random.normal(0, 0.01))
            rows.append(_row(number, f"{bias} {memory}", changes, seed, value, role=role, speed=100.0 - number))
    return rows + [_row(9, "no_write", {"control": "no_write"}, seed, 0.1, role="control") for seed in range(seeds)]


def _table(rows: list[ResultRow]) -> AblationTable:
    return ablation_table(rows, study="small", metric="accuracy", task="recall")


def test_a_factorial_has_effects_shares_and_a_front() -> None:
    rows = _factorial()
    found = findings(rows, _table(rows), margin=0.2)
    assert found.axes is not None
    assert found.axes.method == "exact"
    assert {str(one) for one in found.axes.effects} == {"bias", "memory", "memory x bias"}
    assert found.best == "dot mlp"
    assert found.shares is not None
    assert found.shares.whole == pytest.approx(0.3, abs=0.02)
    assert found.front.front == ("l2 matrix", "l2 mlp", "dot mlp")
    assert found.front.dominated == {"dot matrix": "l2 mlp"}
    assert [one.method for one in found.importances][:1] == ["PED-ANOVA"]
    by_cell = {one.cell: one for one in found.cells}
    assert list(by_cell) == ["l2 mlp", "dot matrix", "dot mlp", "no_write"]
    close, far = by_cell["l2 mlp"].equivalence, by_cell["dot mlp"].equivalence
    assert close is not None
    assert far is not None
    assert close.holds
    assert not far.holds
    assert found.limit is None


def test_controls_are_no_level_of_an_axis() -> None:
    rows = _factorial()
    found = findings(rows, _table(rows))
    assert found.axes is not None
    assert all("control" not in one.term for one in found.axes.effects)
    assert "no_write" not in (*found.front.front, *found.front.dominated)


def test_diverged_failed_and_censored_follow_the_rules() -> None:
    values: dict[str, list[float | str]] = {
        "base": [0.995, 0.996, 0.997, 0.999],
        "same": [0.995, 0.997, 0.996, 0.998],
        "burst": [0.3, "diverged", 0.2, 0.4],
        "lost": [0.5, 0.4, "failed", 0.6],
    }
    rows = [
        _row(number, cell, {"bias": cell} if number else {}, seed, value, role="cell" if number else "base")
        for number, (cell, line) in enumerate(values.items())
        for seed, value in enumerate(line)
    ]
    found = findings(rows, _table(rows), limit=0.9)
    same, burst, lost = found.cells
    assert (same.effect_size, same.equivalence) == (None, None)  # censored
    assert same.wins is not None
    assert (burst.effect_size, burst.equivalence) == (None, None)
    assert burst.solved is not None
    assert (burst.solved.cell, burst.solved.of) == (0, 4)  # the diverged seed did not solve it
    assert lost.solved is not None
    assert (lost.solved.cell, lost.solved.of) == (0, 3)  # a failed one is missing
    assert lost.effect_size is not None
    assert found.axes is not None
    assert found.axes.method == "least squares"
    assert found.notes == ("1 of 16 trainings diverged: see the rules.", "1 of 16 trainings failed: see the rules.")
    table = _table(rows)
    both = ranks([table, table])
    assert both is not None
    assert both.ranks["burst"] == 4.0
    assert ranks([table]) is None


def test_seeds_in_two_modes_are_counted_and_timed() -> None:
    values = {"base": [0.95, 0.2, 0.21, 0.22, 0.23, 0.2], "new": [0.94, 0.95, 0.96, 0.95, 0.97, 0.96]}
    rows = [
        _row(number, cell, {"bias": cell} if number else {}, seed, value, role="cell" if number else "base")
        for number, (cell, line) in enumerate(values.items())
        for seed, value in enumerate(line)
    ]
    curves = [
        CurveRow(cell, "recall", seed, step, value if step >= 50 * (seed + 1) else 0.1)
        for cell, line in values.items()
        for seed, value in enumerate(line)
        for step in (50, 100, 150, 200, 250, 300)
    ]
    found = findings(rows, _table(rows), curves=curves)
    assert found.limit == pytest.approx((0.23 + 0.94) / 2)
    (one,) = found.cells
    assert one.solved is not None
    assert (one.solved.cell, one.solved.reference) == (6, 1)
    assert one.solved.mcnemar == pytest.approx(2 / 2**5)
    assert one.speed is not None
    assert (one.speed.median, one.speed.reference_median) == (150.0, None)
    text = to_text([found])
    assert "6/6" in text
    assert "base in 1 of 6" in text


def test_a_divergence_never_solves_it_and_what_has_no_result_has_no_time() -> None:
    """However early it diverged, and whatever its curve had reached."""
    values = {"base": [0.95] * 7, "new": [0.95, 0.2, *["diverged"] * 4, "running"]}
    rows = [
        _row(number, cell, {"bias": cell} if number else {}, seed, value, role="cell" if number else "base")
        for number, (cell, line) in enumerate(values.items())
        for seed, value in enumerate(line)
    ]
    curves = [CurveRow("base", "recall", seed, step, 0.95) for seed in range(7) for step in (100, 300)]
    curves += [CurveRow("new", "recall", 0, 100, 0.95), CurveRow("new", "recall", 1, 300, 0.2)]
    curves += [CurveRow("new", "recall", seed, 10, 0.1) for seed in (2, 3)]  # diverged right then
    curves += [CurveRow("new", "recall", seed, 20, 0.95) for seed in (4, 5, 6)]  # after it solved the task, or runs
    (one,) = findings(rows, _table(rows), limit=0.9, curves=curves).cells
    assert one.solved is not None and one.speed is not None
    assert (one.solved.cell, one.solved.of) == (1, 6)
    assert (one.speed.median, one.speed.reference_median) == (None, 100.0)
    assert one.speed.exact == pytest.approx(2 / 2**5)  # five of six pairs differ, all to one side
    assert one.speed.logrank is not None and one.speed.logrank < 0.01


def test_nothing_finished_is_told_and_is_no_crash() -> None:
    rows = [_row(n, c, {"bias": c} if n else {}, s, "waiting", role="cell" if n else "base") for n, c in
            enumerate(("base", "new")) for s in range(3)]  # fmt: skip
    found = findings(rows, _table(rows))
    assert (found.axes, found.shares, found.importances, found.limit) == (None, None, (), None)
    assert found.cells[0].wins is None
    assert "Without both numbers: base, new" in to_text([found])


def test_text_and_json_say_the_same() -> None:
    rows = _factorial()
    table = _table(rows)
    found = findings(rows, table, margin=0.2)
    text = to_text([found], ranks([table, table]), width=100)
    for words in (
        "Effects",
        "within ±0.2",
        "Effects of axes (exact",
        "Shapley",
        "PED-ANOVA",
        "Mean ranks",
        "Diverged:",
    ):
        assert words in text
    plain = json.loads(json.dumps(to_plain([found], ranks([table, table])), allow_nan=False))
    assert [one["cell"] for one in plain["statistics"][0]["cells"]] == [one.cell for one in found.cells]
    assert plain["ranks"]["ranks"]["dot mlp"] == 1.0
    assert len(plain["rules"]) == 3
