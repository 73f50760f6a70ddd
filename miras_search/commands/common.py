"""What the verbs share: options, where the database is, and how results are written.

Results go to stdout, everything else to stderr, so that a verb can be piped. A JSON document is strict: no NaN, times
in ISO form.
"""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Literal, cast

import typer

from miras_search.errors import MirasError
from miras_search.jsonable import jsonable

if TYPE_CHECKING:
    from miras_search.store.database import Database

DB_VARIABLE = "MIRAS_DB_URL"
RAY_VARIABLE = "MIRAS_RAY_ADDRESS"
DEFAULT_DB = "miras.db"

DbOption = Annotated[
    str | None,
    typer.Option(
        "--db", metavar="PATH|URL", help=f"The database; else the environment's {DB_VARIABLE}, else {DEFAULT_DB}."
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of text.")]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="PATH=VALUE", help="Override a value of the study, as in train.steps=20. Repeatable."
    ),
]
NameOption = Annotated[
    str | None, typer.Option("--as", metavar="NAME", help="Store the study under another name than its file's.")
]


@dataclass(frozen=True, slots=True)
class Setting:
    """A value and who gave it."""

    value: str
    source: Literal["flag", "environment", "default"]


def database_setting(flag: str | None) -> Setting:
    """The database's path or URL: flag, else environment, else `miras.db` here.

    Raises MirasError for a password in the flag, because every user of the machine can read a process's arguments.
    """
    if flag is None:
        found = os.environ.get(DB_VARIABLE)
        return Setting(found, "environment") if found else Setting(DEFAULT_DB, "default")
    if "://" in flag:  # a path needs no reading by SQLAlchemy
        from miras_search.store.address import has_password, safe_url

        if has_password(flag):
            raise MirasError(
                f"--db {safe_url(flag)}: a password on the command line is visible to everyone on this machine: "
                f"put the URL into {DB_VARIABLE}, or the password into ~/.pgpass"
            )
    return Setting(flag, "flag")


def open_database(flag: str | None) -> Database:
    """The database to read. Raises EnvironmentProblem where there is none."""
    from miras_search.store.database import Database

    return Database.open(database_setting(flag).value, read_only=True)


def say(text: str) -> None:
    """A result, to stdout."""
    sys.stdout.write(text if text.endswith("\n") else f"{text}\n")


def note(text: str) -> None:
    """Anything that is not the result, to stderr."""
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def emit(document: object) -> None:
    """A JSON document to stdout."""
    say(json.dumps(jsonable(document), indent=2, ensure_ascii=False, allow_nan=False))


def grid(rows: Sequence[Sequence[str]], *, indent: str = "", numbers: Sequence[int] = ()) -> str:
    """Rows as aligned lines, the first one a header; the columns in `numbers` are aligned to the right."""
    widths = [max(len(row[index]) for row in rows) for index in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [
            text.rjust(width) if index in numbers else text.ljust(width)
            for index, (text, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append((indent + "  ".join(cells)).rstrip())
    return "\n".join(lines)


def local_time(moment: datetime | None) -> str:
    """A stored time in this machine's zone, to the minute."""
    return "-" if moment is None else moment.astimezone().strftime("%Y-%m-%d %H:%M")


def duration(seconds: float) -> str:
    """Seconds in the unit that a person would use: `0.4 s`, `45 s`, `3 min`, `2 h 5 min`, `3 d 4 h`."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    if seconds < 120:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 120:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes} min" if minutes else f"{hours} h"
    days, hours = divmod(hours, 24)
    return f"{days} d {hours} h" if hours else f"{days} d"


def number(value: float | None) -> str:
    """A measured number in few digits; `-` where there is none."""
    if value is None:
        return "-"
    if not math.isfinite(value):
        return str(value)
    if value == int(value) and abs(value) < 1e15:
        return f"{int(value):,}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def many(count: int, noun: str) -> str:
    """`1 job`, `2 jobs`."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def mapping(value: object) -> Mapping[str, object]:
    """JSON data from the store that is a mapping, or an empty one."""
    return cast(Mapping[str, object], value) if isinstance(value, Mapping) else {}


def inline(value: object) -> str:
    """A plain value as it may be written in YAML on one line."""
    plain = jsonable(value)
    if isinstance(plain, dict):
        return "{" + ", ".join(f"{key}: {inline(item)}" for key, item in plain.items()) + "}"
    if isinstance(plain, list):
        return "[" + ", ".join(map(inline, plain)) + "]"
    if plain is None or isinstance(plain, bool):
        return {None: "null", True: "true", False: "false"}[plain]
    return str(plain)
