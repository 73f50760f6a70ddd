"""Tables as JSON: the form that scripts rely on, with further keys after the promised ones."""

from __future__ import annotations

import json
from dataclasses import fields

from miras_search.analysis.table import AblationTable, Row
from miras_search.export.layout import Tables, as_tables
from miras_search.jsonable import Json, jsonable

_ROW = tuple(field.name for field in fields(Row))


def to_json(tables: Tables) -> str:
    """One table as an object; several as `{"study", "tasks": [...]}`. Never NaN: a number that is missing is null."""
    return json.dumps(to_plain(tables), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def to_plain(tables: Tables) -> dict[str, Json]:
    """The same as plain data, to be put into a larger document."""
    shown = as_tables(tables)
    if len(shown) == 1:
        return _table(shown[0])
    return {"study": shown[0].study if shown else None, "tasks": [_table(table) for table in shown]}


def _table(table: AblationTable) -> dict[str, Json]:
    return {
        "study": table.study,
        "metric": table.metric,
        "base": table.base,
        "caption": table.caption,
        "rows": [{name: jsonable(getattr(row, name)) for name in _ROW} for row in table.rows],
        "task": table.task,
        "split": table.split,
        "direction": table.direction,
        "chance": table.chance,
        "unbound": None if table.unbound is None else table.unbound.accuracy,
        "notes": list(table.notes),
        "legend": table.legend,
        "commit": table.context.commit,
        "date": table.context.date,
        "execution": table.context.execution,
    }
