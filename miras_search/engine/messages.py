"""What passes between the driver and its workers, and what an executor is. Plain data: no torch, Ray or SQL.

A ticket is one attempt's number within a run, so that a late message of a lost attempt is never taken for one of its
successor. A task of several jobs (a pack) has as many tickets in a row, and goes by the first of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from miras_search.space.plugins import Plugin
from miras_search.training.job import Keep, Kernels, Outcome

Row = tuple[int, str, str, float]
"""A curve point: step, metric, split, value."""

TRAINING = "miras_search.engine.entry:train_jobs"
EVALUATION = "miras_search.engine.entry:evaluate_jobs"


@dataclass(frozen=True, slots=True)
class Task:
    """One attempt of a job, or of each job of a pack, as it travels to a worker."""

    entry: str
    """`module:function`, called as `function(jobs, context)`."""
    jobs: tuple[Mapping[str, object], ...]
    """JSON data; several are trained together in one process."""
    device: str
    threads: int
    checkpoint: bool
    """Whether the worker sends the trained parameters back."""
    resume: bytes | None = None
    """A snapshot of the job, which a task of several has none of."""
    save_every: float | None = None
    """Seconds between snapshots; None takes none, not even at the end."""
    kernels: Kernels = "auto"
    plugins: tuple[Plugin, ...] = ()
    """The user's modules of the job's study, with their source: another machine may not have the files."""
    trained: bytes | None = None
    """The checkpoint that a single job evaluates; None for a training."""
    corpora: tuple[str | None, ...] = ()
    """The hash of the files that the driver read for each job's task; None where it reads none."""


@dataclass(frozen=True, slots=True)
class Context:
    """What an entry may use besides its jobs."""

    report: Callable[[Sequence[Sequence[Row]]], bool]
    """Sends the curve points of each job (perhaps none); returns whether to stop."""
    checkpoints: tuple[Path | None, ...]
    """Where to write each job's parameters, if they are wanted."""
    device: str
    threads: int
    keep: Keep | None = None
    """How a single job is saved on its way."""
    kernels: Kernels = "auto"
    trained: bytes | None = None
    """The checkpoint of a single job that evaluates one."""


Entry = Callable[[Sequence[Mapping[str, object]], Context], Sequence[Outcome]]
"""One outcome a job, in their order."""

Send = Callable[[Sequence["Message"]], bool]
"""Hands messages to the driver, in order; returns whether to stop."""


@dataclass(frozen=True, slots=True)
class Started:
    """A worker has taken the task up."""

    ticket: int
    host: str
    pid: int
    device: str
    versions: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Points:
    """Curve points of a running attempt."""

    ticket: int
    rows: tuple[Row, ...]


@dataclass(frozen=True, slots=True)
class Saved:
    """A snapshot of a running attempt, which stands for those before it."""

    ticket: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Stopped:
    """The entry has ended before its time, because `Executor.stop` asked for it."""

    ticket: int
    text: str


@dataclass(frozen=True, slots=True)
class Finished:
    """The entry has returned."""

    ticket: int
    outcome: Outcome
    checkpoint: bytes | None


@dataclass(frozen=True, slots=True)
class Failed:
    """The entry raised; or its worker is gone (`lost`), ran out of memory (`oom`) or fell silent (`timeout`)."""

    ticket: int
    state: Literal["failed", "oom", "lost", "timeout"]
    error_type: str
    error_text: str


Message = Started | Points | Saved | Stopped | Finished | Failed


class Executor(Protocol):
    """Runs tasks in other processes. Single-threaded use; every method but `poll` returns at once."""

    name: str
    slots: int
    """How many tasks run at once; never submit more. A pack is one task."""

    def submit(self, ticket: int, task: Task, *, whole_device: bool = False) -> None:
        """Start a task, whose jobs go by `ticket` and the numbers after it. `whole_device` asks for a GPU of its own
        where several tasks share one.
        """

    def poll(self, timeout: float) -> list[Message]:
        """What has happened, after at most `timeout` seconds; a ticket's points always come before its end."""

    def stop(self) -> None:
        """Ask every task under way to save itself and end; what does is `Stopped`."""

    def kill(self, ticket: int) -> None:
        """End the process of the task that goes by this ticket. No message of it follows."""

    def close(self) -> None:
        """End every process of this executor, running tasks included. Safe to call twice."""
