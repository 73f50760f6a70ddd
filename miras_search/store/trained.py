"""What trainings left behind, and what of it evaluations have looked at: jobs with a file of theirs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

from sqlalchemy import and_, select

from miras_search.store.database import Database
from miras_search.store.tables import Artifact, Attempt, Job, Trial
from miras_search.store.types import JobState, StudyRow

CHECKPOINT = "checkpoint"
"""Of an artifact: the parameters at the end of a training."""
EVALUATED = "evaluated"
"""Of an artifact: the checkpoint that an evaluation looked at. The file is the training's."""


def trained_by(study: StudyRow) -> str | None:
    """The name of the study whose models an evaluation looked at; None for one that trains its own."""
    given = study.config.get("evaluated")
    return str(given["study"]) if isinstance(given, Mapping) else None


@dataclass(frozen=True, slots=True)
class FileOfJob:
    """A job with the file that its latest attempt left or looked at; the file's fields are None where there is none."""

    number: int
    """The trial's."""
    task: str
    seed: int
    state: JobState
    uri: str | None
    sha256: str | None
    bytes: int | None
    step: int | None


def files_of_jobs(db: Database, study_id: int, kind: str) -> list[FileOfJob]:
    """Every job of a study with its newest file of that kind, in the order in which the jobs were stored."""
    mine = and_(Artifact.attempt_id == Attempt.id, Artifact.kind == kind)
    wanted = (
        select(Job.id, Trial.number, Job.task, Job.seed, Job.state)
        .add_columns(Artifact.uri, Artifact.sha256, Artifact.bytes, Artifact.step)
        .join(Trial, Job.trial_id == Trial.id)
        .outerjoin(Attempt, Job.attempt_id == Attempt.id)
        .outerjoin(Artifact, mine)
        .where(Trial.study_id == study_id)
        .order_by(Job.id, Artifact.id)
    )
    found: dict[int, FileOfJob] = {}
    with db.session() as session:
        for id_, number, task, seed, state, *file in session.execute(wanted):
            found[id_] = FileOfJob(number, task, seed, cast(JobState, state), *file)
    return list(found.values())
