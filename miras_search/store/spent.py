"""What a study has spent: the time of its attempts, whether or not they came to anything."""

from __future__ import annotations

from datetime import datetime, timedelta
from itertools import groupby

from sqlalchemy import select

from miras_search.store.database import Database
from miras_search.store.tables import Attempt, Job, Run, Trial


def worker_seconds(db: Database, study_id: int, device: str, now: datetime) -> float:
    """Seconds that worker processes have trained on devices whose names begin with `device`, up to `now`.

    Attempts of one process at one time are a pack and count once. One that was lost with its driver counts up to the
    driver's last sign of life.
    """
    spans = (
        select(Attempt.host, Attempt.pid, Attempt.started_at, Attempt.ended_at, Run.ended_at)
        .join(Job, Attempt.job_id == Job.id)
        .join(Trial, Job.trial_id == Trial.id)
        .join(Run, Attempt.run_id == Run.id)
        .where(Trial.study_id == study_id, Attempt.device.startswith(device))
        .order_by(Attempt.host, Attempt.pid, Attempt.started_at)
    )
    with db.session() as session:
        rows = session.execute(spans).all()
    total = timedelta()
    for _, attempts in groupby(rows, key=lambda row: (row[0], row[1])):
        covered: datetime | None = None
        for _, _, began, *ends in attempts:
            ended = min(end for end in (*ends, now) if end is not None)
            start = began if covered is None else max(began, covered)
            total += max(timedelta(), ended - start)
            covered = ended if covered is None else max(ended, covered)
    return total.total_seconds()
