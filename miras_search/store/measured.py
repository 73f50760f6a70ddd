"""Writing what attempts measure: curves, and the numbers that a job reports at its end."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cache

from sqlalchemy import Connection, inspect
from sqlalchemy.dialects import sqlite

from miras_search.store.states import Place
from miras_search.store.tables import MetricPoint, encode_value
from miras_search.store.types import Final, PlainPoint

PointRow = tuple[int, int, str, int, float | None, str | None]
"""A row of `ms_metric_point`."""


def point_rows(attempt_id: int, points: Iterable[PlainPoint], names: Mapping[str, int]) -> list[PointRow]:
    """Rows of an attempt's points; `names` has the id of each metric."""
    return [(attempt_id, names[name], split, step, *encode_value(value)) for step, name, split, value in points]


def insert_points(connection: Connection, rows: list[PointRow]) -> None:
    """Insert points; one with the same metric, split and step replaces the older, so that a batch can be sent again.

    The curves are most of what a driver writes: they go to the database's own driver as tuples.
    """
    connection.exec_driver_sql(_upsert(connection.dialect.name), rows)


@cache
def _upsert(dialect: str) -> str:
    """The statement that inserts a point or replaces it. The same in both dialects, but for the marks of its values."""
    row = sqlite.insert(MetricPoint)
    newer = {"value": row.excluded.value, "flag": row.excluded.flag}
    statement = row.on_conflict_do_update(index_elements=inspect(MetricPoint).primary_key, set_=newer)
    words = str(statement.compile(dialect=sqlite.dialect()))
    return words if dialect == "sqlite" else words.replace("?", "%s")


def final_rows(attempt: Place, finals: Sequence[Final], names: Mapping[str, int]) -> list[dict[str, object]]:
    """Rows for `ms_final_metric`. Raises ValueError for a metric that is given twice on a split."""
    rows = {}
    for final in finals:
        value, flag = encode_value(final.value)
        key = (names[final.name], final.split)
        if key in rows:
            raise ValueError(f"metric {final.name!r} on split {final.split!r} is given twice")
        rows[key] = {
            "job_id": attempt.job_id,
            "name_id": key[0],
            "split": final.split,
            "attempt_id": attempt.attempt_id,
            "value": value,
            "flag": flag,
        }
    return list(rows.values())
