"""A study that declares top-ups, while it runs: after each look the undecided cells get the seeds up to the next one.

The looks are taken by what the table is made of, so what is trained is what the table waits for. The jobs of a top-up
are stored when they are known; an interrupted run goes on with them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from miras_search.analysis.looks import Looked, Looks, waits_text
from miras_search.analysis.stored import looked
from miras_search.engine.events import Event, ToppedUp
from miras_search.engine.record import Record
from miras_search.store import queries
from miras_search.store.tuned import Scheme, tuned
from miras_search.store.types import FINAL_STATES, JobRow, NewJob
from miras_search.store.writer import Writer
from miras_search.study.study import Study


class ToppedUpJobs:
    """Gives the job loop what `first` gives, then, whenever a look is over, the jobs up to the next one."""

    def __init__(
        self,
        writer: Writer,
        study_id: int,
        study: Study,
        record: Record,
        first: Callable[[], Sequence[JobRow]],
        on_event: Callable[[Event], None],
    ) -> None:
        self._db, self._writer, self._study_id, self._study = writer.db, writer, study_id, study
        self._record, self._first, self._on_event = record, first, on_event

    def more(self) -> list[JobRow]:
        """The next jobs; none while trainings that a look waits for go on, or at the end."""
        rows = list(self._first())
        if rows:
            return rows
        stored = queries.jobs(self._db, self._study_id)
        if any(row.state not in FINAL_STATES for row in stored):
            return []
        known, wanted = {row.id for row in stored}, self._wanted()
        self._writer.put_jobs(self._study_id, wanted)
        rows = [row for row in queries.jobs(self._db, self._study_id) if row.id not in known]
        if rows:
            self._record.extend(rows)
            trained = {(job.trial_number, job.task) for job in wanted}
            undecided = len(trained) - len({task for _, task in trained})  # the base is not one of them
            seeds = len({job.seed for job in wanted})
            self._on_event(ToppedUp(self._study.name, undecided, seeds, len(rows)))
        return rows

    def due(self) -> bool:
        """Whether a look is over whose undecided cells have not got their seeds yet."""
        stored = {(row.trial_number, row.task, row.seed) for row in queries.jobs(self._db, self._study_id)}
        return any((job.trial_number, job.task, job.seed) not in stored for job in self._wanted())

    def held(self) -> str | None:
        """What keeps a look from being taken that no run will mend by itself; None where nothing does."""
        looks = Looks.of(queries.study(self._db, self._study.name))
        assert looks is not None, "as for `_wanted`"
        held = {task: waits_text(looks, found) for task, found in self._looked().items() if found.failed}
        if not held:
            return None
        several = len(self._study.tasks) > 1
        waits = "; ".join(f"{task}: {text}" if several else text for task, text in held.items())
        return f"{waits}: it decides nothing and adds no seeds before they are trained"

    def _looked(self) -> dict[str, Looked]:
        return looked(self._db, self._study.name)

    def _wanted(self) -> list[NewJob]:
        """Seeds outermost, as in any study: a top-up that stops early has complete pairs."""
        top_up = self._study.top_up
        assert top_up is not None, "only a study with top-ups has such jobs"
        trials = self._trials()
        jobs = []
        for task, found in self._looked().items():
            if found.wanting:
                cells = [0, *found.wanting]
                seeds = top_up.seeds[top_up.looks[found.taken - 1] : top_up.looks[found.taken]]
                jobs += [NewJob(trials[cell, task], task, seed) for seed in seeds for cell in cells]
        return sorted(jobs, key=lambda job: top_up.seeds.index(job.seed))

    def _trials(self) -> dict[tuple[int, str], int]:
        """(cell, task) -> the trial that reports it: the cell's own, or where it is tuned the chosen one."""
        study = self._study
        scheme = Scheme.of(study.config, study.metric)
        if scheme is None:
            return {(cell.number, task.name): cell.number for cell in study.cells for task in study.tasks}
        found = tuned(queries.results(self._db, self._study_id), scheme)
        return {key: one.chosen for key, one in found.items() if one.chosen is not None}
