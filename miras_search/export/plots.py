"""What both drawings of a forest plot say: Plotly's on the dashboard, matplotlib's in files and reports."""

from __future__ import annotations

import re
from collections.abc import Sequence

from miras_search.analysis.numbers import NOTHING, fixed, p_text
from miras_search.analysis.standing import Standing
from miras_search.analysis.table import AblationTable, Row
from miras_search.export.layout import interval_text, mean_text, metric_header
from miras_search.export.palette import Palette
from miras_search.metrics import METRICS

LONGEST_LABEL = 34  # characters
_AXIS = re.compile(r"(^| / )[\w.]+=")  # of a factorial's cell: bias=l2 / retention=none


def scales(panels: Sequence[Sequence[Row]]) -> list[tuple[float, float]]:
    """The ends of each panel's axis; panels share them where none shrinks by that."""
    extents = [_extent(rows) for rows in panels]
    if len(panels) == 2 and _similar(*extents):
        extents = [_extent([*panels[0], *panels[1]])] * 2
    return [_padded(extent) for extent in extents]


def colour(kind: Standing, colours: Palette) -> str:
    """The colour of a standing: decided ones stand out."""
    return {"better": colours.better, "worse": colours.worse}.get(kind, colours.open)


def short_names(rows: Sequence[Row]) -> list[str]:
    """Names of cells short enough for an axis, still told apart: what is too long loses its axes, then its middle."""
    names: list[str] = []
    for row in rows:
        name = row.cell
        if len(name) > LONGEST_LABEL:
            name = _AXIS.sub(r"\1", name)
        if len(name) > LONGEST_LABEL:
            name = f"{name[: LONGEST_LABEL // 2]}…{name[1 - LONGEST_LABEL // 2 :]}"
        names.append(name if name not in names else f"{name} ({len(names)})")
    return names


def beside(row: Row, table: AblationTable) -> tuple[str, str]:
    """The difference, and its interval with the mark; or nothing, and why there is none."""
    places = table.decimals
    if row.cell == table.base:
        return "", f"{METRICS[table.metric].name} {mean_text(row, places)}"
    if row.diverged:
        return "", f"diverged in {row.diverged} of {row.of}"
    if row.difference is None:
        return "", f"failed in {row.failed} of {row.of}" if row.failed else f"{row.n} of {row.of} seeds"
    interval = "" if row.ci_low is None else interval_text(row, places)
    mark = "§" if row.censored else row.mark
    return fixed(row.difference, places, signed=True), " ".join(filter(None, (interval, mark)))


def details(row: Row, table: AblationTable) -> list[str]:
    """What a reader who points at a row is told, beside its name."""
    lines = [
        f"{metric_header(table)}: {mean_text(row, table.decimals)} (n = {row.n} of {row.of})",
        f"difference: {fixed(row.difference, table.decimals, signed=True)} {interval_text(row, table.decimals)}",
    ]
    if p_text(row.p) != NOTHING:
        lines.append(f"p {p_text(row.p)}, Holm {p_text(row.p_holm)}")
    return [*lines, row.verdict] if row.verdict else lines


def axis_title(table: AblationTable) -> str:
    """What the horizontal axis measures."""
    return f"difference in {metric_header(table)[:-2]} to {table.base}, paired by seed, with 95 % interval"


def _extent(rows: Sequence[Row]) -> tuple[float, float]:
    known = [value for row in rows for value in (row.difference, row.ci_low, row.ci_high) if value is not None]
    return min([0.0, *known]), max([0.0, *known])


def _padded(extent: tuple[float, float]) -> tuple[float, float]:
    """Room on both sides of the line, so that `better` and `worse` both fit above it."""
    low, high = extent
    span = (high - low) or 1.0
    return min(low - 0.06 * span, -0.16 * span), max(high + 0.06 * span, 0.16 * span)


def _similar(one: tuple[float, float], other: tuple[float, float]) -> bool:
    """Whether two panels can share a scale without one of them shrinking."""
    spans = sorted((one[1] - one[0], other[1] - other[0]))
    return spans[1] <= 1.5 * spans[0]
