"""The forest plot: each cell's paired difference to the reference with its 95 % interval, the best on top.

Right of the zero line is a larger value of the metric, so for a loss the better side is the left one; a line above the
plot says which. Filled markers are decided, open ones are not. Negative controls have a panel and a scale of their own,
because they are often so far away that the cells would shrink to a line.
"""

from __future__ import annotations

from collections.abc import Sequence

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from miras_search.analysis.numbers import NOTHING, fixed, p_text
from miras_search.analysis.standing import WORDS, Standing, compared, standing
from miras_search.analysis.table import AblationTable, Row
from miras_search.export.layout import interval_text, mean_text, metric_header
from miras_search.export.palette import Palette, translucent
from miras_search.metrics import METRICS

ROW_HEIGHT = 34  # pixels
LONGEST_LABEL = 34  # characters
MOST_ROWS = 60  # in a panel: beyond, nobody reads a plot that is metres long
SYMBOLS: dict[Standing, str] = {
    "better": "circle",
    "worse": "circle",
    "open": "circle-open",
    "censored": "square-open",
    "diverged": "x-thin-open",
    "missing": "circle-open",
}


def forest(table: AblationTable, colours: Palette) -> go.Figure | None:
    """The figure, or None while nothing has been compared. Of more than `MOST_ROWS` cells the best are drawn."""
    panels = [rows[:MOST_ROWS] for controls in (False, True) if (rows := compared(table, controls=controls))]
    if not any(row.difference is not None for rows in panels for row in rows):
        return None
    panels[0] = _with_reference(panels[0], table)
    heights = [len(rows) * ROW_HEIGHT for rows in panels]
    gap = 62.0
    inner = sum(heights) + gap * (len(panels) - 1)
    figure = make_subplots(
        rows=len(panels),
        cols=1,
        row_heights=heights,
        vertical_spacing=gap / inner if len(panels) > 1 else 0.0,
    )
    for place, rows in enumerate(panels, start=1):
        _panel(figure, table, rows, colours, place)
    if len(panels) == 2 and _similar(*map(_extent, panels)):
        figure.update_xaxes(range=_padded(_extent([*panels[0], *panels[1]])))
    last = len(panels)
    figure.update_xaxes(title_text=_axis_title(table, panels[-1]), title_standoff=10, row=last, col=1)
    figure.update_layout(
        height=inner + 128,
        margin={"l": 10, "r": 205, "t": 44, "b": 58},
        legend={"orientation": "h", "yref": "container", "y": 0.995, "yanchor": "top", "x": 0, "xanchor": "left"},
        hovermode="closest",
        dragmode=False,
    )
    return figure


def left_out(table: AblationTable) -> str:
    """A sentence on the rows that the figure leaves out; empty when it has all."""
    counts = [len(compared(table, controls=controls)) for controls in (False, True)]
    drawn = sum(min(count, MOST_ROWS) for count in counts)
    return "" if drawn == sum(counts) else f"{drawn} of {sum(counts)} rows are drawn, the best; the table has all."


def _with_reference(rows: Sequence[Row], table: AblationTable) -> list[Row]:
    """The rows with the reference at its place: those above it are better, those below it worse."""
    reference = next(row for row in table.rows if row.cell == table.base)
    sign = 1.0 if table.direction == "maximize" else -1.0
    ahead = sum(row.difference is not None and sign * row.difference > 0 for row in rows)
    return [*rows[:ahead], reference, *rows[ahead:]]


def _panel(figure: go.Figure, table: AblationTable, rows: Sequence[Row], colours: Palette, place: int) -> None:
    labels = _labels(rows, table)
    for kind in WORDS:
        chosen = [(row, label) for row, label in zip(rows, labels, strict=True) if standing(row, table) == kind]
        shown = [(row, label) for row, label in chosen if row.difference is not None]
        if not shown:
            continue
        colour = _colour(kind, colours)
        figure.add_scatter(
            x=[row.difference for row, _ in shown],
            y=[label for _, label in shown],
            mode="markers",
            name=WORDS[kind],
            legendgroup=kind,
            showlegend=not any(trace.legendgroup == kind for trace in figure.data),
            marker={"symbol": SYMBOLS[kind], "size": 12, "color": colour, "line": {"color": colour, "width": 2.2}},
            error_x={
                "type": "data",
                "symmetric": False,
                "array": [_reach(row.ci_high, row.difference) for row, _ in shown],
                "arrayminus": [_reach(row.difference, row.ci_low) for row, _ in shown],
                "color": colour,
                "thickness": 2.2,
                "width": 5,
            },
            customdata=[_hover(row, table) for row, _ in shown],
            hovertemplate="%{customdata}<extra></extra>",
            row=place,
            col=1,
        )
    figure.update_yaxes(
        type="category",
        categoryorder="array",
        categoryarray=labels[::-1],
        range=[-0.6, len(rows) - 0.4],
        ticksuffix="  ",
        tickfont={"size": 13.5, "color": colours.text},
        showgrid=False,
        automargin=True,
        row=place,
        col=1,
    )
    # an empty category axis forgets its labels: an invisible point keeps the rows without a difference
    figure.add_scatter(
        x=[0.0] * len(rows),
        y=labels,
        mode="markers",
        marker={"opacity": 0},
        hoverinfo="skip",
        showlegend=False,
        row=place,
        col=1,
    )
    figure.update_xaxes(
        range=_padded(_extent(rows)), zeroline=False, gridcolor=translucent(colours.open, 0.18), row=place, col=1
    )
    figure.add_vline(x=0, line={"color": colours.text, "width": 1.4}, row=place, col=1)
    _words(figure, table, rows, labels, colours, place)


def _words(
    figure: go.Figure, table: AblationTable, rows: Sequence[Row], labels: Sequence[str], colours: Palette, place: int
) -> None:
    """Numbers on the right, sides above: what the eye looks for once it has seen the picture."""
    axis = "" if place == 1 else str(place)
    for row, label in zip(rows, labels, strict=True):
        figure.add_annotation(
            text=_beside(row, table),
            x=1.012,
            xref="paper",
            xanchor="left",
            y=label,
            yref=f"y{axis}",
            showarrow=False,
            align="left",
            font={"size": 12.5, "color": _colour(standing(row, table), colours)},
        )
    better_right = table.direction == "maximize"
    for is_right in (False, True):
        is_better = is_right == better_right
        text = "better" if is_better else "worse"
        if table.rows and rows[0].role == "control" and not is_right:
            figure.add_annotation(
                text="<b>negative controls</b>",
                x=0,
                xref="paper",
                xanchor="right",
                xshift=-8,
                y=1,
                yref=f"y{axis} domain",
                yanchor="bottom",
                showarrow=False,
                font={"size": 12.5, "color": colours.open},
            )
        figure.add_annotation(
            text=f"{text} →" if is_right else f"← {text}",
            x=0,
            xref=f"x{axis}",
            xanchor="left" if is_right else "right",
            xshift=10 if is_right else -10,
            y=1,
            yref=f"y{axis} domain",
            yanchor="bottom",
            showarrow=False,
            font={"size": 12.5, "color": colours.better if is_better else colours.worse},
        )


def _colour(kind: Standing, colours: Palette) -> str:
    return {"better": colours.better, "worse": colours.worse}.get(kind, colours.open)


def _beside(row: Row, table: AblationTable) -> str:
    """The difference and its interval, or why there is none."""
    places = table.decimals
    if row.cell == table.base:
        return f"{METRICS[table.metric].name} {mean_text(row, places)}"
    if row.diverged:
        return f"diverged in {row.diverged} of {row.of}"
    if row.difference is None:
        return f"failed in {row.failed} of {row.of}" if row.failed else f"{row.n} of {row.of} seeds"
    text = f"<b>{fixed(row.difference, places, signed=True)}</b>"
    if row.ci_low is not None:
        text += f" {interval_text(row, places)}"
    if row.censored:
        return f"{text} §"
    return f"{text} {row.mark}" if row.mark else text


def _hover(row: Row, table: AblationTable) -> str:
    lines = [
        f"<b>{_escape(row.cell)}</b>",
        f"{metric_header(table)}: {mean_text(row, table.decimals)} (n = {row.n} of {row.of})",
        f"difference: {fixed(row.difference, table.decimals, signed=True)} {interval_text(row, table.decimals)}",
    ]
    if p_text(row.p) != NOTHING:
        lines.append(f"p {p_text(row.p)}, Holm {p_text(row.p_holm)}")
    if row.verdict:
        lines.append(_escape(row.verdict))
    return "<br>".join(lines)


def _axis_title(table: AblationTable, rows: Sequence[Row]) -> str:
    return f"difference in {metric_header(table)[:-2]} to {_escape(table.base)}, paired by seed, with 95 % interval"


def _labels(rows: Sequence[Row], table: AblationTable) -> list[str]:
    """Names short enough for an axis, still told apart."""
    labels: list[str] = []
    for row in rows:
        name = _escape(row.cell)
        label = name if len(name) <= LONGEST_LABEL else f"{name[: LONGEST_LABEL - 1]}…"
        label = f"<b>{label}</b> (base)" if row.cell == table.base else label
        labels.append(label if label not in labels else f"{label} ({len(labels)})")
    return labels


def _escape(text: str) -> str:
    """Text for Plotly, which reads a few HTML tags."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _reach(high: float | None, low: float | None) -> float:
    return 0.0 if high is None or low is None else high - low


def _extent(rows: Sequence[Row]) -> tuple[float, float]:
    known = [value for row in rows for value in (row.difference, row.ci_low, row.ci_high) if value is not None]
    return min([0.0, *known]), max([0.0, *known])


def _padded(extent: tuple[float, float]) -> list[float]:
    """Room on both sides of the line, so that `better` and `worse` both fit above it."""
    low, high = extent
    span = (high - low) or 1.0
    return [min(low - 0.06 * span, -0.16 * span), max(high + 0.06 * span, 0.16 * span)]


def _similar(one: tuple[float, float], other: tuple[float, float]) -> bool:
    """Whether two panels can share a scale without one of them shrinking."""
    spans = sorted((one[1] - one[0], other[1] - other[0]))
    return spans[1] <= 1.5 * spans[0]
