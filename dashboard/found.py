"""A search in pictures: the best so far over the trials, and what the confirmation left of what the search saw.

Both say among how many competitors the best was chosen: the best of many is best partly by luck.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

import pandas as pd
import plotly.graph_objects as go

from miras_search.analysis.search import Found, SearchReport, Seen, objective_name
from miras_search.export.palette import Palette

LONGEST_NAME = 44  # characters
ROW_HEIGHT = 40  # pixels
MARGIN = {"l": 10, "r": 20, "t": 44, "b": 50}
LEGEND = {"orientation": "h", "yref": "container", "y": 0.995, "yanchor": "top", "x": 0, "xanchor": "left"}


def found_frame(report: SearchReport) -> pd.DataFrame:
    """One line a trial of the report: its rank of so many, what the search saw, what fresh seeds gave."""
    objectives = [objective_name(report, index) for index in range(len(report.objectives))]
    rows = [
        (
            "base" if row.number == 0 else f"{row.rank} of {report.competitors}",
            row.number,
            row.cell,
            *row.values,
            row.jobs,
            row.confirmed,
            row.sd,
            f"{row.n} of {row.of}" if row.of else "",
            row.shrinkage,
        )
        for row in report.rows
    ]
    names = ["rank", "trial", "cell", *objectives, "jobs", "confirmed", "sd", "fresh jobs", "shrinkage"]
    frame = pd.DataFrame(rows, columns=names)
    return frame.astype(dict.fromkeys([*objectives, "confirmed", "sd", "shrinkage"], "float64"))


def best_so_far(seen: Sequence[Seen], report: SearchReport, colours: Palette) -> go.Figure | None:
    """Every trial as the search saw it, and the best up to it; None while no trial has come to an end."""
    if not seen:
        return None
    name = objective_name(report)
    figure = go.Figure()
    figure.add_scatter(
        x=[it.number for it in seen],
        y=[it.value for it in seen],
        mode="markers",
        name="a trial",
        marker={"symbol": "circle-open", "size": 8, "color": colours.open},
        customdata=[escape(it.cell, quote=False) for it in seen],
        hovertemplate=f"trial %{{x}}: %{{customdata}}<br>{name} %{{y:.4g}}<extra></extra>",
    )
    figure.add_scatter(
        x=[it.number for it in seen],
        y=[it.best for it in seen],
        mode="lines",
        name=f"the best so far, of {report.competitors} competitors by now",
        line={"shape": "hv", "width": 2.4, "color": colours.better},
        hovertemplate=f"best of the trials up to %{{x}}: {name} %{{y:.4g}}<extra></extra>",
    )
    figure.update_xaxes(title_text="trial, in the order in which they were drawn", rangemode="tozero")
    figure.update_yaxes(title_text=f"{name}, as the search saw it", gridcolor=colours.faint)
    figure.update_layout(height=360, margin=MARGIN, legend=LEGEND, hovermode="closest", dragmode=False)
    return figure


def shrinkage(report: SearchReport, colours: Palette) -> go.Figure | None:
    """What the search saw of each confirmed trial and what fresh seeds gave; None before a fresh seed has ended."""
    rows = [row for row in report.rows if row.confirmed is not None]
    if not rows:
        return None
    labels = [_label(row, report) for row in rows]
    name = objective_name(report)
    figure = go.Figure()
    for row, label in zip(rows, labels, strict=True):
        figure.add_scatter(
            x=[row.values[0], row.confirmed],
            y=[label, label],
            mode="lines",
            line={"color": colours.faint, "width": 2},
            hoverinfo="skip",
            showlegend=False,
        )
    figure.add_scatter(
        x=[row.values[0] for row in rows],
        y=labels,
        mode="markers",
        name="as the search saw it",
        marker={"symbol": "circle-open", "size": 11, "color": colours.open, "line": {"width": 2}},
        hovertemplate=f"search: {name} %{{x:.4g}}<extra></extra>",
    )
    figure.add_scatter(
        x=[row.confirmed for row in rows],
        y=labels,
        mode="markers",
        name="on fresh seeds, with one standard deviation",
        marker={"symbol": "circle", "size": 11, "color": colours.better},
        error_x={"type": "data", "array": [row.sd or 0.0 for row in rows], "color": colours.better},
        customdata=[f"n = {row.n} of {row.of}, shrinkage {row.shrinkage:.4g}" for row in rows],
        hovertemplate=f"fresh seeds: {name} %{{x:.4g}}<br>%{{customdata}}<extra></extra>",
    )
    figure.update_xaxes(title_text=name, gridcolor=colours.faint, zeroline=False)
    figure.update_yaxes(categoryorder="array", categoryarray=labels[::-1], ticksuffix="  ", automargin=True)
    height = 110 + ROW_HEIGHT * len(rows)
    figure.update_layout(height=height, margin=MARGIN, legend=LEGEND, hovermode="closest", dragmode=False)
    return figure


def _label(row: Found, report: SearchReport) -> str:
    name = row.cell if len(row.cell) <= LONGEST_NAME else f"{row.cell[: LONGEST_NAME - 1]}…"
    return f"{escape(name, quote=False)} ({f'{row.rank} of {report.competitors}' if row.number else 'base'})"
