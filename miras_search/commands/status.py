"""`status`: the stored studies, or one of them: jobs by state, what runs, where it failed, the time left."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from miras_search.commands.common import (
    DbOption,
    JsonOption,
    duration,
    emit,
    grid,
    local_time,
    many,
    open_database,
    say,
)
from miras_search.errors import cause

if TYPE_CHECKING:
    from miras_search.store.database import Database
    from miras_search.store.failed import ErrorRow
    from miras_search.store.types import ResultRow, RunRow, StudyRow

BASE = "base"
MOST_REASONS = 8  # lines


@dataclass(frozen=True, slots=True)
class Level:
    """What became of the jobs at one level of one varied path."""

    path: str
    level: str
    jobs: int
    diverged: int
    failed: int


@dataclass(frozen=True, slots=True)
class Reason:
    """One error, with the jobs that failed of it."""

    error: str
    jobs: int
    trial: int
    """The first of their trials."""
    cell: str


def status(
    study: Annotated[str | None, typer.Argument(metavar="[STUDY]", help="One study; else all of them.")] = None,
    db: DbOption = None,
    as_json: JsonOption = False,
) -> None:
    """How far the stored studies are.

    Of one study: jobs by state, what runs, the time left, failures by axis value.
    """
    from miras_search.store import queries

    with open_database(db) as database:
        if study is None:
            _all(queries.studies(database), database.name, as_json)
        else:
            _one(database, queries.study(database, study), as_json, db)


def _all(studies: Sequence[StudyRow], where: str, as_json: bool) -> None:
    if as_json:
        summaries = [
            {
                "study": row.name,
                "question": row.question,
                "kind": row.kind,
                "metric": row.metric,
                "cells": row.trials,
                "jobs": row.jobs,
                "created_at": row.created_at,
                "updated_at": row.updated_at,
            }
            for row in studies
        ]
        emit({"database": where, "studies": summaries})
        return
    if not studies:
        say(f"{where} holds no studies yet: `miras-search run STUDY.yaml`")
        return
    states = [state for state in studies[0].jobs if state != "pruned" or any(row.jobs[state] for row in studies)]
    rows = [["study", "cells", "jobs", *states, "changed"]]
    for row in studies:
        counts = [str(row.jobs[state]) for state in states]
        rows.append([row.name, str(row.trials), str(sum(row.jobs.values())), *counts, local_time(row.updated_at)])
    say(grid(rows, numbers=range(1, len(states) + 3)))


def _one(database: Database, study: StudyRow, as_json: bool, db: str | None) -> None:
    # the dashboard's reckoning, so that both say the same; its data side loads neither Streamlit nor pandas
    from miras_search.analysis.duel import duel
    from miras_search.analysis.search import search_report, sought_of
    from miras_search.analysis.snapshot import load
    from miras_search.commands.search import duel_text
    from miras_search.commands.search import text as search_text
    from miras_search.dashboard.progress import current, time_left
    from miras_search.store.failed import errors

    now = datetime.now(UTC)
    shown: set[str] = set()  # of the final numbers; a study may have very many
    if study.kind == "search":
        sought, limits = sought_of(study)
        shown = {name for name, _, _ in sought} | limits.keys()
    snapshot = load(database, study.name, whole=False, metrics=shown)
    report, against = search_report(database, study, snapshot.results), duel(database, study)
    levels, why = failures(snapshot.results), reasons(errors(database, study.id))
    left = time_left(snapshot, now)
    if as_json:
        emit(
            {
                "study": study.name,
                "question": study.question,
                "metric": study.metric,
                "cells": study.trials,
                "jobs": study.jobs,
                "running": snapshot.running,
                "failures": levels,
                "errors": why,
                "time_left": left,
                "runs": snapshot.runs,
                **({"search": report} if report else {}),
                **({"duel": against} if against else {}),
                "updated_at": study.updated_at,
            }
        )
        return
    say(f"{study.name}: {study.question}" if study.question else study.name)
    counts = ", ".join(f"{count} {state}" for state, count in study.jobs.items() if count)
    size = many(study.trials, "cell") if "tune" not in study.config else f"{study.trials} settings of the tuned cells"
    say(f"{many(sum(study.jobs.values()), 'job')} of {size}: {counts or 'none stored'}")
    if snapshot.runs:
        say(_run_line(snapshot.runs[-1], now))
    if report is not None:
        say(search_text(report))
    if against is not None:
        say("\n" + duel_text(against))
    if left.seconds:
        say(f"about {duration(left.seconds)} left: {left.basis}")
    under_way = current(snapshot, now)
    if under_way:
        rows = [["cell", "task", "seed", "step", "for"]]
        rows += [
            [
                one.cell,
                one.task,
                str(one.seed),
                f"{one.step or 0}/{one.steps}" if one.steps else str(one.step or 0),
                duration(one.elapsed.total_seconds()),
            ]
            for one in under_way
        ]
        say("\nrunning\n" + grid(rows, indent="  ", numbers=(2, 3)))
    if levels:
        rows = [["axis", "value", "failed", "diverged", "of"]]
        rows += [[one.path, one.level, str(one.failed), str(one.diverged), str(one.jobs)] for one in levels]
        say("\nfailures by axis value\n" + grid(rows, indent="  ", numbers=(2, 3, 4)))
    flag = "" if db is None else f" --db {shlex.quote(db)}"
    if why:
        rows = [["jobs", "first", "error"]]
        rows += [[str(one.jobs), f"{one.trial} {one.cell}", one.error] for one in why[:MOST_REASONS]]
        more = f"\n  and {many(len(why) - MOST_REASONS, 'error')} more" if len(why) > MOST_REASONS else ""
        say("\nwhy they failed\n" + grid(rows, indent="  ", numbers=(0,)) + more)
        say(f"in full: miras-search show {shlex.quote(study.name)} {why[0].trial}{flag}")
    say(f"\nthe table: miras-search table {shlex.quote(study.name)}{flag}")


def _run_line(run: RunRow, now: datetime) -> str:
    where = f"process {run.pid} on {run.host}"
    if run.status == "running":
        beat = duration(max(0.0, (now - run.heartbeat_at).total_seconds()))
        return f"run {run.id}: {where}, since {local_time(run.started_at)}, heartbeat {beat} ago"
    return f"run {run.id}: {run.status} at {local_time(run.ended_at)} ({where})"


def failures(results: Sequence[ResultRow]) -> list[Level]:
    """The levels at which jobs failed or diverged, the worst first.

    A cell counts at each level that sets it apart from the base, and the base counts as a level of its own, so that one
    bad option stands out in a factorial study too.
    """
    if not any(row.state in ("failed", "diverged") for row in results):
        return []
    found: dict[tuple[str, str], list[str]] = {}
    for row in results:
        for level in row.changes.items() or [(BASE, row.cell)]:
            found.setdefault(level, []).append(row.state)
    levels = [
        Level(path, text, len(states), states.count("diverged"), states.count("failed"))
        for (path, text), states in found.items()
    ]
    bad = [level for level in levels if level.failed or level.diverged]
    return sorted(bad, key=lambda level: -(level.failed + level.diverged) / level.jobs)


def reasons(errors: Sequence[ErrorRow]) -> list[Reason]:
    """The errors of failed jobs, the commonest first."""
    found: dict[str, list[ErrorRow]] = {}
    for row in errors:
        found.setdefault(cause(row.error_text, row.error_type) or "no reason is stored", []).append(row)
    why = [Reason(error, len(rows), rows[0].number, rows[0].cell) for error, rows in found.items()]
    return sorted(why, key=lambda one: -one.jobs)
