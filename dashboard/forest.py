"""The forest plot: each cell's paired difference to the reference with its 95 % interval, the best on top.

Right of the zero line is a larger value of the metric, so for a loss the better side is the left one; a line above the
plot says which. Filled markers are decided, open ones are not. Negative controls have a panel and a scale of their own,
because they are often so far away that the cells would shrink to a line.
"""

from __future__ import annotations

from collections.abc import Sequence

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from miras_search.analysis.standing import WORDS, Standing, drawn, standing
from miras_search.analysis.table import AblationTable, Row
from miras_search.export.palette import Palette, translucent
from miras_search.export.plots import axis_title, beside, colour, details, scales, short_names

ROW_HEIGHT = 34  # pixels
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
    panels = drawn(table)
    if not panels:
        return None
    heights = [len(rows) * ROW_HEIGHT for rows in panels]
    gap = 62.0
    inner = sum(heights) + gap * (len(panels) - 1)
    figure = make_subplots(
        rows=len(panels),
        cols=1,
        row_heights=heights,
        vertical_spacing=gap / inner if len(panels) > 1 else 0.0,
    )
    for place, (rows, scale) in enumerate(zip(panels, scales(panels), strict=True), start=1):
        _panel(figure, table, rows, scale, colours, place)
    figure.update_xaxes(title_text=_escape(axis_title(table)), title_standoff=10, row=len(panels), col=1)
    figure.update_layout(
        height=inner + 128,
        margin={"l": 10, "r": 205, "t": 44, "b": 58},
        legend={"orientation": "h", "yref": "container", "y": 0.995, "yanchor": "top", "x": 0, "xanchor": "left"},
        hovermode="closest",
        dragmode=False,
    )
    return figure


def _panel(
    figure: go.Figure,
    table: AblationTable,
    rows: Sequence[Row],
    scale: tuple[float, float],
    colours: Palette,
    place: int,
) -> None:
    labels = _labels(rows, table)
    for kind in WORDS:
        chosen = [(row, label) for row, label in zip(rows, labels, strict=True) if standing(row, table) == kind]
        shown = [(row, label) for row, label in chosen if row.difference is not None]
        if not shown:
            continue
        shade = colour(kind, colours)
        figure.add_scatter(
            x=[row.difference for row, _ in shown],
            y=[label for _, label in shown],
            mode="markers",
            name=WORDS[kind],
            legendgroup=kind,
            showlegend=not any(trace.legendgroup == kind for trace in figure.data),
            marker={"symbol": SYMBOLS[kind], "size": 12, "color": shade, "line": {"color": shade, "width": 2.2}},
            error_x={
                "type": "data",
                "symmetric": False,
                "array": [_reach(row.ci_high, row.difference) for row, _ in shown],
                "arrayminus": [_reach(row.difference, row.ci_low) for row, _ in shown],
                "color": shade,
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
    figure.update_xaxes(range=list(scale), zeroline=False, gridcolor=translucent(colours.open, 0.18), row=place, col=1)
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
            font={"size": 12.5, "color": colour(standing(row, table), colours)},
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


def _beside(row: Row, table: AblationTable) -> str:
    number, rest = beside(row, table)
    return " ".join(filter(None, (number and f"<b>{number}</b>", rest)))


def _hover(row: Row, table: AblationTable) -> str:
    return "<br>".join([f"<b>{_escape(row.cell)}</b>", *map(_escape, details(row, table))])


def _labels(rows: Sequence[Row], table: AblationTable) -> list[str]:
    names = map(_escape, short_names(rows))
    return [f"<b>{name}</b> (base)" if row.cell == table.base else name for row, name in zip(rows, names, strict=True)]


def _escape(text: str) -> str:
    """Text for Plotly, which reads a few HTML tags."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _reach(high: float | None, low: float | None) -> float:
    return 0.0 if high is None or low is None else high - low
