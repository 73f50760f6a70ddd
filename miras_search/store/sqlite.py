"""How a SQLite connection is set up: pragmas, transactions, and the file systems on which WAL must not be used."""

from __future__ import annotations

import logging
import sqlite3
from pathlib import Path

from sqlalchemy import Connection, Engine, event
from sqlalchemy.pool import ConnectionPoolEntry

log = logging.getLogger(__name__)

BUSY_TIMEOUT_MS = 30_000
CHECKPOINT_PAGES = 8_000  # 32 MB of log; by default 4 MB, and a driver waits for the disk ten times as often
BEGIN_OPTION = "miras_begin"  # execution option: the statement that opens a transaction
NETWORK_FILESYSTEMS = frozenset(
    {"nfs", "nfs4", "cifs", "smb", "smb2", "smb3", "smbfs", "lustre", "gpfs", "beegfs", "9p"}
)


def filesystem(path: Path, mounts: Path = Path("/proc/mounts")) -> str | None:
    """The type of the file system that holds `path` (`ext4`, `nfs4`); None where `mounts` does not exist."""
    try:
        lines = mounts.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return None
    resolved = path.resolve()
    best: tuple[int, str] | None = None
    for line in lines:
        fields = line.split(" ")
        if len(fields) < 3:
            continue
        point = Path(fields[1].replace("\\040", " "))
        depth = len(point.parts)
        if resolved.is_relative_to(point) and (best is None or depth >= best[0]):  # a later mount hides an earlier one
            best = depth, fields[2]
    return None if best is None else best[1]


def journal_mode(path: Path, mounts: Path = Path("/proc/mounts")) -> str:
    """WAL, or DELETE on a network file system, where WAL's shared memory would corrupt the file."""
    kind = filesystem(path, mounts)
    if kind is None or kind.removeprefix("fuse.") not in NETWORK_FILESYSTEMS:
        return "WAL"
    log.warning(
        "%s lies on a network file system (%s): SQLite runs without WAL there, so readers and the driver wait for each "
        "other; a local disk or PostgreSQL is better",
        path,
        kind,
    )
    return "DELETE"


def apply_pragmas(engine: Engine, *, read_only: bool = False) -> None:
    """Set WAL, synchronous=NORMAL, a busy timeout and foreign keys on every connection of a file-based SQLite engine.

    Does nothing for other databases. Connections that the engine has already opened are dropped, so that this also
    works on an engine made elsewhere (Optuna's storage).
    """
    if engine.dialect.name != "sqlite":
        return
    database = engine.url.database or ""
    mode = None if read_only or database.startswith("file:") else journal_mode(Path(database))

    def on_connect(connection: sqlite3.Connection, _: ConnectionPoolEntry) -> None:
        connection.execute(f"PRAGMA busy_timeout={BUSY_TIMEOUT_MS}")
        connection.execute("PRAGMA foreign_keys=ON")
        if mode is None:
            connection.execute("PRAGMA query_only=ON")
        else:
            connection.execute(f"PRAGMA journal_mode={mode}")
            # when the power fails, WAL with NORMAL may lose the last commits but never corrupts; those jobs run again
            connection.execute("PRAGMA synchronous=NORMAL")
            connection.execute(f"PRAGMA wal_autocheckpoint={CHECKPOINT_PAGES}")

    event.listen(engine, "connect", on_connect)
    engine.dispose()


def explicit_transactions(engine: Engine) -> None:
    """Let SQLAlchemy, not the sqlite3 module, open transactions.

    The module opens one only before the first write, so a read that precedes it would not be protected: a lease needs
    BEGIN IMMEDIATE before the read. Transactional DDL needs it too.
    """

    def on_connect(connection: sqlite3.Connection, _: ConnectionPoolEntry) -> None:
        connection.isolation_level = None

    def on_begin(connection: Connection) -> None:
        connection.exec_driver_sql(str(connection.get_execution_options().get(BEGIN_OPTION, "BEGIN")))

    event.listen(engine, "connect", on_connect)
    event.listen(engine, "begin", on_begin)
