"""`table`: the ablation table of a stored study, in any format."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from miras_search.commands.common import DbOption, JsonOption, note, open_database, say
from miras_search.commands.run import output_width
from miras_search.errors import EnvironmentProblem, MirasError

Format = Literal["text", "markdown", "latex", "csv", "json"]

StoredStudy = Annotated[str, typer.Argument(metavar="STUDY", help="The name of a stored study.")]


def table(
    study: StoredStudy,
    form: Annotated[
        Format | None, typer.Option("--format", "-f", help="Else by the ending of --output, else text.")
    ] = None,
    metric: Annotated[str | None, typer.Option(metavar="NAME", help="Else the study's own.")] = None,
    split: Annotated[
        str | None, typer.Option(metavar="SPLIT", help="train, validation or test; else the metric's own.")
    ] = None,
    task: Annotated[str | None, typer.Option(metavar="NAME", help="One task; else a table each.")] = None,
    against: Annotated[
        str | None, typer.Option(metavar="CELL", help="The cell that differences refer to; else the base.")
    ] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", metavar="FILE", help="Write it to a file.")] = None,
    db: DbOption = None,
    as_json: JsonOption = False,
) -> None:
    """The ablation table of a study.

    Paired differences with intervals and corrected tests, costs, failures, and a verdict for each cell.
    """
    from miras_search.analysis.stored import stored_tables
    from miras_search.export.formats import RENDERERS
    from miras_search.export.text import to_text

    if as_json and form not in (None, "json"):
        raise MirasError(f"table: --json and --format {form} contradict each other: give one of them")
    with open_database(db) as database:
        tables = stored_tables(database, study, metric=metric, split=split, against=against, task=task)
    chosen = "json" if as_json else form or _by_ending(output)
    if output is None:
        say(to_text(tables, output_width()) if chosen == "text" else RENDERERS[chosen](tables))
        return
    try:
        output.write_text(RENDERERS[chosen](tables), encoding="utf-8")
    except OSError as error:
        raise EnvironmentProblem(f"{output}: cannot be written: {error.strerror}: name another file") from error
    note(f"{chosen} table written to {output}")


def _by_ending(output: Path | None) -> str:
    from miras_search.export.formats import SUFFIXES

    endings = {suffix: name for name, suffix in SUFFIXES.items()}
    return endings.get(output.suffix.lower(), "text") if output is not None else "text"
