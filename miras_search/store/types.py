"""What goes into the store and what comes out: plain frozen rows, no SQLAlchemy.

The writer takes `NewTrial`, `NewJob`, `Point` and `Final`; the queries return the `*Row` classes. Analysis, export and
dashboard depend on these shapes only, so a table can be tested without a database.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, NamedTuple

from miras_search.errors import MirasError

Role = Literal["base", "cell", "control", "refused"]  # refused: of a search, over a limit before it was trained
JobState = Literal["waiting", "running", "complete", "pruned", "diverged", "failed"]
AttemptState = Literal["running", "complete", "pruned", "diverged", "failed", "lost", "oom", "timeout"]
RunStatus = Literal["running", "done", "interrupted", "failed", "lost"]

PACKED = ", pack of "  # between a device and how many jobs it trained at once

ROLES: tuple[Role, ...] = ("base", "cell", "control", "refused")
JOB_STATES: tuple[JobState, ...] = ("waiting", "running", "complete", "pruned", "diverged", "failed")
# nothing more happens to such a job by itself
FINAL_STATES: tuple[JobState, ...] = ("complete", "pruned", "diverged", "failed")
ENDED_ATTEMPTS: tuple[AttemptState, ...] = ("complete", "pruned", "diverged", "failed", "lost", "oom", "timeout")
ENDED_RUNS: tuple[RunStatus, ...] = ("done", "interrupted", "failed", "lost")


class StudyNotFound(MirasError):
    """No study of that name is in the database."""


class StudyChanged(MirasError):
    """The stored study of that name compares something else, so its results must not be mixed with new ones."""


class StudyBusy(MirasError):
    """Another live run holds the study's lease."""

    exit_code = 3


class LeaseLost(MirasError):
    """This run was given up for dead and another took the study over; it must stop writing."""

    exit_code = 3


# What the driver writes


@dataclass(frozen=True, slots=True)
class NewTrial:
    """A cell to be stored: a design point with its settings. Number 0 is the base."""

    number: int
    cell: str
    role: Role
    changes: Mapping[str, str]  # dotted path -> level text; empty for the base
    design: Mapping[str, object]  # canonical design point
    settings: Mapping[str, object]  # model, train and task settings; no seeds
    design_hash: str


@dataclass(frozen=True, slots=True)
class NewJob:
    """One training to be done."""

    trial_number: int
    task: str
    seed: int


PlainPoint = tuple[int, str, str, float]
"""A `Point` as workers send it: a driver takes hundreds of thousands, and has no use for their names."""


class Point(NamedTuple):
    """One value on a curve. NaN and infinities are kept."""

    step: int
    name: str
    split: str
    value: float


@dataclass(frozen=True, slots=True)
class Final:
    """One number that a job reports at its end; the split is "" for a cost."""

    name: str
    split: str
    value: float


@dataclass(frozen=True, slots=True)
class Run:
    """A lease on a study, held by one process."""

    id: int
    study_id: int
    lease_token: str


@dataclass(frozen=True, slots=True)
class LostAttempt:
    """An attempt that its driver left behind; its job waits again."""

    attempt_id: int
    job_id: int
    attempt: int
    cell: str
    task: str
    seed: int
    run_id: int


# What a reader gets


@dataclass(frozen=True, slots=True)
class StudyRow:
    """A study with its counts. `jobs` has every job state as a key, zeros included."""

    id: int
    name: str
    kind: str
    question: str
    metric: str
    created_at: datetime
    updated_at: datetime
    config: dict[str, object]
    config_yaml: str
    config_hash: str
    space_hash: str
    trials: int
    jobs: dict[JobState, int]


@dataclass(frozen=True, slots=True)
class LockRow:
    """A study's lock: family, metric, test, margin and seeds as plain data, their hash, and when it was written."""

    content: dict[str, object]
    hash: str
    locked_at: datetime


@dataclass(frozen=True, slots=True)
class TrialRow:
    """A cell. Its state is `running` while a job runs, `waiting` while some are left, else the worst of its jobs."""

    id: int
    number: int
    cell: str
    role: Role
    changes: dict[str, str]
    design: dict[str, object]
    settings: dict[str, object]
    design_hash: str
    state: JobState
    jobs: dict[JobState, int]


@dataclass(frozen=True, slots=True)
class JobRow:
    """One training: done, under way or waiting. `attempts` counts every try, lost ones included."""

    id: int
    trial_id: int
    trial_number: int
    cell: str
    task: str
    seed: int
    state: JobState
    attempts: int


@dataclass(frozen=True, slots=True)
class ResultRow:
    """What one job found; `values` is empty until it has ended. Keys are (metric, split)."""

    cell: str
    role: Role
    number: int
    changes: dict[str, str]
    task: str
    seed: int
    state: JobState
    last_step: int | None
    values: dict[tuple[str, str], float]
    device: str = ""
    """What its last attempt ran on, and in a pack of how many; empty before there is one."""


@dataclass(frozen=True, slots=True)
class CurveRow:
    """One value on the curve of a job's latest attempt."""

    cell: str
    task: str
    seed: int
    step: int
    value: float


@dataclass(frozen=True, slots=True)
class AttemptRow:
    """One try of a job, with where it ran and how it ended. Memory in bytes, wall time in seconds."""

    id: int
    job_id: int
    task: str
    seed: int
    attempt: int  # 1 for the first try
    state: AttemptState
    error_type: str | None
    error_text: str | None
    host: str
    pid: int
    device: str
    started_at: datetime
    ended_at: datetime | None
    wall_seconds: float | None
    peak_memory_bytes: int | None
    last_step: int | None
    run_id: int


@dataclass(frozen=True, slots=True)
class RunRow:
    """One invocation of the driver, with its provenance (commit, versions, arguments)."""

    id: int
    started_at: datetime
    ended_at: datetime | None
    heartbeat_at: datetime
    status: RunStatus
    host: str
    pid_space: str
    pid: int
    provenance: dict[str, object]


@dataclass(frozen=True, slots=True)
class RunningRow:
    """A training under way. `last_step` is None before its first point."""

    cell: str
    task: str
    seed: int
    last_step: int | None
    started_at: datetime


@dataclass(frozen=True, slots=True)
class ArtifactRow:
    """A file that an attempt left; `uri` says where it lies, the store holds no blobs."""

    cell: str
    task: str
    seed: int
    attempt: int
    kind: str
    uri: str
    sha256: str
    bytes: int
    step: int | None
    created_at: datetime


def trial_state(jobs: Mapping[JobState, int]) -> JobState:
    """The state of a cell from the counts of its jobs' states."""
    if jobs.get("running", 0):
        return "running"
    if jobs.get("waiting", 0) or not any(jobs.values()):
        return "waiting"
    if jobs.get("failed", 0):
        return "failed"
    if jobs.get("diverged", 0):
        return "diverged"
    return "pruned" if jobs.get("pruned", 0) else "complete"
