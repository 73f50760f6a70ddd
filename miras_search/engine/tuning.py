"""A tuned study while it runs: its tuning first, then the reported seeds of each cell with the setting that it chose.

The reported jobs begin once all of the tuning has ended, seeds outermost as in any study: one that stops early has
complete pairs. A choice is stored by the jobs that follow it, so an interrupted run goes on with it.
"""

from __future__ import annotations

from collections.abc import Sequence

from miras_search.engine.record import Record
from miras_search.store import queries
from miras_search.store.database import Database
from miras_search.store.tuned import Scheme, Tuned, tuned
from miras_search.store.types import JobRow, NewJob
from miras_search.store.writer import Writer
from miras_search.study.study import Study


class TunedJobs:
    """Gives the job loop what waits, then, when the tuning is through, the jobs of what it chose."""

    def __init__(
        self, db: Database, writer: Writer, study_id: int, study: Study, record: Record, waiting: Sequence[JobRow]
    ) -> None:
        scheme = Scheme.of(study.config, study.metric)
        assert scheme is not None, "only a tuned study has such jobs"
        self._db, self._writer, self._study_id, self._study = db, writer, study_id, study
        self._scheme, self._record = scheme, record
        self._waiting, self._reported = list(waiting), False

    def more(self) -> list[JobRow]:
        """The next jobs; none while trainings of the tuning run, or at the end."""
        if self._waiting:
            rows, self._waiting = self._waiting, []
            return rows
        return [] if self._reported else self._report()

    def held(self) -> str | None:
        """What keeps a choice from being made that no run will mend by itself; None where nothing does."""
        failed = sum(one.failed for one in self._found().values() if one.chosen is None)
        if not failed:
            return None
        count = f"{failed} training{'' if failed == 1 else 's'} of the tuning failed"
        return f"{count}: nothing is chosen, and no reported seed is trained, before they are (tune.failed: wait)"

    def _found(self) -> dict[tuple[int, str], Tuned]:
        return tuned(queries.results(self._db, self._study_id), self._scheme)

    def _report(self) -> list[JobRow]:
        """Store the jobs of the reported seeds that are missing, where every cell has its setting."""
        study = self._study
        chosen = {key: one.chosen for key, one in self._found().items()}
        if None in chosen.values():
            return []
        self._reported = True
        known = {row.id for row in queries.jobs(self._db, self._study_id)}
        keys = [(chosen[cell.number, task.name], task.name) for cell in study.cells for task in study.tasks]
        jobs = [NewJob(number, task, seed) for seed in study.seeds for number, task in keys if number is not None]
        self._writer.put_jobs(self._study_id, jobs)
        rows = [row for row in queries.jobs(self._db, self._study_id) if row.id not in known]
        self._record.extend(rows)
        return rows
