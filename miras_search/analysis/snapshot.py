"""Everything the pages show of one study, read once: plain rows that a cache can keep until the study changes."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

from miras_search.analysis.commits import commits
from miras_search.seeds import confirms
from miras_search.store import queries
from miras_search.store.database import Database
from miras_search.store.tuned import Scheme
from miras_search.store.types import (
    FINAL_STATES,
    AttemptRow,
    JobRow,
    ResultRow,
    RunningRow,
    RunRow,
    StudyRow,
    TrialRow,
)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One study at one moment."""

    study: StudyRow
    trials: list[TrialRow]
    jobs: list[JobRow]
    results: list[ResultRow]
    attempts: list[AttemptRow]
    running: list[RunningRow]
    runs: list[RunRow]
    took: list[tuple[str, str, float]]  # cell, task and seconds of each training that is complete

    @property
    def tasks(self) -> list[str]:
        """The tasks in the study's order."""
        return list(dict.fromkeys(row.task for row in self.results))

    @property
    def cells(self) -> dict[str, int]:
        """A table's rows by name, and the trial of each: of a tuned cell, which has several, the first."""
        scheme = Scheme.of(self.study.config, self.study.metric)
        if scheme is None:
            return {trial.cell: trial.number for trial in self.trials}
        cells = cast(Sequence[Mapping[str, object]], self.study.config["cells"])
        return {str(cell["name"]): number * scheme.size for number, cell in enumerate(cells)}

    @property
    def tried(self) -> list[ResultRow]:
        """What trials are listed by: of a search without the fresh seeds, which only its best were trained on."""
        return [row for row in self.results if self.study.kind != "search" or not confirms(row.seed)]

    @property
    def total(self) -> int:
        """Jobs that the study plans."""
        return sum(self.study.jobs.values())

    @property
    def finished(self) -> int:
        """Jobs to which nothing more happens by itself."""
        return sum(self.study.jobs.get(state, 0) for state in FINAL_STATES)

    @property
    def is_held(self) -> bool:
        """Whether a tuned study ended before its reported seeds: a choice waits for trainings that failed."""
        scheme = Scheme.of(self.study.config, self.study.metric)
        through = 0 < self.finished == self.total
        return scheme is not None and through and all(job.seed in scheme.seeds for job in self.jobs)

    @property
    def commit(self) -> str | None:
        """The code's commit, as the table's caption names it; of all runs while nothing has ended yet."""
        ended = [row for row in self.attempts if row.state in ("complete", "diverged")]
        return commits(ended or self.attempts, self.runs)


def load(db: Database, name: str, *, whole: bool = True, metrics: Collection[str] | None = None) -> Snapshot:
    """Read the study; unless `whole` only the trials of which a job runs and no attempts, with `metrics` only those
    final numbers.

    Raises StudyNotFound.
    """
    study = queries.study(db, name)
    jobs, running = queries.jobs(db, study.id), queries.running(db, study.id)
    at_work = {job.trial_number for job in jobs if job.state == "running"}
    return Snapshot(
        study=study,
        trials=queries.trials(db, study.id, None if whole else at_work),
        jobs=jobs,
        results=queries.results(db, study.id, metrics=metrics),
        attempts=queries.attempts(db, study.id) if whole else [],
        running=running,
        runs=queries.runs(db, study.id),
        took=queries.wall_seconds(db, study.id),
    )


def steps_of(trial: TrialRow) -> int | None:
    """The training steps that the trial's settings plan; None where they do not say."""
    train = trial.settings.get("train")
    steps = train.get("steps") if isinstance(train, Mapping) else None
    return steps if isinstance(steps, int) and steps > 0 else None
