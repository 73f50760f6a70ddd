"""HTML that Streamlit has no widget for: the ablation table as a paper sets it, the progress bar, the design's cards.

Everything inherits the page's text colour, so one form serves both themes; every text from the database is escaped.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from urllib.parse import urlencode

from miras_search.analysis.table import AblationTable, Row
from miras_search.dashboard.palette import Palette
from miras_search.dashboard.standing import Standing, standing
from miras_search.export.layout import Column, columns, flag
from miras_search.store.types import JOB_STATES, JobState

STYLE = Path(__file__).with_name("assets") / "style.css"  # the main script puts it on every page

_GROUPS = (
    ("", ("mean", "n")),
    ("paired difference to {base}", ("difference", "interval", "p", "p_holm")),
    ("under controls", ("survives",)),
    ("jobs", ("failed", "diverged")),
    ("cost", ("params", "state_bytes", "tokens_per_second", "peak_memory_bytes")),
)
_HEADERS = {"interval": "95 % interval", "p_holm": "p Holm", "difference": "Δ"}


def wrapped(body: str) -> str:
    """The body within reach of the style sheet."""
    return f'<div class="ms">{body}</div>'


def trial_link(study: str, number: int) -> str:
    """The address of a trial's page, relative to any page."""
    return f"trial?{urlencode({'study': study, 'trial': number})}"


def ablation(table: AblationTable, numbers: Mapping[str, int]) -> str:
    """The table with the columns of every renderer; `numbers` is cell -> trial number, for the links."""
    known = {column.key: column for column in columns(table)}
    groups = [(title, found) for title, keys in _GROUPS if (found := [known[key] for key in keys if key in known])]
    shown = [column for _, found in groups for column in found]
    top = "<th></th>" + "".join(
        f'<th colspan="{len(found)}">{escape(title.format(base=table.base))}</th>' for title, found in groups
    )
    head = "<th>cell</th>" + "".join(f"<th>{escape(_HEADERS.get(item.key, item.header))}</th>" for item in shown)
    body: list[str] = []
    previous = "control"
    for row in table.rows:
        if row.role == "control" and previous != "control":
            body.append(f'<tr class="controls"><td colspan="{len(shown) + 1}">negative controls</td></tr>')
        previous = row.role
        cells = "".join(_cell(row, column) for column in shown)
        kind = "row base" if row.cell == table.base else "row"
        body.append(f'<tr class="{kind}"><td>{_name(row, table, numbers)}</td>{cells}</tr>')
    return wrapped(
        f'<div class="scroll"><table><thead class="grouped"><tr>{top}</tr><tr>{head}</tr></thead>'
        f"<tbody>{''.join(body)}</tbody></table></div>"
    )


def _name(row: Row, table: AblationTable, numbers: Mapping[str, int]) -> str:
    name = escape(row.cell)
    if row.cell in numbers:
        name = f'<a href="{escape(trial_link(table.study, numbers[row.cell]))}" target="_self">{name}</a>'
    return f'{name} <span class="tag">base</span>' if row.cell == table.base else name


def _cell(row: Row, column: Column) -> str:
    text = escape(column.text(row))
    match column.key:
        case "mean" if row.best:
            text = f"<b>{text}</b>"
        case "mean" if row.second:
            text = f"<u>{text}</u>"
        case "difference":
            text += f"<sup>{flag(row)}</sup>" if flag(row) else ""
        case "failed" if row.failed:
            return f'<td class="bad">{text}</td>'
        case "diverged" if row.diverged:
            return f'<td class="bad">{text}</td>'
    return f"<td>{text}</td>"


def verdict_list(table: AblationTable, colours: Palette) -> str:
    """The sentences of the rows, each with the marker of the forest plot."""
    items = []
    for row in table.rows:
        if row.verdict is not None:
            items.append(f"<li>{_dot(standing(row, table), colours)}{escape(row.verdict)}</li>")
    return wrapped(f"<ul>{''.join(items)}</ul>")


def _dot(kind: Standing, colours: Palette) -> str:
    colour = {"better": colours.better, "worse": colours.worse}.get(kind, colours.open)
    fill = colour if kind in ("better", "worse") else "transparent"
    return f'<i style="border-color:{colour};background:{fill}"></i>'


def progress_bar(jobs: Mapping[JobState, int], colours: Palette) -> str:
    """The jobs by state: a bar, and the counts in words."""
    order: Sequence[JobState] = ("complete", "pruned", "diverged", "failed", "running", "waiting")
    total = sum(jobs.get(state, 0) for state in JOB_STATES)
    present = [state for state in order if jobs.get(state, 0)]
    bar = "".join(
        f'<span style="flex:{jobs[state]};background:{colours.states[state]}" title="{jobs[state]} {state}"></span>'
        for state in present
    )
    keys = "".join(
        f'<span><i style="background:{colours.states[state]}"></i><b>{jobs[state]}</b> {state}</span>'
        for state in present
    )
    label = ", ".join(f"{jobs[state]} {state}" for state in present)
    return wrapped(
        f'<div class="bar" role="img" aria-label="{total} jobs: {label}">{bar}</div><div class="keys">{keys}</div>'
    )


@dataclass(frozen=True, slots=True)
class Card:
    """One choice of a design: its axis, name, equation, summary, source, and settings as (name, value, help)."""

    axis: str
    name: str
    equation: str = ""
    summary: str = ""
    source: str = ""
    settings: tuple[tuple[str, str, str], ...] = ()


def design_cards(cards: Sequence[Card]) -> str:
    """The choices side by side."""
    return wrapped(f'<div class="cards">{"".join(map(_card, cards))}</div>')


def _card(card: Card) -> str:
    parts = [f'<div class="axis">{escape(card.axis)}</div><h4>{escape(card.name)}</h4>']
    if card.summary:
        parts.append(f"<div>{escape(card.summary)}</div>")
    if card.equation:
        lines = "<br>".join(equation(line.strip()) for line in card.equation.split(";"))
        parts.append(f'<div class="equation">{lines}</div>')
    if card.settings:
        rows = "".join(
            f'<dt title="{escape(text)}">{escape(name)}</dt><dd>{escape(value)}</dd>'
            for name, value, text in card.settings
        )
        parts.append(f"<dl>{rows}</dl>")
    if card.source:
        parts.append(f'<div class="tag" style="margin-top:0.45rem">{escape(card.source)}</div>')
    return f'<div class="card">{"".join(parts)}</div>'


_SUBSCRIPT = re.compile(r"(?<![A-Za-z])([A-Za-z|)])_(\{[^{}]*\}|[A-Za-z0-9])(?![A-Za-z_])")
_SUPERSCRIPT = re.compile(r"\^(\{[^{}]*\}|\([^()]*(?:\([^()]*\)[^()]*)*\)|[A-Za-z0-9]+)")


def equation(text: str) -> str:
    """An equation of `space` as HTML: `Z_{t-1}` and `|r|^2` get their indices, single letters their italics."""
    marked = escape(text, quote=False)
    marked = _replace(_SUBSCRIPT, marked, lambda found: f"{found[1]}<sub>{_inner(found[2])}</sub>")
    marked = _replace(_SUPERSCRIPT, marked, lambda found: f"<sup>{_inner(found[1])}</sup>")
    return marked.replace(" - ", " − ").replace("&lt;=", "≤").replace("-&gt;", "→")


def _replace(pattern: re.Pattern[str], text: str, by: Callable[[re.Match[str]], str]) -> str:
    return pattern.sub(by, text)


def _inner(group: str) -> str:
    text = group[1:-1] if group[0] in "{(" else group
    return text.replace(" x ", " × ")
