"""What a run tells its caller while it goes on: small frozen events, each also as one JSON line."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import ClassVar

from miras_search.errors import MirasError
from miras_search.jsonable import Json, jsonable


@dataclass(frozen=True, slots=True)
class _Event:
    """Anything that is told; `event` names its kind."""

    event: ClassVar[str]

    def to_plain(self) -> dict[str, Json]:
        """As JSON data, with null for a number that is not finite."""
        inner = {field.name: getattr(self, field.name) for field in fields(self)}
        return {"event": self.event} | {
            name: value.to_plain() if isinstance(value, _Event) else jsonable(value) for name, value in inner.items()
        }


@dataclass(frozen=True, slots=True)
class StudyStarted(_Event):
    """The plan is stored and the workers are about to start. `todo` is how many jobs this run will train."""

    event: ClassVar[str] = "study_started"
    study: str
    cells: int
    jobs: int
    done: int
    todo: int
    executor: str
    slots: int


@dataclass(frozen=True, slots=True)
class ToppedUp(_Event):
    """A look is over, and the cells that it left undecided get more seeds: `jobs` more trainings."""

    event: ClassVar[str] = "topped_up"
    study: str
    undecided: int
    """Cells, counted once a task."""
    seeds: int
    """More for each of them and for the base."""
    jobs: int


@dataclass(frozen=True, slots=True)
class JobStarted(_Event):
    """A worker has begun a training."""

    event: ClassVar[str] = "job_started"
    cell: str
    task: str
    seed: int
    attempt: int


@dataclass(frozen=True, slots=True)
class Progress(_Event):
    """New curve points. `metrics` are the latest values by `split/name`, such as `validation/accuracy`."""

    event: ClassVar[str] = "progress"
    cell: str
    task: str
    seed: int
    step: int
    steps: int
    metrics: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class JobFinished(_Event):
    """A job is `complete`, `diverged` or `failed`. `metrics` by `split/name`, or `name` for a cost."""

    event: ClassVar[str] = "job_finished"
    cell: str
    task: str
    seed: int
    state: str
    metrics: Mapping[str, float]
    wall_seconds: float | None
    error: str | None


@dataclass(frozen=True, slots=True)
class AttemptLost(_Event):
    """An attempt came to nothing and its job will be tried again. `state` is `lost`, `timeout`, `oom`, or of a job in a
    pack `failed`, whichever of them did.
    """

    event: ClassVar[str] = "attempt_lost"
    cell: str
    task: str
    seed: int
    attempt: int
    state: str
    error: str


@dataclass(frozen=True, slots=True)
class Stopping(_Event):
    """The run ends early: its trainings have so many seconds to save themselves."""

    event: ClassVar[str] = "stopping"
    grace: float


@dataclass(frozen=True, slots=True)
class RunSummary(_Event):
    """How the study stands after a run.

    `complete`, `pruned`, `diverged`, `failed` and `waiting` count all jobs of the study file, `skipped` those that were
    done before, `attempts` the trainings begun in this run.
    """

    event: ClassVar[str] = "summary"
    study: str
    complete: int
    diverged: int
    failed: int
    waiting: int
    skipped: int
    attempts: int
    seconds: float
    interrupted: bool
    pruned: int = 0
    unsought: bool = False
    """Whether there is more to do that is no jobs yet: a search's next trials, or its confirmation; a top-up."""
    held: str | None = None
    """What a look waits for and no run trains by itself, in words: trainings that failed."""
    spent: str | None = None
    """Which budget has ended the run, in words."""
    more: str | None = None
    """The option with which the same command goes on after that; empty where it needs none."""


@dataclass(frozen=True, slots=True)
class StudyFinished(_Event):
    """The run is over, also when it was interrupted."""

    event: ClassVar[str] = "study_finished"
    summary: RunSummary


Event = StudyStarted | ToppedUp | JobStarted | Progress | JobFinished | AttemptLost | Stopping | StudyFinished


class Interrupted(MirasError):
    """A run was stopped by a signal. Everything found so far is stored; the same command goes on from there."""

    exit_code = 130

    def __init__(self, summary: RunSummary) -> None:
        self.summary = summary
        done = summary.complete + summary.pruned + summary.diverged + summary.failed
        super().__init__(f"{summary.study}: interrupted with {done} of {done + summary.waiting} jobs done")


def label(split: str, name: str) -> str:
    """The key of a metric in an event: `test/accuracy`; a cost has no split."""
    return f"{split}/{name}" if split else name
