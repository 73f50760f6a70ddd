"""`plan`: what a study will cost and what it can show, and its lock. Does not load torch."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from miras_search.commands.common import (
    DbOption,
    JsonOption,
    NameOption,
    SetOption,
    database_setting,
    duration,
    emit,
    grid,
    many,
    note,
    say,
)
from miras_search.commands.study import StudyArgument, tell_shipped
from miras_search.errors import MirasError

if TYPE_CHECKING:
    from miras_search.analysis.pilot import Detectable, Pilot, Spread
    from miras_search.analysis.timing import Timing
    from miras_search.store.types import LockRow, StudyRow
    from miras_search.study.drafts import Cell
    from miras_search.study.plan import Plan
    from miras_search.study.search_plan import SearchPlan
    from miras_search.study.study import Study

# Steps of a design on a task: where compiled ones have repaid their compiling twice (docs/compiled.md).
COMPILED = 4_000


def plan(
    study: StudyArgument,
    overrides: SetOption = None,
    name: NameOption = None,
    lock: Annotated[
        bool,
        typer.Option("--lock", help="Write family, metric, test, margin and seeds down, before the first training."),
    ] = False,
    margin: Annotated[
        float | None, typer.Option(metavar="X", help="With --lock: a difference too small to matter.")
    ] = None,
    db: DbOption = None,
    as_json: JsonOption = False,
) -> None:
    """What a study will cost and what it can show.

    Cells, jobs, time, the smallest p and difference that its seeds can reach, confounds, and what is done already.
    """
    from miras_search.study.loader import load

    if margin is not None and not lock:
        raise MirasError(f"--margin {margin:g}: it belongs to --lock: add that, or leave this out")
    loaded = load(study, overrides or (), name)
    tell_shipped(loaded, study)
    if lock:
        from miras_search.engine.locking import lock_content, lock_study
        from miras_search.store.database import Database

        lock_content(loaded, margin)  # tell what is wrong before there is a database
        with Database.open(database_setting(db).value, create=True) as database:
            lock_study(loaded, database, margin)
    show_plan(loaded, db, as_json=as_json)


def show_plan(study: Study, db: str | None, *, as_json: bool) -> None:
    """Print the plan of a study beside what the database, where there is one, has of it already."""
    from miras_search.engine.capacity import local_slots
    from miras_search.study.plan import plan as make_plan
    from miras_search.study.search_plan import search_plan

    known = _known(study, db)
    clash = known.clash
    try:
        slots, _ = local_slots(study.resources.cpus, study.resources.gpus, None)
    except MirasError:  # planned here, to be run where there are GPUs
        slots = 1
    counts = {str(state): count for state, count in known.row.jobs.items()} if known.row and not clash else {}
    seconds = known.timing.seconds if known.timing else None
    if clash:
        note(
            f"{study.name}: the database holds a study of that name that compares something else, so `run` will refuse "
            f"this one: store it under another name (--as {study.name}-2), or use another database (--db)"
        )
    if study.search is not None:
        sought = search_plan(study, counts, seconds_per_job=seconds, slots=slots)
        if as_json:
            emit(
                {"study": study.name, "question": study.question, "kind": study.kind, "conflict": clash}
                | {"slots": slots, **study.search.compared, **sought.to_plain()}
                | ({"rival": study.rival.name} if study.rival else {})
            )
        else:
            say(_search_text(study, sought, slots, known))
        return
    # a trial of a tuned study is a cell in one of its settings
    params = known.pilot.params if known.pilot and study.tuning is None else None
    base = known.pilot.base if known.pilot else None
    made = make_plan(study, counts, seconds_per_job=seconds, slots=slots, base=base, params=params)
    if as_json:
        cells = [
            {"number": c.number, "cell": c.name, "role": c.role, "changes": c.changes}
            | ({} if c.ratio is None else {"sizes": c.sizes, "ratio": c.ratio})
            for c in study.cells
        ]
        emit(
            {
                "study": study.name,
                "question": study.question,
                "metric": study.metric,
                "tasks_named": [task.name for task in study.tasks],
                "execution": study.execution,
                "plugins": {one.name: one.digest for one in study.plugins},
                "cells_named": cells,
                "tuned": study.tuning.to_plain() if study.tuning else None,
                "conflict": clash,
                "slots": slots,
                "timed": known.timing,
                "detectable": [
                    {"task": one.task, "difference": found and found.difference, "sd": one.sd, "freedom": one.freedom}
                    | {"cells": one.cells, "study": one.study, "power_error": found and found.error}
                    for one in (known.pilot.spreads if known.pilot else ())
                    for found in [_detectable(one, made)]
                ],
                "lock": known.lock,
                **made.to_plain(),
            }
        )
        return
    say(_text(study, made, slots, known))


@dataclass(frozen=True, slots=True)
class _Known:
    """What the database has that bears on a study."""

    row: StudyRow | None = None
    """The study of that name."""
    clash: bool = False
    """Whether that one compares something else."""
    timing: Timing | None = None
    """How long its jobs take."""
    pilot: Pilot | None = None
    """What else is known before; of a search, which tests nothing, not looked for."""
    lock: LockRow | None = None

    def whose(self, study: str) -> str:
        """A stored study in words: this one, or another."""
        is_own = self.row is not None and self.row.name == study and not self.clash
        return "this study" if is_own else f"study {study}"


def _text(study: Study, made: Plan, slots: int, known: _Known) -> str:
    from miras_search.study.designs import Coverage

    lines = [f"{study.name}: {study.question}" if study.question else study.name, ""]
    rows = [["", "cell", "role", "changes", f"{study.match.by}, resized" if study.match else ""]]
    for cell in study.cells:
        changes = ", ".join(f"{key} = {text}" for key, text in cell.changes.items())
        rows.append([str(cell.number), cell.name, cell.role, changes, _size(cell)])
    lines += [grid(rows, indent="  ", numbers=(0,)), ""]
    size = f"{many(made.cells, 'cell')} x {many(made.tasks, 'task')} x {many(made.seeds, 'seed')}"
    tuned = []
    if study.tuning is not None:
        size += f" + {made.tuning_jobs:,} to tune"
        own = many(len(study.tuning.seeds), "seed")
        values = [f"{path} of {', '.join(texts)}" for path, texts in study.tuning.values.items()]
        tuned = [["tuned", f"{' and '.join(values)}: {made.tuning_jobs:,} jobs on {own} of their own, by validation"]]
    states = ", ".join(f"{count} {state}" for state, count in made.done.items()) or "nothing stored yet"
    facts = [
        ["tasks", ", ".join(task.name for task in study.tasks)],
        ["metric", study.metric],
        ["design", f"{made.design}: {made.array}" if made.array else made.design],
        ["execution", study.execution],
        *tuned,
        *([["plugins", ", ".join(f"{one.name} {one.digest[:12]}" for one in study.plugins)]] if study.plugins else []),
        ["jobs", f"{made.jobs:,} = {size}"],
        ["done", f"{states}; {made.remaining:,} to train"],
        ["time", _estimate(made, slots, known)],
        *_kernels(study, made.remaining // (made.cells * made.tasks)),
        [
            "smallest p",
            f"{made.smallest_p:.2g} with {many(made.seeds, 'seed')}, over {many(made.family, 'comparison')}",
        ],
        *([["top-up", _top_up(made)]] if made.top_up else []),
        *_seen(study, made, known),
        ["lock", _lock(study, known)],
    ]
    lines.append(grid(facts, indent="  "))
    refused = made.array.refused if isinstance(made.array, Coverage) else ()
    if refused:
        lines += ["\nrefused pairs", *(f"  - {pair}: {reason}" for pair, reason in refused)]
    lines.append("\nconfounds" if made.confounds else "\nno known confounds")
    lines += [f"  - {confound}" for confound in made.confounds]
    return "\n".join(lines)


def _size(cell: Cell) -> str:
    """A matched cell's cost beside the base's, and what was resized for it."""
    if cell.ratio is None:
        return ""
    sizes = ", ".join(f"{path} = {text}" for path, text in cell.sizes.items())
    return f"x {cell.ratio:.3f}" + (f" by {sizes}" if sizes else "")


def _top_up(made: Plan) -> str:
    assert made.top_up is not None
    looks = ", ".join(
        f"{count} seeds at {100 * level:.2g} %"
        for count, level in zip(made.top_up.looks, made.top_up.levels, strict=True)
    )
    rule = "a look waits for trainings that failed"
    if made.top_up.failed == "leave_out":
        rule = "trainings that failed are left out"
    elif failed := made.done.get("failed"):
        rule += f", now {failed}: run --retry failed"
    more = f"at most {many(made.top_up_jobs, 'job')} more for the base and what is undecided"
    return f"looks at {looks}; {more}; {rule}"


def _seen(study: Study, made: Plan, known: _Known) -> list[list[str]]:
    """The smallest difference that the study can see, a line a task."""
    spreads = known.pilot.spreads if known.pilot else ()
    found = []
    for one in spreads:
        smallest = _detectable(one, made)
        text = "none with so few seeds"
        if smallest is not None:
            sd = f"sd {one.sd:.2g} between seeds, {one.freedom} degrees of freedom from {known.whose(one.study)}"
            power = f"80 \N{PLUS-MINUS SIGN} {100 * smallest.error:.0f} % power"
            simulated = f"{smallest.studies} simulated studies of normal noise under the table's test"
            text = f"{smallest.difference:.2g} of {study.metric} at {power} ({simulated}; {sd})"
        found.append(["smallest difference", f"{one.task}: {text}" if made.tasks > 1 else text])
    missing = [task.name for task in study.tasks if task.name not in [one.task for one in spreads]]
    if missing and made.family:
        tasks = f"{', '.join(missing)}: " if made.tasks > 1 else ""
        what = "not known before a pilot: two seeds of this study, or of one with its model and task"
        found.append(["smallest difference", f"{tasks}{what}"])
    return found


def _detectable(one: Spread, made: Plan) -> Detectable | None:
    from miras_search.analysis.pilot import detectable

    return detectable(one.sd, made.last_seeds, made.family, made.last_level)


def _lock(study: Study, known: _Known) -> str:
    if known.lock is None:
        jobs = known.row.jobs if known.row is not None and not known.clash else {}
        begun = any(count for state, count in jobs.items() if state != "waiting")
        return "none: exploratory" if begun else "none yet: --lock writes it down before the first training"
    from miras_search.analysis.locked import lock_text
    from miras_search.metrics import METRICS

    return lock_text(known.lock, seeds=study.seeds, metric=study.metric, split=METRICS[study.metric].split)


def _search_text(study: Study, made: SearchPlan, slots: int, known: _Known) -> str:
    search = study.search
    assert search is not None
    lines = [f"{study.name}: {study.question}" if study.question else study.name, ""]
    states = ", ".join(f"{count} {state}" for state, count in made.done.items()) or "nothing stored yet"
    size = f"{many(made.trials, 'trial')} x {many(made.tasks, 'task')} x {many(made.seeds, 'seed')}"
    limits = ", ".join(f"{name} <= {limit:g}" for name, limit in search.constraints.items())
    order = "as jobs end" if search.batch is None else f"in batches of {search.batch}, the same on any machine"
    facts = [
        ["space", f"{made.size:,.0f} points" if math.isfinite(made.size) else "infinitely many points"],
        ["around", study.base_name],
        ["tasks", ", ".join(task.name for task in study.tasks)],
        ["objectives", ", ".join(f"{it.name} ({it.direction})" for it in search.objectives)],
        *([["constraints", limits]] if limits else []),
        ["sampler", f"{search.sampler}, asked {order}"],
        ["pruner", search.pruner],
        ["jobs", f"{made.jobs:,} at most = {size}"],
        ["confirmation", f"{made.confirm_jobs:,} jobs: the best {search.top} and the base on fresh seeds"],
        ["done", f"{states}; at most {made.remaining:,} to train"],
        ["time", _estimate(made, slots, known)],
        *_kernels(study, made.seeds if made.remaining else 0),
        *_rival(study),
    ]
    lines.append(grid(facts, indent="  "))
    lines += ["\nto keep in mind" if made.notes else "", *(f"  - {one}" for one in made.notes)]
    return "\n".join(lines)


def _rival(study: Study) -> list[list[str]]:
    if study.rival is None or study.rival.search is None:
        return []
    means = study.rival.search
    told = f"{means.sampler}, pruner {means.pruner}: as many jobs again, stored as {study.rival.name}"
    return [["rival", told]]


def _estimate(made: Plan | SearchPlan, slots: int, known: _Known) -> str:
    if not made.remaining:
        return "nothing left to train"
    timing = known.timing
    if made.estimate_seconds is None or timing is None:
        return f"not known before a first job has run ({slots} at once on this machine)"
    basis = f"{many(timing.jobs, 'job')} of {known.whose(timing.study)}"
    return f"about {duration(made.estimate_seconds)} for the rest, {slots} at once on this machine (from {basis})"


def _kernels(study: Study, trainings: int) -> list[list[str]]:
    """That compiled steps may be faster, where a design has so many `trainings` on a task as repay its compiling."""
    from miras_search import compiler

    steps = trainings * study.train.steps
    here = study.resources
    if here.kernels != "auto" or here.gpus or study.base.mixer is not None or steps < COMPILED or compiler.problem():
        return []
    told = (
        f"operators one by one; --set resources.kernels=compiled may take half of the time or a third: {steps:,} steps "
        f"a design and task repay the compiling (docs/compiled.md)"
    )
    return [["kernels", told]]


def _known(study: Study, db: str | None) -> _Known:
    """What the database has of the study and of others like it; nothing where there is no database."""
    setting = database_setting(db)
    if setting.source == "default" and not Path(setting.value).exists():
        return _Known()  # nothing has been run here; SQLAlchemy need not be loaded to know that
    from miras_search.analysis.timing import timing
    from miras_search.store import queries
    from miras_search.store.address import is_new
    from miras_search.store.database import Database
    from miras_search.store.locks import lock_of

    if is_new(setting.value):
        return _Known()
    with Database.open(setting.value, read_only=True) as database:
        row = next((row for row in queries.studies(database) if row.name == study.name), None)
        clash = row is not None and row.space_hash != study.space_hash  # what `run` refuses
        own = row is not None and not clash
        lock = lock_of(database, row.id) if row is not None and not clash else None
        if study.search is not None:
            return _Known(row, clash, timing(database, study.name, study.config, own=own), lock=lock)
        from miras_search.analysis.pilot import pilot  # loads scipy

        found = pilot(database, study.name, study.config, own=own)
    return _Known(row, clash, found.timing, found, lock)
