"""From a study to what the store and the workers are given: trials, jobs, tasks, file names. Plain data, no torch."""

from __future__ import annotations

import re
from collections.abc import Sequence

from miras_search.engine.messages import Task
from miras_search.store.types import JobRow, NewJob, NewTrial
from miras_search.store.writer import Writer
from miras_search.study.study import Study
from miras_search.training.job import Job


def put_study(study: Study, writer: Writer) -> int:
    """Store a study, or find it, without its jobs; returns its id. Raises StudyChanged where it is another one."""
    return writer.put_study(
        name=study.name,
        question=study.question,
        kind=study.kind,
        metric=study.metric,
        config_yaml=study.yaml,
        config=study.config,
        config_hash=study.config_hash,
        space_hash=study.space_hash,
    )


def new_trials(study: Study) -> list[NewTrial]:
    """A trial a cell, the base first."""
    tasks = {task.name: dict(task.spec) for task in study.tasks}
    return [
        NewTrial(
            number=cell.number,
            cell=cell.name,
            role=cell.role,
            changes=dict(cell.changes),
            design=cell.design.to_plain(),
            settings={"model": cell.model.to_plain(), "train": cell.train.to_plain(), "tasks": tasks},
            design_hash=cell.design.hash,
        )
        for cell in study.cells
    ]


def new_jobs(study: Study) -> list[NewJob]:
    """Every cell on every task with every seed. Seeds are outermost: a study that stops early has complete pairs."""
    return [
        NewJob(cell.number, task.name, seed) for seed in study.seeds for cell in study.cells for task in study.tasks
    ]


def job_of(study: Study, row: JobRow) -> Job:
    """What a stored job trains."""
    cell = study.cells[row.trial_number]
    spec = next(task.spec for task in study.tasks if task.name == row.task)
    matched = study.base if cell.train.inner_step == "match_base" else None
    return Job(cell.design, cell.model, spec, cell.train, row.seed, matched)


def task_of(study: Study, rows: Sequence[JobRow], entry: str) -> Task:
    """What a worker is given for stored jobs. It trains on a GPU exactly if the study's resources ask for one."""
    return Task(
        entry=entry,
        jobs=tuple(job_of(study, row).to_plain() for row in rows),
        device="cuda" if study.resources.gpus else "cpu",
        threads=study.resources.cpus,
        checkpoint=True,
        plugins=study.plugins,
    )


def checkpoint_name(study: Study, row: JobRow, attempt: int) -> str:
    """The parameters' file below the checkpoint folder: `bias/003-mqar-s0-a1.safetensors`."""
    task = re.sub(r"[^A-Za-z0-9._-]+", "_", row.task).strip("_")
    return f"{study.name}/{row.trial_number:03d}-{task}-s{row.seed}-a{attempt}.safetensors"
