"""Figures as files: the forest plot and the learning curves as SVG, PDF and PNG, drawn by matplotlib.

No browser and no network, so that a cluster's login node can do it. The PDF embeds TrueType fonts, which publishers ask
for; the same results give the same bytes.
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from html import escape
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.text import Annotation

from miras_search.analysis.curves import BandPoint, End
from miras_search.analysis.standing import WORDS, Standing, drawn, standing
from miras_search.analysis.table import AblationTable, Row
from miras_search.export.palette import LIGHT
from miras_search.export.plots import axis_title, beside, colour, details, scales, short_names
from miras_search.metrics import METRICS

if TYPE_CHECKING:
    from matplotlib.typing import RcKeyType

Format = Literal["svg", "pdf", "png"]
FORMATS: tuple[Format, ...] = ("svg", "pdf", "png")
DOTS = 200  # of a PNG, an inch

WIDTH = 7.4  # inches: the text of a page
ROW = 0.28
TOP, BETWEEN, BOTTOM = 0.55, 0.5, 0.55
LETTER = 0.075  # the width of one, about
MARKERS: Mapping[Standing, str] = {
    **dict.fromkeys(("better", "worse", "open", "missing"), "o"),
    "censored": "s",
    "diverged": "x",
}
DASHES = ("-", ":", "-.")
STYLE: Mapping[RcKeyType, object] = {
    "font.family": "sans-serif",
    "font.size": 8.5,
    "text.parse_math": False,  # a dollar in a name is a dollar
    "text.color": LIGHT.text,
    "axes.edgecolor": LIGHT.faint,
    "axes.labelcolor": LIGHT.text,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": LIGHT.text,
    "ytick.color": LIGHT.text,
    "grid.color": LIGHT.faint,
    "grid.linewidth": 0.5,
    "pdf.fonttype": 42,
    "svg.hashsalt": "miras-search",
    "savefig.dpi": DOTS,
}


def forest(table: AblationTable) -> Figure | None:
    """Each cell's paired difference with its interval, the best on top; None while nothing has been compared."""
    panels = drawn(table)
    if not panels:
        return None
    names = [short_names(rows) for rows in panels]
    left = 0.15 + LETTER * max(len(name) + (7 if name == table.base else 0) for found in names for name in found)
    right = 0.15 + LETTER * max(len(" ".join(beside(row, table))) for rows in panels for row in rows)
    heights = [ROW * len(rows) for rows in panels]
    height = TOP + sum(heights) + BETWEEN * (len(panels) - 1) + BOTTOM
    with rc_context({**STYLE}):
        figure = Figure(figsize=(WIDTH, height))
        top = height - TOP
        for rows, labels, scale, inches in zip(panels, names, scales(panels), heights, strict=True):
            box = (left / WIDTH, (top - inches) / height, (WIDTH - left - right) / WIDTH, inches / height)
            axes = figure.add_axes(box)
            axes.set(xlim=scale, ylim=(len(rows) - 0.4, -0.6))
            _panel(axes, table, rows, labels)
            top -= inches + BETWEEN
        axes.set_xlabel(axis_title(table))
        _legend(figure, {standing(row, table) for rows in panels for row in rows if row.difference is not None})
    return figure


def _panel(axes: Axes, table: AblationTable, rows: Sequence[Row], names: Sequence[str]) -> None:
    axes.axvline(0.0, color=LIGHT.text, linewidth=1.0, zorder=1)
    axes.grid(axis="x")
    axes.spines["left"].set_visible(False)
    axes.tick_params(length=0)
    axes.set_yticks(range(len(rows)), [f"{name} (base)" if name == table.base else name for name in names])
    for place, row in enumerate(rows):
        kind = standing(row, table)
        shade = colour(kind, LIGHT)
        if row.difference is not None:
            if row.ci_low is not None and row.ci_high is not None:
                axes.errorbar(
                    row.difference,
                    place,
                    xerr=[[row.difference - row.ci_low], [row.ci_high - row.difference]],
                    fmt="none",
                    ecolor=shade,
                    elinewidth=1.5,
                    capsize=2.5,
                )
            fill = shade if kind in ("better", "worse", "diverged") else "white"
            axes.plot(row.difference, place, MARKERS[kind], color=shade, markerfacecolor=fill, markersize=6)
        number, rest = beside(row, table)
        if number:
            text = _right(axes, place, number, shade, "bold")
            axes.annotate(rest, (1, 0), (4, 0), text, textcoords="offset points", va="bottom", color=shade)
        else:
            _right(axes, place, rest, shade, "normal")
        whole = Rectangle((0, place - 0.5), 1, 1, transform=axes.get_yaxis_transform(), facecolor="none", zorder=5)
        whole.set_gid(_tip(row.cell, details(row, table)))
        axes.add_patch(whole)
    better_right = table.direction == "maximize"
    for is_right in (False, True):
        is_better = is_right == better_right
        word = "better" if is_better else "worse"
        axes.annotate(
            f"{word} →" if is_right else f"← {word}",
            (0, 1),
            (6 if is_right else -6, 3),
            ("data", "axes fraction"),
            textcoords="offset points",
            ha="left" if is_right else "right",
            color=LIGHT.better if is_better else LIGHT.worse,
        )
    if rows[0].role == "control" and rows[0].cell != table.base:
        axes.annotate(
            "negative controls", (0, 1), (-6, 3), "axes fraction", textcoords="offset points", ha="right", weight="bold"
        )


def _right(axes: Axes, place: int, text: str, shade: str, weight: str) -> Annotation:
    """Words beside a row, right of the axes."""
    side = ("axes fraction", "data")
    return axes.annotate(text, (1.02, place), xycoords=side, va="center", color=shade, weight=weight)


def _legend(figure: Figure, kinds: set[Standing]) -> None:
    axes = figure.axes[0]
    handles = [
        axes.plot([], [], MARKERS[kind], color=colour(kind, LIGHT), markersize=6, label=word,
                  markerfacecolor=colour(kind, LIGHT) if kind in ("better", "worse", "diverged") else "white")[0]
        for kind, word in WORDS.items()
        if kind in kinds
    ]  # fmt: skip
    figure.legend(handles=handles, loc="upper left", ncols=len(handles), frameon=False, borderaxespad=0.3)


def curves(
    lines: Mapping[str, Sequence[BandPoint]],
    *,
    base: str | None,
    metric: str,
    split: str,
    stops: Sequence[End] = (),
    cells: int = 0,
    levels: Mapping[str, float] = MappingProxyType({}),
) -> Figure:
    """Line and band a cell, the best last value first in the legend; the base is dashed, a cross a divergence.

    The legend says so where there are more `cells` than lines; a dotted rule marks each of the `levels`, by
    name.
    """
    others = [cell for cell in lines if cell != base]
    styles = {cell: (LIGHT.series[i % len(LIGHT.series)], DASHES[i // len(LIGHT.series) % len(DASHES)])
              for i, cell in enumerate(others)}  # fmt: skip
    if base is not None:
        styles[base] = (LIGHT.text, "--")
    is_up = METRICS[metric].direction == "maximize"
    with rc_context({**STYLE}):
        figure = Figure(figsize=(WIDTH, 3.6), layout="constrained")
        axes = figure.add_subplot()
        axes.grid()
        for place, cell in enumerate(sorted(lines, key=lambda name: lines[name][-1].centre, reverse=is_up)):
            points, (shade, dash) = lines[cell], styles[cell]
            steps = [point.step for point in points]
            band = axes.fill_between(
                steps, [p.low for p in points], [p.high for p in points], color=shade, alpha=0.13, linewidth=0
            )
            (line,) = axes.plot(
                steps, [p.centre for p in points], dash, color=shade, linewidth=1.7,
                marker="o" if len(points) < 30 else "", markersize=2.5,
                label=f"{cell} (base)" if cell == base else cell,
            )  # fmt: skip
            last = points[-1]
            text = f"{last.centre:.4g} [{last.low:.4g}, {last.high:.4g}] at step {last.step}, n = {last.n}"
            line.set_gid(_tip(cell, [text], f"line-{place}"))
            band.set_gid(_tip(cell, [text], f"band-{place}"))
            crosses = [stop for stop in stops if stop.cell == cell]
            axes.plot([s.step for s in crosses], [s.value for s in crosses], "x", color=shade, markersize=7)
        for name, level in levels.items():
            axes.axhline(level, color=LIGHT.open, linewidth=0.9, linestyle=":")
            axes.annotate(name, (1, level), xycoords=("axes fraction", "data"), xytext=(-3, 2),
                          textcoords="offset points", ha="right", color=LIGHT.open, fontsize="small")  # fmt: skip
        axes.set_xlim(left=0)
        axes.set_xlabel("optimiser step")
        unit = f" ({METRICS[metric].unit})" if METRICS[metric].unit else ""
        axes.set_ylabel(f"{split} {metric}{unit} {METRICS[metric].symbol}")
        count = f"{len(lines)} of {cells} cells, " if cells > len(lines) else ""
        figure.legend(loc="outside right upper", title=f"{count}best last value first", frameon=False)
    return figure


def render(figure: Figure, form: Format) -> bytes:
    """The figure as a file; letters in an SVG are drawn, so that it looks the same where a font is not installed."""
    nothing = {"svg": {"Date": None}, "pdf": {"CreationDate": None}, "png": {"Software": None}}[form]
    out = io.BytesIO()
    with rc_context({**STYLE, "svg.fonttype": "path"}):
        figure.savefig(out, format=form, metadata=nothing)
    return out.getvalue()


_GROUP = re.compile(r"""<g id=("[^"]*"|'[^']*')>""")
_TIP = re.compile(r"tip:([^:]*):(.*)", re.S)


def inline(figure: Figure, title: str) -> str:
    """The figure as an `svg` element for a page: letters are text, and what can be pointed at has its words."""
    out = io.BytesIO()
    with rc_context({**STYLE, "svg.fonttype": "none"}):
        figure.savefig(out, format="svg", metadata={"Date": None})
    text = out.getvalue().decode()
    text = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.S)
    text = _GROUP.sub(_group, text)
    return text.replace("<svg ", f'<svg role="img" aria-label="{escape(title)}" ', 1)


def _tip(name: str, lines: Sequence[str], part: str = "row") -> str:
    return f"tip:{part}:" + "\n".join([name, *lines])


def _group(found: re.Match[str]) -> str:
    """matplotlib's groups are numbered in each figure anew, so several on a page would share their names."""
    tip = _TIP.fullmatch(found[1][1:-1])
    if tip is None:
        return "<g>"
    return f'<g class="tip" data-part="{tip[1]}"><title>{tip[2]}</title>'
