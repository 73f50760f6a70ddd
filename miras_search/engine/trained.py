"""The checkpoints that an evaluation looks at, and how its jobs follow their trainings.

A job of an evaluation is done when it has looked at the newest checkpoint of its training: one that was trained again
is evaluated again. A training that diverged left nothing, and so its evaluation is diverged too: leaving it out would
compare the survivors. One that is not through, or failed, lets its evaluations wait.
"""

from __future__ import annotations

import hashlib
import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

from miras_search.engine.checkpoints import located
from miras_search.engine.jobs import possible_jobs
from miras_search.errors import MirasError
from miras_search.store import queries
from miras_search.store.database import Database
from miras_search.store.trained import CHECKPOINT, EVALUATED, FileOfJob, files_of_jobs
from miras_search.store.types import FINAL_STATES, JobRow, NewJob, StudyNotFound
from miras_search.store.writer import Writer
from miras_search.study.drafts import Cell
from miras_search.study.study import Study

Key = tuple[int, str, int]  # of an evaluation's job: cell, task, seed


@dataclass(frozen=True, slots=True)
class _Training:
    """A training of a cell, with the checkpoint that it left if it is complete."""

    cell: Cell
    row: FileOfJob

    @property
    def complete(self) -> bool:
        return self.row.state == "complete"

    @property
    def digest(self) -> str | None:
        return self.row.sha256 if self.complete else None


class Trained:
    """The trainings behind an evaluation's jobs."""

    def __init__(self, db: Database, study: Study) -> None:
        """Read the rows, and every checkpoint that is to be evaluated now.

        Raises MirasError for one that is not there or is not what was stored.
        """
        assert study.evaluated is not None
        self._db, self._study, self._source = db, study, study.evaluated
        numbers = {trial: cell for cell, trial in enumerate(self._source.trials)}
        self._trainings = {
            (numbers[row.number], row.seed): _Training(study.cells[numbers[row.number]], row)
            for row in files_of_jobs(db, queries.study(db, self._source.study).id, CHECKPOINT)
            if row.task == self._source.task and row.number in numbers
        }
        self._jobs = self.known(possible_jobs(study))
        try:
            seen = self._seen(queries.study(db, study.name).id)
        except StudyNotFound:
            seen = {}
        wanted = dict.fromkeys((job.trial_number, job.seed) for job in self._jobs)
        for one in map(self._trainings.__getitem__, wanted):
            keys = [(one.cell.number, task.name, one.row.seed) for task in study.tasks]
            if one.complete and any(one.digest is None or seen.get(key) != one.digest for key in keys):
                self._read(one)

    @property
    def jobs(self) -> set[Key]:
        """All that there is to evaluate: not every cell need be trained with every seed."""
        return {(job.trial_number, job.task, job.seed) for job in self._jobs}

    def known(self, jobs: Sequence[NewJob]) -> list[NewJob]:
        """Those of the jobs that have a training."""
        return [job for job in jobs if (job.trial_number, job.seed) in self._trainings]

    def outdated(self, study_id: int, jobs: Sequence[JobRow]) -> list[int]:
        """The ids of ended jobs whose training has another checkpoint than they looked at, or none any more."""
        seen = self._seen(study_id)
        return [
            job.id
            for job in jobs
            if job.state in FINAL_STATES and seen.get((job.trial_number, job.task, job.seed)) != self._of(job).digest
        ]

    def settle(self, writer: Writer, run_id: int, jobs: Sequence[JobRow]) -> None:
        """Record the waiting jobs whose training diverged."""
        for job in jobs:
            if job.state == "waiting" and self._of(job).row.state == "diverged":
                attempt = writer.start_attempt(job.id, run_id, host=socket.gethostname(), pid=os.getpid(), device="")
                writer.finish_attempt(
                    attempt,
                    state="diverged",
                    finals=(),
                    last_step=None,
                    wall_seconds=None,
                    peak_memory_bytes=None,
                    error_type="Diverged",
                    error_text="its training diverged, so there is nothing to evaluate",
                    final_for_job=True,
                )

    def ready(self, job: JobRow) -> bool:
        """Whether its training is complete."""
        return self._of(job).complete

    def checkpoint(self, job: JobRow) -> bytes:
        """What the job evaluates. Raises MirasError where it is gone by now."""
        return self._read(self._of(job))

    def note(self, writer: Writer, job: JobRow, attempt_id: int) -> None:
        """Write down what an attempt of the job looks at."""
        row = self._of(job).row
        writer.add_artifact(
            attempt_id,
            kind=EVALUATED,
            uri=cast(str, row.uri),
            sha256=cast(str, row.sha256),
            bytes=cast(int, row.bytes),
            step=row.step,
        )

    def _of(self, job: JobRow) -> _Training:
        return self._trainings[job.trial_number, job.seed]

    def _seen(self, study_id: int) -> dict[Key, str | None]:
        rows = files_of_jobs(self._db, study_id, EVALUATED)
        return {(row.number, row.task, row.seed): row.sha256 for row in rows}

    def _read(self, one: _Training) -> bytes:
        return read_file(self._db, self._source.study, one.cell.name, one.row)


def read_file(db: Database, study: str, cell: str, row: FileOfJob) -> bytes:
    """The checkpoint of a training. Raises MirasError where there is none, or not the one that was saved."""
    again = f"`miras-search show {study} {row.number}` has the command that trains it again and saves it"
    about = f"{study}: {cell}, {row.task}, seed {row.seed}"
    if row.uri is None:
        raise MirasError(f"{about}: its training saved no checkpoint: {again}")
    path = located(db, row.uri)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise MirasError(f"{about}: {path}: its checkpoint cannot be read ({error.strerror}): {again}") from error
    if hashlib.sha256(data).hexdigest() != row.sha256:
        raise MirasError(f"{about}: {path}: its checkpoint is not what was saved: {again}")
    return data
