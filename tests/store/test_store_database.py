from __future__ import annotations

import os
import sqlite3
from pathlib import Path

import pytest
from sqlalchemy import create_engine, select, text
from sqlalchemy.exc import IntegrityError

from miras_search.errors import EnvironmentProblem
from miras_search.store import queries, sqlite
from miras_search.store.address import parse_database, read_only_url
from miras_search.store.database import Database, apply_pragmas
from miras_search.store.migrations import HEAD
from miras_search.store.tables import MetricName


def pragma(db: Database, name: str) -> object:
    with db.engine.connect() as connection:
        return connection.exec_driver_sql(f"PRAGMA {name}").scalar()


def add_metric(db: Database, name: str) -> None:
    with db.writing() as session:
        session.add(MetricName(name=name))


def metric_names(db: Database) -> list[str]:
    with db.session() as session:
        return list(session.scalars(select(MetricName.name)))


def test_a_created_database_opens_again(where: str) -> None:
    with Database.open(where, create=True) as db:
        assert db.revision() == HEAD
        add_metric(db, "kept")
    with Database.open(where, create=True) as db:
        assert metric_names(db) == ["kept"]
    with Database.open(where) as db:
        assert metric_names(db) == ["kept"]


def test_an_error_in_a_writing_session_rolls_back(db: Database) -> None:
    with pytest.raises(RuntimeError), db.writing() as session:
        session.add(MetricName(name="gone"))
        session.flush()
        raise RuntimeError
    assert metric_names(db) == []


def test_a_database_can_be_read_where_nobody_may_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a disk that is mounted to read only: SQLite's log asks even readers to write beside the file."""
    where = tmp_path / "miras.db"
    with Database.open(where, create=True) as db:
        add_metric(db, "kept")
    plain = read_only_url(parse_database(where))
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert "immutable" not in plain.query and read_only_url(parse_database(where)).query["immutable"] == "1"
    before = sorted(path.name for path in tmp_path.iterdir())
    with Database.open(where, read_only=True) as db:
        assert metric_names(db) == ["kept"]
    assert sorted(path.name for path in tmp_path.iterdir()) == before
    (tmp_path / "miras.db-wal").write_bytes(b"what a writer has not brought into the file yet")
    assert "immutable" not in read_only_url(parse_database(where)).query


def test_a_backup_tells_in_a_line_what_is_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    where = tmp_path / "miras.db"
    with Database.open(where, create=True) as db:
        add_metric(db, "kept")
    data = bytearray(where.read_bytes())
    data[8192:] = b"\xff" * (len(data) - 8192)
    where.write_bytes(data)
    with (
        Database.open(where, check=False) as db,
        pytest.raises(EnvironmentProblem, match=r"miras\.db: .*malformed: it is damaged: go on with a copy"),
    ):
        db.backup(tmp_path / "copy.db")
    assert sorted(path.name for path in tmp_path.iterdir() if path.name.startswith("copy")) == []


def test_a_read_only_database_refuses_to_write(where: str) -> None:
    Database.open(where, create=True).close()
    with Database.open(where, read_only=True) as db:
        assert metric_names(db) == []
        with pytest.raises(EnvironmentProblem, match="read only"), db.writing():
            pass
        with pytest.raises(EnvironmentProblem, match="read only"):
            db.upgrade()
        # and not only by this program's own care
        with pytest.raises(EnvironmentProblem, match=r"read.?only"), db.session() as session:
            session.add(MetricName(name="x"))
            session.flush()


def test_a_constraint_is_a_bug_and_not_the_surroundings(db: Database) -> None:
    add_metric(db, "twice")
    with pytest.raises(IntegrityError):
        add_metric(db, "twice")


def test_a_session_sees_one_state_while_another_writes(db: Database, where: str) -> None:
    with Database.open(where, read_only=True) as reader, reader.session() as session:
        assert session.scalars(select(MetricName.name)).all() == []
        add_metric(db, "later")
        assert session.scalars(select(MetricName.name)).all() == []
    assert metric_names(db) == ["later"]


@pytest.mark.parametrize("read_only", [False, True])
def test_a_missing_file_names_the_path_and_the_command(tmp_path: Path, read_only: bool) -> None:
    path = tmp_path / "no.db"
    with pytest.raises(EnvironmentProblem, match="miras-search run") as caught:
        Database.open(str(path), read_only=read_only)
    assert str(path) in str(caught.value)
    assert caught.value.exit_code == 3
    assert not path.exists()


def test_a_read_only_open_never_creates(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentProblem, match="no such database"):
        Database.open(str(tmp_path / "no.db"), create=True, read_only=True)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_and_a_missing_folder_are_named(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentProblem, match="is a folder"):
        Database.open(str(tmp_path), create=True)
    with pytest.raises(EnvironmentProblem, match="does not exist"):
        Database.open(str(tmp_path / "no" / "miras.db"), create=True)


def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("not a database, but long enough to have a header\n" * 20)
    with pytest.raises(EnvironmentProblem, match="not a database"):
        Database.open(str(path))


def test_a_database_without_our_tables(tmp_path: Path) -> None:
    path = tmp_path / "other.db"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE studies (study_id INTEGER)")
    connection.close()
    with pytest.raises(EnvironmentProblem, match="holds no studies"):
        Database.open(str(path), read_only=True)
    with pytest.raises(EnvironmentProblem, match="holds tables of another program: name another with --db"):
        Database.open(str(path), create=True)
    with sqlite3.connect(path) as connection:
        assert connection.execute("SELECT name FROM sqlite_master").fetchall() == [("studies",)]
    connection.close()


def test_a_file_of_optunas_gets_our_tables_too(tmp_path: Path) -> None:
    path = tmp_path / "optuna.db"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE version_info (version_info_id INTEGER)")
    connection.close()
    with Database.open(str(path), create=True) as db:
        assert db.revision() == HEAD


def test_a_damaged_value_is_one_line(db: Database, study_id: int) -> None:
    if db.engine.dialect.name == "postgresql":
        pytest.skip("a server lets no such value in")
    with db.transaction() as connection:
        connection.execute(text("UPDATE ms_study SET config = '{bad'"))
    with pytest.raises(EnvironmentProblem, match=r"a stored value is malformed: .* go on with a copy"):
        queries.studies(db)


def test_a_server_that_is_away_is_one_line_without_the_password() -> None:
    with pytest.raises(EnvironmentProblem, match="refused") as caught:
        Database.open("postgresql://ann:s3cret@127.0.0.1:1/miras", read_only=True)
    assert "s3cret" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_unknown_kind_of_database() -> None:
    with pytest.raises(EnvironmentProblem, match="use sqlite or postgresql"):
        Database.open("mongo://host/name")


@pytest.mark.parametrize(("revision", "says"), [("9999", "written by a newer miras-search"), ("", "holds no studies")])
def test_another_revision_is_refused(where: str, revision: str, says: str) -> None:
    with Database.open(where, create=True) as db, db.writing() as session:
        session.execute(text("DELETE FROM ms_alembic_version"))
        if revision:
            session.execute(text("INSERT INTO ms_alembic_version VALUES (:to)"), {"to": revision})
    for read_only in (False, True):
        with pytest.raises(EnvironmentProblem, match=says):
            Database.open(where, read_only=read_only)
    with Database.open(where, check=False) as db:  # what `doctor` does
        assert db.revision() == revision
        if revision:
            with pytest.raises(EnvironmentProblem, match=says):
                db.upgrade()


def test_an_older_revision_asks_for_an_upgrade(where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    Database.open(where, create=True).close()
    monkeypatch.setattr("miras_search.store.database.HEAD", "9999")
    with pytest.raises(EnvironmentProblem, match="miras-search db upgrade"):
        Database.open(where, create=True)


def test_a_backup_is_whole_and_free_standing(tmp_path: Path) -> None:
    with Database.open(str(tmp_path / "miras.db"), create=True) as db:
        add_metric(db, "in the log")  # the write-ahead log has not been folded in: a plain copy would miss this
        with Database.open(str(tmp_path / "miras.db"), read_only=True) as reader:
            copy = reader.backup(tmp_path / "copy.db")
        add_metric(db, "later")
    assert sorted(path.name for path in tmp_path.glob("copy*")) == ["copy.db"]
    with Database.open(str(copy), read_only=True) as db:
        assert metric_names(db) == ["in the log"]


def test_a_backup_overwrites_nothing(tmp_path: Path) -> None:
    taken = tmp_path / "copy.db"
    taken.write_text("mine")
    with Database.open(str(tmp_path / "miras.db"), create=True) as db:
        with pytest.raises(EnvironmentProblem, match="exists already"):
            db.backup(taken)
        with pytest.raises(EnvironmentProblem, match="folder does not exist"):
            db.backup(tmp_path / "no" / "copy.db")
    assert taken.read_text() == "mine"


@pytest.mark.postgres
def test_a_server_is_backed_up_by_its_own_tool(postgres_url: str, tmp_path: Path) -> None:
    with (
        Database.open(postgres_url, create=True) as db,
        pytest.raises(EnvironmentProblem, match="pg_dump"),
    ):
        db.backup(tmp_path / "copy.db")


def test_sqlite_pragmas(tmp_path: Path) -> None:
    with Database.open(str(tmp_path / "a b?#%.db"), create=True) as db:
        assert pragma(db, "journal_mode") == "wal"
        assert pragma(db, "synchronous") == 1
        assert pragma(db, "foreign_keys") == 1
        assert pragma(db, "busy_timeout") == 30_000
    with Database.open(str(tmp_path / "a b?#%.db"), read_only=True) as db:  # odd names survive the URI
        assert pragma(db, "query_only") == 1


def test_pragmas_reach_connections_that_were_open_before(tmp_path: Path) -> None:
    engine = create_engine(f"sqlite:///{tmp_path}/optuna.db")
    with engine.connect() as connection:  # leaves a connection in the pool, as Optuna's storage does
        assert connection.exec_driver_sql("PRAGMA foreign_keys").scalar() == 0
    apply_pragmas(engine)
    with engine.connect() as connection:
        assert connection.exec_driver_sql("PRAGMA foreign_keys").scalar() == 1
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
    engine.dispose()


def test_a_closed_writer_leaves_all_in_the_one_file(tmp_path: Path) -> None:
    path = tmp_path / "miras.db"
    with Database.open(path, create=True), Database.open(path, read_only=True) as reader:
        reader.revision()
        with Database.open(path) as writer, writer.writing() as session:
            session.execute(text("CREATE TABLE later (x INTEGER)"))
        assert path.with_name("miras.db-wal").exists()  # the reader keeps it
        copy = tmp_path / "copy.db"
        copy.write_bytes(path.read_bytes())
        with sqlite3.connect(copy) as alone:
            found = alone.execute("SELECT count(*) FROM sqlite_master WHERE name = 'later'").fetchone()
        alone.close()
    assert found == (1,)


def test_a_database_of_a_kind_that_is_not_ours() -> None:
    with pytest.raises(EnvironmentProblem, match="use sqlite or postgresql"):
        Database.open("mysql://host/name")


def test_a_locked_database_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite, "BUSY_TIMEOUT_MS", 1)
    with Database.open(str(tmp_path / "miras.db"), create=True) as db:
        other = sqlite3.connect(tmp_path / "miras.db", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        try:
            with pytest.raises(EnvironmentProblem, match="another program holds it"):
                add_metric(db, "x")
        finally:
            other.close()


MOUNTS = """\
/dev/sda1 / ext4 rw 0 0
server:/home /home nfs4 rw 0 0
/dev/sdb1 /home/ann/my\\040disk xfs rw 0 0
sshfs /mnt/far fuse.beegfs rw 0 0
broken
"""


@pytest.mark.parametrize(
    ("path", "kind", "mode"),
    [
        ("/var/miras.db", "ext4", "WAL"),
        ("/home/ann/miras.db", "nfs4", "DELETE"),
        ("/home/ann/my disk/miras.db", "xfs", "WAL"),
        ("/mnt/far/miras.db", "fuse.beegfs", "DELETE"),
        ("/homestead/miras.db", "ext4", "WAL"),
    ],
)
def test_no_wal_on_a_network_file_system(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, path: str, kind: str, mode: str
) -> None:
    mounts = tmp_path / "mounts"
    mounts.write_text(MOUNTS)
    assert sqlite.filesystem(Path(path), mounts) == kind
    assert sqlite.journal_mode(Path(path), mounts) == mode
    assert ("network file system" in caplog.text) == (mode == "DELETE")


def test_without_a_list_of_mounts_wal_is_used(tmp_path: Path) -> None:
    assert sqlite.filesystem(tmp_path, tmp_path / "no") is None
    assert sqlite.journal_mode(tmp_path, tmp_path / "no") == "WAL"
