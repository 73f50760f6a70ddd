"""Effects under controls: what is left, what is gone, and what the verdict says of it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

import numpy as np
import pytest
from scipy import stats

from miras_search.analysis.noise import noise_of
from miras_search.analysis.paired import exponential_t_each, interval, leaning_interval, sign_flip_stepdown
from miras_search.analysis.table import AblationTable, Row, ablation_table
from miras_search.export.formats import RENDERERS
from miras_search.export.json_ import to_plain
from miras_search.store.types import ResultRow

N = 8
NOISE = np.random.default_rng(5).normal(size=(12, N))


def around(mean: float, row: int, spread: float = 0.01) -> list[float]:
    return (mean + spread * NOISE[row]).tolist()


CONTROLLED = {0: {"ascent": 2, "no_write": 4}, 1: {"ascent": 3, "no_write": 4}}
NAMES = ("l2", "dot", "l2 + ascent", "dot + ascent", "l2 + no_write")


def study(
    base: Sequence[float | str],
    cell: Sequence[float | str],
    base_ascent: Sequence[float | str],
    cell_ascent: Sequence[float | str],
    metric: str = "accuracy",
) -> list[ResultRow]:
    """A base and a cell, both under ascent, and one row for both without writes."""
    roles = {"l2": "base", "dot": "cell"}
    changes: Mapping[str, dict[str, str]] = {
        "l2": {},
        "dot": {"bias": "dot"},
        "l2 + ascent": {"control": "ascent"},
        "dot + ascent": {"bias": "dot", "control": "ascent"},
        "l2 + no_write": {"control": "no_write"},
    }
    rows = []
    for number, (name, values) in enumerate(
        zip(NAMES, (base, cell, base_ascent, cell_ascent, around(0.2, 9)), strict=True)
    ):
        for seed, value in enumerate(values):
            state = value if isinstance(value, str) else "complete"
            found = {} if isinstance(value, str) else {(metric, "test"): value}
            role = roles.get(name, "control")
            rows.append(ResultRow(name, role, number, changes[name], "recall", seed, state, 300, found))
    return rows


def table_of(rows: list[ResultRow], **options: object) -> AblationTable:
    chosen: dict = {"study": "t", "metric": "accuracy", "task": "recall", "controlled": CONTROLLED, **options}
    return ablation_table(rows, **chosen)


def row(table: AblationTable, cell: str = "dot") -> Row:
    return next(row for row in table.rows if row.cell == cell)


def test_an_effect_that_is_gone_under_a_control_survives_it() -> None:
    base, cell, under, cell_under = around(0.6, 0), around(0.8, 1), around(0.3, 2), around(0.3, 3)
    table = table_of(study(base, cell, under, cell_under))
    found = row(table)
    assert found.survives == {"ascent": "yes", "no_write": "yes"}
    assert found.verdict is not None
    assert found.verdict.endswith(", decided; survives ascent and no_write")
    left = np.array(cell_under) - np.array(under)
    gone = np.array(cell) - np.array(base) - left
    low, high = stats.ttest_1samp(gone, 0.0).confidence_interval()
    assert found.under is not None
    numbers = found.under["ascent"]
    assert (numbers["gone"], numbers["gone_low"], numbers["gone_high"]) == pytest.approx((gone.mean(), low, high))
    assert numbers["left"] == pytest.approx(left.mean())
    assert numbers["p"] == pytest.approx(sign_flip_stepdown(gone[:, None])[0])
    shared = found.under["no_write"]  # one function there: nothing is left, and all of the effect is gone
    assert (shared["left"], shared["gone"], shared["p"]) == (0.0, pytest.approx(found.difference), found.p)


@pytest.mark.parametrize(("drawn", "n", "leans"), [(1, 8, (0.0, 0.47)), (37, 24, (0.73, 0.67))])
def test_intervals_of_what_is_gone_and_of_what_is_left_lean_each_by_itself(
    drawn: int, n: int, leans: tuple[float, float]
) -> None:
    noise = np.random.default_rng(drawn).normal(size=(4, n))
    four = [mean + 0.01 * noise[i] for i, mean in enumerate((0.6, 0.8, 0.3, 0.4))]
    table = table_of([one for one in study(*(one.tolist() for one in four)) if one.cell != "l2 + no_write"])
    base, cell, under, cell_under = four
    left = cell_under - under
    numbers = row(table).under["ascent"]
    for name, d, lean in zip(("gone", "left"), (cell - base - left, left), leans, strict=True):
        found = noise_of(d[:, None])
        assert found is not None
        assert found.lean == pytest.approx(lean, abs=5e-3)
        usual, far = interval(d), leaning_interval(d, lean=found.lean)
        ends = (min(usual[0], far[0]), max(usual[1], far[1])) if n >= 20 else far
        assert (numbers[f"{name}_low"], numbers[f"{name}_high"]) == pytest.approx(ends)
    (note,) = (one for one in table.notes if one.startswith("An effect survives a control"))
    if n < 20:
        assert note.endswith(
            "; intervals by t, of what is left by t that leans 47 % of the way with each one's own skewness)."
        )
    else:
        kind = "{0}, t and BCa bootstrap (the outer end of all)"
        ways = [kind.format(f"t that leans {share} % of the way with each one's own skewness") for share in (73, 67)]
        assert note.endswith(f"; intervals by {ways[0]}, of what is left by {ways[1]}).")


def test_what_is_gone_under_skewed_noise_is_held_to_the_stricter_test() -> None:
    skewed = np.random.default_rng(8).exponential(size=(N,)) - 1
    base, under = [0.5] * N, [0.4] * N
    cell, cell_under = (0.8 + 0.001 * NOISE[1]).tolist(), (0.65 + 0.05 * skewed).tolist()
    table = table_of(study(base, cell, under, cell_under))
    gone = np.array(cell) - np.array(base) - (np.array(cell_under) - np.array(under))
    told = row(table).under["ascent"]
    assert told["p"] == pytest.approx(max(exponential_t_each(gone[:, None])[0], sign_flip_stepdown(gone[:, None])[0]))
    assert (told["gone_low"], told["gone_high"]) == pytest.approx(leaning_interval(gone))
    assert any("and, because these look uneven, Holm's over their t tests against" in note for note in table.notes)
    shared = row(table).under["no_write"]  # cell and base are one there: all of the effect is gone
    found = row(table)
    assert (shared["gone"], shared["gone_low"], shared["gone_high"]) == (found.difference, found.ci_low, found.ci_high)


def test_an_effect_that_stays_does_not_survive() -> None:
    table = table_of(study(around(0.6, 0), around(0.8, 1), around(0.3, 2), around(0.5, 3)))
    found = row(table)
    assert found.survives == {"ascent": "no", "no_write": "yes"}
    assert found.verdict is not None and found.under is not None
    left = found.under["ascent"]["left"]
    assert "survives no_write; does not survive ascent: +0.20" in found.verdict
    assert left == pytest.approx(0.2, abs=0.02)
    assert found.verdict.endswith("] remains there")


def test_an_effect_that_grows_under_a_control_does_not_survive() -> None:
    found = row(table_of(study(around(0.6, 0), around(0.65, 1, 0.005), around(0.3, 2), around(0.7, 3))))
    assert found.survives == {"ascent": "no", "no_write": "yes"}


def test_half_of_an_effect_is_said_to_remain() -> None:
    found = row(table_of(study(around(0.6, 0), around(0.8, 1), around(0.3, 2), around(0.4, 3))))
    assert found.survives == {"ascent": "yes", "no_write": "yes"}
    assert found.verdict is not None
    assert "survives no_write; survives ascent in part: +0.10" in found.verdict


def test_what_is_uncertain_is_not_decided() -> None:
    found = row(table_of(study(around(0.6, 0), around(0.65, 1), around(0.3, 2), around(0.34, 3, 0.2))))
    assert found.survives == {"ascent": "not decided", "no_write": "yes"}
    assert found.verdict is not None
    assert "; not decided under ascent: " in found.verdict and "] remains there, " in found.verdict


def test_an_effect_that_is_not_decided_has_nothing_to_survive() -> None:
    table = table_of(study(around(0.6, 0), around(0.6, 1), around(0.3, 2), around(0.5, 3)))
    found = row(table)
    assert found.survives is None
    assert found.verdict is not None and "surviv" not in found.verdict
    assert found.under is not None and found.under["ascent"]["left"] == pytest.approx(0.2, abs=0.02)


def test_a_negative_effect_and_a_loss_have_their_own_direction() -> None:
    rows = study(around(1.0, 0), around(0.8, 1), around(1.5, 2), around(1.5, 3), metric="loss")
    found = row(table_of(rows, metric="loss"))
    assert found.survives == {"ascent": "yes", "no_write": "yes"}
    worse = row(table_of(study(around(0.6, 0), around(0.4, 1), around(0.3, 2), around(0.1, 3))))
    assert worse.survives == {"ascent": "no", "no_write": "yes"}


def test_models_at_chance_under_a_control_are_named() -> None:
    found = row(table_of(study(around(0.6, 0), around(0.8, 1), [0.05] * N, [0.05] * N), chance=0.05))
    assert found.verdict is not None
    assert found.verdict.endswith("survives ascent (where both are at the floor) and no_write")


def test_a_divergence_under_a_control_leaves_it_open() -> None:
    broken = [*around(0.3, 2)[:6], "diverged", "diverged"]
    found = row(table_of(study(around(0.6, 0), around(0.8, 1), broken, around(0.3, 3))))
    assert found.survives == {"ascent": "not decided", "no_write": "yes"}
    assert found.verdict is not None
    assert "not decided under ascent: l2 + ascent diverged in 2 of 8" in found.verdict


def test_unfinished_controls_leave_it_open() -> None:
    found = row(table_of(study(around(0.6, 0), around(0.8, 1), ["waiting"] * N, around(0.3, 3))))
    assert found.survives == {"ascent": "not decided", "no_write": "yes"}
    assert found.verdict is not None
    assert "not decided under ascent: no seed of dot + ascent and l2 + ascent finished" in found.verdict


def test_rows_of_controls_say_what_they_are_for() -> None:
    table = table_of(study(around(0.6, 0), around(0.8, 1), around(0.3, 2), around(0.5, 3)))
    verdicts = {line.cell: line.verdict or "" for line in table.rows}
    assert verdicts["l2 + no_write"].endswith(", decided; l2 beats it")
    assert verdicts["l2 + ascent"].endswith(", decided; l2 beats it")
    assert "; to l2 + ascent: +0.20" in verdicts["dot + ascent"]
    assert any("An effect survives a control" in note and "1 such difference," in note for note in table.notes)
    better = table_of(study(around(0.6, 0), around(0.8, 1), around(0.9, 2), around(0.5, 3)))
    assert (row(better, "l2 + ascent").verdict or "").endswith("; l2 does not beat it")


def test_every_format_shows_it_and_only_where_cells_are_controlled() -> None:
    rows = study(around(0.6, 0), around(0.8, 1), around(0.3, 2), around(0.5, 3))
    table, plain = table_of(rows), table_of(rows, controlled=None)
    for name in ("text", "markdown", "csv"):
        assert "survives" in RENDERERS[name](table), name
    assert "not ascent, no_write" in RENDERERS["markdown"](table)
    assert r"not ascent, no\_write" in RENDERERS["latex"](table)
    assert "survives" not in RENDERERS["text"](plain) and "survives" not in RENDERERS["latex"](plain)
    found = to_plain(table)["rows"]
    assert isinstance(found, list) and isinstance(found[1], dict)
    assert found[1]["survives"] == {"ascent": "no", "no_write": "yes"}
    assert json.loads(RENDERERS["json"](plain))["rows"][1]["survives"] is None


def test_effects_to_another_cell_use_that_cells_controls() -> None:
    rows = study(around(0.6, 0), around(0.8, 1), around(0.3, 2), around(0.3, 3))
    table = table_of(rows, against="dot")
    found = row(table, "l2")
    assert found.survives == {"ascent": "yes", "no_write": "yes"}
    assert found.under is not None and found.under["ascent"]["gone"] == pytest.approx(-0.2, abs=0.02)
    alone = table_of(rows, against="l2 + ascent")
    assert all(not line.under for line in alone.rows)
