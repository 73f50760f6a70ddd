"""`check` and `plan`: a study before anything is trained. Neither loads torch."""

from __future__ import annotations

import math
from collections.abc import Mapping
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
from miras_search.errors import MirasError

if TYPE_CHECKING:
    from miras_search.store.types import StudyRow
    from miras_search.study.drafts import Cell
    from miras_search.study.plan import Plan
    from miras_search.study.search_plan import SearchPlan
    from miras_search.study.study import Study

StudyArgument = Annotated[
    str, typer.Argument(metavar="STUDY.yaml", help="A study file, or the name of one that ships with the package.")
]

UNCOMPARED = ("name", "question", "seeds", "resources", "extent")  # what may change without a new name


def check(
    studies: Annotated[
        list[str] | None, typer.Argument(metavar="[STUDY.yaml]...", help="Study files, or names of shipped studies.")
    ] = None,
    overrides: SetOption = None,
    mixer: Annotated[
        str | None,
        typer.Option(metavar="CLASS", help="Try a layer of your own instead, as in my_layers.MyLayer; loads torch."),
    ] = None,
    args: Annotated[
        str | None, typer.Option(metavar="JSON", help="The layer's arguments, as in '{\"width\": 4}'.")
    ] = None,
    d_model: Annotated[int, typer.Option("--d-model", min=1, metavar="N", help="The layer's width.")] = 32,
    as_json: JsonOption = False,
) -> None:
    """Validate study files, without running anything; or try a layer of your own.

    One line a study on stdout; each problem on stderr as path:line:col: where: what. Of a layer one line a property:
    shape, causality, gradients and so on.
    """
    if mixer is not None:
        if studies:
            raise MirasError("check: a layer and studies are checked apart: give --mixer or study files")
        from miras_search.commands.layer import check_layer

        check_layer(mixer, args, d_model, as_json=as_json)
        return
    if not studies:
        raise MirasError("check: name a study file, a shipped study, or a layer of your own by --mixer")
    from miras_search.study.loader import StudyError, load

    documents: list[dict[str, object]] = []
    errors: list[StudyError] = []
    for path in studies:
        try:
            study = load(path, overrides or ())
        except StudyError as error:
            errors.append(error)
            documents.append({"path": path, "ok": False, "problems": error.problems})
            if not as_json:
                note(str(error))
            continue
        jobs = study.jobs
        size = many(len(study.cells), "cell")
        if study.search is not None:
            jobs *= study.search.trials
            size = many(study.search.trials, "trial")
        documents.append(
            {
                "path": study.path,
                "ok": True,
                "name": study.name,
                "cells": len(study.cells),
                "jobs": jobs,
                "problems": [],
            }
        )
        if not as_json:
            tell_shipped(study, path)
            say(f"{path}: ok ({size}, {many(jobs, 'job')})")
    if as_json:
        emit({"studies": documents})
    if errors:
        raise typer.Exit(errors[0].exit_code)


def plan(
    study: StudyArgument,
    overrides: SetOption = None,
    name: NameOption = None,
    db: DbOption = None,
    as_json: JsonOption = False,
) -> None:
    """What a study will cost and what it can show.

    Cells, jobs, time, the smallest p that its seeds can reach, confounds, and what is done already.
    """
    from miras_search.study.loader import load

    loaded = load(study, overrides or (), name)
    tell_shipped(loaded, study)
    show_plan(loaded, db, as_json=as_json)


def show_plan(study: Study, db: str | None, *, as_json: bool) -> None:
    """Print the plan of a study beside what the database, where there is one, has of it already."""
    from miras_search.engine.capacity import local_slots
    from miras_search.study.plan import plan as make_plan
    from miras_search.study.search_plan import search_plan

    stored, seconds, base = _stored(study, db)
    clash = stored is not None and _compared(stored.config) != _compared(study.config)
    try:
        slots, _ = local_slots(study.resources.cpus, study.resources.gpus, None)
    except MirasError:  # planned here, to be run where there are GPUs
        slots = 1
    done = stored.jobs if stored is not None and not clash else {}
    seconds = None if clash else seconds  # those were other trainings
    counts = {str(state): count for state, count in done.items()}
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
            )
        else:
            say(_search_text(study, sought, slots))
        return
    made = make_plan(study, counts, seconds_per_job=seconds, slots=slots, base=None if clash else base)
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
                **made.to_plain(),
            }
        )
        return
    say(_text(study, made, slots))


def tell_shipped(study: Study, path: str) -> None:
    """Say so when a name stood for a study of the package."""
    if study.shipped:
        note(f"{path}: no such file here; this is the study that ships with miras-search")


def _text(study: Study, made: Plan, slots: int) -> str:
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
        ["execution", study.execution],
        *tuned,
        *([["plugins", ", ".join(f"{one.name} {one.digest[:12]}" for one in study.plugins)]] if study.plugins else []),
        ["jobs", f"{made.jobs:,} = {size}"],
        ["done", f"{states}; {made.remaining:,} to train"],
        ["time", _estimate(made, slots)],
        [
            "smallest p",
            f"{made.smallest_p:.2g} with {many(made.seeds, 'seed')}, over {many(made.family, 'comparison')}",
        ],
    ]
    lines.append(grid(facts, indent="  "))
    lines.append("\nconfounds" if made.confounds else "\nno known confounds")
    lines += [f"  - {confound}" for confound in made.confounds]
    return "\n".join(lines)


def _size(cell: Cell) -> str:
    """A matched cell's cost beside the base's, and what was resized for it."""
    if cell.ratio is None:
        return ""
    sizes = ", ".join(f"{path} = {text}" for path, text in cell.sizes.items())
    return f"x {cell.ratio:.3f}" + (f" by {sizes}" if sizes else "")


def _search_text(study: Study, made: SearchPlan, slots: int) -> str:
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
        ["time", _estimate(made, slots)],
    ]
    lines.append(grid(facts, indent="  "))
    lines += ["\nto keep in mind" if made.notes else "", *(f"  - {one}" for one in made.notes)]
    return "\n".join(lines)


def _estimate(made: Plan | SearchPlan, slots: int) -> str:
    if not made.remaining:
        return "nothing left to train"
    if made.estimate_seconds is None:
        return f"not known before a first job has run ({slots} at once on this machine)"
    return f"about {duration(made.estimate_seconds)} for the rest, {slots} at once on this machine"


def _stored(study: Study, db: str | None) -> tuple[StudyRow | None, float | None, dict[str, float]]:
    """The study of that name in the database, None where there is none; the mean wall time of its jobs; and the base's
    accuracy on each task.
    """
    setting = database_setting(db)
    if setting.source == "default" and not Path(setting.value).exists():
        return None, None, {}  # nothing has been run here; SQLAlchemy need not be loaded to know that
    from miras_search.store import queries
    from miras_search.store.address import parse_database, sqlite_path
    from miras_search.store.database import Database

    file = sqlite_path(parse_database(setting.value))
    if file is not None and not file.exists():
        return None, None, {}
    with Database.open(setting.value, read_only=True) as database:
        found = next((row for row in queries.studies(database) if row.name == study.name), None)
        if found is None:
            return None, None, {}
        results = queries.results(database, found.id)
    timed = [row.values.get(("wall_seconds", "")) for row in results]
    right: dict[str, list[float]] = {}
    for row in results:
        if row.role == "base" and row.seed in study.seeds and ("accuracy", "test") in row.values:
            right.setdefault(row.task, []).append(row.values["accuracy", "test"])
    base = {task: sum(values) / len(values) for task, values in right.items()}
    seconds = [value for value in timed if value is not None]
    return found, sum(seconds) / len(seconds) if seconds else None, base


def _compared(config: Mapping[str, object]) -> dict[str, object]:
    return {key: value for key, value in config.items() if key not in UNCOMPARED}
