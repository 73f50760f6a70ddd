"""The forest plot and the learning curves say what the table and the curves hold."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import plotly.graph_objects as go
import pytest

from miras_search.analysis.curves import bands, ends
from miras_search.analysis.standing import compared, headline, left_out, standing
from miras_search.analysis.stored import stored_tables
from miras_search.analysis.table import AblationTable
from miras_search.dashboard.forest import forest
from miras_search.dashboard.learning import curve_figure, shown_first
from miras_search.export.palette import DARK, LIGHT, palette, translucent
from miras_search.store import queries
from miras_search.store.database import Database
from miras_search.store.types import CurveRow, ResultRow

Opened = Callable[[Path], Database]


@pytest.fixture
def table(normal: Path, opened: Opened) -> AblationTable:
    return stored_tables(opened(normal), "bias")[0]


@pytest.fixture
def loss_table(normal: Path, opened: Opened) -> AblationTable:
    return stored_tables(opened(normal), "bias", metric="loss")[0]


def trace(figure: go.Figure, name: str) -> go.Scatter:
    return next(found for found in figure.data if found.name == name)


def annotations(figure: go.Figure) -> list[str]:
    return [item.text for item in figure.layout.annotations]


def test_standings_follow_the_verdicts(table: AblationTable) -> None:
    found = {row.cell: standing(row, table) for row in table.rows}
    assert found["huber(delta=0.5)"] == "better"
    assert found["dot"] == found["l2 + ascent"] == "worse"
    assert found["value_shift"] == "diverged"
    for row in table.rows:
        decided = row.verdict is not None and ", decided" in row.verdict
        assert decided == (found[row.cell] in ("better", "worse"))


def test_a_lower_loss_is_better(loss_table: AblationTable) -> None:
    found = {row.cell: standing(row, loss_table) for row in loss_table.rows}
    assert (found["huber(delta=0.5)"], found["dot"]) == ("better", "worse")
    assert next(row.cell for row in compared(loss_table, controls=False)) == "huber(delta=0.5)"


def test_the_headline_counts_every_cell(table: AblationTable) -> None:
    assert headline(table) == "Of 4 cells compared with l2: 2 decidedly better, 1 decidedly worse, 1 diverged."


def test_the_forest_has_every_row_with_the_tables_numbers(table: AblationTable) -> None:
    figure = forest(table, LIGHT)
    assert figure is not None
    better = trace(figure, "better, decided")
    row = next(row for row in table.rows if row.cell == "huber(delta=0.5)")
    place = list(better.y).index("huber(delta=0.5)")
    assert better.x[place] == row.difference
    assert row.difference is not None
    assert row.difference - better.error_x.arrayminus[place] == pytest.approx(row.ci_low)
    assert row.difference + better.error_x.array[place] == pytest.approx(row.ci_high)
    # best on top; the base between those above and those below it
    assert figure.layout.yaxis.categoryarray[::-1] == (
        "huber(delta=0.5)", "lp(p=1.5)", "<b>l2</b> (base)", "value_shift", "dot",
    )  # fmt: skip
    assert figure.layout.yaxis2.categoryarray[::-1] == ("l2 + no_write", "l2 + ascent")


def test_decided_and_undecided_differ_in_more_than_colour(table: AblationTable) -> None:
    figure = forest(table, LIGHT)
    assert figure is not None
    symbols = {found.name: found.marker.symbol for found in figure.data if found.name}
    assert symbols["better, decided"] == "circle"
    assert symbols["diverged, no test"] == "x-thin-open"
    assert "diverged in 3 of 8" in annotations(figure)


@pytest.mark.parametrize(("metric", "right"), [("accuracy", "better →"), ("loss", "worse →")])
def test_the_sides_are_named_by_the_metrics_direction(normal: Path, opened: Opened, metric: str, right: str) -> None:
    figure = forest(stored_tables(opened(normal), "bias", metric=metric)[0], LIGHT)
    assert figure is not None
    assert right in annotations(figure)


def test_a_forest_of_very_many_cells_says_what_it_leaves_out(table: AblationTable) -> None:
    assert left_out(table) == ""
    many = [replace(table.rows[1], cell=f"cell {index}", difference=-0.001 * index) for index in range(100)]
    wide = replace(table, rows=(table.rows[0], *many))
    figure = forest(wide, LIGHT)
    assert figure is not None
    assert len(figure.layout.yaxis.categoryarray) == 61
    assert left_out(wide) == "60 of 100 rows are drawn, the best; the table has all."


def test_names_that_are_cut_are_still_told_apart(table: AblationTable) -> None:
    rows = [replace(table.rows[1], cell=f"{'very ' * 9}long {index}") for index in range(2)]
    figure = forest(replace(table, rows=(table.rows[0], *rows)), LIGHT)
    assert figure is not None
    assert len(set(figure.layout.yaxis.categoryarray)) == 3


def test_no_forest_before_anything_is_compared(only_failures: Path, opened: Opened) -> None:
    assert forest(stored_tables(opened(only_failures), "bias")[0], LIGHT) is None


def test_no_forest_of_a_base_alone(one_trial: Path, opened: Opened) -> None:
    table = stored_tables(opened(one_trial), "bias")[0]
    assert forest(table, LIGHT) is None
    assert "compares nothing" in headline(table)


def test_a_half_done_study_is_undecided(in_progress: Path, opened: Opened) -> None:
    figure = forest(stored_tables(opened(in_progress), "bias")[0], DARK)
    assert figure is not None
    assert trace(figure, "not decided").marker.symbol == "circle-open"


def rows(*values: float, cell: str = "l2", step: int = 100) -> list[CurveRow]:
    return [CurveRow(cell, "recall", seed, step, value) for seed, value in enumerate(values)]


def test_the_median_band_reaches_from_the_10th_to_the_90th_percentile() -> None:
    (point,) = bands(rows(*map(float, range(11))), "median")["l2"]
    assert (point.centre, point.low, point.high, point.n) == (5.0, 1.0, 9.0, 11)


def test_the_base_and_the_best_are_drawn_at_first() -> None:
    def row(cell: str, seed: int, **values: float) -> ResultRow:
        named = {(name, "validation"): value for name, value in values.items()}
        return ResultRow(cell, "cell", 0, {}, "recall", seed, "complete", None, named)

    roles = {"base": "base", "poor": "cell", "good": "cell", "best": "cell", "silent": "cell", "none": "control",
             "large": "refused"}  # fmt: skip
    plain = {cell: "cell" for cell in roles}
    results = [row("base", 0, accuracy=0.1), row("poor", 0, accuracy=0.2, loss=1.0), row("silent", 0),
               row("good", 0, accuracy=0.9), row("good", 1, accuracy=0.5, loss=0.5), row("best", 0, accuracy=0.8),
               row("best", 1, accuracy=math.nan), row("none", 0, accuracy=0.95)]  # fmt: skip
    assert shown_first(results, roles, "accuracy", 3) == ["base", "good", "best"]
    assert shown_first(results, plain, "accuracy", 2) == ["best", "none"]
    assert shown_first(results, roles, "accuracy", 5) == ["base", "poor", "good", "best", "silent"]
    assert shown_first(results, plain, "loss", 1) == ["good"]
    assert shown_first([], roles, "accuracy", 6) == [*roles][:6]


def test_the_mean_band_is_one_standard_deviation() -> None:
    (point,) = bands(rows(1.0, 3.0), "mean")["l2"]
    assert (point.centre, point.low, point.high, point.n) == (2.0, 2.0 - math.sqrt(2), 2.0 + math.sqrt(2), 2)


def test_one_seed_has_a_line_without_a_band() -> None:
    (point,) = bands(rows(0.7), "mean")["l2"]
    assert (point.low, point.centre, point.high) == (0.7, 0.7, 0.7)


def test_values_that_are_not_finite_are_counted_out() -> None:
    (point,) = bands(rows(1.0, math.nan, math.inf, 3.0), "median")["l2"]
    assert (point.centre, point.n) == (2.0, 2)
    assert bands(rows(math.nan), "median") == {}


def test_the_crosses_stand_where_divergence_ended_a_curve(normal: Path, opened: Opened) -> None:
    db = opened(normal)
    study = queries.study(db, "bias")
    curves = queries.curves(db, study.id, "accuracy", "validation")
    found = ends(curves, queries.results(db, study.id))
    assert [(end.cell, end.seed, end.step) for end in found] == [("value_shift", seed, 150) for seed in (1, 4, 7)]
    figure = curve_figure(
        bands(curves, "median"), base="l2", metric="accuracy", split="validation", colours=LIGHT, stops=found
    )
    assert list(trace(figure, "last value before divergence").x) == [150, 150, 150]


def test_curves_are_named_best_first_and_the_base_is_dashed() -> None:
    curves = [*rows(0.5, cell="l2"), *rows(0.9, cell="lp"), *rows(0.1, cell="dot")]
    for metric, order in (("accuracy", ["lp", "l2 (base)", "dot"]), ("loss", ["dot", "l2 (base)", "lp"])):
        figure = curve_figure(bands(curves, "mean"), base="l2", metric=metric, split="validation", colours=LIGHT)
        assert [found.name for found in figure.data if found.name] == order
        assert trace(figure, "l2 (base)").line.dash == "dash"


def test_levels_are_dotted_rules() -> None:
    lines = bands(rows(0.5, cell="l2"), "mean")
    for levels, rules in (({"chance": 0.1, "without binding": 0.28}, [0.1, 0.28]), ({}, [])):
        figure = curve_figure(lines, base=None, metric="accuracy", split="test", colours=LIGHT, levels=levels)
        assert [shape.y0 for shape in figure.layout.shapes] == rules


def test_more_cells_than_colours_are_told_apart_by_dashes() -> None:
    curves = [row for index in range(9) for row in rows(0.1 * index, cell=f"cell {index}")]
    figure = curve_figure(bands(curves, "mean"), base=None, metric="loss", split="train", colours=LIGHT)
    looks = {(found.line.color, found.line.dash) for found in figure.data if found.name}
    assert len(looks) == 9


def test_raw_curves_are_one_trace_a_cell_with_gaps() -> None:
    curves = [CurveRow("l2", "recall", seed, step, 0.1 * step) for seed in (0, 1) for step in (1, 2)]
    figure = curve_figure(bands(curves, "mean"), base="l2", metric="loss", split="train", colours=LIGHT, raw=curves)
    raw = next(found for found in figure.data if found.x == (1, 2, None, 1, 2))
    assert raw.line.width == 1


def test_the_curves_of_a_study_are_named(normal: Path, opened: Opened) -> None:
    db = opened(normal)
    names = queries.curve_names(db, queries.study(db, "bias").id)
    assert names == [("accuracy", "validation"), ("loss", "train"), ("loss", "validation")]


def luminance(colour: str) -> float:
    parts = [int(colour[start : start + 2], 16) / 255 for start in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize(("colours", "ground"), [(LIGHT, "#FFFFFF"), (DARK, "#191815")])
def test_words_in_the_palettes_colours_are_readable(colours: object, ground: str) -> None:
    for name in ("better", "worse", "open", "text"):
        pair = sorted((luminance(getattr(colours, name)), luminance(ground)))
        assert (pair[1] + 0.05) / (pair[0] + 0.05) >= 3.5, name


def test_the_theme_chooses_the_palette() -> None:
    assert (palette("dark"), palette("light"), palette(None)) == (DARK, LIGHT, LIGHT)
    assert translucent("#0072B2", 0.5) == "rgba(0,114,178,0.5)"
