"""Everything of a study in a folder: what a paper takes over, what a colleague goes on with, a report to be mailed."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from miras_search.analysis.reported import Reported
from miras_search.errors import EnvironmentProblem, MirasError
from miras_search.export import effects, figures, findings, frames
from miras_search.export.formats import RENDERERS, SUFFIXES
from miras_search.export.html import to_html
from miras_search.export.latex import to_latex
from miras_search.export.report import Findings, to_report
from miras_search.store import queries
from miras_search.store.database import Database

Piece = tuple[str, bytes]
"""A file's place in the folder, and what is in it."""


def write(db: Database, found: Findings, folder: Path, *, force: bool = False) -> list[Path]:
    """Write the study's files and return their places; a folder with anything in it is written into with `force` alone.

    Raises MirasError for such a folder, EnvironmentProblem where nothing can be written.
    """
    try:
        if not force and folder.exists() and any(folder.iterdir()):
            raise MirasError(f"{folder}: it is not empty: name another folder, or write over it with --force")
        written = []
        for place, content in pieces(db, found):
            path = folder / place
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
            written.append(path)
    except OSError as error:
        raise EnvironmentProblem(f"{folder}: cannot be written: {error.strerror}: name another folder") from error
    return written


def pieces(db: Database, found: Findings) -> Iterator[Piece]:
    """The files, the report first."""
    yield "report.html", to_report(found).encode()
    yield "study.yaml", found.shown.study.config_yaml.encode()
    if found.tables:
        yield from _tables(found)
        yield from _statistics(found)
        yield from _figures(found)
    yield from _data(db, found)


def _tables(found: Findings) -> Iterator[Piece]:
    for name, render in RENDERERS.items():
        yield f"tables/table{SUFFIXES[name]}", render(found.tables).encode()
    yield "tables/table-siunitx.tex", to_latex(found.tables, siunitx=True).encode()
    if len(found.tables) > 1:
        yield "tables/side-by-side.tex", to_latex(found.tables, side_by_side=True).encode()
        yield "tables/side-by-side.html", to_html(found.tables, side_by_side=True).encode()


def _statistics(found: Findings) -> Iterator[Piece]:
    """What `table --statistics` tells: effects of axes and their interactions among it."""
    yield "tables/statistics.txt", findings.to_text(found.statistics, found.ranks).encode()
    document = json.dumps(findings.to_plain(found.statistics, found.ranks), indent=2, ensure_ascii=False)
    yield "tables/statistics.json", f"{document}\n".encode()
    if (lines := effects.effects_frame(found.statistics)).size:
        yield "tables/effects.tex", effects.to_latex(found.statistics, found.tables).encode()
        yield from _frame("effects", lines)


def _figures(found: Findings) -> Iterator[Piece]:
    for table in found.tables:
        drawn = {"forest": figures.forest(table)}
        if table.task in found.curves:
            drawn["curves"] = found.curves[table.task].figure
        for kind, figure in drawn.items():
            if figure is not None:
                for form in figures.FORMATS:
                    yield f"figures/{kind}-{_safe(table.task)}.{form}", figures.render(figure, form)


def _data(db: Database, found: Findings) -> Iterator[Piece]:
    study = found.shown.study
    curves = [
        (metric, split, queries.curves(db, study.id, metric, split))
        for metric, split in queries.curve_names(db, study.id)
    ]
    data = {
        "trials": frames.trials_frame(found.shown.trials),
        "jobs": frames.jobs_frame(Reported.of(db, study)),
        "curves": frames.curves_frame(curves),
    }
    if found.tables:
        data["table"] = frames.table_frame(found.tables)
    for name, frame in data.items():
        yield from _frame(name, frame)


def _frame(name: str, frame: pd.DataFrame) -> Iterator[Piece]:
    yield f"data/{name}.csv", frame.to_csv(index=False).encode()
    yield f"data/{name}.parquet", frame.to_parquet(index=False)


def _safe(task: str) -> str:
    """A task's name as part of a file's: `mqar(pairs=4)` becomes `mqar-pairs-4`."""
    return re.sub(r"[^A-Za-z0-9_.]+", "-", task).strip("-")
