"""`table`: the ablation table of a stored study, in any format."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Annotated, Literal

import typer

from miras_search import files
from miras_search.commands.common import DbOption, JsonOption, emit, note, open_database, say
from miras_search.commands.run import output_width
from miras_search.errors import EnvironmentProblem, MirasError

Format = Literal["text", "markdown", "latex", "html", "csv", "json"]

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
    statistics: Annotated[
        bool,
        typer.Option(
            "--statistics", help="Effect sizes, equivalence, modes; of a factorial what levels do; ranks, fronts."
        ),
    ] = False,
    margin: Annotated[
        float | None, typer.Option(metavar="X", help="A difference too small to matter, for --statistics.")
    ] = None,
    solved: Annotated[
        float | None,
        typer.Option(metavar="X", help="The value from which a seed counts as solved, for --statistics; else found."),
    ] = None,
    side_by_side: Annotated[
        bool, typer.Option("--side-by-side", help="One table of all tasks, for --format latex and html.")
    ] = False,
    siunitx: Annotated[
        bool, typer.Option("--siunitx", help="For --format latex: columns that align on the decimal point.")
    ] = False,
    db: DbOption = None,
    as_json: JsonOption = False,
) -> None:
    """The ablation table of a study.

    Paired differences with intervals and corrected tests, costs, failures, and a verdict for each cell.
    """
    from miras_search.analysis.duel import duel
    from miras_search.analysis.search import search_report
    from miras_search.analysis.stored import confirmed, stored_tables
    from miras_search.analysis.stored_findings import stored_findings
    from miras_search.commands.search import duel_text
    from miras_search.commands.search import text as search_text
    from miras_search.export import findings
    from miras_search.export.formats import RENDERERS
    from miras_search.export.html import to_html
    from miras_search.export.json_ import to_plain
    from miras_search.export.latex import to_latex
    from miras_search.export.text import to_text
    from miras_search.store import queries

    if as_json and form not in (None, "json"):
        raise MirasError(f"table: --json and --format {form} contradict each other: give one of them")
    chosen = "json" if as_json else form or _by_ending(output)
    _check(statistics, margin, solved, chosen)
    _check_layout(siunitx, side_by_side, task, chosen)
    with open_database(db) as database:
        report = search_report(database, queries.study(database, study))
        if report is not None and not confirmed(database, study):
            if chosen == "json":
                emit({"study": study, "search": report})
            else:
                say(search_text(report))
            return
        tables = stored_tables(database, study, metric=metric, split=split, against=against, task=task, margin=margin)
        more = stored_findings(database, study, tables, margin=margin, limit=solved) if statistics else None
        against_rival = duel(database, queries.study(database, study)) if chosen == "text" else None
    width = output_width() if output is None else 120
    if more is None:
        match chosen:
            case "text":
                text = to_text(tables, width)
            case "latex":
                text = to_latex(tables, siunitx, side_by_side=side_by_side)
            case "html":
                text = to_html(tables, side_by_side=side_by_side)
            case _:
                text = RENDERERS[chosen](tables)
    elif chosen == "json":
        text = json.dumps({**to_plain(tables), **findings.to_plain(*more)}, indent=2, ensure_ascii=False) + "\n"
    else:
        text = f"{to_text(tables, width)}\n{findings.to_text(*more, width=width)}"
    if output is None:
        if report is not None and chosen == "text":
            say(search_text(report) + "\n")
        say(text)
        if against_rival is not None:
            say("\n" + duel_text(against_rival))
        return
    try:
        files.replace(output, text.encode())
    except OSError as error:
        raise EnvironmentProblem(f"{output}: cannot be written: {error.strerror}: name another file") from error
    note(f"{chosen} table written to {output}")


def _check(statistics: bool, margin: float | None, solved: float | None, form: str) -> None:
    """Raise MirasError for options that go with --statistics alone, and formats that it has not."""
    for name, value in (("margin", margin), ("solved", solved)):
        if value is not None and not statistics:
            raise MirasError(f"--{name} {value:g}: it belongs to --statistics: add that, or leave this out")
    if margin is not None and not 0 < margin < math.inf:
        raise MirasError(f"--margin {margin:g}: a margin is positive: give how small a difference does not matter")
    if solved is not None and not math.isfinite(solved):
        raise MirasError(f"--solved {solved:g}: a training reaches no such value: give one of the metric")
    if statistics and form not in ("text", "json"):
        raise MirasError(f"table: --statistics has no {form} form: take --format text or json")


def _check_layout(siunitx: bool, side_by_side: bool, task: str | None, form: str) -> None:
    """Raise MirasError for a layout that the format has not."""
    if siunitx and form != "latex":
        raise MirasError(f"--siunitx: a {form} table has no such columns: add --format latex, or leave this out")
    if side_by_side and form not in ("latex", "html"):
        raise MirasError(f"--side-by-side: a {form} table has one task below the other: take --format latex or html")
    if side_by_side and task is not None:
        raise MirasError(f"--side-by-side: --task {task} leaves one task: leave one of the two out")


def _by_ending(output: Path | None) -> str:
    from miras_search.export.formats import SUFFIXES

    endings = {suffix: name for name, suffix in SUFFIXES.items()}
    return endings.get(output.suffix.lower(), "text") if output is not None else "text"
