"""The words around a stored study's table come from its trainings, not from the moment of reading."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from miras_search.analysis.commits import commit_of
from miras_search.analysis.stored import chance_levels, levels_of, stored_tables, table_context
from miras_search.errors import MirasError
from miras_search.store import queries
from miras_search.store.database import Database
from miras_search.store.types import Final, NewJob, NewTrial
from miras_search.store.writer import Writer

CONFIG = {
    "execution": "frozen, chunk 16",
    "tasks": [
        {"name": "short", "spec": {"name": "mqar", "vocab": 32, "length": 32, "pairs": 4}},
        {"name": "gone", "spec": {"name": "a task of another version"}},
    ],
}
NOW = [datetime(2026, 5, 1, tzinfo=UTC)]


def _commit(digits: str, dirty: str | None = None) -> dict[str, object]:
    return {"package": {"commit": digits * 10, "dirty": dirty}}


@pytest.fixture
def db(tmp_path: Path) -> Database:
    """Two runs that trained one seed each, a week apart, and a third that found nothing to do."""
    database = Database.open(tmp_path / "miras.db", create=True)
    writer = Writer(database, now=lambda: NOW[0])
    study = writer.put_study(
        name="odd name",
        question="?",
        kind="ablation",
        metric="accuracy",
        config_yaml="",
        config=CONFIG,
        config_hash="a",
        space_hash="b",
    )
    writer.put_trials(study, [NewTrial(0, "dot", "base", {}, {}, {}, "0"), NewTrial(1, "l2", "cell", {}, {}, {}, "1")])
    writer.put_jobs(study, [NewJob(number, "short", seed) for seed in (0, 1) for number in (0, 1)])
    for day, seed, provenance in (
        (2, 0, _commit("1234")),
        (9, 1, _commit("abcd", "changes")),
        (20, 2, _commit("9999")),
    ):
        NOW[0] = datetime(2026, 5, day, tzinfo=UTC)
        run = writer.begin_run(study, provenance=provenance)
        for job in queries.jobs(database, study):
            if job.seed != seed:
                continue
            attempt = writer.start_attempt(job.id, run.id, host="vm", pid=1, device="cpu")
            finals = [Final("accuracy", "test", 0.5 + 0.1 * seed)]
            writer.finish_attempt(
                attempt,
                state="complete",
                finals=finals,
                last_step=1,
                wall_seconds=1.0,
                peak_memory_bytes=None,
                final_for_job=True,
            )
        writer.end_run(run.id, "done")
    return database


def test_commit_and_date_are_those_of_the_trainings(db: Database) -> None:
    with db:
        context = table_context(db, queries.study(db, "odd name"), task="short")
        (table,) = stored_tables(db, "odd name")
    assert context.commit == "1234123 and abcdabc+"
    assert context.date == "2026-05-09"
    assert context.execution == "frozen, chunk 16"
    assert context.command == "miras-search table 'odd name' --task short"
    assert "9999" not in table.caption


def test_the_chance_level_is_that_of_the_task(db: Database) -> None:
    with db:
        study = queries.study(db, "odd name")
        chances = chance_levels(study)
        levels = levels_of(study, "short", "accuracy", "validation")
        assert levels_of(study, "short", "accuracy", "train") == levels_of(study, "short", "loss", "test") == {}
        assert levels_of(study, "gone", "accuracy", "test") == {}
    assert chances == {"short": 1 / 16, "gone": None}
    assert levels == {"chance": 1 / 16, "without binding": pytest.approx(0.3, abs=0.02)}  # of 4 pairs


def test_one_task_of_a_study_and_none_that_it_lacks(db: Database) -> None:
    with db:
        assert [table.task for table in stored_tables(db, "odd name", task="short")] == ["short"]
        with pytest.raises(MirasError, match="no results for 'long'"):
            stored_tables(db, "odd name", task="long")


def test_a_study_without_jobs_has_no_table(tmp_path: Path) -> None:
    with Database.open(tmp_path / "miras.db", create=True) as db:
        Writer(db).put_study(
            name="new",
            question="",
            kind="ablation",
            metric="accuracy",
            config_yaml="",
            config={},
            config_hash="a",
            space_hash="b",
        )
        with pytest.raises(MirasError, match="no jobs yet"):
            stored_tables(db, "new")


def test_a_commit_is_the_codes_and_else_the_folders() -> None:
    both = {"package": {"commit": "1" * 40, "dirty": None}, "folder": {"commit": "2" * 40, "dirty": None}}
    assert commit_of(both) == "1" * 7
    assert commit_of({"package": None, "folder": {"commit": "2" * 40, "dirty": "x"}}) == "2" * 7 + "+"
    assert commit_of({}) is None
