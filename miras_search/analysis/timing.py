"""How long a job takes, by stored trainings of the same shape: the same model and length of training on the same task.

Apart from the rest of what a pilot tells, which loads numpy and scipy: the plan of a search asks for no more than this.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

from miras_search.store import queries
from miras_search.store.database import Database
from miras_search.store.types import StudyRow

LENGTH = ("steps", "batch")  # of the training's settings those that decide how long it takes and what is learned
SECONDS = ("wall_seconds", "")


@dataclass(frozen=True, slots=True)
class Timing:
    """How long a job took on average, in seconds, and of which jobs."""

    seconds: float
    jobs: int
    study: str


def timing(db: Database, name: str, config: Mapping[str, object], *, own: bool) -> Timing | None:
    """What the database says of the study called `name`; `own` is whether what it holds of that name is this study."""
    wanted = set(shapes(config).values())
    for row in models(db, name, own=own):
        tasks = {task for task, shape in shapes(row.config).items() if shape in wanted}
        found = queries.finals(db, row.id, *SECONDS) if tasks else []
        if made := of([seconds for task, seconds in found if task in tasks], row):
            return made
    return None


def of(seconds: Sequence[float], study: StudyRow) -> Timing | None:
    """The average of jobs of a study, if there are any."""
    return Timing(statistics.fmean(seconds), len(seconds), study.name) if seconds else None


def models(db: Database, name: str, *, own: bool) -> list[StudyRow]:
    """The stored studies that may tell something: the study itself first, then the newest."""
    stored = queries.studies(db)
    first = [row for row in stored if own and row.name == name]
    # an evaluation takes no time to speak of, and its spread is that of the trainings it looks at
    return first + [row for row in reversed(stored) if row not in first and "evaluated" not in row.config]


def shapes(config: Mapping[str, object]) -> dict[str, str]:
    """For each task of a study what decides how long its trainings take and what they can learn, as text."""
    base = cast(Mapping[str, Mapping[str, object]], config["base"])
    tasks = cast(Sequence[Mapping[str, object]], config["tasks"])
    around = [base["model"], [base["train"].get(key) for key in LENGTH]]
    return {str(task["name"]): json.dumps([around, task["spec"]], sort_keys=True) for task in tasks}
