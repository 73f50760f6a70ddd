"""`run`: train what a study still lacks, store it, print the table. The same command again goes on where it ended."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from miras_search.commands.common import (
    RAY_VARIABLE,
    DbOption,
    NameOption,
    SetOption,
    Setting,
    database_setting,
    duration,
    many,
    note,
    say,
)
from miras_search.commands.plan import show_plan
from miras_search.commands.study import StudyArgument, tell_shipped
from miras_search.errors import MirasError
from miras_search.jsonable import jsonable

if TYPE_CHECKING:
    from miras_search.analysis.duel import Duel
    from miras_search.analysis.search import SearchReport
    from miras_search.analysis.table import AblationTable
    from miras_search.commands.progress import Reporter
    from miras_search.engine.driver import RunOptions
    from miras_search.engine.events import RunSummary
    from miras_search.store.database import Database
    from miras_search.study.study import Study

Executor = Literal["auto", "local", "ray"]
ExecutorOption = Annotated[
    Executor, typer.Option(help="Where jobs run. auto: Ray when several can run at once and it is installed.")
]
WorkersOption = Annotated[int | None, typer.Option(min=1, metavar="N", help="Jobs at once; else as many as fit.")]
AddressOption = Annotated[
    str | None,
    typer.Option(metavar="HOST:PORT", help=f"A Ray cluster to join; else {RAY_VARIABLE}, else one of our own."),
]
RetryOption = Annotated[
    Literal["failed"] | None, typer.Option(help="Try jobs again that ended so: failed.", metavar="failed")
]
TakeoverOption = Annotated[
    bool, typer.Option("--takeover", help="Take the study over from a run that is known to be gone.")
]
EventsOption = Annotated[
    bool, typer.Option("--json", help="Print one JSON line an event; the last is the summary with the table.")
]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="No progress: the table and errors only.")]
BUDGET_SPENT = 4  # exit code
LOG_WIDTH = 120  # of a table that does not go to a terminal


@dataclass(frozen=True, slots=True)
class Invocation:
    """The words of this command line, for the commands that a verb suggests."""

    words: tuple[str, ...]

    def __str__(self) -> str:
        return shlex.join(["miras-search", *self.words])


def run(
    context: typer.Context,
    study: StudyArgument,
    overrides: SetOption = None,
    name: NameOption = None,
    db: DbOption = None,
    executor: ExecutorOption = "auto",
    workers: WorkersOption = None,
    address: AddressOption = None,
    max_jobs: Annotated[
        int | None, typer.Option(min=0, metavar="N", help="Train at most so many jobs, then stop in order.")
    ] = None,
    retry: RetryOption = None,
    trial: Annotated[
        int | None, typer.Option(min=0, metavar="N", help="Train all jobs of this one trial again, and nothing else.")
    ] = None,
    of_rival: Annotated[bool, typer.Option("--rival", help="With --trial: a trial of the search's rival.")] = False,
    takeover: TakeoverOption = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan and touch nothing.")] = False,
    as_json: EventsOption = False,
    quiet: QuietOption = False,
) -> None:
    """Train what a study still lacks and print its table.

    The same command again goes on where the last one ended; a finished study prints its table and trains nothing.
    """
    from miras_search.study.loader import load

    loaded = load(study, overrides or (), name)
    if of_rival and (trial is None or loaded.rival is None):
        lacks = "goes with --trial N" if trial is None else f"{loaded.name} has no rival"
        raise MirasError(f"run --rival: {lacks}: leave it out")
    if not quiet:
        tell_shipped(loaded, study)
    loaded = loaded.rival if of_rival and loaded.rival is not None else loaded
    if dry_run:
        show_plan(loaded, db, as_json=as_json)
        return
    from miras_search.engine.driver import RunOptions
    from miras_search.store.address import is_new
    from miras_search.store.database import Database

    where = database_setting(db)
    options = RunOptions(
        executor=executor,
        workers=workers,
        address=ray_address(address, executor),
        max_jobs=max_jobs,
        retry_failed=retry == "failed",
        trial=trial,
        takeover=takeover,
    )
    options.check(loaded, stored=not is_new(where.value))
    with Database.open(where.value, create=True) as database:
        carry_out(context, loaded, database, where, options, as_json=as_json, quiet=quiet)


def carry_out(
    context: typer.Context,
    study: Study,
    database: Database,
    where: Setting,
    options: RunOptions,
    *,
    as_json: bool,
    quiet: bool,
) -> None:
    """Run a study, tell how it went, print its table, and leave with the code of how it ended."""
    from miras_search.engine.events import Interrupted
    from miras_search.engine.whole import run_whole

    try:
        summary, *others = run_whole(study, database, options, lambda one: reporter(one, as_json=as_json, quiet=quiet))
    except Interrupted as stop:
        if as_json:
            _emit_summary(stop.summary, database, [])
        note(f"{stop}; all of it is stored. Go on with:\n  {context.obj or Invocation(tuple(sys.argv[1:]))}")
        raise typer.Exit(stop.exit_code) from None
    tables = _tables(study.name, database)
    if as_json:
        for one in others:
            _emit_summary(one, database, _tables(one.study, database))
        _emit_summary(summary, database, tables)
    else:
        _print(_report(study.name, database), tables, _duel(study.name, database))
    if not as_json:
        for one in (summary, *others):
            if not quiet:
                _tell_next(one, database.name, where, evaluated=study.evaluated is not None)
            elif one.failed:
                note(_failed(one, where))
    last = [summary, *others][-1]
    if last.spent is not None:
        again = " ".join(filter(None, [str(context.obj or Invocation(tuple(sys.argv[1:]))), last.more]))
        note(f"{last.study}: {last.spent}; all that was found is stored. Go on with:\n  {again}")
        raise typer.Exit(BUDGET_SPENT)
    if any(one.failed for one in (summary, *others)):
        raise typer.Exit(1)


def ray_address(flag: str | None, executor: Executor) -> str | None:
    """The cluster to join: the flag, else the environment, unless the study is to run without Ray."""
    return flag if flag is not None or executor == "local" else os.environ.get(RAY_VARIABLE) or None


def reporter(study: Study, *, as_json: bool, quiet: bool) -> Reporter:
    """How a run is told: JSON lines, not at all, bars on a terminal, or plain lines."""
    from miras_search.commands import progress

    if as_json:
        return progress.JsonLines()
    if quiet:
        return progress.Silent()
    verb = "train" if study.evaluated is None else "evaluate"
    return progress.Live(study.metric, verb=verb) if sys.stderr.isatty() else progress.Lines(study.metric, verb)


def _tables(name: str, database: Database) -> list[AblationTable]:
    """The study's tables; none while no job has recorded anything that a table could show."""
    from miras_search.analysis.stored import confirmed, stored_tables

    return stored_tables(database, name) if confirmed(database, name) else []


def _report(name: str, database: Database) -> SearchReport | None:
    """How the study stands if it is a search."""
    from miras_search.analysis.search import search_report
    from miras_search.store import queries

    return search_report(database, queries.study(database, name))


def _duel(name: str, database: Database) -> Duel | None:
    """The study against its rival, once both are confirmed."""
    from miras_search.analysis.duel import duel
    from miras_search.store import queries

    return duel(database, queries.study(database, name))


def _print(report: SearchReport | None, tables: Sequence[AblationTable], against: Duel | None) -> None:
    from miras_search.commands.search import duel_text, text
    from miras_search.export.text import to_text

    if report is not None:
        say(text(report) + "\n")
    if tables:
        say(to_text(tables, output_width()))
    if against is not None:
        say("\n" + duel_text(against))


def output_width() -> int:
    """The terminal's width for text on stdout; a fixed one for files and pipes."""
    return shutil.get_terminal_size((LOG_WIDTH, 24)).columns if sys.stdout.isatty() else LOG_WIDTH


def _emit_summary(summary: RunSummary, database: Database, tables: Sequence[AblationTable]) -> None:
    from miras_search.export.json_ import to_plain

    report, against = _report(summary.study, database), _duel(summary.study, database)
    line = summary.to_plain() | {"database": database.name} | ({"search": jsonable(report)} if report else {})
    line |= {"duel": jsonable(against)} if against else {}
    table = to_plain(tables) if tables else None
    say(json.dumps({**line, "table": table}, ensure_ascii=False, allow_nan=False))


def _tell_next(summary: RunSummary, database: str, where: Setting, *, evaluated: bool) -> None:
    flag = _flag(where)
    name, what = shlex.quote(summary.study), "evaluation" if evaluated else "training"
    done = f"{many(summary.attempts, what)} in {duration(summary.seconds)}" if summary.attempts else f"no {what}"
    note(f"\n{done}; stored in {database}, study {summary.study}")
    if summary.waiting:
        rest = ", with those whose training is complete by then" if evaluated else ""
        note(f"{many(summary.waiting, 'job')} left: the same command goes on{rest}")
    elif summary.unsought:
        note("not through yet: the same command goes on")
    if summary.held:
        note(summary.held)
    if summary.failed:
        note(_failed(summary, where))
    note(f"look at it: miras-search dashboard{flag}\nthe table:  miras-search table {name}{flag} --format latex")


def _failed(summary: RunSummary, where: Setting) -> str:
    told = f"miras-search status {shlex.quote(summary.study)}{_flag(where)} tells where and why"
    return f"{many(summary.failed, 'job')} failed: {told}; the same command with --retry failed tries again"


def _flag(where: Setting) -> str:
    """What names the database again, if the command line did."""
    return f" --db {shlex.quote(_shortest(where.value))}" if where.source == "flag" else ""


def _shortest(value: str) -> str:
    """A path as the user wrote it; anything else too."""
    return value if "://" in value else str(Path(value))
