"""The front of a search for several objectives: what no other trial beats in all, as a figure and as a table."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

import pandas as pd
import plotly.graph_objects as go

from miras_search.analysis.search import SearchReport, Seen, objective_name
from miras_search.dashboard.found import LEGEND, MARGIN
from miras_search.export.palette import Palette


def front_frame(report: SearchReport) -> pd.DataFrame:
    """One line a point of the front: its trial, what the search saw of each objective, what fresh seeds gave."""
    names = [objective_name(report, index) for index in range(len(report.objectives))]
    fresh = {row.number: row.confirmed for row in report.rows}
    rows = [(it.number, it.cell, *it.values, fresh.get(it.number)) for it in report.front]
    frame = pd.DataFrame(rows, columns=["trial", "cell", *names, "confirmed"])
    return frame.astype(dict.fromkeys([*names, "confirmed"], "float64"))


def trade_off(seen: Sequence[Seen], report: SearchReport, colours: Palette) -> go.Figure | None:
    """Every trial by the first two objectives, and the front as a line; None before there is one."""
    if not report.front:
        return None
    first, second = objective_name(report), objective_name(report, 1)
    hover = f"trial %{{customdata}}<br>{first} %{{y:.4g}}, {second} %{{x:,.4g}}<extra></extra>"
    figure = go.Figure()
    figure.add_scatter(
        x=[it.values[1] for it in seen],
        y=[it.values[0] for it in seen],
        mode="markers",
        name="a trial",
        marker={"symbol": "circle-open", "size": 8, "color": colours.open},
        customdata=[f"{it.number}: {escape(it.cell, quote=False)}" for it in seen],
        hovertemplate=hover,
    )
    points = sorted(report.front, key=lambda it: it.values[1])
    figure.add_scatter(
        x=[it.values[1] for it in points],
        y=[it.values[0] for it in points],
        mode="lines+markers",
        name=f"the front: {len(points)} of {report.competitors} competitors, as the search saw them",
        line={"color": colours.better, "width": 2},
        marker={"size": 10, "color": colours.better},
        customdata=[f"{it.number}: {escape(it.cell, quote=False)}" for it in points],
        hovertemplate=hover,
    )
    figure.update_xaxes(title_text=second, gridcolor=colours.faint)
    figure.update_yaxes(title_text=first, gridcolor=colours.faint)
    figure.update_layout(height=400, margin=MARGIN, legend=LEGEND, hovermode="closest", dragmode=False)
    return figure
