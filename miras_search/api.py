"""The library's front door: stored studies as typed data frames, and studies trained from Python.

    import miras_search as ms
    ms.open("miras.db").study("bias").table()

A database is opened for each question and closed again, so nothing has to be closed, and a study that is still being
trained shows what it has so far.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

import pandas as pd

from miras_search.analysis.cells import metric_named
from miras_search.analysis.reported import Reported
from miras_search.analysis.stored import stored_tables
from miras_search.analysis.table import AblationTable
from miras_search.engine.driver import RunOptions
from miras_search.engine.evaluation import Wanted, evaluation
from miras_search.engine.events import Event
from miras_search.engine.whole import run_whole
from miras_search.errors import MirasError
from miras_search.export import bundle, frames
from miras_search.export.html import table_html
from miras_search.export.report import findings, to_report
from miras_search.store import queries
from miras_search.store.address import is_new
from miras_search.store.database import Database
from miras_search.study.document import to_yaml
from miras_search.study.loader import load, loads
from miras_search.tasks.base import Split

if TYPE_CHECKING:
    from miras_search.engine.model import TrainedModel

__all__ = ["Results", "StoredStudy", "open", "run"]

DEFAULT_DB = "miras.db"


def open(db: str | Path = DEFAULT_DB) -> Results:
    """The studies of a database, a path or a URL. Raises EnvironmentProblem where there is none."""
    Database.open(db, read_only=True).close()
    return Results(db)


def run(
    study: str | Path | Mapping[str, object],
    *,
    db: str | Path = DEFAULT_DB,
    name: str | None = None,
    overrides: Sequence[str] = (),
    executor: Literal["auto", "local", "ray"] = "auto",
    workers: int | None = None,
    max_jobs: int | None = None,
    on_event: Callable[[Event], None] | None = None,
) -> StoredStudy:
    """Train what the study still lacks, as `miras-search run` does with its rival too, and return it as it is stored.

    `study` is a file, the name of one that ships, or its keys as a mapping. `overrides` are `train.steps=20`;
    `on_event` is told of every job. Jobs that fail are rows of `jobs()`, not raised.

    Raises StudyError with every problem of the study, and whatever `run_study` raises.
    """
    if isinstance(study, Mapping):
        loaded = loads(to_yaml(study), "study", overrides, name)
    else:
        loaded = load(study, overrides, name)
    options = RunOptions(executor=executor, workers=workers, max_jobs=max_jobs)
    options.check(loaded, stored=not is_new(db))
    with Database.open(db, create=True) as database:
        run_whole(loaded, database, options, lambda one: nullcontext(on_event or _unheard))
    return StoredStudy(db, loaded.name)


def _unheard(event: Event) -> None:
    """Nobody asked to be told."""


@dataclass(frozen=True, slots=True)
class Results:
    """The studies of one database."""

    db: str | Path

    def names(self) -> list[str]:
        """The studies, the newest last."""
        with Database.open(self.db, read_only=True) as database:
            return [row.name for row in queries.studies(database)]

    def study(self, name: str) -> StoredStudy:
        """The study of that name. Raises StudyNotFound, with the names that are near."""
        with Database.open(self.db, read_only=True) as database:
            return StoredStudy(self.db, queries.study(database, name).name)


@dataclass(frozen=True, slots=True)
class StoredStudy:
    """One study of a database; every call reads what is there now."""

    db: str | Path
    name: str

    def table(
        self,
        *,
        metric: str | None = None,
        split: str | None = None,
        against: str | None = None,
        task: str | None = None,
    ) -> pd.DataFrame:
        """The ablation table, one line a cell and task: means, paired differences, intervals, p, costs, verdicts.

        The options are those of `miras-search table`. Raises MirasError for a metric, split, cell or task that is none.
        """
        return frames.table_frame(self.tables(metric=metric, split=split, against=against, task=task))

    def tables(
        self,
        *,
        metric: str | None = None,
        split: str | None = None,
        against: str | None = None,
        task: str | None = None,
    ) -> list[AblationTable]:
        """The same as objects, one a task, with caption and notes; `miras_search.export` renders them."""
        with Database.open(self.db, read_only=True) as database:
            return stored_tables(database, self.name, metric=metric, split=split, against=against, task=task)

    def trials(self) -> pd.DataFrame:
        """One line a cell: what it changes (a column a varied path), its jobs by state, its design and settings."""
        with Database.open(self.db, read_only=True) as database:
            return frames.trials_frame(queries.trials(database, queries.study(database, self.name).id))

    def jobs(self) -> pd.DataFrame:
        """One line a training: state and every number that it reported, as `accuracy.test` or `params`.

        `row` is the table's row that it is in; missing for one that tuned or searched.
        """
        with Database.open(self.db, read_only=True) as database:
            return frames.jobs_frame(Reported.of(database, queries.study(database, self.name)))

    def curves(self, metric: str | None = None, split: str | None = None) -> pd.DataFrame:
        """One line a point of a learning curve; of all metrics and splits, or of one. Without any, no lines.

        Raises MirasError for a metric or split that is none.
        """
        if metric is not None:
            metric_named(metric)
        if split not in (None, *get_args(Split)):
            raise MirasError(f"curves: split {split!r} is none of {', '.join(get_args(Split))}")
        with Database.open(self.db, read_only=True) as database:
            id_ = queries.study(database, self.name).id
            wanted = [
                pair
                for pair in queries.curve_names(database, id_)
                if metric in (None, pair[0]) and split in (None, pair[1])
            ]
            return frames.curves_frame([(*pair, queries.curves(database, id_, *pair)) for pair in wanted])

    def evaluate(
        self,
        *,
        tasks: Sequence[str] = (),
        overrides: Sequence[str] = (),
        trained_on: str | None = None,
        cells: Sequence[str] = (),
        seeds: Sequence[int] = (),
        name: str | None = None,
        executor: Literal["auto", "local", "ray"] = "auto",
        workers: int | None = None,
        max_jobs: int | None = None,
        on_event: Callable[[Event], None] | None = None,
    ) -> StoredStudy:
        """Test the trained models on other tasks, lengths and noise, as `miras-search eval` does, and return the study
        in which that is stored. Nothing is trained.

        `overrides` are levels, `("task.length=80", "task.length=160")`; `cells` names or numbers as text, beside the
        base. Nothing given means all cells and seeds, and the task that was trained on, which `trained_on` names where
        there are several. What is refused is told in the words of the command line.

        Raises StudyNotFound, MirasError for a task, level, cell or seed that there is not or that does not fit the
        models, and whatever `run_study` raises.
        """
        options = RunOptions(executor=executor, workers=workers, max_jobs=max_jobs)
        with Database.open(self.db) as database:
            wanted = Wanted(self.name, tuple(tasks), tuple(overrides), trained_on, tuple(cells), tuple(seeds), name)
            made = evaluation(database, wanted)
            run_whole(made, database, options, lambda one: nullcontext(on_event or _unheard))
        return StoredStudy(self.db, made.name)

    def model(self, cell: str | int, seed: int, *, trained_on: str | None = None) -> TrainedModel:
        """The model of a cell, by name or trial number, that was trained with a seed; of several tasks on `trained_on`.

        Raises MirasError where there is no such training, it is not complete, or its checkpoint is gone.
        """
        from miras_search.engine.model import trained_model  # torch, which tables need not wait for

        with Database.open(self.db, read_only=True) as database:
            return trained_model(database, self.name, cell, seed, trained_on)

    def report(self) -> str:
        """The one-file HTML report."""
        with Database.open(self.db, read_only=True) as database:
            return to_report(findings(database, self.name))

    def export(self, folder: str | Path, *, force: bool = False) -> list[Path]:
        """Write what `miras-search export` writes, and return the files."""
        with Database.open(self.db, read_only=True) as database:
            return bundle.write(database, findings(database, self.name), Path(folder), force=force)

    def _repr_html_(self) -> str:
        """The ablation table, where a notebook shows the study itself."""
        return "\n".join(table_html([table]) for table in self.tables())
