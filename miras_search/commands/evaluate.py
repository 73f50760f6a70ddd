"""`eval`: the models that a study has trained, on other tasks, lengths and noise, stored as a study beside it."""

from __future__ import annotations

from typing import Annotated

import typer

from miras_search.commands.common import DbOption, database_setting
from miras_search.commands.run import (
    AddressOption,
    EventsOption,
    ExecutorOption,
    QuietOption,
    RetryOption,
    TakeoverOption,
    WorkersOption,
    carry_out,
    ray_address,
)
from miras_search.commands.table import StoredStudy
from miras_search.errors import MirasError


def evaluate(
    context: typer.Context,
    study: StoredStudy,
    tasks: Annotated[
        list[str] | None,
        typer.Option("--task", metavar="NAME", help="A task to evaluate on; else the one trained on. Repeatable."),
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="PATH=VALUE",
            help="A level, as in task.length=256; a path that is set again has one more level. Repeatable.",
        ),
    ] = None,
    trained_on: Annotated[
        str | None,
        typer.Option("--trained-on", metavar="TASK", help="Whose trainings, where the study has several tasks."),
    ] = None,
    cells: Annotated[
        list[str] | None,
        typer.Option("--cell", metavar="CELL", help="This cell, by name or number, beside the base. Repeatable."),
    ] = None,
    seeds: Annotated[str | None, typer.Option(metavar="N,N", help="Trainings with these seeds; else all.")] = None,
    name: Annotated[
        str | None, typer.Option("--as", metavar="NAME", help="What the evaluation is stored as; else STUDY.eval-...")
    ] = None,
    db: DbOption = None,
    executor: ExecutorOption = "auto",
    workers: WorkersOption = None,
    address: AddressOption = None,
    max_jobs: Annotated[
        int | None, typer.Option(min=0, metavar="N", help="Evaluate at most so many jobs, then stop in order.")
    ] = None,
    retry: RetryOption = None,
    trial: Annotated[
        int | None, typer.Option(min=0, metavar="N", help="Evaluate all jobs of this one trial again, nothing else.")
    ] = None,
    takeover: TakeoverOption = False,
    as_json: EventsOption = False,
    quiet: QuietOption = False,
) -> None:
    """Evaluate the models that a study has trained on other tasks, lengths and noise.

    Every combination of levels is a task with a table of its own, with the cells and seeds of the training. Nothing is
    trained. The same command again does what is left, and what was trained again since.
    """
    from miras_search.engine.driver import RunOptions
    from miras_search.engine.evaluation import Wanted, evaluation
    from miras_search.store.database import Database

    where = database_setting(db)
    wanted = Wanted(
        study=study,
        tasks=tuple(tasks or ()),
        overrides=tuple(overrides or ()),
        trained_on=trained_on,
        cells=tuple(cells or ()),
        seeds=_seeds(seeds),
        name=name,
    )
    options = RunOptions(
        executor=executor,
        workers=workers,
        address=ray_address(address, executor),
        max_jobs=max_jobs,
        retry_failed=retry == "failed",
        trial=trial,
        takeover=takeover,
    )
    with Database.open(where.value) as database:
        made = evaluation(database, wanted)
        carry_out(context, made, database, where, options, as_json=as_json, quiet=quiet)


def _seeds(given: str | None) -> tuple[int, ...]:
    """The seeds of a list with commas. Raises MirasError for anything else."""
    if given is None:
        return ()
    parts = [part.strip() for part in given.split(",")]
    for part in parts:
        if not part.isdecimal():
            raise MirasError(f"--seeds {given}: {part!r} is no seed: write them as 0,1,2")
    return tuple(dict.fromkeys(map(int, parts)))
