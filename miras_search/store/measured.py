"""Writing what attempts measure: curves, and the numbers that a job reports at its end."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import delete, insert, select, tuple_
from sqlalchemy.orm import Session

from miras_search.store.metric_names import metric_ids
from miras_search.store.tables import Attempt, MetricPoint, encode_value
from miras_search.store.types import Final, Point


def insert_points(session: Session, attempt_id: int, points: Sequence[Point]) -> None:
    """Insert points; one with the same metric, split and step replaces the older, so that a batch can be sent again."""
    names = metric_ids(session, {point.name for point in points})
    rows: dict[tuple[int, str, int], dict[str, object]] = {}
    for point in points:
        value, flag = encode_value(point.value)
        key = (names[point.name], point.split, point.step)
        rows[key] = dict(attempt_id=attempt_id, name_id=key[0], split=key[1], step=key[2], value=value, flag=flag)
    # Each dialect has its own upsert. The driver is the only writer and clashes rare: look, then delete, is as safe.
    steps = [step for _, _, step in rows]
    near = select(MetricPoint.name_id, MetricPoint.split, MetricPoint.step).where(
        MetricPoint.attempt_id == attempt_id,
        MetricPoint.name_id.in_(names.values()),
        MetricPoint.step.between(min(steps), max(steps)),
    )
    stale = sorted(rows.keys() & set(session.execute(near)))
    if stale:
        place = tuple_(MetricPoint.name_id, MetricPoint.split, MetricPoint.step)
        session.execute(delete(MetricPoint).where(MetricPoint.attempt_id == attempt_id, place.in_(stale)))
    session.execute(insert(MetricPoint), list(rows.values()))


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
