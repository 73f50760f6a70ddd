"""What a stored study trained, from its rows and not from a study file: tasks, cells, plugins."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping, Sequence
from typing import cast

from miras_search.engine.points import stored
from miras_search.errors import MirasError
from miras_search.seeds import confirms
from miras_search.space.fields import Plain
from miras_search.space.plugins import Plugin
from miras_search.store import queries
from miras_search.store.database import Database
from miras_search.store.tuned import Scheme, tuned
from miras_search.store.types import StudyRow
from miras_search.study.drafts import Cell, Role
from miras_search.study.study import StudyTask


def trained_task(source: StudyRow, wanted: str | None) -> StudyTask:
    """The task of whose trainings the models are. Raises MirasError where it is not said which of several."""
    tasks = cast(Sequence[Mapping[str, object]], source.config["tasks"])
    found = {str(one["name"]): cast(Mapping[str, Plain], one["spec"]) for one in tasks}
    known = ", ".join(found)
    if wanted is None and len(found) > 1:
        raise MirasError(f"{source.name}: it is trained on {known}: say --trained-on which of them")
    name = next(iter(found)) if wanted is None else wanted
    if name not in found:
        raise MirasError(f"--trained-on {name}: {source.name} is trained on {known}")
    return StudyTask(name, found[name])


def plugins_of(db: Database, source: StudyRow) -> tuple[Plugin, ...]:
    """The plugins of the newest run that used any, with the source that it had."""
    for run in reversed(queries.runs(db, source.id)):
        if kept := run.provenance.get("plugins"):
            known = cast(Mapping[str, Mapping[str, str]], kept)
            return tuple(Plugin(name, one["path"], one["source"], one["hash"]) for name, one in known.items())
    return ()


def cells_of(db: Database, source: StudyRow, task: str) -> list[Cell]:
    """The rows of the study's table on a task, each by the number of the trial that stands for it; the base first."""
    if source.kind == "search":
        numbers = {row.trial_number for row in queries.jobs(db, source.id) if confirms(row.seed)}
        if not numbers:
            raise MirasError(f"{source.name}: nothing is confirmed on fresh seeds yet: `miras-search run` goes on")
        return [stored(row) for row in queries.trials(db, source.id, numbers | {0})]
    scheme = Scheme.of(source.config, source.metric)
    about = cast(Sequence[Mapping[str, object]], source.config["cells"])
    chosen = {number: number for number in range(len(about))}
    if scheme is not None:
        found = tuned(queries.results(db, source.id), scheme)
        for number in chosen:
            choice = found[number, task].chosen if (number, task) in found else None
            if choice is None:
                raise MirasError(f"{source.name}: its tuning is not through yet: `miras-search run` goes on")
            chosen[number] = choice
    rows = {row.number: row for row in queries.trials(db, source.id, set(chosen.values()))}
    return [
        dataclasses.replace(
            stored(rows[chosen[number]]),
            name=str(cell["name"]),
            role=cast(Role, cell["role"]),
            changes=cast(Mapping[str, str], cell["changes"]),
            levels=cast(Mapping[str, str], cell["levels"]),
            controls={name: chosen[at] for name, at in cast(Mapping[str, int], cell.get("controls", {})).items()},
        )
        for number, cell in enumerate(about)
    ]


def cell_named(cells: Sequence[Cell], wanted: str, study: str) -> int:
    """The number of the cell of that name or number. Raises MirasError with the nearest names."""
    for cell in cells:
        if wanted in (cell.name, str(cell.number)):
            return cell.number
    names = [cell.name for cell in cells]
    near = difflib.get_close_matches(wanted, names, n=1)
    cure = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(names)}"
    raise MirasError(f"--cell {wanted}: {study} has no such cell: {cure}")
