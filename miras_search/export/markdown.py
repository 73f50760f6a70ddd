"""Tables as GitHub-flavoured Markdown: the table, its marks, the verdicts and the notes."""

from __future__ import annotations

from collections.abc import Sequence

from miras_search.analysis.table import AblationTable, Row
from miras_search.export.layout import Column, Tables, as_tables, columns, flag, verdicts

_SPECIAL = str.maketrans({character: f"\\{character}" for character in "\\`*|<>"})


def to_markdown(tables: Tables) -> str:
    """Each table with its caption, its legend, one sentence a row and the notes."""
    return "\n".join(_one(table) for table in as_tables(tables))


def escape(text: str) -> str:
    """Text that Markdown shows as it is, on one line."""
    return " ".join(text.split()).translate(_SPECIAL)


def _one(table: AblationTable) -> str:
    shown = columns(table)
    lines = [
        escape(table.caption),
        "",
        _line(["cell", *(escape(column.header) for column in shown)]),
        _line([":---", *("---:" for _ in shown)]),
    ]
    lines += [_row(row, shown) for row in table.rows]
    lines += ["", escape(table.legend)]
    for items in (verdicts(table), table.notes):
        if items:
            lines += ["", *(f"- {escape(item)}" for item in items)]
    return "\n".join(lines) + "\n"


def _row(row: Row, shown: Sequence[Column]) -> str:
    name = escape(row.cell)
    return _line([f"{name} (control)" if row.role == "control" else name, *(_cell(row, column) for column in shown)])


def _cell(row: Row, column: Column) -> str:
    text = escape(column.text(row))
    match column.key:
        case "mean" if row.best:
            return f"**{text}**"
        case "mean" if row.second:
            return f"<u>{text}</u>"
        case "difference":
            return text + flag(row)
    return text


def _line(texts: Sequence[str]) -> str:
    return f"| {' | '.join(texts)} |"
