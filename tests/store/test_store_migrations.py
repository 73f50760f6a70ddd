from __future__ import annotations

from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import inspect, text
from sqlalchemy.exc import SQLAlchemyError

from miras_search.store.database import Database
from miras_search.store.migrate import alembic_config, upgrade
from miras_search.store.migrations import REVISIONS, VERSION_TABLE
from miras_search.store.tables import Base
from miras_search.store.types import NewJob
from miras_search.store.writer import Writer

NEXT = """
import sqlalchemy as sa
from alembic import op

revision = "test"
down_revision = "{head}"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("ms_study") as batch:
        batch.alter_column("question", existing_type=sa.Text(), nullable=True)
        batch.add_column(sa.Column("colour", sa.Text()))
    {then}
"""


def test_the_list_of_revisions_is_the_folder() -> None:
    scripts = ScriptDirectory.from_config(alembic_config())
    assert tuple(script.revision for script in reversed(list(scripts.walk_revisions()))) == REVISIONS


def test_migrated_tables_are_the_declared_ones(db: Database) -> None:
    with db.engine.connect() as connection:
        options = {"version_table": VERSION_TABLE, "compare_type": True}
        context = MigrationContext.configure(connection, opts=options)
        assert compare_metadata(context, Base.metadata) == []
        found = inspect(connection)
        declared = {table.name: table for table in Base.metadata.sorted_tables}
        assert set(found.get_table_names()) == set(declared) | {VERSION_TABLE}
        for name, table in declared.items():  # what compare_metadata leaves out
            assert found.get_pk_constraint(name)["constrained_columns"] == [c.name for c in table.primary_key]
            assert found.get_pk_constraint(name)["name"] == f"pk_{name}"
            keys = {key["name"]: key["options"].get("ondelete") for key in found.get_foreign_keys(name)}
            assert keys == {key.name: key.ondelete for key in table.foreign_key_constraints}


def test_curves_are_stored_without_row_ids(tmp_path: Path) -> None:
    with Database.open(str(tmp_path / "miras.db"), create=True) as db, db.session() as session:
        wanted = "SELECT name FROM sqlite_master WHERE sql LIKE '%WITHOUT ROWID%' ORDER BY name"
        assert session.scalars(text(wanted)).all() == ["ms_final_metric", "ms_metric_point"]


def test_upgrade_twice_changes_nothing(db: Database) -> None:
    assert db.upgrade() == db.upgrade() == REVISIONS[-1]


def test_altering_a_parent_keeps_its_children(db: Database, writer: Writer, study_id: int, tmp_path: Path) -> None:
    # SQLite alters a table by copy and drop, and a drop cascades unless foreign keys are off
    (tmp_path / "next.py").write_text(NEXT.format(head=REVISIONS[-1], then="pass"))
    upgrade(db.engine, alembic_config(tmp_path))
    with db.session() as session:
        assert session.scalar(text("SELECT count(*) FROM ms_job")) == 6
        assert session.scalar(text("SELECT colour FROM ms_study")) is None
    assert db.revision() == "test"
    writer.put_jobs(study_id, [NewJob(0, "recall", 9)])
    with pytest.raises(SQLAlchemyError), db.engine.begin() as connection:  # and they are on again afterwards
        connection.execute(text("UPDATE ms_job SET trial_id = 999"))


def test_a_failing_migration_leaves_the_database_as_it_was(db: Database, study_id: int, tmp_path: Path) -> None:
    (tmp_path / "next.py").write_text(NEXT.format(head=REVISIONS[-1], then="raise RuntimeError('half-way')"))
    with pytest.raises(RuntimeError, match="half-way"):
        upgrade(db.engine, alembic_config(tmp_path))
    assert db.revision() == REVISIONS[-1]
    with db.engine.connect() as connection:
        assert "colour" not in {column["name"] for column in inspect(connection).get_columns("ms_study")}
        assert connection.scalar(text("SELECT count(*) FROM ms_job")) == 6


def test_deleting_a_study_deletes_everything_below(db: Database, writer: Writer, study_id: int) -> None:
    run = writer.begin_run(study_id, provenance={})
    writer.start_attempt(1, run.id, host="h", pid=1, device="cpu")
    with db.writing() as session:
        session.execute(text("DELETE FROM ms_study"))
        for table in ("ms_run", "ms_trial", "ms_job", "ms_attempt"):
            assert session.scalar(text(f"SELECT count(*) FROM {table}")) == 0
