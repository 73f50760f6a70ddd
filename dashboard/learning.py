"""Learning curves: what a cell's seeds have in common over the steps, as one line and a band.

Never an average of something else than it says: the line and the band name their kind, and each point knows its n. A
seed that diverged leaves the line where it ended; a cross marks the place.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import plotly.graph_objects as go

from miras_search.export.palette import Palette, translucent
from miras_search.metrics import METRICS
from miras_search.store.types import CurveRow, ResultRow

Kind = Literal["median", "mean"]
KINDS: dict[Kind, str] = {
    "median": "median of the seeds; the band reaches from the 10th to the 90th percentile",
    "mean": "mean of the seeds; the band is one standard deviation (n - 1) to each side",
}
DASHES = ("solid", "dot", "dashdot")
MANY_CURVES = 500  # a browser is busy for seconds with more


@dataclass(frozen=True, slots=True)
class BandPoint:
    """The seeds of one cell at one step."""

    step: int
    centre: float
    low: float
    high: float
    n: int


@dataclass(frozen=True, slots=True)
class End:
    """Where a seed's curve ends because the training diverged."""

    cell: str
    seed: int
    step: int
    value: float


def bands(rows: Sequence[CurveRow], kind: Kind) -> dict[str, list[BandPoint]]:
    """Line and band of each cell over the steps, finite values only, in the order of the rows."""
    values: dict[str, dict[int, list[float]]] = {}
    for row in rows:
        if math.isfinite(row.value):
            values.setdefault(row.cell, {}).setdefault(row.step, []).append(row.value)
    summary = _median if kind == "median" else _mean
    return {
        cell: [BandPoint(step, *summary(at), n=len(at)) for step, at in sorted(steps.items())]
        for cell, steps in values.items()
    }


def _median(values: Sequence[float]) -> tuple[float, float, float]:
    ordered = sorted(values)
    return statistics.median(ordered), _quantile(ordered, 0.1), _quantile(ordered, 0.9)


def _quantile(ordered: Sequence[float], share: float) -> float:
    """Linear between the two nearest values."""
    place = share * (len(ordered) - 1)
    low = math.floor(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)


def _mean(values: Sequence[float]) -> tuple[float, float, float]:
    mean = statistics.fmean(values)
    sd = statistics.stdev(values) if len(values) > 1 else 0.0
    return mean, mean - sd, mean + sd


def ends(rows: Sequence[CurveRow], results: Sequence[ResultRow]) -> list[End]:
    """The last finite point of each curve whose training diverged."""
    diverged = {(row.cell, row.task, row.seed) for row in results if row.state == "diverged"}
    last: dict[tuple[str, str, int], CurveRow] = {}
    for row in rows:
        key = (row.cell, row.task, row.seed)
        if key in diverged and math.isfinite(row.value):
            last[key] = row
    return [End(row.cell, row.seed, row.step, row.value) for row in last.values()]


def curve_figure(
    lines: dict[str, list[BandPoint]],
    *,
    base: str | None,
    metric: str,
    split: str,
    colours: Palette,
    stops: Sequence[End] = (),
    raw: Sequence[CurveRow] = (),
) -> go.Figure:
    """Line and band a cell, the best last value first in the legend; the base is dashed in the colour of the text."""
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
