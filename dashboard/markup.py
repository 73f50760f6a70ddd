"""HTML that Streamlit has no widget for: the ablation table with links, the progress bar, the design's cards.

Everything inherits the page's text colour, so one form serves both themes; every text from the database is escaped.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from urllib.parse import urlencode

from miras_search.analysis.table import AblationTable
from miras_search.export.html import table_html, wrapped
from miras_search.export.palette import Palette
from miras_search.store.types import JOB_STATES, JobState

STYLE = Path(__file__).with_name("assets") / "style.css"  # the main script puts it on every page


def trial_link(study: str, number: int) -> str:
    """The address of a trial's page, relative to any page."""
    return f"trial?{urlencode({'study': study, 'trial': number})}"


def ablation(table: AblationTable, numbers: Mapping[str, int]) -> str:
    """The table as every export has it; `numbers` is cell -> trial number, for the links."""
    return table_html([table], lambda cell: trial_link(table.study, numbers[cell]) if cell in numbers else None)


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
