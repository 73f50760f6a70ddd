"""How the store holds up: rows a second, and what `status`, `plan` and the driver take when a study is long.

The verbs and the driver run in processes of their own, as a user starts them, so imports count. Each verb runs a few
times and the fastest counts: what else the machine does only ever adds.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

from miras_search.bench import child, figures, filled
from miras_search.bench.figures import Figure
from miras_search.space.fields import Plain
from miras_search.store import queries
from miras_search.store.database import Database
from miras_search.store.types import Point
from miras_search.store.writer import Writer

BATCH = 100  # rows that a worker's message brings
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


def _written(path: Path, rows: int) -> Figure:
    """Points written in batches, a transaction each, to the attempts of one run."""
    made = filled.study(8)
    with Database.open(path, create=True) as db:
        study_id = filled.fill(db, made, 8)
        writer = Writer(db)
        writer.reset_jobs(study_id, [job.id for job in queries.jobs(db, study_id)])
        run = writer.begin_run(study_id, provenance={})
        jobs = queries.jobs(db, study_id)
        attempts = [writer.start_attempt(job.id, run.id, host="here", pid=1, device="cpu") for job in jobs]
        batches = [
            [Point(step, "accuracy", "validation", step / rows) for step in range(first, min(first + BATCH, rows))]
            for first in range(0, rows, BATCH)
        ]
        begun, cpu = time.perf_counter(), time.process_time()
        for place, batch in enumerate(batches):
            writer.add_points(attempts[place % len(attempts)], batch)
        wall, cpu = time.perf_counter() - begun, time.process_time() - cpu
        writer.end_run(run.id, "done")
    note = f"in {len(batches):,} batches of {BATCH}; {rows / cpu:,.0f} a second of CPU time"
    return Figure("metric rows written", rows / wall, "/s", ">=", 100_000.0, note)


def _looked(verb: str, words: list[str]) -> Figure:
    costs = [child.verb(words) for _ in range(REPEATS)]
    note = f"fastest of {REPEATS}; {min(cost.cpu_seconds for cost in costs):.2f} s of CPU time"
    return Figure(verb, min(cost.wall_seconds for cost in costs), "s", "<", 2.0, note)


table = figures.table
