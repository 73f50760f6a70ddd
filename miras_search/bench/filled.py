"""A stored search with many trials that nobody trained: rows as a long run leaves them, in our tables and in Optuna's.

The points are drawn at random from the full space. Rows of measurements are inserted in bulk, so that filling a store
does not take as long as what it stands for.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path

import numpy as np
import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
    distribution_to_json,
)
from optuna.storages._rdb import models
from optuna.trial import TrialState
from sqlalchemy import insert, select, update

from miras_search.engine import points
from miras_search.engine.jobs import new_trial, put_study
from miras_search.engine.optuna_ import PREFIX, close_storage, open_storage
from miras_search.space.fields import SpecError
from miras_search.space.sampling_grammar import Label
from miras_search.store.database import Database
from miras_search.store.metric_names import metric_ids
from miras_search.store.tables import Attempt, FinalMetric, Job, MetricPoint, Trial
from miras_search.store.types import NewJob
from miras_search.store.writer import Writer
from miras_search.study.drafts import Cell
from miras_search.study.loader import loads
from miras_search.study.study import Study

TEXT = """\
name: filled
question: How does the engine hold up when a study is long?
kind: search
task: {name: mqar, length: 32}
model: {layers: 1, d_model: 16, heads: 1}
train: {steps: 100, batch: 8, eval_examples: 16, eval_every: 1}
base: delta_net
space: {memory: any, bias: any, retention: any, algorithm: any, train.lr: {log_uniform: [1e-3, 3e-2]}}
presets: false
confirm: {top: 1, seeds: 1}
"""
FINALS = [(name, split) for name in ("accuracy", "loss") for split in ("train", "validation", "test")]
FINALS += [(name, "") for name in ("params", "state_bytes", "tokens_per_second", "peak_memory_bytes", "wall_seconds")]
SECONDS = 5.0  # that each training says it took
BLOCK = 100_000  # rows of a curve inserted at once


@dataclass(slots=True)
class _Drawn:
    """Stands in for an Optuna trial: draws at random, and keeps what Optuna would have recorded."""

    random: np.random.Generator
    params: dict[str, Label] = field(default_factory=dict)
    distributions: dict[str, BaseDistribution] = field(default_factory=dict)

    def suggest_categorical(self, name: str, choices: Sequence[Label]) -> Label:
        self.distributions[name] = CategoricalDistribution(tuple(choices))
        self.params[name] = choices[int(self.random.integers(len(choices)))]
        return self.params[name]

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float:
        self.distributions[name] = FloatDistribution(low, high, log=log)
        ends = np.log([low, high]) if log else np.array([low, high])
        value = float(self.random.uniform(*ends))
        self.params[name] = found = min(max(float(np.exp(value)) if log else value, low), high)
        return found

    def suggest_int(self, name: str, low: int, high: int, *, log: bool = False) -> int:
        self.distributions[name] = IntDistribution(low, high, log=log)
        self.params[name] = found = int(self.random.integers(low, high + 1))
        return found


def study(trials: int, *overrides: str) -> Study:
    """The search, for so many trials in all."""
    return loads(TEXT, "filled.yaml", [f"trials={trials}", *overrides])


def fill(db: Database, made: Study, trials: int, *, steps: int = 0, start: int = 0) -> int:
    """Store so many finished trials of a search, with curves of `steps` points; returns the study's id.

    `start` seeds what is drawn and found. All are told to Optuna.
    """
    writer, random = Writer(db), np.random.default_rng(start)
    study_id = put_study(made, writer)
    cells, drawn = _cells(made, trials, random)
    values = random.random(trials)
    writer.put_trials(study_id, [new_trial(made, cell) for cell in cells])
    tasks, seed = [task.name for task in made.tasks], made.seeds[0]
    writer.put_jobs(study_id, [NewJob(cell.number, task, seed) for cell in cells for task in tasks])
    run = writer.begin_run(study_id, provenance={})
    _measured(db, study_id, run.id, values, steps)
    writer.end_run(run.id, "done")
    _told(db, made, drawn, [float(value) for value in values])
    return study_id


def _cells(made: Study, count: int, random: np.random.Generator) -> tuple[list[Cell], list[_Drawn]]:
    """The base, then different points of the space with the draws that led to them."""
    assert made.search is not None
    cells, drawn = [made.cells[0]], [_Drawn(random)]
    known = {made.cells[0].variant.key}
    while len(cells) < count:
        it = _Drawn(random)
        try:
            sample = made.search.space.suggest(it)
            found = points.variant(made, sample)
        except SpecError:
            continue
        if found.key not in known:
            known.add(found.key)
            cells.append(points.cell(len(cells), found, sample.levels, None))
            drawn.append(it)
    return cells, drawn


def _told(db: Database, made: Study, drawn: Sequence[_Drawn], values: Sequence[float]) -> None:
    """The same trials in Optuna's tables. In bulk: through its storage each would take tens of milliseconds."""
    storage = open_storage(db.url)
    try:
        found = optuna.create_study(storage=storage, study_name=PREFIX + made.name, direction="maximize")
        about = {"seeds": [made.seeds[0]], "batch": 0}
        now = datetime.now(UTC).replace(tzinfo=None)
        times = {"datetime_start": now, "datetime_complete": now}
        trial = {"study_id": found._study_id, "state": TrialState.COMPLETE, **times}
        with storage.engine.begin() as connection:
            rows: list[dict[str, object]] = [{"number": number, **trial} for number in range(len(drawn))]
            connection.execute(insert(models.TrialModel.__table__), rows)
            ids = dict(connection.execute(select(models.TrialModel.number, models.TrialModel.trial_id)).all())
            kind = models.TrialValueModel.TrialValueType.FINITE
            rows = [
                {"trial_id": ids[number], "objective": 0, "value": value, "value_type": kind}
                for number, value in enumerate(values)
            ]
            connection.execute(insert(models.TrialValueModel.__table__), rows)
            rows = [
                {"trial_id": ids[number], "key": key, "value_json": json.dumps(value)}
                for number in range(len(drawn))
                for key, value in (("trial", number), *about.items())
            ]
            connection.execute(insert(models.TrialUserAttributeModel.__table__), rows)
            rows = [
                {
                    "trial_id": ids[number],
                    "param_name": name,
                    "param_value": it.distributions[name].to_internal_repr(value),
                    "distribution_json": distribution_to_json(it.distributions[name]),
                }
                for number, it in enumerate(drawn)
                for name, value in it.params.items()
            ]
            connection.execute(insert(models.TrialParamModel.__table__), rows)
    finally:
        close_storage(storage)


def _measured(db: Database, study_id: int, run_id: int, values: np.ndarray, steps: int) -> None:
    """One complete attempt a job, what it found, and its curve."""
    now = datetime.now(UTC)
    with db.writing() as session:
        jobs = list(session.scalars(select(Job.id).join(Trial).where(Trial.study_id == study_id).order_by(Job.id)))
        names = metric_ids(session.connection(), {name for name, _ in FINALS})
        about = {"attempt": 1, "run_id": run_id, "state": "complete", "host": "here", "pid": 1, "device": "cpu"}
        about |= {"started_at": now - timedelta(seconds=SECONDS), "ended_at": now, "wall_seconds": SECONDS}
        session.execute(insert(Attempt), [{"job_id": job, "last_step": steps, **about} for job in jobs])
        attempts = dict(session.execute(select(Attempt.job_id, Attempt.id).where(Attempt.run_id == run_id)).all())
        session.execute(
            insert(FinalMetric),
            [
                {
                    "job_id": job,
                    "name_id": names[name],
                    "split": split,
                    "attempt_id": attempts[job],
                    "value": SECONDS if name == "wall_seconds" else float(values[place % len(values)]),
                }
                for place, job in enumerate(jobs)
                for name, split in FINALS
            ],
        )
        curves = _curves(list(attempts.values()), names["accuracy"], steps)
        while block := list(islice(curves, BLOCK)):
            session.execute(insert(MetricPoint), block)
        rows = [{"id": job, "state": "complete", "attempt_id": attempt} for job, attempt in attempts.items()]
        session.execute(update(Job), rows)
        done = update(Trial).where(Trial.study_id == study_id)
        session.execute(done.values(state="complete", updated_at=now, finished_at=now))


def _curves(attempts: Sequence[int], name: int, steps: int) -> Iterator[dict[str, object]]:
    for attempt in attempts:
        for step in range(1, steps + 1):
            yield {"attempt_id": attempt, "name_id": name, "split": "validation", "step": step, "value": step / steps}


def size(path: Path) -> int:
    """Bytes of a database's files."""
    return sum(file.stat().st_size for file in path.parent.glob(f"{path.name}*"))
