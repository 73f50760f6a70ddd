"""The lease: one live driver a study.

A run holds the lease while its status is `running`, its heartbeat is young and, on this machine, its process is there.
A dead run is marked `lost`; should its process come back (a laptop that slept), its next write raises `LeaseLost`.
"""

from __future__ import annotations

import os
import socket
import sys
from datetime import datetime, timedelta

from sqlalchemy import Connection, bindparam, select, update
from sqlalchemy.orm import Session

from miras_search.store.tables import Run, Study
from miras_search.store.types import LeaseLost, RunRow, StudyBusy

LEASE_SECONDS = 60.0  # a driver beats every few seconds; this allows for a long checkpoint or a busy disk
_STATUS = select(Run.status).where(Run.id == bindparam("run"))


def this_host() -> tuple[str, str]:
    """This machine's name and the space that its process ids belong to (a container has one of its own)."""
    try:
        space = os.readlink("/proc/self/ns/pid")
    except OSError:
        space = ""
    return socket.gethostname(), space


def process_exists(pid: int) -> bool:
    """Whether a process of this machine has that id. True where the system cannot tell without harm."""
    if sys.platform == "win32":  # os.kill would end the process there
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def is_live(run: Run | RunRow, now: datetime) -> bool:
    """Whether a run that says `running` still does."""
    if now - run.heartbeat_at >= timedelta(seconds=LEASE_SECONDS):
        return False
    return (run.host, run.pid_space) != this_host() or process_exists(run.pid)


def give_up_dead(session: Session, study_id: int, now: datetime, *, takeover: bool) -> None:
    """Mark the study's dead runs `lost`; with `takeover`, live ones too.

    Raises StudyBusy for a live run. The session must be a writing one: drivers that start at once then take turns.
    """
    study = session.get_one(Study, study_id)
    held = session.execute(select(Run).where(Run.study_id == study_id, Run.status == "running")).scalars().all()
    for run in held:
        if not takeover and is_live(run, now):
            age = max(0, round((now - run.heartbeat_at).total_seconds()))
            raise StudyBusy(
                f"study {study.name!r} is being run by process {run.pid} on {run.host} (heartbeat {age} s ago): "
                "wait for it or stop it; --takeover if you know that it is gone"
            )
        session.execute(update(Run).where(Run.id == run.id).values(status="lost", ended_at=run.heartbeat_at))


def require(connection: Connection, run_id: int) -> None:
    """Raise LeaseLost unless the run still holds its lease."""
    status = connection.scalar(_STATUS, {"run": run_id})
    if status != "running":
        raise LeaseLost(f"run {run_id} is {status}: another run has taken the study over; stop this one")
