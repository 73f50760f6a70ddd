"""A study as data frames with a type for every column: for files, and for whoever goes on in pandas.

One line a row of the table, a trial, a job, or a point of a curve. A number that is not there is missing, not zero;
counts stay whole numbers beside missing ones. What a trial changes is a column a varied path.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import fields

import pandas as pd

from miras_search.analysis.reported import Reported
from miras_search.analysis.table import Row
from miras_search.export.layout import Tables, as_tables
from miras_search.store.types import CurveRow, TrialRow

_PLACE = ("task", "metric", "split", "base")
_WHOLE = ("n", "of", "params", "state_bytes", "peak_memory_bytes", "failed", "diverged", "pairs")
_YES_NO = ("censored", "best", "second")
_MAYBE = ("sign_depends",)
_TEXT = ("cell", "changes", "role", "verdict", "mark", "survives", "under", "tuned", "at_edge", "sensitivity", "tried")


def table_frame(tables: Tables) -> pd.DataFrame:
    """One line a row of each task's table, with every number of the row; mappings are JSON text."""
    names = [field.name for field in fields(Row)]
    lines = [
        [*(getattr(table, name) for name in _PLACE), *(_plain(getattr(row, name)) for name in names)]
        for table in as_tables(tables)
        for row in table.rows
    ]
    types = {
        **dict.fromkeys(names, "float64"),
        **dict.fromkeys((*_PLACE, *_TEXT), "string"),
        **dict.fromkeys(_WHOLE, "Int64"),
        **dict.fromkeys(_YES_NO, "bool"),
        **dict.fromkeys(_MAYBE, "boolean"),
    }
    return pd.DataFrame(lines, columns=[*_PLACE, *names]).astype(types)


def trials_frame(trials: Sequence[TrialRow]) -> pd.DataFrame:
    """One line a trial; a column a varied path, missing where the trial is as the base; jobs by state."""
    paths = list(dict.fromkeys(path for trial in trials for path in trial.changes))
    states = list(trials[0].jobs) if trials else []
    lines = [
        [
            trial.number,
            trial.cell,
            trial.role,
            trial.state,
            *(trial.changes.get(path) for path in paths),
            *(trial.jobs[state] for state in states),
            trial.design_hash,
            json.dumps(trial.design),
            json.dumps(trial.settings),
        ]
        for trial in trials
    ]
    counts = [f"jobs_{state}" for state in states]
    frame = pd.DataFrame(
        lines, columns=["trial", "cell", "role", "state", *paths, *counts, "design_hash", "design", "settings"]
    )
    whole = dict.fromkeys(["trial", *counts], "int64")
    return frame.astype({name: whole.get(name, "string") for name in frame.columns})


def jobs_frame(reported: Reported) -> pd.DataFrame:
    """One line a job; a column a number that any of them reported: `accuracy.test`, `loss.train`, `params`.

    `row` is the table's row that the job is in, missing for one that tuned or searched.
    """
    results = reported.everything
    keys = list(dict.fromkeys(key for row in results for key in row.values))
    names = [f"{name}.{split}" if split else name for name, split in keys]
    lines = [
        [
            row.number,
            row.cell,
            reported.row_of(row),
            row.role,
            row.task,
            row.seed,
            row.state,
            row.last_step,
            *map(row.values.get, keys),
        ]
        for row in results
    ]
    about = ["trial", "cell", "row", "role", "task", "seed", "state", "last_step"]
    frame = pd.DataFrame(lines, columns=[*about, *names])
    types = dict.fromkeys(("cell", "row", "role", "task", "state"), "string") | dict.fromkeys(names, "float64")
    return frame.astype({"trial": "int64", "seed": "int64", "last_step": "Int64", **types})


def curves_frame(curves: Sequence[tuple[str, str, Sequence[CurveRow]]]) -> pd.DataFrame:
    """One line a point, from (metric, split, points): tidy, as plotting libraries want it."""
    lines = [
        (row.cell, row.task, row.seed, metric, split, row.step, row.value)
        for metric, split, rows in curves
        for row in rows
    ]
    frame = pd.DataFrame(lines, columns=["cell", "task", "seed", "metric", "split", "step", "value"])
    types = dict.fromkeys(("cell", "task", "metric", "split"), "string")
    return frame.astype({**types, "seed": "int64", "step": "int64", "value": "float64"})


def _plain(value: object) -> object:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, dict) else value
