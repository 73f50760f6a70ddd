"""Locks: what a study said that it would compare and how, written down before any of its results existed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping

from sqlalchemy import delete, insert, select

from miras_search.errors import MirasError
from miras_search.store.database import Database
from miras_search.store.states import touch
from miras_search.store.tables import Attempt, Job, Lock, Study, Trial, utcnow
from miras_search.store.types import LockRow


class TooLate(MirasError):
    """Trainings have begun, so what is written now may have been chosen by their results."""


def put_lock(db: Database, study_id: int, content: Mapping[str, object]) -> LockRow:
    """Lock a study, or find it locked to the same. Before the first training another lock takes its place.

    Raises TooLate once a training of the study has begun, unless it is locked to this already.
    """
    now, digest = utcnow(), lock_hash(content)
    with db.writing() as session:
        stored = session.get(Lock, study_id)
        if stored is None or stored.hash != digest:
            begun = select(Attempt.id).join(Job, Attempt.job_id == Job.id).join(Trial, Job.trial_id == Trial.id)
            if session.scalar(begun.where(Trial.study_id == study_id).limit(1)) is not None:
                name = session.get_one(Study, study_id).name
                raise TooLate(
                    f"{name}: its trainings have begun, so a lock comes too late: what they found stays exploratory; "
                    f"lock it under another name (--as {name}-2) and train that"
                )
            session.execute(delete(Lock).where(Lock.study_id == study_id))
            session.execute(insert(Lock).values(study_id=study_id, content=dict(content), hash=digest, locked_at=now))
            touch(session.connection(), study_id, now)
    found = lock_of(db, study_id)
    assert found is not None, "it was there or has been written"
    return found


def lock_of(db: Database, study_id: int) -> LockRow | None:
    """The lock of a study; None where it was never locked."""
    with db.session() as session:
        row = session.get(Lock, study_id)
        return None if row is None else LockRow(row.content, row.hash, row.locked_at)


def lock_hash(content: Mapping[str, object]) -> str:
    """64 hexadecimal digits of what is locked, whatever the order of its keys."""
    plain = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(plain.encode()).hexdigest()
