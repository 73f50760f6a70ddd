"""The tables, all named `ms_*` so that Optuna's can live in the same database.

study > trial (cell) > job (task x seed) > attempt (one try) > points and artifacts; a job's finals hang on the job.
Deletes cascade down this tree. Nothing refers to Optuna's tables: the two are written in separate transactions.

A change here needs a revision in `store/migrations/versions`; a test compares the two.
"""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import ClassVar

from sqlalchemy import (
    JSON,
    BigInteger,
    DateTime,
    Dialect,
    Double,
    ForeignKey,
    Index,
    MetaData,
    String,
    Text,
    TypeDecorator,
    UniqueConstraint,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

NAMING = {  # Alembic can only drop what has a name
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s",
    "pk": "pk_%(table_name)s",
}


def utcnow() -> datetime:
    """The time now, aware, in UTC."""
    return datetime.now(UTC)


class UtcDateTime(TypeDecorator[datetime]):
    """An aware UTC datetime, stored naive: SQLite drops the zone of an aware one."""

    impl = DateTime
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Naive UTC for the database. Raises ValueError on a naive datetime, whose zone is anyone's guess."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"naive datetime {value!r}: give it a zone")
        return value.astimezone(UTC).replace(tzinfo=None)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Aware UTC for Python."""
        return None if value is None else value.replace(tzinfo=UTC)


def encode_value(value: float) -> tuple[float | None, str | None]:
    """A float as (value, flag). SQLite stores NaN as NULL, so what is not finite goes into the flag."""
    value = float(value)
    if math.isfinite(value):
        return value, None
    return None, "nan" if math.isnan(value) else ("inf" if value > 0 else "-inf")


def decode_value(value: float | None, flag: str | None) -> float:
    """The float that `encode_value` was given."""
    if flag is not None:
        return float(flag)
    assert value is not None, "a value without a flag is never NULL"
    return value


class Base(DeclarativeBase):
    """Declarative base with the naming convention and the column types."""

    metadata = MetaData(naming_convention=NAMING)
    # plain JSON on PostgreSQL too: JSONB would sort the keys, and the order of `changes` is the order of a table
    type_annotation_map: ClassVar = {
        datetime: UtcDateTime,
        float: Double,
        dict[str, object]: JSON,
        dict[str, str]: JSON,
    }


class Study(Base):
    """One study file, by name."""

    __tablename__ = "ms_study"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(200), unique=True)
    question: Mapped[str] = mapped_column(Text)
    kind: Mapped[str] = mapped_column(String(20))
    metric: Mapped[str] = mapped_column(String(80))
    config_yaml: Mapped[str] = mapped_column(Text)
    config: Mapped[dict[str, object]]
    config_hash: Mapped[str] = mapped_column(String(80))
    space_hash: Mapped[str] = mapped_column(String(80))  # of what is compared: the config less its seeds
    changes: Mapped[int]  # grows with every write below this study: an exact token for a reader's cache
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]


class Lock(Base):
    """What a study said that it would compare and how, before its first training."""

    __tablename__ = "ms_lock"
    study_id: Mapped[int] = mapped_column(ForeignKey("ms_study.id", ondelete="CASCADE"), primary_key=True)
    content: Mapped[dict[str, object]]
    hash: Mapped[str] = mapped_column(String(64))
    locked_at: Mapped[datetime]


class Run(Base):
    """One invocation of the driver; while its status is `running` it is the lease on the study."""

    __tablename__ = "ms_run"
    id: Mapped[int] = mapped_column(primary_key=True)
    study_id: Mapped[int] = mapped_column(ForeignKey("ms_study.id", ondelete="CASCADE"), index=True)
    status: Mapped[str] = mapped_column(String(20))
    host: Mapped[str] = mapped_column(String(255))
    pid_space: Mapped[str] = mapped_column(String(80))  # two containers may share a host name but not their pids
    pid: Mapped[int]
    lease_token: Mapped[str] = mapped_column(String(40), unique=True)
    provenance: Mapped[dict[str, object]]
    started_at: Mapped[datetime]
    heartbeat_at: Mapped[datetime]
    ended_at: Mapped[datetime | None]


class Trial(Base):
    """One cell of a study."""

    __tablename__ = "ms_trial"
    __table_args__ = (
        UniqueConstraint("study_id", "number"),
        Index(None, "study_id", "state"),
        Index(None, "study_id", "design_hash"),
        Index(None, "study_id", "updated_at"),
    )
    id: Mapped[int] = mapped_column(primary_key=True)
    study_id: Mapped[int] = mapped_column(ForeignKey("ms_study.id", ondelete="CASCADE"))
    number: Mapped[int]
    cell: Mapped[str] = mapped_column(Text)
    role: Mapped[str] = mapped_column(String(20))
    state: Mapped[str] = mapped_column(String(20))
    changes: Mapped[dict[str, str]]
    design: Mapped[dict[str, object]]
    settings: Mapped[dict[str, object]]
    design_hash: Mapped[str] = mapped_column(String(80))
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]
    finished_at: Mapped[datetime | None]


class Job(Base):
    """A trial on one task with one seed: trained once."""

    __tablename__ = "ms_job"
    __table_args__ = (UniqueConstraint("trial_id", "task", "seed"),)
    id: Mapped[int] = mapped_column(primary_key=True)
    trial_id: Mapped[int] = mapped_column(ForeignKey("ms_trial.id", ondelete="CASCADE"))
    task: Mapped[str] = mapped_column(String(200))
    seed: Mapped[int] = mapped_column(BigInteger)
    state: Mapped[str] = mapped_column(String(20), index=True)
    # The attempt that speaks for the job: the latest. No foreign key, or job and attempt would refer to each other.
    attempt_id: Mapped[int | None]
    updated_at: Mapped[datetime]


class Attempt(Base):
    """One try of a job."""

    __tablename__ = "ms_attempt"
    __table_args__ = (UniqueConstraint("job_id", "attempt"),)
    id: Mapped[int] = mapped_column(primary_key=True)
    job_id: Mapped[int] = mapped_column(ForeignKey("ms_job.id", ondelete="CASCADE"))
    attempt: Mapped[int]
    run_id: Mapped[int] = mapped_column(ForeignKey("ms_run.id", ondelete="CASCADE"), index=True)
    state: Mapped[str] = mapped_column(String(20), index=True)
    error_type: Mapped[str | None] = mapped_column(String(200))
    error_text: Mapped[str | None] = mapped_column(Text)
    host: Mapped[str] = mapped_column(String(255))
    pid: Mapped[int]
    device: Mapped[str] = mapped_column(String(80))
    started_at: Mapped[datetime]
    ended_at: Mapped[datetime | None]
    wall_seconds: Mapped[float | None]
    peak_memory_bytes: Mapped[int | None] = mapped_column(BigInteger)
    last_step: Mapped[int | None]


class MetricName(Base):
    """The metric registry, so that a reader of the database alone knows directions and units."""

    __tablename__ = "ms_metric_name"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(80), unique=True)
    direction: Mapped[str | None] = mapped_column(String(20))  # the descriptions are NULL for an unregistered metric
    unit: Mapped[str | None] = mapped_column(String(40))
    split: Mapped[str | None] = mapped_column(String(20))
    reduction: Mapped[str | None] = mapped_column(String(40))
    help: Mapped[str | None] = mapped_column(Text)


class MetricPoint(Base):
    """One value on a curve. Without a row id: the primary key is the order in which a curve is read."""

    __tablename__ = "ms_metric_point"
    __table_args__ = ({"sqlite_with_rowid": False},)
    attempt_id: Mapped[int] = mapped_column(ForeignKey("ms_attempt.id", ondelete="CASCADE"), primary_key=True)
    name_id: Mapped[int] = mapped_column(ForeignKey("ms_metric_name.id", ondelete="CASCADE"), primary_key=True)
    split: Mapped[str] = mapped_column(String(20), primary_key=True)
    step: Mapped[int] = mapped_column(primary_key=True)
    value: Mapped[float | None]
    flag: Mapped[str | None] = mapped_column(String(4))


class FinalMetric(Base):
    """One number that a job reports at its end."""

    __tablename__ = "ms_final_metric"
    __table_args__ = (Index(None, "name_id", "value"), {"sqlite_with_rowid": False})
    job_id: Mapped[int] = mapped_column(ForeignKey("ms_job.id", ondelete="CASCADE"), primary_key=True)
    name_id: Mapped[int] = mapped_column(ForeignKey("ms_metric_name.id", ondelete="CASCADE"), primary_key=True)
    split: Mapped[str] = mapped_column(String(20), primary_key=True)
    attempt_id: Mapped[int] = mapped_column(ForeignKey("ms_attempt.id", ondelete="CASCADE"), index=True)
    value: Mapped[float | None]
    flag: Mapped[str | None] = mapped_column(String(4))


class Artifact(Base):
    """A file that an attempt left, by address."""

    __tablename__ = "ms_artifact"
    id: Mapped[int] = mapped_column(primary_key=True)
    attempt_id: Mapped[int] = mapped_column(ForeignKey("ms_attempt.id", ondelete="CASCADE"), index=True)
    kind: Mapped[str] = mapped_column(String(40))
    uri: Mapped[str] = mapped_column(Text)
    sha256: Mapped[str] = mapped_column(String(64))
    bytes: Mapped[int] = mapped_column(BigInteger)
    step: Mapped[int | None]
    created_at: Mapped[datetime]
