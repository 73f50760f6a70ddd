"""One database: opening it, its revision, its sessions, a copy of it.

The driver opens it to write; everything else opens it read-only. What can go wrong outside the program (no file, an old
or unknown revision, a server that is away) becomes one `EnvironmentProblem` line with the cure, password-free.
"""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self

from sqlalchemy import URL, Connection, Engine, create_engine, inspect, text
from sqlalchemy.exc import DatabaseError, InterfaceError, NoSuchModuleError
from sqlalchemy.orm import Session

from miras_search.errors import EnvironmentProblem
from miras_search.store.address import parse_database, read_only_url, safe_url, sqlite_path
from miras_search.store.migrations import HEAD, LOCK_KEY, REVISIONS, VERSION_TABLE
from miras_search.store.sqlite import BEGIN_OPTION, apply_pragmas, explicit_transactions

__all__ = ["Database", "apply_pragmas", "parse_database", "safe_url"]


class Database:
    """An open database. Use `Database.open`; a context manager that closes it."""

    def __init__(self, url: URL, engine: Engine, *, read_only: bool) -> None:
        self.url = url
        self.engine = engine
        self.read_only = read_only
        self._writer: Engine | None = None

    @classmethod
    def open(
        cls, where: str | Path | URL, *, create: bool = False, read_only: bool = False, check: bool = True
    ) -> Database:
        """Open a path or URL.

        Args:
            where: `miras.db`, `sqlite:///...`, `postgresql://...`.
            create: make a missing file and missing tables.
            read_only: refuse every write, in the database itself.
            check: refuse tables of another revision. Off for the commands that mend or report that.

        Raises:
            MirasError: `where` is not an address.
            EnvironmentProblem: missing, unreachable, not ours, or of another revision.
        """
        url = parse_database(where)
        path = sqlite_path(url)
        if path is not None:
            _check_file(path, create=create and not read_only)
        db = cls(url, _make_engine(url, read_only=read_only), read_only=read_only)
        try:
            if create and not read_only and db.revision() == "":
                db.upgrade()
            elif check:
                db._check_revision()
        except BaseException:
            db.close()
            raise
        return db

    @property
    def name(self) -> str:
        """The address as it may be printed."""
        return safe_url(self.url)

    @contextmanager
    def session(self) -> Iterator[Session]:
        """A session for reading: one consistent view, rolled back at the end."""
        engine = self.engine
        if engine.dialect.name == "postgresql":  # SQLite's transactions are snapshots anyway
            engine = engine.execution_options(isolation_level="REPEATABLE READ")
        with self._problems(), Session(engine) as session:
            yield session

    @contextmanager
    def writing(self) -> Iterator[Session]:
        """A session that commits at the end. It holds the database's only write lock from its start on.

        Raises EnvironmentProblem on a read-only database; an exception within rolls everything back.
        """
        with self._problems(), Session(self._locking()) as session, session.begin():
            _lock(session.connection())
            yield session

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """As `writing`, without a session, which takes longer to make than a few rows to write."""
        with self._problems(), self._locking().begin() as connection:
            _lock(connection)
            yield connection

    def _locking(self) -> Engine:
        """An engine whose transactions take the write lock when they begin. Raises EnvironmentProblem."""
        if self.read_only:
            raise EnvironmentProblem(f"{self.name}: opened to read only")
        if self._writer is None:
            self._writer = self.engine.execution_options(**{BEGIN_OPTION: "BEGIN IMMEDIATE"})
        return self._writer

    def revision(self) -> str:
        """The revision of the tables; "" where there are none."""
        with self._problems(), self.engine.connect() as connection:
            if not inspect(connection).has_table(VERSION_TABLE):
                return ""
            return str(connection.execute(text(f"SELECT version_num FROM {VERSION_TABLE}")).scalar() or "")

    def upgrade(self) -> str:
        """Create or migrate the tables; returns the new revision. Changes nothing when they are current.

        Raises EnvironmentProblem for a revision that this version does not know, and for another program's file.
        """
        if self.read_only:
            raise EnvironmentProblem(f"{self.name}: opened to read only")
        current = self.revision()
        if current and current not in REVISIONS:
            self._check_revision()
        from miras_search.store.migrate import upgrade  # Alembic costs 0.1 s, which `status` need not pay

        with self._problems():
            if not current and self._is_anothers():
                raise EnvironmentProblem(f"{self.name}: holds tables of another program: name another with --db")
            upgrade(self.engine)
        return self.revision()

    def _is_anothers(self) -> bool:
        """Whether this is a file with others' tables; with Optuna's, or on a server, both have their place."""
        tables = inspect(self.engine).get_table_names() if sqlite_path(self.url) is not None else ()
        return bool(tables) and "version_info" not in tables

    def backup(self, target: Path) -> Path:
        """Write a consistent copy of a SQLite database while others use it; returns the absolute target.

        Raises EnvironmentProblem where the target exists, its folder does not, or the database is a server.
        """
        target = target.expanduser().absolute()
        if sqlite_path(self.url) is None:
            raise EnvironmentProblem(f"{self.name}: a server is copied with its own tool: pg_dump {self.url.database}")
        if target.exists():
            raise EnvironmentProblem(f"{target}: exists already: name another file for the copy")
        if not target.parent.is_dir():
            raise EnvironmentProblem(f"{target}: the folder does not exist: create {target.parent}")
        partial_copy = target.with_name(f"{target.name}.{os.getpid()}.part")
        try:
            with self._problems(), self.engine.connect() as connection:
                source = connection.connection.driver_connection
                assert isinstance(source, sqlite3.Connection)
                copy = sqlite3.connect(partial_copy)
                try:
                    source.backup(copy)
                    copy.execute("PRAGMA journal_mode=DELETE")  # one file, that can be moved and read anywhere
                finally:
                    copy.close()
            partial_copy.rename(target)
        except (sqlite3.Error, OSError) as error:
            reason = " ".join(str(error).split())
            whose = self.name if "malformed" in reason else target
            raise EnvironmentProblem(f"{whose}: {reason}{_cure(reason)}") from error
        finally:
            with contextlib.suppress(OSError):
                partial_copy.unlink(missing_ok=True)
        return target

    def close(self) -> None:
        """Close every connection. What a writer wrote is in the one file then, also while readers keep its WAL open."""
        if not self.read_only and self.engine.dialect.name == "sqlite":
            with contextlib.suppress(DatabaseError), self.engine.connect() as connection:
                connection.exec_driver_sql("PRAGMA wal_checkpoint(PASSIVE)")
        self.engine.dispose()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _check_revision(self) -> None:
        revision = self.revision()
        if revision == "":
            raise EnvironmentProblem(f"{self.name}: holds no studies: create them with `miras-search run STUDY.yaml`")
        if revision not in REVISIONS:
            raise EnvironmentProblem(
                f"{self.name}: written by a newer miras-search (revision {revision}, this one knows {HEAD}): "
                "upgrade miras-search, or name another database with --db"
            )
        if revision != HEAD:
            raise EnvironmentProblem(
                f"{self.name}: written by an older miras-search (revision {revision}, now {HEAD}): "
                "run `miras-search db backup`, then `miras-search db upgrade`"
            )

    @contextmanager
    def _problems(self) -> Iterator[None]:
        """Turn what the database itself reports (locked, full, away, no database) into one line."""
        try:
            yield
        except (DatabaseError, InterfaceError) as error:
            if _is_ours(error):
                raise
            reason = " ".join(str(error.orig).split())
            raise EnvironmentProblem(f"{self.name}: {reason}{_cure(reason, self.read_only)}") from error


def _check_file(path: Path, *, create: bool) -> None:
    if path.is_dir():
        raise EnvironmentProblem(f"{path}: is a folder: give the path of a file, such as {path / 'miras.db'}")
    if not path.exists():
        if not create:
            raise EnvironmentProblem(f"{path}: no such database: create it with `miras-search run STUDY.yaml`")
        if not path.parent.is_dir():
            raise EnvironmentProblem(f"{path}: the folder {path.parent} does not exist: create it, or change --db")


def _make_engine(url: URL, *, read_only: bool) -> Engine:
    serializer = partial(json.dumps, allow_nan=False, ensure_ascii=False)  # NaN is no JSON, and PostgreSQL refuses it
    try:
        engine = create_engine(
            read_only_url(url) if read_only else url,
            pool_pre_ping=sqlite_path(url) is None,
            json_serializer=serializer,
            json_deserializer=partial(_from_json, url),
        )
    except NoSuchModuleError:
        raise EnvironmentProblem(
            f"{safe_url(url)}: no database called {url.drivername!r}: use sqlite or postgresql"
        ) from None
    except ModuleNotFoundError as error:
        if url.get_backend_name() not in ("sqlite", "postgresql"):
            raise EnvironmentProblem(
                f"{safe_url(url)}: no database that miras-search knows: use sqlite or postgresql"
            ) from None
        raise EnvironmentProblem(
            f"{safe_url(url)}: the driver {error.name!r} is not installed: pip install 'miras-search[postgres]'"
        ) from None
    if engine.dialect.name == "sqlite":
        apply_pragmas(engine, read_only=read_only)
        explicit_transactions(engine)
    elif read_only and engine.dialect.name == "postgresql":
        engine = engine.execution_options(postgresql_readonly=True)
    return engine


def _from_json(url: URL, content: str) -> object:
    try:
        return json.loads(content)
    except ValueError as error:
        reason = f"a stored value is malformed: {error}"
        raise EnvironmentProblem(f"{safe_url(url)}: {reason}{_cure(reason)}") from error


def _lock(connection: Connection) -> None:
    """What a transaction reads before it writes must hold on PostgreSQL too."""
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": LOCK_KEY})


def _is_ours(error: DatabaseError | InterfaceError) -> bool:
    """Broken constraints and wrong statements are bugs of this package, not of its surroundings."""
    return type(error).__name__ in {"IntegrityError", "DataError", "ProgrammingError"}


def _cure(reason: str, read_only: bool = False) -> str:
    if "locked" in reason:
        return ": another program holds it; close it, or use PostgreSQL"
    if "not a database" in reason:
        return ": give the path of a miras-search database with --db"
    if read_only and "unable to open" in reason:
        return ": you may not read it, or not its log where nobody may write: copy the file and its -wal elsewhere"
    if "unable to open" in reason or "readonly database" in reason:
        return ": you may not write there; name another place with --db"
    if "is full" in reason or "No space" in reason:
        return ": make room, or name another place"
    if "malformed" in reason:
        return ": it is damaged: go on with a copy that `miras-search db backup` made, or name another with --db"
    if "refused" in reason or "does not exist" in reason:
        return ": start the server or create the database, then try again"
    return ""
