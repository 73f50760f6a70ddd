"""Reading the store. Each function takes an open `Database` (read-only will do) and returns frozen rows.

A reader that caches asks `change_token` first: it costs one small row and changes with every write.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import cast

from sqlalchemy import ColumnElement, and_, func, select
from sqlalchemy.orm import Session

from miras_search.store import tables
from miras_search.store.database import Database
from miras_search.store.tables import Artifact, Attempt, FinalMetric, Job, MetricName, MetricPoint, Study, Trial
from miras_search.store.tables import decode_value as decode
from miras_search.store.types import (
    JOB_STATES,
    ArtifactRow,
    AttemptRow,
    CurveRow,
    JobRow,
    JobState,
    ResultRow,
    Role,
    RunningRow,
    RunRow,
    RunStatus,
    StudyNotFound,
    StudyRow,
    TrialRow,
)

__all__ = [
    "ArtifactRow",
    "AttemptRow",
    "CurveRow",
    "JobRow",
    "ResultRow",
    "RunRow",
    "RunningRow",
    "StudyNotFound",
    "StudyRow",
    "TrialRow",
    "artifacts",
    "attempts",
    "change_token",
    "curve_names",
    "curves",
    "finals",
    "job_values",
    "jobs",
    "results",
    "running",
    "runs",
    "studies",
    "study",
    "trial_states",
    "trials",
    "variants",
]


def studies(db: Database) -> list[StudyRow]:
    """Every study, the newest last."""
    with db.session() as session:
        return _studies(session)


def holds(db: Database, name: str) -> bool:
    """Whether there is a study of that name."""
    with db.session() as session:
        return session.scalar(select(Study.id).where(Study.name == name)) is not None


def study(db: Database, name: str) -> StudyRow:
    """The study of that name. Raises StudyNotFound, with the names that are near or all there are."""
    with db.session() as session:
        found = _studies(session, name)
        if found:
            return found[0]
        names = list(session.scalars(select(Study.name).order_by(Study.name)))
    near = difflib.get_close_matches(name, names, n=3)
    if near:
        cure = f"did you mean {', '.join(map(repr, near))}?"
    elif names:
        cure = f"it holds {', '.join(names[:20])}{', ...' if len(names) > 20 else ''}"
    else:
        cure = "it holds none yet: `miras-search run STUDY.yaml`"
    raise StudyNotFound(f"{db.name}: no study {name!r}: {cure}")


def _studies(session: Session, name: str | None = None) -> list[StudyRow]:
    wanted = select(Study).order_by(Study.id)
    found = session.scalars(wanted if name is None else wanted.where(Study.name == name)).all()
    ids = [row.id for row in found]
    counted = select(Trial.study_id, func.count()).where(Trial.study_id.in_(ids)).group_by(Trial.study_id)
    n_trials = dict(session.execute(counted).all())
    states = select(Trial.study_id, Job.state, func.count()).join(Job).where(Trial.study_id.in_(ids))
    n_jobs = _by_state(session.execute(states.group_by(Trial.study_id, Job.state)), ids)
    return [
        StudyRow(
            id=row.id,
            name=row.name,
            kind=row.kind,
            question=row.question,
            metric=row.metric,
            created_at=row.created_at,
            updated_at=row.updated_at,
            config=row.config,
            config_yaml=row.config_yaml,
            config_hash=row.config_hash,
            space_hash=row.space_hash,
            trials=n_trials.get(row.id, 0),
            jobs=n_jobs[row.id],
        )
        for row in found
    ]


def trials(db: Database, study_id: int, numbers: Collection[int] | None = None) -> list[TrialRow]:
    """The cells of a study by number, the base first; all, or those of the given numbers."""
    mine = _of(study_id, numbers)
    with db.session() as session:
        found = session.scalars(select(Trial).where(mine).order_by(Trial.number)).all()
        states = select(Job.trial_id, Job.state, func.count()).join(Trial).where(mine)
        counted = session.execute(states.group_by(Job.trial_id, Job.state))
        n_jobs = _by_state(counted, [row.id for row in found])
        return [
            TrialRow(
                id=row.id,
                number=row.number,
                cell=row.cell,
                role=cast(Role, row.role),
                changes=row.changes,
                design=row.design,
                settings=row.settings,
                design_hash=row.design_hash,
                state=cast(JobState, row.state),
                jobs=n_jobs[row.id],
            )
            for row in found
        ]


def trial_states(db: Database, study_id: int) -> list[tuple[int, Role, JobState]]:
    """Number, role and state of each trial: all that a count of a long study needs."""
    wanted = select(Trial.number, Trial.role, Trial.state).where(Trial.study_id == study_id).order_by(Trial.number)
    with db.session() as session:
        return [(number, cast(Role, role), cast(JobState, state)) for number, role, state in session.execute(wanted)]


def variants(db: Database, study_id: int, block: int = 1000) -> Iterator[tuple[int, str, str, dict[str, object]]]:
    """Number, name, hash of the design and settings of each trial, by number; in blocks, for there may be many."""
    wanted = select(Trial.number, Trial.cell, Trial.design_hash, Trial.settings).where(Trial.study_id == study_id)
    last = -1
    while True:
        with db.session() as session:
            rows = session.execute(wanted.where(Trial.number > last).order_by(Trial.number).limit(block)).all()
        if not rows:
            return
        yield from ((row.number, row.cell, row.design_hash, row.settings) for row in rows)
        last = rows[-1].number


def _of(study_id: int, numbers: Collection[int] | None) -> ColumnElement[bool]:
    """A study's trials: all, or those of the given numbers."""
    mine = Trial.study_id == study_id
    return mine if numbers is None else and_(mine, Trial.number.in_(numbers))


def _by_state(counted: Iterable[tuple[int, str, int]], ids: Sequence[int]) -> dict[int, dict[JobState, int]]:
    counts: dict[int, dict[JobState, int]] = {key: dict.fromkeys(JOB_STATES, 0) for key in ids}
    for key, state, count in counted:
        counts[key][cast(JobState, state)] = count
    return counts


def jobs(db: Database, study_id: int, trial_number: int | None = None) -> list[JobRow]:
    """Every job of a study, in the order to run them: all cells on the first seed, then on the second, ...

    A study that is stopped half-way then has complete pairs for its early seeds. Seeds come in the order in which they
    were first stored. Of one trial: as they were stored.
    """
    tries = select(func.count()).where(Attempt.job_id == Job.id).correlate(Job).scalar_subquery()
    columns = select(Job.id, Job.trial_id, Trial.number, Trial.cell, Job.task, Job.seed, Job.state, tries)
    wanted = columns.join(Trial, Job.trial_id == Trial.id).where(Trial.study_id == study_id)
    if trial_number is not None:  # a search asks for one trial at a time: that must not cost a look at all of them
        wanted = wanted.where(Trial.number == trial_number).order_by(Job.id)
    else:
        first = select(Job.seed, func.min(Job.id).label("first_id")).join(Trial).where(Trial.study_id == study_id)
        order = first.group_by(Job.seed).subquery()
        wanted = wanted.join(order, Job.seed == order.c.seed).order_by(order.c.first_id, Trial.number, Job.id)
    with db.session() as session:
        return [
            JobRow(id_, trial_id, number, cell, task, seed, cast(JobState, state), attempts)
            for id_, trial_id, number, cell, task, seed, state, attempts in session.execute(wanted)
        ]


def job_values(db: Database, job_id: int) -> dict[tuple[str, str], float]:
    """The final numbers of one job by (metric, split)."""
    wanted = (
        select(MetricName.name, FinalMetric.split, FinalMetric.value, FinalMetric.flag)
        .join(MetricName, FinalMetric.name_id == MetricName.id)
        .where(FinalMetric.job_id == job_id)
    )
    with db.session() as session:
        return {(name, split): decode(value, flag) for name, split, value, flag in session.execute(wanted)}


def finals(db: Database, study_id: int, metric: str, split: str) -> list[tuple[str, float]]:
    """Task and value of one final number, of each job that has it."""
    wanted = (
        select(Job.task, FinalMetric.value, FinalMetric.flag)
        .join(Job, FinalMetric.job_id == Job.id)
        .join(Trial, Job.trial_id == Trial.id)
        .join(MetricName, FinalMetric.name_id == MetricName.id)
        .where(Trial.study_id == study_id, MetricName.name == metric, FinalMetric.split == split)
    )
    with db.session() as session:
        return [(task, decode(value, flag)) for task, value, flag in session.execute(wanted)]


def results(
    db: Database, study_id: int, numbers: Collection[int] | None = None, *, metrics: Collection[str] | None = None
) -> list[ResultRow]:
    """One row a job, unfinished ones included, by trial number, then in the order in which the jobs were stored.

    Of all trials, or of those of the given numbers; with all final numbers, or with those of the given metrics.
    """
    mine = _of(study_id, numbers)
    final = (
        select(FinalMetric.job_id, MetricName.name, FinalMetric.split, FinalMetric.value, FinalMetric.flag)
        .join(MetricName, FinalMetric.name_id == MetricName.id)
        .join(Job, FinalMetric.job_id == Job.id)
        .join(Trial, Job.trial_id == Trial.id)
        .where(mine)
        .order_by(FinalMetric.job_id, MetricName.id, FinalMetric.split)
    )
    if metrics is not None:
        final = final.where(MetricName.name.in_(metrics))
    wanted = (
        select(Job.id, Job.trial_id, Job.task, Job.seed, Job.state, Attempt.last_step, Attempt.device)
        .join(Trial, Job.trial_id == Trial.id)
        .outerjoin(Attempt, Job.attempt_id == Attempt.id)
        .where(mine)
        .order_by(Trial.number, Job.id)
    )
    with db.session() as session:
        values: dict[int, dict[tuple[str, str], float]] = {}
        for job_id, name, split, value, flag in session.execute(final):
            values.setdefault(job_id, {})[name, split] = decode(value, flag)
        # read apart from the jobs: a cell's `changes` are decoded once, not once a seed; its design not at all
        about = select(Trial.id, Trial.number, Trial.cell, Trial.role, Trial.changes).where(mine)
        cells = {row.id: row for row in session.execute(about)}
        return [
            ResultRow(
                cell=cells[trial_id].cell,
                role=cast(Role, cells[trial_id].role),
                number=cells[trial_id].number,
                changes=cells[trial_id].changes,
                task=task,
                seed=seed,
                state=cast(JobState, state),
                last_step=last_step,
                values=values.get(job_id, {}),
                device=device or "",
            )
            for job_id, trial_id, task, seed, state, last_step, device in session.execute(wanted)
        ]


def curves(
    db: Database,
    study_id: int,
    metric: str,
    split: str,
    *,
    cells: Sequence[str] | None = None,
    task: str | None = None,
) -> list[CurveRow]:
    """The values of one metric over the steps, of each job's latest attempt; by trial, job and step.

    `cells` and `task` narrow it down; an unknown metric, cell or task gives no rows.
    """
    wanted = (
        select(Trial.cell, Job.task, Job.seed, MetricPoint.step, MetricPoint.value, MetricPoint.flag)
        .join(Job, Job.trial_id == Trial.id)
        .join(MetricPoint, MetricPoint.attempt_id == Job.attempt_id)
        .join(MetricName, MetricPoint.name_id == MetricName.id)
        .where(Trial.study_id == study_id, MetricName.name == metric, MetricPoint.split == split)
        .order_by(Trial.number, Job.id, MetricPoint.step)
    )
    if cells is not None:
        wanted = wanted.where(Trial.cell.in_(cells))
    if task is not None:
        wanted = wanted.where(Job.task == task)
    with db.session() as session:
        return [
            CurveRow(cell, task_, seed, step, decode(value, flag))
            for cell, task_, seed, step, value, flag in session.execute(wanted)
        ]


def curve_names(db: Database, study_id: int) -> list[tuple[str, str]]:
    """The (metric, split) pairs that the latest attempts of a study have curves of, in the registry's order."""
    used = (
        select(MetricPoint.name_id, MetricPoint.split)
        .join(Job, MetricPoint.attempt_id == Job.attempt_id)
        .join(Trial, Job.trial_id == Trial.id)
        .where(Trial.study_id == study_id)
        .distinct()
        .subquery()
    )
    wanted = select(MetricName.name, used.c.split).join(used, MetricName.id == used.c.name_id)
    with db.session() as session:
        return [(name, split) for name, split in session.execute(wanted.order_by(MetricName.id, used.c.split))]


def attempts(db: Database, study_id: int, trial_number: int | None = None) -> list[AttemptRow]:
    """Every try of every job of one trial (None: of all), lost and failed ones included; by job, then by attempt."""
    wanted = (
        # columns: an object of the ORM for each would take five times as long
        select(
            Attempt.id,
            Attempt.job_id,
            Job.task,
            Job.seed,
            Attempt.attempt,
            Attempt.state,
            Attempt.error_type,
            Attempt.error_text,
            Attempt.host,
            Attempt.pid,
            Attempt.device,
            Attempt.started_at,
            Attempt.ended_at,
            Attempt.wall_seconds,
            Attempt.peak_memory_bytes,
            Attempt.last_step,
            Attempt.run_id,
        )
        .join(Job, Attempt.job_id == Job.id)
        .join(Trial, Job.trial_id == Trial.id)
        .where(Trial.study_id == study_id)
        .order_by(Job.id, Attempt.attempt)
    )
    if trial_number is not None:
        wanted = wanted.where(Trial.number == trial_number)
    with db.session() as session:
        return [AttemptRow(**row) for row in session.execute(wanted).mappings()]


def wall_seconds(db: Database, study_id: int) -> list[tuple[str, str, float]]:
    """Cell, task and wall time of every try that ended with a result."""
    wanted = (
        select(Trial.cell, Job.task, Attempt.wall_seconds)
        .join(Job, Job.trial_id == Trial.id)
        .join(Attempt, Attempt.job_id == Job.id)
        .where(Trial.study_id == study_id, Attempt.state == "complete")
        .order_by(Job.id, Attempt.attempt)
    )
    with db.session() as session:
        return [(cell, task, seconds) for cell, task, seconds in session.execute(wanted) if seconds is not None]


def runs(db: Database, study_id: int) -> list[RunRow]:
    """The invocations of the driver, the newest last. `lease.is_live` tells whether a `running` one is."""
    with db.session() as session:
        wanted = select(tables.Run).where(tables.Run.study_id == study_id).order_by(tables.Run.id)
        return [
            RunRow(
                id=row.id,
                started_at=row.started_at,
                ended_at=row.ended_at,
                heartbeat_at=row.heartbeat_at,
                status=cast(RunStatus, row.status),
                host=row.host,
                pid_space=row.pid_space,
                pid=row.pid,
                provenance=row.provenance,
            )
            for row in session.scalars(wanted)
        ]


def running(db: Database, study_id: int) -> list[RunningRow]:
    """The trainings under way, the oldest first."""
    wanted = (
        select(Trial.cell, Job.task, Job.seed, Attempt.last_step, Attempt.started_at)
        .join(Job, Job.trial_id == Trial.id)
        .join(Attempt, Attempt.job_id == Job.id)
        .where(Trial.study_id == study_id, Attempt.state == "running")
        .order_by(Attempt.id)
    )
    with db.session() as session:
        return [RunningRow(*row) for row in session.execute(wanted)]


def artifacts(db: Database, study_id: int) -> list[ArtifactRow]:
    """The files that the study's attempts left, in the order in which they were noted."""
    wanted = (
        select(Artifact, Trial.cell, Job.task, Job.seed, Attempt.attempt)
        .join(Attempt, Artifact.attempt_id == Attempt.id)
        .join(Job, Attempt.job_id == Job.id)
        .join(Trial, Job.trial_id == Trial.id)
        .where(Trial.study_id == study_id)
        .order_by(Artifact.id)
    )
    with db.session() as session:
        return [
            ArtifactRow(cell, task, seed, attempt, row.kind, row.uri, row.sha256, row.bytes, row.step, row.created_at)
            for row, cell, task, seed, attempt in session.execute(wanted)
        ]


def change_token(db: Database, study_id: int | None) -> tuple[int, str]:
    """A cache key that changes with every write: a count of writes and the time of the last.

    Of one study, or of all with None. A heartbeat alone does not change it.
    """
    wanted = select(func.coalesce(func.sum(Study.changes), 0) + func.count(), func.max(Study.updated_at))
    if study_id is not None:
        wanted = wanted.where(Study.id == study_id)
    with db.session() as session:
        count, last = session.execute(wanted).one()
    return int(count), "" if last is None else last.isoformat()
