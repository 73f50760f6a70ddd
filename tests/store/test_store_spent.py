"""What a study has spent: time of workers, a pack's once, a lost driver's up to its last sign of life."""

from __future__ import annotations

from miras_search.store import queries
from miras_search.store.spent import worker_seconds


def test_workers_time_counts_once_a_process_and_device(db, writer, clock, study_id: int) -> None:
    run = writer.begin_run(study_id, provenance={})
    jobs = queries.jobs(db, study_id)

    def start(index: int, pid: int, device: str) -> int:
        return writer.start_attempt(jobs[index].id, run.id, host="ada", pid=pid, device=device)

    def end(attempt: int, state: str = "failed") -> None:
        writer.finish_attempt(
            attempt, state=state, finals=(), last_step=None, wall_seconds=None, peak_memory_bytes=None,
            final_for_job=True,
        )  # fmt: skip

    pack = [start(0, 1, "cuda, pack of 2"), start(1, 1, "cuda, pack of 2")]
    alone, on_cpu = start(2, 2, "cuda"), start(3, 3, "cpu")
    clock.move(100)
    for attempt in (*pack, on_cpu):
        end(attempt)
    clock.move(10)
    end(alone)
    assert worker_seconds(db, study_id, "cuda", clock()) == 100 + 110
    assert worker_seconds(db, study_id, "cpu", clock()) == 100

    start(4, 1, "cuda")  # the same process again, later
    clock.move(30)
    assert worker_seconds(db, study_id, "cuda", clock()) == 210 + 30
    writer.heartbeat(run.id)
    clock.move(3600)  # the driver is gone by now
    writer.begin_run(study_id, provenance={}, takeover=True)
    writer.reconcile(study_id)
    assert worker_seconds(db, study_id, "cuda", clock()) == 210 + 30
