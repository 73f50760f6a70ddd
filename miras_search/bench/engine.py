"""What the engine adds to the trainings: jobs a second, the time to ask for a trial, the time that workers idle.

The jobs train nothing. Those of the second study take five seconds in which they use no core: whatever its processes
(driver, Ray) use then is overhead, and a busy machine does not spoil the figure.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TypeVar

from miras_search.bench import figures, filled
from miras_search.bench.cpu import tree_seconds
from miras_search.bench.figures import Figure
from miras_search.engine.driver import RunOptions, run_study
from miras_search.engine.events import Event, JobFinished, JobStarted, StudyStarted
from miras_search.engine.search import SearchRun
from miras_search.space.fields import Plain
from miras_search.store import queries
from miras_search.store.database import Database
from miras_search.store.types import Final, JobRow
from miras_search.store.writer import Writer
from miras_search.study.loader import loads

TEXT = """\
name: enqueued
task: {name: mqar, length: 32}
model: {layers: 1, d_model: 16, heads: 1}
train: {steps: 10, batch: 8, eval_examples: 16, eval_every: 1}
base: delta_net
"""
T = TypeVar("T")
SEEDS = 4
WORKERS = 2


def run(
    *, jobs: int = 400, trials: int = 5_000, asks: int = 20, paced: int = 24, executor: str = "ray"
) -> dict[str, Plain]:
    """Measure on databases of their own, in a temporary folder.

    `jobs` enqueued jobs that take no time, and `paced` ones of five seconds, on two workers; `asks` trials of a search
    of the full space that has `trials` already. Raises RuntimeError where a row is missing at the end.
    """
    about = {**figures.machine(), "jobs": jobs, "trials": trials, "paced": paced}
    with tempfile.TemporaryDirectory(prefix="miras-search-bench-") as folder:
        measured = [
            *_enqueued(Path(folder, "enqueued.db"), jobs, executor),
            *_asked(Path(folder, "asked.db"), trials, asks),
            *_paced(Path(folder, "paced.db"), paced, executor),
        ]
    setting = f"{jobs} jobs of no time and {paced} of 5 s on {executor} with {WORKERS} workers, {trials:,} trials"
    return figures.result("engine", {**about, "setting": setting}, measured)


@dataclass(slots=True)
class _Watch:
    """Notes when a run's jobs start and end."""

    begun: float = field(default_factory=time.perf_counter)
    up: float = 0.0
    """When the executor was there."""
    starts: list[float] = field(default_factory=list)
    ends: list[float] = field(default_factory=list)
    seconds: float = 0.0
    """What the jobs took, by themselves."""
    used: list[float] = field(default_factory=list)
    """CPU seconds of the run's processes when the first job started and when the last ended."""
    driver: list[float] = field(default_factory=list)

    def __call__(self, event: Event) -> None:
        now = time.perf_counter()
        match event:
            case StudyStarted(executor=name) if name != "none":
                self.up = now
            case JobStarted():
                self.starts.append(now)
                if len(self.starts) == 1:
                    self._note()
            case JobFinished(wall_seconds=seconds):
                self.ends.append(now)
                self.seconds += seconds or 0.0
                if len(self.ends) == WORKERS:
                    self.driver.append(time.process_time())

    def close(self) -> None:
        """Call it when the last job has ended, while Ray still runs."""
        self._note()
        self.driver.append(time.process_time())

    def _note(self) -> None:
        self.used.append(tree_seconds())


def _run(path: Path, entry: str, overrides: list[str], executor: str) -> tuple[_Watch, float]:
    """Run the study; the watch, and the seconds of the whole run. Raises RuntimeError where a row is missing."""
    made = loads(TEXT, "enqueued.yaml", overrides)
    watch = _Watch()

    def told(event: Event) -> None:
        watch(event)
        if len(watch.ends) == made.jobs and len(watch.used) == 1:
            watch.close()

    options = RunOptions(executor=executor, workers=WORKERS, entry=f"miras_search.bench.trivial:{entry}")
    with Database.open(path, create=True) as db:
        summary = run_study(made, db, options, told)
        whole = time.perf_counter() - watch.begun
        study_id = queries.study(db, made.name).id
        good = [row for row in queries.results(db, study_id) if row.state == "complete" and len(row.values) == 10]
        stored = len(queries.curves(db, study_id, "accuracy", "validation"))
    if len(good) < made.jobs or stored < made.jobs * made.train.steps:
        raise RuntimeError(f"{len(good)} of {made.jobs} jobs are stored with {stored} points: {summary}")
    return watch, whole


def _enqueued(path: Path, jobs: int, executor: str) -> list[Figure]:
    rates = [1.003e-4 * place for place in range(1, max(2, jobs // SEEDS))]  # the base has one of its own
    levels = ", ".join(f"{rate:.6g}" for rate in rates)
    watch, whole = _run(path, "instant", [f"vary.train.lr=[{levels}]", f"seeds={SEEDS}"], executor)
    counted = len(watch.ends) - WORKERS  # without those that wait for a worker's start
    wall = watch.ends[-1] - watch.ends[WORKERS - 1]
    cpu = watch.driver[-1] - watch.driver[0]
    note = f"{len(watch.ends)} jobs with 20 points and 10 finals; driver {1e3 * cpu / counted:.1f} ms of CPU each"
    around = whole - (watch.ends[-1] - watch.starts[0])
    return [
        Figure(f"enqueued jobs through {executor}", counted / wall, "/s", ">=", 40.0, note),
        Figure("before the first job and after the last", around, "s", note=f"{executor} starts and stops"),
    ]


def _asked(path: Path, trials: int, asks: int) -> list[Figure]:
    """The time from wanting a job to having it, with its rows and Optuna's; and of telling its result."""
    with Database.open(path, create=True) as db:
        study_id = filled.fill(db, filled.study(trials), trials)
        writer = Writer(db)
        run_ = writer.begin_run(study_id, provenance={})
        begun = time.perf_counter()
        with closing(SearchRun(writer, study_id, filled.study(trials + asks))) as search:
            search.resume(queries.jobs(db, study_id), ask=True)
            resumed = time.perf_counter() - begun
            wall, cpu, told = [], [], []
            for place in range(asks):
                (job,), seconds, used = _timed(search.more)
                wall.append(seconds)
                cpu.append(used)
                _end(writer, run_.id, job, place / asks)
                told.append(_timed(partial(search.ended, job, "complete"))[1])
    note = f"median of {asks}, sampled by tpe, stored; fastest {1e3 * min(wall):.0f}, CPU {1e3 * _median(cpu):.0f}"
    return [
        Figure(f"ask at {trials:,} trials", 1e3 * _median(wall), "ms", "<", 150.0, note),
        Figure("tell", 1e3 * _median(told), "ms"),
        Figure("taking the search up", resumed, "s"),
    ]


def _timed(work: Callable[[], T]) -> tuple[T, float, float]:
    begun, used = time.perf_counter(), time.process_time()
    found = work()
    return found, time.perf_counter() - begun, time.process_time() - used


def _median(values: list[float]) -> float:
    return sorted(values)[len(values) // 2]


def _end(writer: Writer, run_id: int, job: JobRow, value: float) -> None:
    attempt = writer.start_attempt(job.id, run_id, host="here", pid=1, device="cpu")
    writer.finish_attempt(
        attempt,
        state="complete",
        finals=[Final("accuracy", "validation", value)],
        last_step=1,
        wall_seconds=1.0,
        peak_memory_bytes=None,
        final_for_job=True,
    )


def _paced(path: Path, jobs: int, executor: str) -> list[Figure]:
    """What is lost of two workers' time: where they wait for a job, and where a core works for the engine instead."""
    watch, whole = _run(path, "paced", ["vary.train.lr=[1e-3, 2e-3]", f"seeds={max(1, jobs // 2)}"], executor)
    wall = watch.ends[-1] - watch.starts[0]
    idle = 1 - watch.seconds / (WORKERS * wall)
    used = (watch.used[-1] - watch.used[0]) / (WORKERS * wall)
    note = f"{len(watch.ends)} jobs: idle {idle:.1%}, cores of driver, workers and Ray {used:.1%}"
    long = 1 - watch.seconds / (WORKERS * whole) + used
    return [
        Figure("wall time lost between jobs of 5 s", 100 * (idle + used), "%", "<", 5.0, note),
        Figure("with start and end of so short a study", 100 * long, "%", note=f"{whole:.0f} s in all"),
    ]


table = figures.table
