"""`db`: the database as a whole: migrations, copies, and studies that are no longer wanted."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from miras_search.analysis.numbers import bytes_text
from miras_search.commands.common import DbOption, JsonOption, database_setting, emit, many, say
from miras_search.errors import MirasError

if TYPE_CHECKING:
    from miras_search.engine.removal import Removal

db_commands = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="The database: migrations, copies, removals."
)


@db_commands.command("upgrade")
def db_upgrade(db: DbOption = None, as_json: JsonOption = False) -> None:
    """Bring the tables to this version's revision; changes nothing when they are current."""
    from miras_search.store.database import Database

    with Database.open(database_setting(db).value, check=False) as database:
        before = database.revision()
        after = database.upgrade()
        name = database.name
    if as_json:
        emit({"database": name, "before": before, "after": after})
    else:
        say(f"{name}: revision {after}" if before == after else f"{name}: revision {before or 'none'} -> {after}")


@db_commands.command("backup")
def db_backup(
    target: Annotated[Path, typer.Argument(metavar="FILE", help="The file to write; it must not exist.")],
    db: DbOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write a consistent copy of a SQLite database, while others use it. Trained models lie beside it, not in it."""
    from miras_search.store.database import Database

    with Database.open(database_setting(db).value, read_only=True, check=False) as database:
        name, copy = database.name, database.backup(target)
    if as_json:
        emit({"database": name, "copy": copy})
    else:
        say(f"{name} copied to {copy}")


@db_commands.command("remove")
def db_remove(
    study: Annotated[str, typer.Argument(metavar="STUDY", help="The study that goes.")],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    db: DbOption = None,
    as_json: JsonOption = False,
) -> None:
    """Remove a study with its results and the models that it trained. There is no way back."""
    from miras_search.engine.removal import removal, remove_study
    from miras_search.store.database import Database

    with Database.open(database_setting(db).value) as database:
        if not yes:
            what = _told(removal(database, study))
            if not sys.stdin.isatty():
                raise MirasError(f"db remove {study}: {what} would be lost: say --yes if that is meant")
            typer.confirm(f"Remove {study} with {what}?", abort=True, err=True)
        found = remove_study(database, study)
        name = database.name
    if as_json:
        emit({"database": name, **dataclasses.asdict(found)})
    else:
        say(f"{name}: {found.study} removed with {_told(found)}")


def _told(found: Removal) -> str:
    return f"{many(found.jobs, 'job')} and {many(found.checkpoints, 'checkpoint')} ({bytes_text(found.bytes)})"
