"""Tables for a terminal or a log file: plain characters, no colours, verdicts as sentences below.

A table that does not fit the width is printed in two blocks: the comparison first, the costs under it.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from miras_search.analysis.caption import legend
from miras_search.analysis.table import AblationTable, Row
from miras_search.export.layout import Column, Tables, as_tables, columns, flag, verdicts

_GAP = "  "


def to_text(tables: Tables, width: int = 120) -> str:
    """Each table in lines of at most `width` characters, unless the comparison alone needs more."""
    return "\n".join(_one(table, width) for table in as_tables(tables))


def _one(table: AblationTable, width: int) -> str:
    shown = columns(table)
    block = _block(table.rows, shown)
    if len(block[0]) > width:
        quality = _block(table.rows, [column for column in shown if not column.is_cost])
        block = [*quality, "", *_block(table.rows, [column for column in shown if column.is_cost])]
    words = legend(best="*", second="'", censored=table.has_censored)
    lines = [*textwrap.wrap(table.caption, width), "", *block, "", *textwrap.wrap(words, width)]
    for items in (verdicts(table), table.notes):
        if items:
            lines.append("")
        for item in items:
            lines += textwrap.wrap(item, width, initial_indent="  ", subsequent_indent="    ", break_on_hyphens=False)
    return "\n".join(line.rstrip() for line in lines) + "\n"


def _block(rows: Sequence[Row], shown: Sequence[Column]) -> list[str]:
    """Header, rule and rows, the controls under a rule of their own; all lines are equally wide."""
    grid = [["cell", *(column.header + _padding(column) for column in shown)]]
    grid += [[" ".join(row.cell.split()), *(_cell(row, column) for column in shown)] for row in rows]
    widths = [max(len(line[index]) for line in grid) for index in range(len(grid[0]))]
    header, *body = (_line(texts, widths) for texts in grid)
    block = [header, "-" * len(header)]
    previous = "control"
    for row, line in zip(rows, body, strict=True):
        if row.role == "control" and previous != "control":
            block.append("controls ".ljust(len(header), "-"))
        block.append(line)
        previous = row.role
    return block


def _line(texts: Sequence[str], widths: Sequence[int]) -> str:
    name, *numbers = texts
    aligned = [text.rjust(width) for text, width in zip(numbers, widths[1:], strict=True)]
    return _GAP.join([name.ljust(widths[0]), *aligned])


def _cell(row: Row, column: Column) -> str:
    """The text with its mark; a space holds the mark's place so that the digits stay aligned."""
    text = column.text(row)
    match column.key:
        case "mean":
            return text + ("*" if row.best else "'" if row.second else " ")
        case "difference":
            return text + (flag(row) or " ")
    return text


def _padding(column: Column) -> str:
    return " " if column.key in ("mean", "difference") else ""
