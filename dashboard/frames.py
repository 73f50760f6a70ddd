"""The tables of the dashboard as data frames: plain rows in, pandas out, so that they are tested without a browser."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from datetime import datetime

import pandas as pd

from miras_search.analysis.snapshot import Snapshot
from miras_search.dashboard.progress import Current, Ended, ago, duration, stamp
from miras_search.errors import cause
from miras_search.metrics import METRICS
from miras_search.store.types import FINAL_STATES, ArtifactRow, AttemptRow, ResultRow, StudyRow

STUDY_COLUMNS = ("study", "question", "ended", "diverged", "failed", "cells", "metric", "newest change")
TRIAL_COLUMNS = (
    "trial",
    "cell",
    "role",
    "changes",
    "state",
    "ended",
    "mean",
    "sd",
    "n",
    "diverged",
    "failed",
    "params",
    "hash",
)


def studies_frame(studies: Sequence[StudyRow], now: datetime) -> pd.DataFrame:
    """One line a study, in the order given."""
    rows = [
        (
            study.name,
            study.question,
            _share(sum(study.jobs[state] for state in FINAL_STATES), sum(study.jobs.values())),
            study.jobs["diverged"],
            study.jobs["failed"],
            study.trials,
            study.metric,
            ago(study.updated_at, now),
        )
        for study in studies
    ]
    return pd.DataFrame(rows, columns=list(STUDY_COLUMNS))


def trials_frame(snapshot: Snapshot, task: str | None) -> pd.DataFrame:
    """One line a trial; mean, sd and n of the study's metric on its own split, over the completed seeds of one task."""
    metric = snapshot.study.metric
    key = (metric, METRICS[metric].split)
    by_number: dict[int, list[ResultRow]] = {}
    for result in snapshot.tried:
        if task is None or result.task == task:
            by_number.setdefault(result.number, []).append(result)
    rows = []
    for trial in snapshot.trials:
        results = by_number.get(trial.number, [])
        values = [row.values[key] for row in results if row.state == "complete" and key in row.values]
        values = [value for value in values if math.isfinite(value)]
        params = [row.values["params", ""] for row in results if ("params", "") in row.values]
        rows.append(
            (
                trial.number,
                trial.cell,
                trial.role,
                changes_text(trial.changes),
                trial.state,
                _share(sum(row.state in FINAL_STATES for row in results), len(results)),
                statistics.fmean(values) if values else None,
                statistics.stdev(values) if len(values) > 1 else None,
                len(values),
                sum(row.state == "diverged" for row in results),
                sum(row.state == "failed" for row in results),
                params[0] if params else None,
                trial.design_hash,
            )
        )
    frame = pd.DataFrame(rows, columns=list(TRIAL_COLUMNS))
    return frame.astype({"mean": "float64", "sd": "float64", "params": "float64"})


def filtered(frame: pd.DataFrame, *, text: str, states: Sequence[str], roles: Sequence[str]) -> pd.DataFrame:
    """The trials whose cell, changes or hash hold every word of `text`; no states or roles chosen means all of them."""
    kept = frame
    if states:
        kept = kept[kept["state"].isin(states)]
    if roles:
        kept = kept[kept["role"].isin(roles)]
    for word in text.lower().split():
        found = kept["cell"].str.lower().str.contains(word, regex=False)
        for column in ("changes", "hash"):
            found |= kept[column].str.lower().str.contains(word, regex=False)
        kept = kept[found]
    return kept.reset_index(drop=True)


def changes_text(changes: Mapping[str, str]) -> str:
    """`bias: dot, train.lr: 0.003`; the base changes nothing."""
    return ", ".join(f"{path}: {level}" for path, level in changes.items())


def running_frame(current: Sequence[Current]) -> pd.DataFrame:
    """The trainings under way."""
    rows = [
        (
            row.cell,
            row.task,
            row.seed,
            100.0 * row.share,
            "starting" if row.step is None else f"{row.step} of {row.steps}" if row.steps else str(row.step),
            duration(row.elapsed.total_seconds()),
        )
        for row in current
    ]
    return pd.DataFrame(rows, columns=["cell", "task", "seed", "progress", "step", "for"])


def newest_frame(ended: Sequence[Ended], metric: str, now: datetime) -> pd.DataFrame:
    """The trainings that ended last."""
    rows = [
        (
            item.job.cell,
            item.job.task,
            item.job.seed,
            item.attempt.state,
            item.value,
            "" if item.attempt.wall_seconds is None else duration(item.attempt.wall_seconds),
            ago(item.attempt.ended_at or item.attempt.started_at, now),
        )
        for item in ended
    ]
    frame = pd.DataFrame(rows, columns=["cell", "task", "seed", "state", metric, "took", "ended"])
    return frame.astype({metric: "float64"})


def troubles_frame(troubles: Sequence[Ended], now: datetime) -> pd.DataFrame:
    """Attempts that came to nothing."""
    rows = [
        (
            item.job.cell,
            item.job.task,
            item.job.seed,
            item.attempt.attempt,
            item.attempt.state,
            item.job.state,
            cause(item.attempt.error_text, item.attempt.error_type),
            ago(item.attempt.ended_at or item.attempt.started_at, now),
        )
        for item in troubles
    ]
    return pd.DataFrame(rows, columns=["cell", "task", "seed", "try", "how", "job now", "error", "when"])


def jobs_frame(results: Sequence[ResultRow]) -> pd.DataFrame:
    """One line a job with every number it reported, a column a (metric, split), the quality metrics first."""
    keys = sorted({key for row in results for key in row.values}, key=_metric_place)
    rows = [(row.task, row.seed, row.state, row.last_step, *(row.values.get(key) for key in keys)) for row in results]
    names = [f"{split} {name}" if split else name for name, split in keys]
    frame = pd.DataFrame(rows, columns=["task", "seed", "state", "last step", *names])
    return frame.astype(dict.fromkeys(names, "float64")).astype({"last step": "Int64"})


def _metric_place(key: tuple[str, str]) -> tuple[bool, int, int, str]:
    """Splits before costs, test before validation before train, then as the registry has them."""
    name, split = key
    known = list(METRICS)
    splits = ("test", "validation", "train")
    return split == "", splits.index(split) if split in splits else 3, known.index(name) if name in known else 99, name


def attempts_frame(attempts: Sequence[AttemptRow]) -> pd.DataFrame:
    """One line an attempt: where it ran and how it ended."""
    rows = [
        (
            row.task,
            row.seed,
            row.attempt,
            row.state,
            row.last_step,
            "" if row.wall_seconds is None else duration(row.wall_seconds),
            row.device,
            f"{row.host} ({row.pid})",
            stamp(row.started_at),
            row.run_id,
            cause(row.error_text, row.error_type),
        )
        for row in attempts
    ]
    names = ["task", "seed", "try", "state", "last step", "took", "device", "host (pid)", "started", "run", "error"]
    return pd.DataFrame(rows, columns=names).astype({"last step": "Int64"})


def artifacts_frame(artifacts: Sequence[ArtifactRow]) -> pd.DataFrame:
    """One line a file."""
    rows = [(row.task, row.seed, row.attempt, row.kind, row.step, row.uri, row.bytes) for row in artifacts]
    names = ["task", "seed", "try", "kind", "step", "where", "bytes"]
    return pd.DataFrame(rows, columns=names).astype({"step": "Int64"})


def settings_frame(settings: Mapping[str, object]) -> pd.DataFrame:
    """Nested settings as dotted paths with their values as text."""
    return pd.DataFrame(_flat(settings, ""), columns=["setting", "value"])


def _flat(node: Mapping[str, object], prefix: str) -> list[tuple[str, str]]:
    rows: list[tuple[str, str]] = []
    for key, value in node.items():
        path = f"{prefix}{key}"
        if isinstance(value, Mapping) and value:
            rows += _flat(value, f"{path}.")
        elif isinstance(value, list):
            rows.append((path, ", ".join(map(_value, value))))
        else:
            rows.append((path, _value(value)))
    return rows


def _value(value: object) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)


def _share(part: int, whole: int) -> str:
    return f"{part} of {whole}"
