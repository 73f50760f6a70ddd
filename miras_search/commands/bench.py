"""`bench engine` and `bench store`: what surrounds the trainings, measured beside the bars that it has to clear."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from miras_search.commands.common import JsonOption, emit, say

ExecutorOption = Annotated[Literal["local", "ray"], typer.Option(help="Where the jobs run.")]


def engine(
    jobs: Annotated[int, typer.Option(min=8, metavar="N", help="Enqueued jobs that take no time.")] = 400,
    trials: Annotated[
        int, typer.Option(min=8, metavar="N", help="Trials that the search has when it is asked.")
    ] = 5_000,
    asks: Annotated[int, typer.Option(min=1, metavar="N", help="Trials that are asked for.")] = 20,
    paced: Annotated[int, typer.Option(min=2, metavar="N", help="Jobs of five seconds in which they idle.")] = 24,
    executor: ExecutorOption = "ray",
    as_json: JsonOption = False,
) -> None:
    """Time what the engine adds to trainings: jobs a second, asking for a trial, idle workers.

    Each figure stands beside its bar, for two cores that have nothing else to do.
    """
    from miras_search.bench import engine as bench

    found = bench.run(jobs=jobs, trials=trials, asks=asks, paced=paced, executor=executor)
    if as_json:
        emit(found)
    else:
        say(bench.table(found))


def store(
    trials: Annotated[int, typer.Option(min=8, metavar="N", help="Trials of the stored search.")] = 10_000,
    steps: Annotated[int, typer.Option(min=1, metavar="N", help="Points of each trial's curve.")] = 100,
    rows: Annotated[
        int, typer.Option(min=100, metavar="N", help="Points that are written one batch at a time.")
    ] = 100_000,
    executor: ExecutorOption = "ray",
    as_json: JsonOption = False,
) -> None:
    """Time a long study's store: rows a second, `status`, `plan`, the driver's memory.

    Each figure stands beside its bar, for two cores that have nothing else to do.
    """
    from miras_search.bench import store as bench

    found = bench.run(trials=trials, steps=steps, rows=rows, executor=executor)
    if as_json:
        emit(found)
    else:
        say(bench.table(found))
