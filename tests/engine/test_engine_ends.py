"""How a run ends early: signals, a killed driver, a lost lease. Nothing found is lost, nothing is left running."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from miras_search.engine import ray_
from miras_search.engine.events import Interrupted, JobStarted, RunSummary
from miras_search.engine.local import LocalExecutor
from miras_search.engine.signals import Signals
from miras_search.store import queries
from miras_search.store.database import Database
from miras_search.store.types import LeaseLost, StudyBusy
from miras_search.store.writer import Writer

DRIVE = Path(__file__).with_name("engine_drive.py")
SECONDS = 30.0  # a deadline, not a measurement: the machine may be busy
OTHERS = (signal.SIGHUP, signal.SIGINT)  # than SIGTERM, which batch systems send


def descendants(root: int) -> list[int]:
    """Every process below `root`, by /proc."""
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        children.setdefault(int(fields[1]), []).append(int(stat.parent.name))
    found = [root]
    for pid in found:
        found += children.get(pid, [])
    return found[1:]


def assert_gone(pids: Iterable[int]) -> None:
    """Wait until the processes have ended; fails after the deadline."""
    deadline = time.monotonic() + SECONDS
    for pid in pids:
        try:
            handle = os.pidfd_open(pid)
        except ProcessLookupError:
            continue
        with open(handle, "rb"):
            ended, _, _ = select.select([handle], [], [], max(0.0, deadline - time.monotonic()))
        assert ended, f"process {pid} is still there: {Path(f'/proc/{pid}/cmdline').read_bytes()!r}"


def pids_of(run, seed: str) -> list[int]:
    lines = [line.split() for line in (run.folder / "calls").read_text().splitlines()]
    return [int(pid) for _, at, pid in lines if at == seed]


def lines_of(process: subprocess.Popen[str]) -> Iterator[dict[str, object]]:
    assert process.stdout is not None
    for line in process.stdout:
        yield json.loads(line)


@pytest.fixture
def drive(db: Database, where: str, tmp_path: Path) -> Iterator[object]:
    """Starts a driver and returns it once both jobs of seed 1 that fit are under way; its processes are listed then.

    A worker has been killed by then, and still the driver has printed nothing but its events.
    """
    started: list[subprocess.Popen[str]] = []

    def start(executor: str) -> tuple[subprocess.Popen[str], list[int]]:
        entry = f"engine_entries:hang_once=1+kill_once=0.l2@{tmp_path}"
        command = [sys.executable, str(DRIVE), where, executor, entry]
        environment = os.environ | {"PYTHONPATH": str(DRIVE.parent)}
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, start_new_session=True
        )
        started.append(process)
        hanging = 0
        for event in lines_of(process):
            hanging += event["event"] == "job_started" and event["seed"] == 1
            if hanging == 2:
                return process, descendants(process.pid)
        raise AssertionError(process.communicate()[1])

    yield start
    for process in started:
        process.kill()
        process.communicate()


def test_an_interrupt_ends_in_order(run) -> None:
    def interrupt(event: object) -> None:
        if isinstance(event, JobStarted) and event.seed == 1:
            os.kill(os.getpid(), signal.SIGINT)

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(Interrupted) as caught:
        run("hang=1", on_event=interrupt)
    assert caught.value.exit_code == 130
    summary = caught.value.summary
    assert summary.interrupted and summary.complete + summary.waiting == 6 and summary.waiting >= 3
    assert_gone(pids_of(run, "1"))
    assert not queries.running(run.db, run.study_id)
    assert [row.status for row in queries.runs(run.db, run.study_id)] == ["interrupted"]
    assert {row.state for number in range(3) for row in run.attempts(number, 1)} == {"lost"}
    assert signal.getsignal(signal.SIGINT) is before
    assert run().complete == 6


def test_a_second_interrupt_ends_at_once(local) -> None:
    seen: list[str] = []

    def interrupt(event: object) -> None:
        if isinstance(event, JobStarted):
            os.kill(os.getpid(), signal.SIGINT)
            seen.append("first")
            os.kill(os.getpid(), signal.SIGINT)
            seen.append("never")

    with pytest.raises(Interrupted):
        local("hang=0", on_event=interrupt)
    assert seen == ["first"]
    assert not [pid for pid in descendants(os.getpid()) if b"engine.worker" in _command(pid)]
    assert local().complete == 6


def test_interrupts_while_the_workers_are_ended_leave_none(local, monkeypatch: pytest.MonkeyPatch) -> None:
    close = LocalExecutor.close

    def close_under_fire(self: LocalExecutor) -> None:
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGINT)
        close(self)

    def interrupt(event: object) -> None:
        if isinstance(event, JobStarted):
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(LocalExecutor, "close", close_under_fire)
    with pytest.raises(Interrupted):
        local("hang=0", on_event=interrupt)
    assert not [pid for pid in descendants(os.getpid()) if b"engine.worker" in _command(pid)]
    assert [row.status for row in queries.runs(local.db, local.study_id)] == ["interrupted"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_does_not_wait_for_ray_to_start(
    local, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    started: list[int] = []

    def start(*_: object, **__: object) -> None:
        os.kill(os.getpid(), number)
        started.append(number)

    monkeypatch.setattr(ray_, "RayExecutor", start)
    with pytest.raises(Interrupted):
        local(executor="ray")
    assert not started
    assert [row.status for row in queries.runs(local.db, local.study_id)] == ["interrupted"]


def test_an_interrupt_before_ray_starts_keeps_it_from_starting() -> None:
    signals = Signals()
    signals.received = "SIGTERM"
    with pytest.raises(KeyboardInterrupt), signals.prompt():
        raise AssertionError("entered")


def _command(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


@pytest.mark.parametrize("number", [signal.SIGTERM, *(pytest.param(n, marks=pytest.mark.slow) for n in OTHERS)])
def test_a_signal_to_the_driver_leaves_no_process(drive, local, number: signal.Signals) -> None:
    process, below = drive("local")
    assert len(below) == 2
    process.send_signal(number)
    _, errors = process.communicate(timeout=SECONDS)
    assert process.returncode == 130
    assert errors.splitlines() == ["Interrupted: tiny: interrupted with 3 of 6 jobs done"]
    assert_gone(below)
    assert [row.status for row in queries.runs(local.db, local.study_id)] == ["interrupted"]
    assert not queries.running(local.db, local.study_id)


def test_a_killed_driver_leaves_no_worker_and_loses_nothing(drive, local) -> None:
    process, below = drive("local")
    process.kill()
    process.communicate(timeout=SECONDS)
    assert_gone(below)
    assert len(queries.running(local.db, local.study_id)) == 2
    _finish_and_compare(local, "lost")


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_ray_of_its_own_is_stopped_with_the_driver(drive, local, number: signal.Signals) -> None:
    process, below = drive("ray")
    process.send_signal(number)
    _, errors = process.communicate(timeout=SECONDS)
    assert process.returncode == 130, errors
    assert_gone(below)
    _finish_and_compare(local, "interrupted")


def _finish_and_compare(local, ended: str) -> None:
    """The same study again trains what is missing, and finds what a run without trouble finds."""
    summary = local()
    assert (summary.complete, summary.skipped, summary.attempts) == (6, 3, 3)
    assert [row.status for row in queries.runs(local.db, local.study_id)] == [ended, "done"]
    states = [[row.state for row in local.attempts(number, 1)] for number in range(3)]
    assert sorted(map(tuple, states)) == [("complete",), ("lost", "complete"), ("lost", "complete")]
    resumed = local.results()
    with Database.open(str(local.folder / "other.db"), create=True) as other:
        local.db = other
        assert local().attempts == 6
        assert local.results() == resumed


def test_two_drivers_do_not_meet(local) -> None:
    seen: list[RunSummary | StudyBusy] = []

    def again(event: object) -> None:
        if isinstance(event, JobStarted) and not seen:
            with pytest.raises(StudyBusy) as caught:
                local("seeds=9")
            seen.append(caught.value)

    assert local(on_event=again).complete == 6
    assert len(seen) == 1 and seen[0].exit_code == 3
    seeds = queries.study(local.db, "tiny").config["seeds"]
    assert seeds == [0, 1], "nor does the second change what the first one trains"


def test_a_run_that_lost_its_lease_stops_writing(local) -> None:
    started: list[object] = []

    def take_over(event: object) -> None:
        started.extend([event] if isinstance(event, JobStarted) else [])
        if started == [event]:  # two may start at once
            Writer(local.db).begin_run(local.study_id, provenance={}, takeover=True)

    with pytest.raises(LeaseLost):
        local("hang=0", on_event=take_over)
    assert [row.status for row in queries.runs(local.db, local.study_id)] == ["lost", "running"]
    assert not [pid for pid in descendants(os.getpid()) if b"engine.worker" in _command(pid)]


def test_a_caller_that_fails_leaves_the_books_closed(local) -> None:
    def fail(event: object) -> None:
        if isinstance(event, JobStarted):
            raise BrokenPipeError("nobody listens")

    with pytest.raises(BrokenPipeError):
        local(on_event=fail)
    assert [row.status for row in queries.runs(local.db, local.study_id)] == ["failed"]
    assert not queries.running(local.db, local.study_id)
    assert local().complete == 6
