"""Tables as HTML: a page by itself that asks nothing of any other host, or the piece that a larger page takes.

The dashboard and the report show the same piece. Every text from the database is escaped.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from html import escape
from pathlib import Path

from miras_search.analysis.standing import Standing, standing
from miras_search.analysis.table import AblationTable, Row
from miras_search.export.layout import Column, Tables, as_tables, flag
from miras_search.export.palette import LIGHT, Palette
from miras_search.export.sections import CONTROLS, Part, joint_caption, joint_notes, parts, sections

STYLE = Path(__file__).with_name("table.css")
PAGE_STYLE = Path(__file__).with_name("page.css")

Link = Callable[[str], str | None]
"""From a cell's name to the address that it links to, if any."""

_GROUPS = (
    ("", ("mean", "tuned", "n")),
    ("paired difference to {base}", ("difference", "interval", "p", "p_holm")),
    ("under controls", ("survives",)),
    ("jobs", ("failed", "diverged")),
    ("cost", ("ratio", "params", "state_bytes", "flops_per_token", "tokens_per_second", "peak_memory_bytes")),
)
_BESIDE = ("mean", "tuned", "n", "difference", "interval")  # of each task, where several stand beside each other
_HEADERS = {
    "interval": "95 % interval",
    "p_holm": "p Holm",
    "difference": "Δ",
    "flops_per_token": "FLOPs",  # a token; the dashboard is as wide as this
    "peak_memory_bytes": "peak mem",
}


def to_html(tables: Tables, *, side_by_side: bool = False) -> str:
    """A page with each table, its caption, marks, verdicts and notes; `side_by_side` makes one table of all tasks."""
    shown = as_tables(tables)
    blocks = [shown] if side_by_side and shown else [(table,) for table in shown]
    title = f"{shown[0].study}: {shown[0].metric}" if shown else "no table"
    return page(title, "\n".join(_block(block) for block in blocks))


def page(title: str, body: str, *, styles: Sequence[Path] = (), script: str = "") -> str:
    """A whole document; its policy forbids the browser to load anything from anywhere."""
    sheets = "\n".join(path.read_text(encoding="utf-8") for path in (PAGE_STYLE, STYLE, *styles))
    code = f"<script>\n{script}</script>\n" if script else ""
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'; "
        "script-src 'unsafe-inline'; img-src data:\">\n"
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>\n{sheets}</style>\n</head>\n<body>\n<main>\n{body}</main>\n{code}"
        "</body>\n</html>\n"
    )


def wrapped(body: str) -> str:
    """The body within reach of the style sheet."""
    return f'<div class="ms">{body}</div>'


def table_html(tables: Sequence[AblationTable], link: Link = lambda cell: None) -> str:
    """One table, or several tasks side by side; rows under the axis that they change, controls apart."""
    groups = _groups(tables)
    shown = [(part, column) for _, part, found in groups for column in found]
    top = "".join(f'<th colspan="{len(found)}">{escape(title)}</th>' for title, _, found in groups)
    names = "".join(f"<th>{escape(_HEADERS.get(column.key, column.header))}</th>" for _, column in shown)
    body = []
    for section in sections(tables[0]):
        if section.title:
            kind = "section controls" if section.title == CONTROLS else "section"
            body.append(f'<tr class="{kind}"><td colspan="{len(shown) + 1}">{escape(section.title)}</td></tr>')
        for row in section.rows:
            cells = "".join(_cell(part.row(row.cell), column) for part, column in shown)
            kind = "row base" if row.cell == tables[0].base else "row"
            body.append(f'<tr class="{kind}"><td>{_name(row, tables[0], link)}</td>{cells}</tr>')
    return wrapped(
        f'<div class="scroll"><table><thead><tr><th></th>{top}</tr><tr><th>cell</th>{names}</tr></thead>'
        f"<tbody>{''.join(body)}</tbody></table></div>"
    )


def verdict_list(table: AblationTable, colours: Palette = LIGHT) -> str:
    """The sentences of the rows, each with the marker of the forest plot."""
    items = []
    for row in table.rows:
        if row.verdict is not None:
            items.append(f"<li>{_dot(standing(row, table), colours)}{escape(row.verdict)}</li>")
    return wrapped(f"<ul>{''.join(items)}</ul>")


def words(tables: Sequence[AblationTable]) -> str:
    """What stands around a table: caption, legend and notes."""
    legend = next((table.legend for table in tables if table.has_censored), tables[0].legend)
    notes = "".join(f"<li>{escape(note)}</li>" for note in joint_notes(tables))
    return f'<p class="caption">{escape(joint_caption(tables))}</p>\n<p class="caption">{escape(legend)}</p>\n' + (
        f'<ul class="notes">{notes}</ul>\n' if notes else ""
    )


def _block(tables: Sequence[AblationTable]) -> str:
    verdicts = "".join(
        (f"<h3>{escape(table.task)}</h3>\n" if len(tables) > 1 else "") + f"{verdict_list(table)}\n" for table in tables
    )
    return f"<section>\n{table_html(tables)}\n{words(tables)}{verdicts}</section>\n"


def _groups(tables: Sequence[AblationTable]) -> list[tuple[str, Part, Sequence[Column]]]:
    """The columns with the heading above them: a task's name, or what a single task's columns are about."""
    if len(tables) > 1:
        return [(part.table.task, part, part.columns) for part in parts(tables, _BESIDE)]
    found: list[tuple[str, Part, Sequence[Column]]] = []
    for title, keys in _GROUPS:
        (part,) = parts(tables, keys)
        if part.columns:
            found.append((title.format(base=tables[0].base), part, part.columns))
    return found


def _name(row: Row, table: AblationTable, link: Link) -> str:
    name, address = escape(row.cell), link(row.cell)
    if address is not None:
        name = f'<a href="{escape(address)}" target="_self">{name}</a>'
    return f'{name} <span class="tag">base</span>' if row.cell == table.base else name


def _cell(row: Row | None, column: Column) -> str:
    if row is None:
        return "<td>-</td>"
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


def _dot(kind: Standing, colours: Palette) -> str:
    colour = {"better": colours.better, "worse": colours.worse}.get(kind, colours.open)
    fill = colour if kind in ("better", "worse") else "transparent"
    return f'<i style="border-color:{colour};background:{fill}"></i>'
