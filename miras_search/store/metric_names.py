"""The metric registry in the database: a number for each name, and what the name means."""

from __future__ import annotations

from collections.abc import Collection

from sqlalchemy import Connection, insert, select, update
from sqlalchemy.orm import Session

from miras_search.metrics import METRICS
from miras_search.store.tables import MetricName


def register_metrics(session: Session) -> None:
    """Insert or update the registered metrics; writes nothing when all are as they should be."""
    stored = {row.name: row for row in session.scalars(select(MetricName))}
    for metric in METRICS.values():
        facts = {
            "direction": metric.direction,
            "unit": metric.unit,
            "split": metric.split,
            "reduction": metric.reduction,
            "help": metric.help,
        }
        row = stored.get(metric.name)
        if row is None:
            session.execute(insert(MetricName).values(name=metric.name, **facts))
        elif any(getattr(row, key) != value for key, value in facts.items()):
            session.execute(update(MetricName).where(MetricName.id == row.id).values(**facts))


def metric_ids(connection: Connection, names: Collection[str]) -> dict[str, int]:
    """The id of each name. A name outside the registry (a telemetry curve) is added without a description."""
    wanted = select(MetricName.name, MetricName.id).where(MetricName.name.in_(names))
    ids = dict(connection.execute(wanted).all())
    for name in sorted(set(names) - set(ids)):
        row = insert(MetricName).values(name=name).returning(MetricName.id)
        ids[name] = connection.execute(row).scalar_one()
    return ids
