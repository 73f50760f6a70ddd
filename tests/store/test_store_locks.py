from __future__ import annotations

import pytest
from sqlalchemy import text

from miras_search.store import queries
from miras_search.store.database import Database
from miras_search.store.locks import TooLate, lock_hash, lock_of, put_lock
from miras_search.store.writer import Writer

CONTENT = {"family": ["dot", "huber(δ=0.5)"], "margin": None, "seeds": [1, 3]}


def test_a_lock_comes_back_as_it_was_written(db: Database, study_id: int) -> None:
    assert lock_of(db, study_id) is None
    before = queries.change_token(db, study_id)
    written = put_lock(db, study_id, CONTENT)
    assert written == lock_of(db, study_id) == put_lock(db, study_id, CONTENT)
    assert written.content == CONTENT
    assert written.hash == lock_hash(dict(reversed(CONTENT.items())))
    assert written.locked_at.tzinfo is not None
    assert queries.change_token(db, study_id) != before


def test_another_lock_takes_its_place_until_the_first_training(db: Database, writer: Writer, study_id: int) -> None:
    first = put_lock(db, study_id, CONTENT)
    other = {**CONTENT, "margin": 0.1}
    assert put_lock(db, study_id, other).hash == lock_hash(other) != first.hash
    run = writer.begin_run(study_id, provenance={})
    writer.start_attempt(1, run.id, host="h", pid=1, device="cpu")
    with pytest.raises(TooLate, match="its trainings have begun, so a lock comes too late"):
        put_lock(db, study_id, CONTENT)
    assert put_lock(db, study_id, other).content == other


def test_a_lock_goes_with_its_study(db: Database, study_id: int) -> None:
    put_lock(db, study_id, CONTENT)
    with db.writing() as session:
        session.execute(text("DELETE FROM ms_study"))
        assert session.scalar(text("SELECT count(*) FROM ms_lock")) == 0
