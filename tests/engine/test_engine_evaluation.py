"""Evaluations in real workers: the parameters travel with the job, and what fails is a row that can be tried again."""

from __future__ import annotations

import hashlib
import shutil

import pytest
from inline import InlineExecutor
from sqlalchemy import update

from miras_search.engine import driver
from miras_search.engine.checkpoints import located
from miras_search.engine.driver import RunOptions, run_study
from miras_search.engine.evaluation import Wanted, evaluation
from miras_search.engine.messages import TRAINING
from miras_search.store import queries
from miras_search.store.database import Database
from miras_search.store.tables import Artifact
from miras_search.store.trained import CHECKPOINT, EVALUATED, files_of_jobs

TWO = ("vary={}", "train.steps=2", "seeds=1")  # the base and its control


@pytest.mark.parametrize("executor", ["local", pytest.param("ray", marks=pytest.mark.slow)])
def test_workers_evaluate_what_they_are_sent_and_a_failure_is_tried_again(
    executor: str, local, db: Database, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    if executor == "ray":
        request.getfixturevalue("ray_running")
    with monkeypatch.context() as patch:
        patch.setattr(driver, "make_executor", lambda *words, **asked: InlineExecutor())
        assert local(overrides=TWO, entry=TRAINING).complete == 2
    before = queries.results(db, local.study_id)
    base, control = queries.artifacts(db, local.study_id)
    mine = located(db, control.uri)
    kept = mine.read_bytes()

    def evaluate(digest: str, executor: str) -> object:
        with db.writing() as session:
            session.execute(update(Artifact).where(Artifact.uri == control.uri).values(sha256=digest))
        options = RunOptions(executor=executor, workers=1, retry_failed=True)
        return run_study(evaluation(db, Wanted("tiny", name="own")), db, options, local.events.append)

    shutil.copy(located(db, base.uri), mine)  # a mix-up that only the worker can tell
    first = evaluate(base.sha256, executor)
    assert (first.complete, first.failed, first.attempts) == (1, 1, 2)
    own = queries.study(db, "own").id
    (wrong,) = queries.attempts(db, own, 1)
    assert "the checkpoint is of another training" in (wrong.error_text or "")

    mine.write_bytes(kept)
    monkeypatch.setattr(driver, "make_executor", lambda *words, **asked: InlineExecutor())
    second = evaluate(hashlib.sha256(kept).hexdigest(), executor)
    assert (second.complete, second.skipped, second.attempts) == (2, 1, 1)
    for ours, theirs in zip(queries.results(db, own), before, strict=True):
        for key in (("accuracy", "test"), ("loss", "test")):
            assert ours.values[key] == theirs.values[key]
    seen = [row.sha256 for row in files_of_jobs(db, own, EVALUATED)]
    assert seen == [row.sha256 for row in files_of_jobs(db, local.study_id, CHECKPOINT)]
