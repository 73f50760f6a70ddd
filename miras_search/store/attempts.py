"""Attempts as they begin and end. Each within the caller's transaction, from statements that are put together once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from sqlalchemy import Connection, bindparam, func, insert, select, update

from miras_search.store import lease
from miras_search.store.measured import final_rows
from miras_search.store.states import Place, set_jobs
from miras_search.store.tables import Attempt, FinalMetric, Job, Trial
from miras_search.store.types import Final, JobState

_JOB = (
    select(
        Job.state,
        Trial.study_id,
        select(func.coalesce(func.max(Attempt.attempt), 0))
        .where(Attempt.job_id == bindparam("job"))
        .scalar_subquery()
        .label("before"),
    )
    .join(Trial, Job.trial_id == Trial.id)
    .where(Job.id == bindparam("job"))
)
_START = insert(Attempt).returning(Attempt.id)
_SPEAKS = update(Job).where(Job.id == bindparam("job")).values({Job.attempt_id: bindparam("attempt_")})
_ENDED = ("state", "ended_at", "wall_seconds", "peak_memory_bytes", "last_step", "error_type", "error_text")
_END = (
    update(Attempt)
    .where(Attempt.id == bindparam("attempt_"))
    .values({column: bindparam(f"new_{column}") for column in _ENDED})
)
_FINALS = insert(FinalMetric)


def start(
    connection: Connection, job_id: int, run_id: int, now: datetime, about: Mapping[str, object]
) -> tuple[int, int]:
    """Begin a try of a waiting job, `about` which host, process and device are known; its id and that of its study.

    Raises LeaseLost when the run has lost its lease, ValueError when the job is not waiting.
    """
    lease.require(connection, run_id)
    state, study_id, before = connection.execute(_JOB, {"job": job_id}).one()
    if state != "waiting":
        raise ValueError(f"job {job_id} is {state}, not waiting")
    row = {"job_id": job_id, "attempt": before + 1, "run_id": run_id, "state": "running", "started_at": now, **about}
    attempt_id = int(connection.execute(_START, row).scalar_one())
    connection.execute(_SPEAKS, {"job": job_id, "attempt_": attempt_id})
    set_jobs(connection, now, [job_id], "running")
    return attempt_id, study_id


def finish(
    connection: Connection,
    attempt: Place,
    finals: Sequence[Final],
    now: datetime,
    *,
    ended: Mapping[str, object],
    job_state: JobState,
    names: Mapping[str, int],
) -> None:
    """End an attempt as `ended` says, with the job's finals and state; `names` has the id of each metric.

    Raises ValueError for a metric that is given twice on a split.
    """
    values = {f"new_{column}": ended[column] for column in _ENDED if column != "ended_at"}
    connection.execute(_END, {"attempt_": attempt.attempt_id, "new_ended_at": now, **values})
    if finals:
        connection.execute(_FINALS, final_rows(attempt, finals, names))
    set_jobs(connection, now, [attempt.job_id], job_state)
