"""States kept in step: a job's, its trial's, and the study's change counter. Each within the caller's transaction.

On its connection, below the ORM, which would look after each statement whether an object in memory has changed; and
from statements that are put together once, which takes SQLAlchemy longer than SQLite takes to run them: these run
several times a job.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import cast

from sqlalchemy import BindParameter, Connection, bindparam, case, func, select, update

from miras_search.store.tables import Attempt, Job, Study, Trial
from miras_search.store.types import FINAL_STATES, AttemptState, JobState, LeaseLost, trial_state

_TOUCH = (
    update(Study)
    .where(Study.id == bindparam("study"))
    .values({Study.changes: Study.changes + 1, Study.updated_at: bindparam("now")})
)
_SET_JOBS = (
    update(Job)
    .where(Job.id.in_(bindparam("jobs", expanding=True)))
    .values({Job.state: bindparam("new"), Job.updated_at: bindparam("now")})
)
_TRIALS = select(Job.trial_id).where(Job.id.in_(bindparam("jobs", expanding=True))).distinct()
_COUNTS = (
    select(Job.trial_id, Job.state, func.count())
    .where(Job.trial_id.in_(bindparam("trials", expanding=True)))
    .group_by(Job.trial_id, Job.state)
)
_SET_TRIAL = (
    update(Trial)
    .where(Trial.id == bindparam("trial"))
    .values(
        {Trial.state: bindparam("new"), Trial.updated_at: bindparam("now"), Trial.finished_at: bindparam("finished")}
    )
)
_STEP: BindParameter[int] = bindparam("step")
_REACH = (
    update(Attempt)
    .where(Attempt.id == bindparam("attempt_"), Attempt.state == "running")
    .values({Attempt.last_step: case((Attempt.last_step > _STEP, Attempt.last_step), else_=_STEP)})
)
_ATTEMPT = (
    select(Attempt.job_id, Trial.study_id, Attempt.state, Attempt.last_step)
    .join(Job, Attempt.job_id == Job.id)
    .join(Trial, Job.trial_id == Trial.id)
    .where(Attempt.id == bindparam("attempt_"))
)


@dataclass(frozen=True, slots=True)
class Place:
    """An attempt, where it belongs and how it stands."""

    attempt_id: int
    job_id: int
    study_id: int
    state: AttemptState
    last_step: int | None


def touch(connection: Connection, study_id: int, now: datetime) -> None:
    """Let every reader's cache of this study expire."""
    connection.execute(_TOUCH, {"study": study_id, "now": now})


def set_jobs(connection: Connection, now: datetime, job_ids: Sequence[int], state: JobState) -> None:
    """Set the jobs' state, and the state of their trials from it."""
    connection.execute(_SET_JOBS, {"jobs": job_ids, "new": state, "now": now})
    refresh_trials(connection, now, connection.scalars(_TRIALS, {"jobs": job_ids}))


def refresh_trials(connection: Connection, now: datetime, trial_ids: Iterable[int]) -> None:
    """Recompute the trials' states from their jobs; `finished_at` is set while every job has ended."""
    ids = list(trial_ids)
    counts: dict[int, dict[JobState, int]] = {trial_id: {} for trial_id in ids}
    for trial_id, state, count in connection.execute(_COUNTS, {"trials": ids}):
        counts[trial_id][cast(JobState, state)] = count
    rows: list[dict[str, object]] = []
    for trial_id, jobs in counts.items():
        new = trial_state(jobs)
        finished = now if new in FINAL_STATES else None
        rows.append({"trial": trial_id, "new": new, "now": now, "finished": finished})
    if rows:
        connection.execute(_SET_TRIAL, rows)


def reach(connection: Connection, steps: Mapping[int, int]) -> None:
    """Note that running attempts have come to these steps, unless they were further.

    Raises LeaseLost like `open_attempt`.
    """
    rows = [{"attempt_": attempt_id, "step": step} for attempt_id, step in steps.items()]
    if connection.execute(_REACH, rows).rowcount < len(rows):
        for attempt_id in steps:
            open_attempt(connection, attempt_id)  # says which


def open_attempt(connection: Connection, attempt_id: int) -> Place:
    """The attempt, still running. Raises LeaseLost when it has ended: another run gave it up for lost."""
    attempt = find_attempt(connection, attempt_id)
    if attempt.state != "running":
        raise LeaseLost(f"attempt {attempt_id} is {attempt.state}, not running: another run may have taken over")
    return attempt


def find_attempt(connection: Connection, attempt_id: int) -> Place:
    """The attempt of that id, which must be there."""
    job_id, study_id, state, last_step = connection.execute(_ATTEMPT, {"attempt_": attempt_id}).one()
    return Place(attempt_id, job_id, study_id, cast(AttemptState, state), last_step)
