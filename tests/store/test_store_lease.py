from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Protocol

import pytest
from sqlalchemy import text

from miras_search.store import lease, queries
from miras_search.store.database import Database
from miras_search.store.types import Final, LeaseLost, Point, Run, StudyBusy
from miras_search.store.writer import Writer


class Clock(Protocol):
    def __call__(self) -> object: ...
    def move(self, seconds: float) -> None: ...


def begin(writer: Writer, study_id: int, *, takeover: bool = False) -> Run:
    return writer.begin_run(study_id, provenance={}, takeover=takeover)


def statuses(db: Database, study_id: int) -> list[str]:
    return [run.status for run in queries.runs(db, study_id)]


def dead_pid() -> int:
    return int(subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], stdout=-1, check=True).stdout)


def move_run(db: Database, run: Run, **values: object) -> None:
    """Let it seem that another process, or another machine, began the run."""
    with db.writing() as session:
        for column, value in values.items():
            session.execute(text(f"UPDATE ms_run SET {column} = :value WHERE id = :id"), {"value": value, "id": run.id})


def test_one_run_a_study(db: Database, writer: Writer, study_id: int) -> None:
    first = begin(writer, study_id)
    with pytest.raises(
        StudyBusy, match=rf"study 'bias' is being run by process {os.getpid()} on .*heartbeat 0 s ago"
    ) as caught:
        begin(writer, study_id)
    assert caught.value.exit_code == 3
    writer.end_run(first.id, "done")
    second = begin(writer, study_id)
    assert second.lease_token != first.lease_token
    assert statuses(db, study_id) == ["done", "running"]


def test_two_studies_run_side_by_side(writer: Writer, study_id: int, put_study: Callable[..., int]) -> None:
    other = put_study(name="other")
    assert begin(writer, study_id).id != begin(writer, other).id


def test_provenance_comes_back(db: Database, writer: Writer, study_id: int) -> None:
    facts: dict[str, object] = {"argv": ["run", "bias.yaml"], "versions": {"torch": "2.13"}, "git_dirty": False}
    writer.begin_run(study_id, provenance=facts)
    (run,) = queries.runs(db, study_id)
    assert (run.provenance, run.pid, run.host) == (facts, os.getpid(), lease.this_host()[0])


def test_a_beating_run_stays_live(writer: Writer, study_id: int, clock: Clock) -> None:
    run = begin(writer, study_id)
    for _ in range(3):
        clock.move(lease.LEASE_SECONDS - 1)
        writer.heartbeat(run.id)
    clock.move(lease.LEASE_SECONDS - 1)
    with pytest.raises(StudyBusy):
        begin(writer, study_id)


def test_a_silent_run_is_given_up(db: Database, writer: Writer, study_id: int, clock: Clock) -> None:
    old = begin(writer, study_id)
    clock.move(lease.LEASE_SECONDS)
    begin(writer, study_id)
    assert statuses(db, study_id) == ["lost", "running"]
    with pytest.raises(LeaseLost, match="another run has taken the study over"):
        writer.heartbeat(old.id)
    with pytest.raises(LeaseLost):
        writer.start_attempt(1, old.id, host="h", pid=1, device="cpu")
    writer.end_run(old.id, "interrupted")  # too late: what is known stays
    assert statuses(db, study_id) == ["lost", "running"]


def test_a_run_whose_process_is_gone_is_given_up_at_once(db: Database, writer: Writer, study_id: int) -> None:
    move_run(db, begin(writer, study_id), pid=dead_pid())
    begin(writer, study_id)
    assert statuses(db, study_id) == ["lost", "running"]


@pytest.mark.parametrize("elsewhere", [{"host": "another"}, {"pid_space": "pid:[1]"}])
def test_a_process_elsewhere_cannot_be_looked_at(
    db: Database, writer: Writer, study_id: int, clock: Clock, elsewhere: dict[str, object]
) -> None:
    move_run(db, begin(writer, study_id), pid=dead_pid(), **elsewhere)
    with pytest.raises(StudyBusy):
        begin(writer, study_id)
    clock.move(lease.LEASE_SECONDS)
    begin(writer, study_id)


def test_takeover(db: Database, writer: Writer, study_id: int) -> None:
    old = begin(writer, study_id)
    begin(writer, study_id, takeover=True)
    with pytest.raises(LeaseLost):
        writer.heartbeat(old.id)


def test_of_two_drivers_that_start_at_once_one_gets_the_lease(db: Database, study_id: int) -> None:
    barrier = threading.Barrier(2)
    outcome: list[str] = []

    def drive() -> None:
        barrier.wait()
        try:
            begin(Writer(db), study_id)
        except StudyBusy:
            outcome.append("busy")
        else:
            outcome.append("run")

    threads = [threading.Thread(target=drive) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcome) == ["busy", "run"]


def test_what_a_dead_run_left_open_waits_again(db: Database, writer: Writer, study_id: int) -> None:
    old = begin(writer, study_id)
    done, left, *_ = queries.jobs(db, study_id)
    finished = writer.start_attempt(done.id, old.id, host="h", pid=1, device="cpu")
    writer.finish_attempt(
        finished,
        state="complete",
        finals=[Final("accuracy", "test", 0.5)],
        last_step=1,
        wall_seconds=1.0,
        peak_memory_bytes=1,
        final_for_job=True,
    )
    lost = writer.start_attempt(left.id, old.id, host="h", pid=1, device="cpu")
    writer.add_points(lost, [Point(5, "loss", "train", 1.0)])
    move_run(db, old, pid=dead_pid())

    new = begin(writer, study_id)
    current = next(job for job in queries.jobs(db, study_id) if job.state == "waiting")
    mine = writer.start_attempt(current.id, new.id, host="h", pid=1, device="cpu")
    (row,) = writer.reconcile(study_id)
    assert (row.attempt_id, row.job_id, row.attempt, row.run_id) == (lost, left.id, 1, old.id)
    assert (row.cell, row.task, row.seed) == (left.cell, left.task, left.seed)
    jobs = {job.id: job.state for job in queries.jobs(db, study_id)}
    assert (jobs[done.id], jobs[left.id], jobs[current.id]) == ("complete", "waiting", "running")
    assert writer.reconcile(study_id) == []
    with pytest.raises(LeaseLost, match="is lost, not running"):  # the old driver wakes up
        writer.add_points(lost, [Point(6, "loss", "train", 1.0)])
    with pytest.raises(LeaseLost, match="is lost, not running"):
        writer.finish_attempt(
            lost, state="complete", finals=[], last_step=9, wall_seconds=1, peak_memory_bytes=1, final_for_job=True
        )
    writer.add_points(mine, [Point(1, "loss", "train", 1.0)])  # the new one is not disturbed
    again = writer.start_attempt(left.id, new.id, host="h", pid=1, device="cpu")
    assert queries.attempts(db, study_id, left.trial_number)[-1].attempt == 2
    writer.add_points(again, [Point(1, "loss", "train", 4.0)])
    curve = queries.curves(db, study_id, "loss", "train", cells=[left.cell])
    assert [(point.step, point.value) for point in curve] == [(1, 4.0)]  # nothing of the lost try


def test_an_interrupted_run_leaves_its_attempts_to_be_reconciled(db: Database, writer: Writer, study_id: int) -> None:
    run = begin(writer, study_id)
    writer.start_attempt(1, run.id, host="h", pid=1, device="cpu")
    writer.end_run(run.id, "interrupted")
    assert [row.job_id for row in writer.reconcile(study_id)] == [1]
    assert [job.state for job in queries.jobs(db, study_id)] == ["waiting"] * 6


def test_a_run_ends_as_something(writer: Writer, study_id: int) -> None:
    with pytest.raises(ValueError, match="does not end as 'running'"):
        writer.end_run(begin(writer, study_id).id, "running")


def test_processes() -> None:
    assert lease.process_exists(os.getpid())
    assert lease.process_exists(1)  # someone else's, when this is not root
    assert not lease.process_exists(dead_pid())
