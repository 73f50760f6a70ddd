"""Tables as CSV: one line a row, raw numbers in full precision, empty where there is none."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import fields

from miras_search.analysis.table import Row
from miras_search.export.layout import Tables, as_tables

_TABLE = ("study", "task", "metric", "split", "base")
_ROW = tuple(field.name for field in fields(Row))


def to_csv(tables: Tables) -> str:
    """One header; several tasks follow each other, told apart by the column `task`. `changes` is JSON."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow((*_TABLE, *_ROW))
    for table in as_tables(tables):
        place = [str(getattr(table, name)) for name in _TABLE]
        for row in table.rows:
            writer.writerow((*place, *(_text(getattr(row, name)) for name in _ROW)))
    return out.getvalue()


def _text(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return repr(value)
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
