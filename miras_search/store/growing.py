"""A study that grows while it runs: one trial more, jobs more, without reading those that are there.

`Writer.put_trials` and `put_jobs` compare a whole plan with what is stored, which is right once a run and too much once
a trial of a search.
"""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import insert, select

from miras_search.store.database import Database
from miras_search.store.states import refresh_trials, touch
from miras_search.store.tables import Job, Trial, utcnow
from miras_search.store.types import NewTrial


def add_trial(db: Database, study_id: int, trial: NewTrial) -> None:
    """Store a trial, unless its number is there: then a crash kept it from being noted, and it is the same."""
    now = utcnow()
    with db.writing() as session:
        there = select(Trial.id).where(Trial.study_id == study_id, Trial.number == trial.number)
        if session.scalar(there) is not None:
            return
        session.execute(
            insert(Trial).values(
                study_id=study_id,
                number=trial.number,
                cell=trial.cell,
                role=trial.role,
                changes=dict(trial.changes),
                design=dict(trial.design),
                settings=dict(trial.settings),
                design_hash=trial.design_hash,
                state="waiting",
                created_at=now,
                updated_at=now,
            )
        )
        touch(session, study_id, now)


def add_jobs(db: Database, study_id: int, number: int, keys: Sequence[tuple[str, int]]) -> None:
    """Store those jobs of a trial, by (task, seed), that are missing."""
    now = utcnow()
    with db.writing() as session:
        trial_id = session.scalars(select(Trial.id).where(Trial.study_id == study_id, Trial.number == number)).one()
        known: set[tuple[str, int]] = set(session.execute(select(Job.task, Job.seed).where(Job.trial_id == trial_id)))
        missing = [key for key in keys if key not in known]
        if missing:
            rows = [
                dict(trial_id=trial_id, task=task, seed=seed, state="waiting", updated_at=now) for task, seed in missing
            ]
            session.execute(insert(Job), rows)
            refresh_trials(session, now, [trial_id])
            touch(session, study_id, now)
