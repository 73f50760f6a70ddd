"""How the store holds up: rows a second, and what `status`, `plan` and the driver take when a study is long.

The verbs and the driver run in processes of their own, as a user starts them, so imports count. Each verb runs a few
times and the fastest counts: what else the machine does only ever adds.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from miras_search.bench import child, figures, filled
from miras_search.bench.figures import Figure
from miras_search.engine.checkpoints import Checkpoints
from miras_search.engine.loop import Hooks, JobLoop
from miras_search.engine.messages import Finished, Message, Points, Started, Task
from miras_search.engine.search import SearchRun
from miras_search.engine.task import versions
from miras_search.space.fields import Plain
from miras_search.store import queries
from miras_search.store.database import Database
from miras_search.store.writer import Writer
from miras_search.training.job import Outcome

BATCH = 100  # rows that a worker's message brings
WORKERS = 8
REPEATS = 3
MEGABYTE = 1024**2


def run(*, trials: int = 10_000, steps: int = 100, rows: int = 100_000, executor: str = "ray") -> dict[str, Plain]:
    """Measure on a database of its own, in a temporary folder.

    `rows` curve points are written as the driver writes them; then a search with so many `trials`, each with a curve
    of `steps` points, is looked at, and taken up by a driver on `executor` for a few more jobs. Raises RuntimeError
    where a verb fails.
    """
    about = {**figures.machine(), "trials": trials, "steps": steps, "points": rows}
    with tempfile.TemporaryDirectory(prefix="miras-search-bench-") as folder:
        measured = [_written(Path(folder, "rows.db"), rows)]
        path = Path(folder, "filled.db")
        begun = time.perf_counter()
        with Database.open(path, create=True) as db:
            filled.fill(db, filled.study(trials), trials, steps=steps)
        setting = f"{trials:,} trials x {steps} points, {filled.size(path) / MEGABYTE:.0f} MB"
        setting += f", filled in {time.perf_counter() - begun:.0f} s"
        Path(folder, "filled.yaml").write_text(filled.TEXT)
        for verb, what in (("status", "filled"), ("plan", str(Path(folder, "filled.yaml")))):
            measured.append(_looked(verb, [verb, what, "--db", str(path)]))
        cost = child.driver(path, trials + 4, executor)
        note = f"{executor}, 4 more trials and the confirmation in {cost.wall_seconds:.1f} s"
        measured.append(Figure("driver, peak memory", cost.peak_bytes / MEGABYTE, "MB", "<", 500.0, note))
    return figures.result("store", {**about, "setting": setting}, measured)


@dataclass(slots=True)
class _Workers:
    """An executor without processes, whose jobs all report at once: so many messages wait for a busy driver."""

    rows: int
    name: str = "none"
    slots: int = WORKERS
    left: dict[int, Iterator[Message]] = field(default_factory=dict)
    asked: list[tuple[float, float]] = field(default_factory=list)
    """Wall and CPU time of each look for messages; the jobs' starts come with the first, points from the second on."""

    def submit(self, ticket: int, task: Task, *, whole_device: bool = False) -> None:
        self.left[ticket] = self._messages(ticket)

    def poll(self, timeout: float) -> list[Message]:
        self.asked.append((time.perf_counter(), time.process_time()))
        found = [next(messages, None) for messages in self.left.values()]
        return [message for message in found if message is not None]

    def stop(self) -> None:
        """Nothing runs."""

    def kill(self, ticket: int) -> None:
        del self.left[ticket]

    def close(self) -> None:
        self.left.clear()

    def _messages(self, ticket: int) -> Iterator[Message]:
        yield Started(ticket, "here", 1, "cpu", versions())
        for first in range((ticket - 1) * BATCH, self.rows, WORKERS * BATCH):
            steps = range(first, min(first + BATCH, self.rows))
            yield Points(ticket, tuple((step, "accuracy", "validation", step / self.rows) for step in steps))
        yield Finished(ticket, Outcome("complete", (), self.rows, 1.0, 0), None)


def _written(path: Path, rows: int) -> Figure:
    """Points as the driver writes them: what has come since it last looked is one transaction."""
    made = filled.study(WORKERS)
    with Database.open(path, create=True) as db:
        study_id = filled.fill(db, made, WORKERS)
        writer = Writer(db)
        writer.reset_jobs(study_id, [job.id for job in queries.jobs(db, study_id)])
        run = writer.begin_run(study_id, provenance={})
        with tempfile.TemporaryDirectory() as folder:
            checkpoints = Checkpoints(db, writer, Path(folder))
            hooks = Hooks(_nothing, _nothing, _nothing, _nothing)
            search = SearchRun(writer, study_id, made)
            search.resume((), ask=False)
            workers = _Workers(rows)
            loop = JobLoop(search.study, writer, run.id, workers, checkpoints, hooks, entry="", metric=("", ""))
            loop.run(queries.jobs(db, study_id))
            search.close()
        writer.end_run(run.id, "done")
    wall, cpu = (end - begin for begin, end in zip(workers.asked[1], workers.asked[-1], strict=True))
    note = f"in messages of {BATCH} from {WORKERS} workers; {rows / cpu:,.0f} a second of CPU time"
    return Figure("metric rows written", rows / wall, "/s", ">=", 100_000.0, note)


def _nothing(*_: object) -> None:
    """Hooks cost what they do; here they do nothing."""


def _looked(verb: str, words: list[str]) -> Figure:
    costs = [child.verb(words) for _ in range(REPEATS)]
    note = f"fastest of {REPEATS}; {min(cost.cpu_seconds for cost in costs):.2f} s of CPU time"
    return Figure(verb, min(cost.wall_seconds for cost in costs), "s", "<", 2.0, note)


table = figures.table
