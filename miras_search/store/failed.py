"""Why jobs failed."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import select

from miras_search.store.database import Database
from miras_search.store.tables import Attempt, Job, Trial


@dataclass(frozen=True, slots=True)
class ErrorRow:
    """A failed job with the error of its latest attempt; `errors.cause` makes a line of it."""

    number: int
    """The trial's."""
    cell: str
    task: str
    seed: int
    error_type: str | None
    error_text: str | None


def errors(db: Database, study_id: int) -> list[ErrorRow]:
    """What the latest attempt of each failed job says, in the order of the jobs."""
    wanted = (
        select(Trial.number, Trial.cell, Job.task, Job.seed, Attempt.error_type, Attempt.error_text)
        .join(Job, Job.trial_id == Trial.id)
        .join(Attempt, Job.attempt_id == Attempt.id)
        .where(Trial.study_id == study_id, Job.state == "failed")
        .order_by(Job.id)
    )
    with db.session() as session:
        return [ErrorRow(*row) for row in session.execute(wanted)]
