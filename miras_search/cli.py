"""The command line, `miras-search`: its verbs, and what becomes of an error.

    0    all good; a diverged training is a finished result
    1    ran, but some jobs failed
    2    wrong usage or an invalid study
    3    the environment: database, Ray
    4    a budget of the study's resources is spent; everything found so far is stored
    130  interrupted; everything found so far is stored

Importing this module, and printing help, loads none of torch, Ray, Streamlit, pandas, Optuna and SQLAlchemy: a verb
imports what it needs when it runs.
"""

from __future__ import annotations

import errno
import gc
import io
import os
import signal
import sys
from collections.abc import Sequence
from itertools import pairwise
from types import FrameType
from typing import Annotated, TextIO

import typer

from miras_search import __version__
from miras_search.commands import (
    bench,
    calibrate,
    databases,
    evaluate,
    export,
    plan,
    run,
    seeds,
    show,
    space,
    status,
    study,
    table,
    tools,
)
from miras_search.commands.run import Invocation
from miras_search.errors import MirasError

app = typer.Typer(
    name="miras-search",
    no_args_is_help=True,
    rich_markup_mode=None,  # plain help reads the same in a terminal, a log and a test
    pretty_exceptions_enable=False,  # tracebacks without locals, which may hold a database URL
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"miras-search {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Search and ablate the design space of associative-memory sequence models: memory, bias, retention, algorithm."""


app.command("run")(run.run)
app.command("check")(study.check)
app.command("plan")(plan.plan)
app.command("calibrate")(calibrate.calibrate)
app.command("seeds")(seeds.seeds)
app.command("eval")(evaluate.evaluate)
app.command("status")(status.status)
app.command("show")(show.show)
app.command("table")(table.table)
app.command("export")(export.export)
app.command("space")(space.space)
app.command("dashboard")(tools.dashboard)
tools.bench.command("engine")(bench.engine)
tools.bench.command("store")(bench.store)
app.add_typer(tools.bench, name="bench")
app.add_typer(databases.db_commands, name="db")
app.command("doctor")(tools.doctor)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line (this process's own by default) and return its exit code."""
    words = tuple(sys.argv[1:] if argv is None else argv)
    if argv is None:
        gc.set_threshold(50_000, 20, 20)  # imports and rows make objects that stay: looking at them often took 0.3 s
    # not where interrupts are ignored (`nohup`), nor in a caller's process
    if argv is None and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _leave)
    # a stream that the shell closed is None
    sys.stdout, sys.stderr = (_nowhere() if s is None else s for s in (sys.stdout, sys.stderr))
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a table holds ± and ‡, a terminal may not: better a ? than no table
    command = typer.main.get_command(app)
    try:
        code = command.main(args=list(words), prog_name="miras-search", obj=Invocation(words), standalone_mode=False)
        sys.stdout.flush()
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 0 if end.code is None else 1
    except MirasError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        sys.stderr.write(f"{error.filename or 'output'}: {error.strerror}: make room, or name another place\n")
        if argv is None:  # what is left of the output has no place either
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 3
    except typer.Abort:
        return 130
    except Exception as error:
        return _wrong_usage(error, words)
    return code if isinstance(code, int) else 0


def _nowhere() -> TextIO:
    return os.fdopen(os.open(os.devnull, os.O_WRONLY), "w")


def _wrong_usage(error: Exception, words: Sequence[str]) -> int:
    """Tell what is wrong with the command line in one line, without any verb the help. Raises any other error."""
    say = getattr(error, "format_message", None)  # of the command line's own errors, wherever typer has them from
    if say is None:
        raise error
    verb = getattr(getattr(error, "ctx", None), "command_path", "miras-search")
    if type(error).__name__ == "NoArgsIsHelpError":
        sys.stderr.write(f"{say()}\n")
        return 2
    options = getattr(getattr(error, "param", None), "opts", ())
    given = [f" (given: {value!r})" for option, value in pairwise(words) if option in options]
    what = say().replace("Value error, ", "").rstrip(".")
    sys.stderr.write(f"{verb}: {what}{''.join(given[:1])}: see {verb} --help\n")
    return 2


def _leave(number: int, frame: FrameType | None) -> None:
    """End at once: an interrupt amid an import is a traceback otherwise. `run` takes the signals over."""
    os._exit(130)


if __name__ == "__main__":
    sys.exit(main())
