"""Learning curves as a Plotly figure: a line and a band a cell, a cross where a seed diverged."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType

import plotly.graph_objects as go

from miras_search.analysis.curves import BandPoint, End
from miras_search.export.palette import Palette, translucent
from miras_search.metrics import METRICS
from miras_search.store.types import CurveRow, ResultRow, Role

DASHES = ("solid", "dot", "dashdot")
MANY_CURVES = 500  # a browser is busy for seconds with more


def shown_first(results: Sequence[ResultRow], roles: Mapping[str, Role], metric: str, most: int) -> list[str]:
    """At most so many of the cells, in their order: the base, then those of the best mean value on validation, controls
    and what was never trained last. Without such values the first ones.
    """
    found: dict[str, list[float]] = {}
    for row in results:
        value = row.values.get((metric, "validation"), math.nan)
        if math.isfinite(value):
            found.setdefault(row.cell, []).append(value)
    sign = -1 if METRICS[metric].direction == "maximize" else 1
    means = {cell: sign * math.fsum(values) / len(values) for cell, values in found.items()}
    order: dict[Role, int] = {"base": 0, "cell": 1, "control": 2, "refused": 3}
    best = sorted(roles, key=lambda cell: (order[roles[cell]], means.get(cell, math.inf)))[:most]
    return [cell for cell in roles if cell in best]


def curve_figure(
    lines: dict[str, list[BandPoint]],
    *,
    base: str | None,
    metric: str,
    split: str,
    colours: Palette,
    stops: Sequence[End] = (),
    raw: Sequence[CurveRow] = (),
    levels: Mapping[str, float] = MappingProxyType({}),
) -> go.Figure:
    """Line and band a cell, the best last value first in the legend; the base is dashed in the colour of the text.

    A dotted rule marks each of the `levels`, by name.
    """
    figure = go.Figure()
    shade, dash = _styles([cell for cell in lines if cell != base], colours.series)
    if base is not None:
        shade[base], dash[base] = colours.text, "dash"
    is_up = METRICS[metric].direction == "maximize"
    for cell in sorted(lines, key=lambda name: lines[name][-1].centre, reverse=is_up):
        points, colour = lines[cell], shade[cell]
        steps = [point.step for point in points]
        if len(points) > 1 and any(point.high > point.low for point in points):
            figure.add_scatter(
                x=steps + steps[::-1],
                y=[point.high for point in points] + [point.low for point in reversed(points)],
                mode="lines",
                fill="toself",
                fillcolor=translucent(colour, 0.13),
                line={"width": 0},
                hoverinfo="skip",
                showlegend=False,
                legendgroup=cell,
            )
        if raw:
            _raw(figure, [row for row in raw if row.cell == cell], cell, colour)
        figure.add_scatter(
            x=steps,
            y=[point.centre for point in points],
            mode="lines+markers" if len(points) < 30 else "lines",
            name=f"{cell} (base)" if cell == base else cell,
            legendgroup=cell,
            line={"color": colour, "width": 2.4, "dash": dash[cell]},
            marker={"size": 5},
            customdata=[[point.low, point.high, point.n] for point in points],
            hovertemplate="%{y:.4g}  [%{customdata[0]:.4g}, %{customdata[1]:.4g}], n = %{customdata[2]}",
        )
    for name, level in levels.items():
        label = {"text": name, "textposition": "end", "yanchor": "bottom", "font": {"color": colours.open}}
        figure.add_hline(level, line={"color": colours.open, "width": 1.2, "dash": "dot"}, label=label)
    _stops(figure, [stop for stop in stops if stop.cell in lines], shade)
    unit = f" ({METRICS[metric].unit})" if METRICS[metric].unit else ""
    figure.update_layout(
        height=520,
        margin={"l": 10, "r": 10, "t": 20, "b": 50},
        hovermode="x unified",
        xaxis={"title": {"text": "optimiser step"}, "rangemode": "tozero"},
        yaxis={"title": {"text": f"{split} {metric}{unit} {METRICS[metric].symbol}"}},
        legend={"title": {"text": "best last value first"}, "tracegroupgap": 2},
    )
    return figure


def _raw(figure: go.Figure, rows: Sequence[CurveRow], cell: str, colour: str) -> None:
    """Every seed's own curve, as one trace with gaps: a trace a seed would stall the browser."""
    x: list[int | None] = []
    y: list[float | None] = []
    before: tuple[str, int] | None = None
    for row in rows:
        if before not in (None, (row.task, row.seed)):
            x.append(None)
            y.append(None)
        before = (row.task, row.seed)
        x.append(row.step)
        y.append(row.value if math.isfinite(row.value) else None)
    figure.add_scatter(
        x=x,
        y=y,
        mode="lines",
        line={"color": translucent(colour, 0.45), "width": 1},
        hoverinfo="skip",
        showlegend=False,
        legendgroup=cell,
    )


def _stops(figure: go.Figure, stops: Sequence[End], shade: dict[str, str]) -> None:
    if not stops:
        return
    figure.add_scatter(
        x=[stop.step for stop in stops],
        y=[stop.value for stop in stops],
        mode="markers",
        name="last value before divergence",
        marker={"symbol": "x-thin", "size": 9, "line": {"width": 2.2, "color": [shade[stop.cell] for stop in stops]}},
        customdata=[[stop.cell, stop.seed] for stop in stops],
        hovertemplate="%{customdata[0]}, seed %{customdata[1]}: %{y:.4g}<extra>diverged after this</extra>",
    )


def _styles(cells: Sequence[str], colours: Sequence[str]) -> tuple[dict[str, str], dict[str, str]]:
    """A colour and a dash for each cell; the colours come again with another dash."""
    shade = {cell: colours[index % len(colours)] for index, cell in enumerate(cells)}
    dash = {cell: DASHES[index // len(colours) % len(DASHES)] for index, cell in enumerate(cells)}
    return shade, dash
