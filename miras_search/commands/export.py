"""`export`: everything of a stored study in a folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from miras_search.commands.common import DbOption, JsonOption, emit, many, note, open_database, say
from miras_search.commands.table import StoredStudy


def export(
    study: StoredStudy,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="DIR", help="The folder; made where it is not.")],
    metric: Annotated[str | None, typer.Option(metavar="NAME", help="Else the study's own.")] = None,
    split: Annotated[
        str | None, typer.Option(metavar="SPLIT", help="train, validation or test; else the metric's own.")
    ] = None,
    against: Annotated[
        str | None, typer.Option(metavar="CELL", help="The cell that differences refer to; else the base.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Write into a folder that is not empty.")] = False,
    db: DbOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write a study's tables, figures, data, file and report.

    All that a paper or a colleague needs; report.html is one file that can be mailed and loads nothing.
    """
    from miras_search.export.bundle import write
    from miras_search.export.report import findings

    with open_database(db) as database:
        found = findings(database, study, metric=metric, split=split, against=against)
        written = write(database, found, output, force=force)
    if as_json:
        emit({"study": study, "folder": output, "files": written})
        return
    for path in written:
        say(str(path))
    note(f"{many(len(written), 'file')} of study {study} written to {output}; mail {output / 'report.html'}")
