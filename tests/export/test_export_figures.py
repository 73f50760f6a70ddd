"""The drawn figures hold the table's rows, and their words reach a page escaped."""

from __future__ import annotations

from dataclasses import replace

from miras_search.analysis.curves import BandPoint, End
from miras_search.analysis.table import AblationTable
from miras_search.export.figures import curves, forest, inline, render
from miras_search.export.plots import LONGEST_LABEL, short_names


def test_the_forest_has_a_panel_for_the_cells_and_one_for_the_controls(table: AblationTable) -> None:
    figure = forest(table)
    assert figure is not None
    labels = [[label.get_text() for label in axes.get_yticklabels()] for axes in figure.axes]
    assert labels == [["l2 & δ_1", "lp|1.5", "dot (base)"], ["no_write"]]
    low, high = figure.axes[0].get_xlim()
    assert all(low < (row.ci_low or 0.0) <= (row.ci_high or 0.0) < high for row in table.rows if row.role == "cell")
    words = {text.get_text() for axes in figure.axes for text in axes.texts}
    assert {"+0.204", "[0.196, 0.213] ‡", "diverged in 1 of 8", "better →", "negative controls"} <= words


def test_nothing_to_compare_is_no_figure(empty_table: AblationTable) -> None:
    assert forest(empty_table) is None


def test_names_are_text_whatever_is_in_them(table: AblationTable) -> None:
    odd = replace(table, rows=(table.rows[0], replace(table.rows[1], cell='<b> "$x$" & $')))
    figure = forest(odd)
    assert figure is not None
    page = inline(figure, 'a "title"')
    assert "<b>" not in page
    assert '<title>&lt;b&gt; "$x$" &amp; $\n' in page
    assert 'aria-label="a &quot;title&quot;"' in page
    assert ' id="axes' not in page
    assert render(figure, "svg") == render(figure, "svg")


def test_curves_put_the_best_first_and_mark_divergences() -> None:
    lines = {
        "dot": [BandPoint(10, 0.2, 0.1, 0.3, 3), BandPoint(20, 0.4, 0.3, 0.5, 3)],
        "l2": [BandPoint(10, 0.3, 0.2, 0.4, 3), BandPoint(20, 0.6, 0.5, 0.7, 2)],
    }
    figure = curves(lines, base="dot", metric="accuracy", split="validation", stops=[End("l2", 1, 10, 0.3)])
    (axes,) = figure.axes
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["l2", "dot (base)"]
    assert axes.get_ylabel() == "validation accuracy ↑"
    crosses = [line for line in axes.lines if line.get_marker() == "x" and len(line.get_xdata())]
    assert [list(line.get_xdata()) for line in crosses] == [[10]]
    assert "l2\n0.6 [0.5, 0.7] at step 20, n = 2" in inline(figure, "curves")
    assert render(figure, "png").startswith(b"\x89PNG")


def test_levels_are_dotted_rules() -> None:
    lines = {"l2": [BandPoint(10, 0.3, 0.2, 0.4, 3), BandPoint(20, 0.6, 0.5, 0.7, 3)]}
    for levels, rules in (({"chance": 0.28}, [[0.28, 0.28]]), ({}, [])):
        (axes,) = curves(lines, base=None, metric="accuracy", split="test", levels=levels).axes
        assert [list(line.get_ydata()) for line in axes.lines if line.get_linestyle() == ":"] == rules
        assert ("chance" in [text.get_text() for text in axes.texts]) == bool(rules)


def test_the_legend_of_a_few_of_the_cells_counts_them() -> None:
    lines = {"l2": [BandPoint(10, 0.3, 0.2, 0.4, 3)]}
    titles = []
    for cells in (9, 1):
        figure = curves(lines, base=None, metric="loss", split="train", cells=cells)
        titles.append(figure.legends[0].get_title().get_text())
    assert titles == ["1 of 9 cells, best last value first", "best last value first"]


def test_long_names_keep_what_tells_them_apart(table: AblationTable) -> None:
    def shown(*cells: str) -> list[str]:
        return short_names([replace(table.rows[0], cell=cell) for cell in cells])

    factorial = shown("bias=l2 / retention=decay(scope=head)", "bias=l2 / retention=decay(scope=channel)")
    assert factorial == ["l2 / decay(scope=head)", "l2 / decay(scope=channel)"]
    assert shown("bias=l2 / retention=none") == ["bias=l2 / retention=none"], "short enough as it is"
    ends = shown("the_same_long_beginning_of_both_names_a", "the_same_long_beginning_of_both_names_b")
    assert len(set(ends)) == 2
    assert {name[-1] for name in ends} == {"a", "b"}
    middles = shown("x" * 40 + "a" + "x" * 40, "x" * 40 + "b" + "x" * 40)
    assert len(set(middles)) == 2, "a number where the ends are the same"
    assert max(map(len, [*ends, *middles])) <= LONGEST_LABEL + len(" (1)")
