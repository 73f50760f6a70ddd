"""Keeps Optuna's record of the study in step with the rows while jobs end; see `optuna_` for what that record is."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence, Set

from optuna.exceptions import StorageInternalError
from sqlalchemy.exc import SQLAlchemyError

from miras_search.engine.optuna_ import OptunaRecord, Verdict, verdict
from miras_search.errors import EnvironmentProblem
from miras_search.metrics import METRICS
from miras_search.store import queries
from miras_search.store.database import Database
from miras_search.store.types import JobRow, JobState
from miras_search.study.study import Study

Key = tuple[str, int]  # task, seed


class Record:
    """The states and values of the study file's jobs by trial, told to Optuna once a trial is through."""

    def __init__(self, db: Database, study_id: int, study: Study, wanted: Set[tuple[int, str, int]]) -> None:
        metric = (study.metric, METRICS[study.metric].split)
        self._jobs: dict[int, dict[Key, tuple[JobState, float | None]]] = {cell.number: {} for cell in study.trials}
        for row in queries.results(db, study_id):
            if (row.number, row.task, row.seed) in wanted:
                self._jobs[row.number][row.task, row.seed] = (row.state, row.values.get(metric))
        self._where = db.name
        with self._problems():
            self._optuna = OptunaRecord(db.url, study.name, study.metric, study.trials)

    def reconcile(self) -> None:
        """Tell Optuna what a crash kept from being told."""
        with self._problems():
            self._optuna.reconcile({number: self._verdict(number) for number in self._jobs})

    def extend(self, jobs: Sequence[JobRow]) -> None:
        """Trials have got more jobs, which are stored: Optuna's finished ones among them are written anew."""
        for job in jobs:
            self._jobs[job.trial_number][job.task, job.seed] = (job.state, None)
        self.reconcile()

    def begin(self, number: int) -> None:
        """A job of this trial starts."""
        with self._problems():
            self._optuna.begin(number)

    def end(self, job: JobRow, state: JobState, value: float | None) -> None:
        """A job has ended; its rows are committed."""
        self._jobs[job.trial_number][job.task, job.seed] = (state, value)
        with self._problems():
            self._optuna.tell(job.trial_number, self._verdict(job.trial_number))

    def _verdict(self, number: int) -> Verdict:
        states, values = zip(*self._jobs[number].values(), strict=True)
        return verdict(states, values)

    @contextlib.contextmanager
    def _problems(self) -> Iterator[None]:
        """Turn what the database reports through Optuna into one line; the rows are committed by then."""
        try:
            yield
        except (StorageInternalError, SQLAlchemyError) as error:
            reason = " ".join(str(error.__cause__ or error).split())[:300]
            cure = "make room, then run the same again" if "is full" in reason else "run the same again"
            raise EnvironmentProblem(f"{self._where}: Optuna's record of the study: {reason}: {cure}") from error

    def close(self) -> None:
        """Close Optuna's connections."""
        self._optuna.close()
