"""The job loop without workers: what has come since it last looked is one transaction, and hooks see it committed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from miras_search.engine.checkpoints import Checkpoints
from miras_search.engine.events import Event, JobFinished, JobStarted
from miras_search.engine.jobs import new_jobs, new_trials, put_study
from miras_search.engine.loop import Hooks, JobLoop
from miras_search.engine.messages import Finished, Message, Points, Row, Started, Task
from miras_search.engine.task import versions
from miras_search.store import queries
from miras_search.store.database import Database
from miras_search.store.types import JobRow, LeaseLost
from miras_search.store.writer import Writer
from miras_search.study.study import Study
from miras_search.training.job import Final, Outcome


@dataclass
class Script:
    """An executor that gives whole jobs at a time; the loop's `before` sees each look for messages."""

    slots: int = 3
    name: str = "script"
    before: Callable[[], None] = lambda: None
    tickets: list[int] = field(default_factory=list)
    killed: list[int] = field(default_factory=list)

    def submit(self, ticket: int, task: Task, *, whole_device: bool = False) -> None:
        self.tickets.append(ticket)

    def poll(self, timeout: float) -> list[Message]:
        self.before()
        found: list[Message] = []
        for ticket in self.tickets:
            points = [Points(ticket, ((step, "loss", "train", 1.0 / step),)) for step in (10, 20)]
            end = Outcome("complete", (Final("accuracy", "test", 0.5),), 20, 1.0, 0)
            found += [Started(ticket, "here", 1, "cpu", versions()), *points, Finished(ticket, end, None)]
        self.tickets.clear()
        return found

    def stop(self) -> None:
        """Nothing runs."""

    def kill(self, ticket: int) -> None:
        self.killed.append(ticket)

    def close(self) -> None:
        """Nothing runs."""


class Books:
    """A stored study, and a loop for it."""

    def __init__(self, study: Study, db: Database, folder: Path) -> None:
        self.study, self.db, self.folder = study, db, folder
        self.writer = Writer(db)
        self.id = put_study(study, self.writer)
        self.writer.put_trials(self.id, new_trials(study))
        self.writer.put_jobs(self.id, new_jobs(study))
        self.run = self.writer.begin_run(self.id, provenance={})
        self.events: list[tuple[type[Event], list[str]]] = []
        self.ended: list[tuple[int, str]] = []

    def states(self) -> list[str]:
        return [job.state for job in queries.jobs(self.db, self.id)]

    def loop(
        self,
        executor: Script,
        points: Callable[[JobRow, Sequence[Row]], bool] | None = None,
        more: Callable[[], Sequence[JobRow]] = tuple,
    ) -> JobLoop:
        hooks = Hooks(
            event=lambda event: self.events.append((type(event), self.states())),
            begun=lambda number: None,
            ended=lambda job, state, value: self.ended.append((job.id, state)),
            check=lambda: None,
            points=points,
            more=more,
        )
        checkpoints = Checkpoints(self.db, self.writer, self.folder)
        metric = ("accuracy", "test")
        return JobLoop(self.study, self.writer, self.run.id, executor, checkpoints, hooks, entry="", metric=metric)


@pytest.fixture
def books(tiny, tmp_path: Path):
    with Database.open(tmp_path / "t.db", create=True) as db:
        yield Books(tiny(), db, tmp_path / "files")


def test_hooks_see_what_has_been_committed(books: Books) -> None:
    books.loop(Script()).run(queries.jobs(books.db, books.id))
    kinds = [kind for kind, _ in books.events]
    assert kinds.count(JobStarted) == kinds.count(JobFinished) == 6
    assert books.events[0] == (JobStarted, ["complete"] * 3 + ["waiting"] * 3), "all that had come is in already"
    assert [state for _, state in books.ended] == ["complete"] * 6
    assert len(queries.curves(books.db, books.id, "loss", "train")) == 12


def test_further_jobs_are_asked_for_when_something_has_ended(books: Books) -> None:
    """What leads on is read from the database: while nothing ends there is nothing new in it."""
    jobs, polls, asked = queries.jobs(books.db, books.id), iter(range(100)), []
    executor = Script(slots=10)
    given, executor.tickets = [], []

    def hold() -> None:  # four looks find nothing, then all that runs ends
        given.extend(executor.tickets)
        executor.tickets[:] = given if next(polls) % 5 == 4 else []
        given[:] = [] if executor.tickets else given

    def more() -> list[JobRow]:
        asked.append(len(books.ended))
        return jobs[3:] if len(asked) == 2 else []

    executor.before = hold
    books.loop(executor, more=more).run(jobs[:3])
    assert [state for _, state in books.ended] == ["complete"] * 6
    assert asked == [0, 3, 3, 6]


def test_a_pruner_decides_between_two_messages(books: Books) -> None:
    executor = Script()

    def prune(job: JobRow, rows: Sequence[Row]) -> bool:
        return job.trial_number == 1 and rows[0][0] == 10

    books.loop(executor, prune).run(queries.jobs(books.db, books.id))
    assert sorted(books.states()) == ["complete"] * 4 + ["pruned"] * 2
    assert len(executor.killed) == 2
    assert len(queries.curves(books.db, books.id, "loss", "train")) == 4 * 2 + 2, "what came after that is left out"


def test_a_run_that_is_taken_over_writes_nothing_of_what_has_come(books: Books) -> None:
    def take_over() -> None:
        books.writer.begin_run(books.id, provenance={}, takeover=True)

    loop = books.loop(Script(before=take_over))
    with pytest.raises(LeaseLost):
        loop.run(queries.jobs(books.db, books.id))
    loop.abandon()  # finds no attempt that it would have to close
    assert books.states() == ["waiting"] * 6
    assert queries.attempts(books.db, books.id) == []
    assert books.events == []
