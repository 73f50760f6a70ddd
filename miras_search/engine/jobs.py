"""From a study to what the store and the workers are given: trials, jobs, tasks, file names. Plain data, no torch."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from types import MappingProxyType

from miras_search.engine.messages import Task
from miras_search.store.types import JobRow, NewJob, NewTrial
from miras_search.store.writer import Writer
from miras_search.study.drafts import Cell
from miras_search.study.study import Study
from miras_search.training.job import Job


def put_study(study: Study, writer: Writer, *, takeover: bool = False) -> int:
    """Store a study, or find it, without its jobs; returns its id. Raises StudyChanged where it is another one, and
    StudyBusy where a live run trains it with other seeds or words, unless `takeover`.
    """
    return writer.put_study(
        name=study.name,
        question=study.question,
        kind=study.kind,
        metric=study.metric,
        config_yaml=study.yaml,
        config=study.config,
        config_hash=study.config_hash,
        space_hash=study.space_hash,
        takeover=takeover,
    )


def new_trials(study: Study) -> list[NewTrial]:
    """A trial a cell, or where cells are tuned one a setting of each; the base first."""
    return [new_trial(study, cell) for cell in study.trials]


def new_trial(study: Study, cell: Cell, refused: Mapping[str, str] | None = None) -> NewTrial:
    """The row of a cell; of one that a search has refused with the reasons."""
    tasks = {task.name: dict(task.spec) for task in study.tasks}
    settings: dict[str, object] = {"model": cell.model.to_plain(), "train": cell.train.to_plain(), "tasks": tasks}
    if refused:
        settings["refused"] = dict(refused)
    return NewTrial(
        number=cell.number,
        cell=cell.name,
        role="refused" if refused else cell.role,
        changes=dict(cell.changes),
        design=cell.design.to_plain(),
        settings=settings,
        design_hash=cell.design.hash,
    )


def new_jobs(study: Study) -> list[NewJob]:
    """What can be trained from the start: every cell on every task with every seed, or where cells are tuned every
    setting on the tuning's own seeds. Seeds are outermost: a study that stops early has complete pairs.
    """
    return _jobs(study, study.seeds if study.tuning is None else study.tuning.seeds)


def possible_jobs(study: Study) -> list[NewJob]:
    """All that the study may ever train: on the seeds of top-ups too, and of a tuned one one setting of each cell on
    the reported seeds.
    """
    return _jobs(study, study.reported if study.tuning is None else (*study.tuning.seeds, *study.reported))


def _jobs(study: Study, seeds: Sequence[int]) -> list[NewJob]:
    return [NewJob(cell.number, task.name, seed) for seed in seeds for cell in study.trials for task in study.tasks]


def job_of(study: Study, row: JobRow) -> Job:
    """What a stored job trains."""
    cell = study.trials[row.trial_number]
    spec = next(task.spec for task in study.tasks if task.name == row.task)
    matched = study.base if cell.train.inner_step == "match_base" else None
    return Job(cell.design, cell.model, spec, cell.train, row.seed, matched)


def task_of(
    study: Study,
    rows: Sequence[JobRow],
    entry: str,
    *,
    resume: bytes | None = None,
    trained: bytes | None = None,
    corpora: Mapping[str, str] = MappingProxyType({}),
) -> Task:
    """What a worker is given for stored jobs. It runs on a GPU exactly if the study's resources ask for one.

    `corpora` has the names of the tasks that read files, with the hash of what the driver read.
    """
    return Task(
        entry=entry,
        jobs=tuple(job_of(study, row).to_plain() for row in rows),
        device="cuda" if study.resources.gpus else "cpu",
        threads=study.resources.cpus,
        kernels=study.resources.kernels,
        checkpoint=trained is None,
        resume=resume,
        save_every=study.resources.save_every,
        plugins=study.plugins,
        trained=trained,
        corpora=tuple(corpora.get(row.task) for row in rows),
    )


def checkpoint_name(study: str, row: JobRow, attempt: int) -> str:
    """The parameters' file below the checkpoint folder: `bias/003-mqar-s0-a1.safetensors`."""
    return f"{_stem(study, row)}-a{attempt}.safetensors"


def snapshot_name(study: str, row: JobRow) -> str:
    """The file of a job that is under way: `bias/003-mqar-s0.snapshot`."""
    return f"{_stem(study, row)}.snapshot"


def _stem(study: str, row: JobRow) -> str:
    task = re.sub(r"[^A-Za-z0-9._-]+", "_", row.task).strip("_")
    return f"{study}/{row.trial_number:03d}-{task}-s{row.seed}"
