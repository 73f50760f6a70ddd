"""Trained parameters on the driver's disk: they come from the workers as bytes and get a row with their hash.

Beside them, while a job is under way, its newest snapshot: it has no row, and goes with the job's end.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
from pathlib import Path

from miras_search import files
from miras_search.errors import EnvironmentProblem
from miras_search.store.address import sqlite_path
from miras_search.store.database import Database
from miras_search.store.writer import Writer

log = logging.getLogger(__name__)


class Checkpoints:
    """Writes below `folder`; by default `checkpoints/` beside a SQLite database, or here for a server.

    Rows name files in the default place relative to the folder of the database, so that both can be moved together.
    """

    def __init__(self, db: Database, writer: Writer, folder: Path | None) -> None:
        self._writer = writer
        self._folder = _beside(db) / "checkpoints" if folder is None else folder.expanduser().absolute()
        self._uri = Path("checkpoints") if folder is None else self._folder
        if self._folder.exists() and not self._folder.is_dir():  # told before a training, not after it
            raise EnvironmentProblem(f"{self._folder}: is a file where checkpoints are to go: move it away")

    def save(self, attempt_id: int, name: str, data: bytes, step: int) -> None:
        """Write a file and its row. Raises EnvironmentProblem when the disk does not take it."""
        try:
            self._write(name, data)
        except OSError as error:
            raise EnvironmentProblem(
                f"{self._folder / name}: the checkpoint cannot be written ({error.strerror}); its result is stored: "
                "make room, or name another folder"
            ) from error
        digest = hashlib.sha256(data).hexdigest()
        uri = (self._uri / name).as_posix()
        self._writer.add_artifact(attempt_id, kind="checkpoint", uri=uri, sha256=digest, bytes=len(data), step=step)

    def keep(self, name: str, data: bytes) -> None:
        """Write a snapshot over the one before. Where the disk does not take it, that is logged: only time is lost."""
        try:
            self._write(name, data)
        except OSError as error:
            log.warning("%s: a snapshot cannot be written (%s)", self._folder / name, error.strerror)

    def kept(self, name: str) -> bytes | None:
        """The snapshot of that name, or None."""
        try:
            return (self._folder / name).read_bytes()
        except OSError:
            return None

    def drop(self, name: str) -> None:
        """Remove the snapshot of that name, if there is one; what cannot be removed is never read for another job."""
        with contextlib.suppress(OSError):
            (self._folder / name).unlink()

    def _write(self, name: str, data: bytes) -> None:
        """A reader sees the file of before or the new one. Raises OSError."""
        path = self._folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        files.replace(path, data)


def located(db: Database, uri: str) -> Path:
    """The file that a row names."""
    return _beside(db) / uri


def _beside(db: Database) -> Path:
    """The folder of a SQLite database; where we are for a server."""
    path = sqlite_path(db.url)
    return path.parent if path is not None else Path.cwd()
