"""Cells under controls on the dashboard: read from the store, shown in the table and beside the verdicts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from miras_search.analysis.standing import headline
from miras_search.analysis.stored import stored_tables
from miras_search.dashboard.forest import forest
from miras_search.dashboard.markup import ablation
from miras_search.export.html import verdict_list
from miras_search.export.palette import LIGHT
from miras_search.store.database import Database


@pytest.fixture(scope="module")
def controlled(built: Callable[..., Path]) -> Path:
    """Two cells under two controls on eight seeds; without writes both are one function."""
    controls = "[ascent, no_write]\ncontrols_on: cells"
    return built("controlled", levels="[dot]", controls=controls, diverging=False)


def test_the_table_says_what_effects_survive(controlled: Path, opened: Callable[[Path], Database]) -> None:
    table = stored_tables(opened(controlled), "bias")[0]
    assert [row.cell for row in table.rows] == ["l2", "dot", "l2 + ascent", "dot + ascent", "l2 + no_write"]
    # 0.71, 0.52 and under ascent 0.735, 0.82: the effect turns round there
    assert table.rows[1].survives == {"ascent": "yes", "no_write": "yes"}
    html = ablation(table, {})
    assert '<th colspan="1">under controls</th>' in html
    assert "<td>ascent, no_write</td>" in html
    assert "survives ascent and no_write" in verdict_list(table, LIGHT)
    assert headline(table).endswith("1 decidedly worse. 1 of 1 decided effect survives every control.")
    figure = forest(table, LIGHT)
    assert figure is not None
    assert any("survives ascent" in text for trace in figure.data for text in trace.customdata or ())


def test_a_study_without_controlled_cells_looks_as_before(normal: Path, opened: Callable[[Path], Database]) -> None:
    table = stored_tables(opened(normal), "bias")[0]
    assert not table.has_controlled
    assert "control" not in headline(table)
    assert "under controls" not in ablation(table, {})
