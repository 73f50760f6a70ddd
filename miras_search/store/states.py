"""States kept in step: a job's, its trial's, and the study's change counter. Each within the caller's transaction.

On its connection, below the ORM, which would look after each statement whether an object in memory has changed: these
run several times a job.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import cast

from sqlalchemy import bindparam, case, func, select, update
from sqlalchemy.orm import Session

from miras_search.store.tables import Attempt, Job, Study, Trial
from miras_search.store.types import FINAL_STATES, JobState, LeaseLost, trial_state


def touch(session: Session, study_id: int, now: datetime) -> None:
    """Let every reader's cache of this study expire."""
    values = {"changes": Study.changes + 1, "updated_at": now}
    session.connection().execute(update(Study).where(Study.id == study_id).values(values))


def touch_attempt(session: Session, attempt_id: int, now: datetime) -> None:
    """`touch` for the study to which an attempt belongs."""
    owner = select(Trial.study_id).join(Job).join(Attempt, Attempt.job_id == Job.id).where(Attempt.id == attempt_id)
    values = {Study.changes: Study.changes + 1, Study.updated_at: now}
    touched = update(Study).where(Study.id == owner.scalar_subquery()).values(values)
    session.connection().execute(touched)


def study_of(session: Session, job_id: int) -> int:
    """The id of the study to which a job belongs."""
    wanted = select(Trial.study_id).join(Job, Job.trial_id == Trial.id).where(Job.id == job_id)
    return session.connection().execute(wanted).scalar_one()


def set_jobs(session: Session, now: datetime, job_ids: Sequence[int], state: JobState) -> None:
    """Set the jobs' state, and the state of their trials from it."""
    connection = session.connection()
    connection.execute(update(Job).where(Job.id.in_(job_ids)).values(state=state, updated_at=now))
    refresh_trials(session, now, connection.scalars(select(Job.trial_id).where(Job.id.in_(job_ids)).distinct()))


def refresh_trials(session: Session, now: datetime, trial_ids: Iterable[int]) -> None:
    """Recompute the trials' states from their jobs; `finished_at` is set while every job has ended."""
    ids = list(trial_ids)
    counts: dict[int, dict[JobState, int]] = {trial_id: {} for trial_id in ids}
    counted = select(Job.trial_id, Job.state, func.count()).where(Job.trial_id.in_(ids))
    connection = session.connection()
    for trial_id, state, count in connection.execute(counted.group_by(Job.trial_id, Job.state)):
        counts[trial_id][cast(JobState, state)] = count
    rows: list[dict[str, object]] = []
    for trial_id, jobs in counts.items():
        new = trial_state(jobs)
        finished = now if new in FINAL_STATES else None
        rows.append({"trial": trial_id, "state": new, "updated_at": now, "finished_at": finished})
    if rows:
        connection.execute(update(Trial).where(Trial.id == bindparam("trial")), rows)


def reach(session: Session, attempt_id: int, step: int) -> None:
    """Note that a running attempt has come to a step, unless it was further. Raises LeaseLost like `open_attempt`."""
    further = case((Attempt.last_step > step, Attempt.last_step), else_=step)
    moved = update(Attempt).where(Attempt.id == attempt_id, Attempt.state == "running").values(last_step=further)
    if not session.connection().execute(moved).rowcount:
        open_attempt(session, attempt_id)


def open_attempt(session: Session, attempt_id: int) -> Attempt:
    """The attempt, still running. Raises LeaseLost when it has ended: another run gave it up for lost."""
    attempt = session.get_one(Attempt, attempt_id)
    if attempt.state != "running":
        raise LeaseLost(f"attempt {attempt_id} is {attempt.state}, not running: another run may have taken over")
    return attempt
