"""Taking a study out of a database: its rows, Optuna's record of it, and the files that its trainings left.

The rows go last, so that what is cut off amid its way is finished by the same command.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import optuna
from sqlalchemy import delete, inspect

from miras_search.engine.checkpoints import Checkpoints, located
from miras_search.engine.jobs import snapshot_name
from miras_search.engine.optuna_ import PREFIX, close_storage, open_storage
from miras_search.errors import MirasError
from miras_search.store import queries, tables
from miras_search.store.database import Database
from miras_search.store.trained import CHECKPOINT, trained_by
from miras_search.store.types import StudyRow
from miras_search.store.writer import Writer


@dataclass(frozen=True, slots=True)
class Removal:
    """What goes with a study."""

    study: str
    jobs: int
    checkpoints: int
    bytes: int


def removal(db: Database, name: str) -> Removal:
    """What would go. Raises StudyNotFound, and MirasError where an evaluation of it is there, which it explains."""
    study = _alone(db, name)
    return _counted(study, list(_files(db, study)))


def remove_study(db: Database, name: str) -> Removal:
    """Remove the study. Raises what `removal` raises, StudyBusy while a run of it is alive, and EnvironmentProblem."""
    study, writer = _alone(db, name), Writer(db)
    writer.begin_run(study.id, provenance={})  # so that no driver begins one meanwhile; it goes with the rows
    files = list(_files(db, study))
    found = _counted(study, files)
    _forget(db, study.name)
    kept = Checkpoints(db, writer, None)
    for job in queries.jobs(db, study.id):
        kept.drop(snapshot_name(study.name, job))
    for path in files:
        path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # others' files are in it
            path.parent.rmdir()
    with db.writing() as session:
        session.execute(delete(tables.Study).where(tables.Study.id == study.id))
    return found


def _alone(db: Database, name: str) -> StudyRow:
    study = queries.study(db, name)
    if others := [row.name for row in queries.studies(db) if trained_by(row) == name]:
        raise MirasError(f"{name}: its models are evaluated in {', '.join(others)}: remove {others[0]} first")
    return study


def _counted(study: StudyRow, files: Sequence[Path]) -> Removal:
    return Removal(study.name, sum(study.jobs.values()), len(files), sum(path.stat().st_size for path in files))


def _files(db: Database, study: StudyRow) -> Iterator[Path]:
    """The checkpoints that are as they were saved: beside them may lie those of another database's study."""
    saved: dict[Path, set[str]] = {}
    for row in queries.artifacts(db, study.id):
        if row.kind == CHECKPOINT:
            saved.setdefault(located(db, row.uri), set()).add(row.sha256)
    for path, hashes in saved.items():
        with contextlib.suppress(OSError):
            if hashlib.sha256(path.read_bytes()).hexdigest() in hashes:
                yield path


def _forget(db: Database, name: str) -> None:
    """Remove Optuna's record, where there is one."""
    if not inspect(db.engine).has_table("studies"):
        return
    storage = open_storage(db.url)
    try:
        with contextlib.suppress(KeyError):  # Optuna's word for a study that is not there
            optuna.delete_study(study_name=PREFIX + name, storage=storage)
    finally:
        close_storage(storage)
