"""Writing what attempts measure: curves, and the numbers that a job reports at its end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache

from sqlalchemy import Insert, inspect
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from miras_search.store.metric_names import metric_ids
from miras_search.store.tables import Attempt, MetricPoint, encode_value
from miras_search.store.types import Final, Point


def insert_points(session: Session, attempt_id: int, points: Sequence[Point], names: Mapping[str, int]) -> None:
    """Insert points; one with the same metric, split and step replaces the older, so that a batch can be sent again.

    `names` has the id of each metric. Below the ORM: the curves are most of what a driver writes.
    """
    rows: dict[tuple[int, str, int], dict[str, object]] = {}
    for point in points:
        value, flag = encode_value(point.value)
        key = (names[point.name], point.split, point.step)
        rows[key] = dict(attempt_id=attempt_id, name_id=key[0], split=key[1], step=key[2], value=value, flag=flag)
    connection = session.connection()
    connection.execute(_upsert(connection.dialect.name), list(rows.values()))


@cache
def _upsert(dialect: str) -> Insert:
    """The statement that inserts a point or replaces it, which each dialect has of its own."""
    place = inspect(MetricPoint).primary_key
    row = sqlite.insert(MetricPoint) if dialect == "sqlite" else postgresql.insert(MetricPoint)
    newer = {"value": row.excluded.value, "flag": row.excluded.flag}
    return row.on_conflict_do_update(index_elements=place, set_=newer)


def final_rows(session: Session, attempt: Attempt, finals: Sequence[Final]) -> list[dict[str, object]]:
    """Rows for `ms_final_metric`. Raises ValueError for a metric that is given twice on a split."""
    names = metric_ids(session, {final.name for final in finals})
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
            "attempt_id": attempt.id,
            "value": value,
            "flag": flag,
        }
    return list(rows.values())
