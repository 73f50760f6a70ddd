"""An evaluation as a study of its own: the cells and seeds of a stored study, on other tasks, with nothing trained.

It is made from the rows of the trainings, not from a study file, so that it is about what was trained, whatever the
file says by now; plugins come with their source from the runs that used them.
"""

from __future__ import annotations

import dataclasses
import difflib
import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from typing import cast

from miras_search.engine.points import stored
from miras_search.errors import MirasError
from miras_search.metrics import METRICS
from miras_search.seeds import confirms
from miras_search.space import plugins
from miras_search.space.fields import Plain, SpecError, build
from miras_search.space.plugins import Plugin
from miras_search.store import queries
from miras_search.store.database import Database
from miras_search.store.tuned import Scheme, tuned
from miras_search.store.types import JobRow, StudyRow
from miras_search.study.drafts import Cell, Role
from miras_search.study.evaluation import Evaluated, Settings, levels, settings
from miras_search.study.schema import NAME, Resources
from miras_search.study.study import Study, StudyTask
from miras_search.training.config import TrainConfig


@dataclasses.dataclass(frozen=True, slots=True)
class Wanted:
    """What is evaluated on what, as the command line says it."""

    study: str
    tasks: tuple[str, ...] = ()
    """Names of tasks; the one that was trained on when there are none."""
    overrides: tuple[str, ...] = ()
    """`task.length=256`, `train.eval_examples=1000`."""
    trained_on: str | None = None
    """Which task's trainings, of a study of several."""
    cells: tuple[str, ...] = ()
    """By name or number, beside the base; all when there are none."""
    seeds: tuple[int, ...] = ()
    """All that were trained when there are none."""
    name: str | None = None
    """Of the evaluation; one that follows from what is evaluated when None."""

    @property
    def words(self) -> list[str]:
        """The command line."""
        flags = [("--task", one) for one in self.tasks]
        flags += [("--trained-on", self.trained_on)] if self.trained_on else []
        flags += [("--set", one) for one in self.overrides]
        flags += [("--cell", one) for one in self.cells]
        flags += [("--seeds", ",".join(map(str, self.seeds)))] if self.seeds else []
        flags += [("--as", self.name)] if self.name else []
        return ["miras-search", "eval", self.study, *(word for flag in flags for word in flag)]


def evaluation(db: Database, wanted: Wanted) -> Study:
    """The study that evaluates what is wanted; nothing is stored.

    Raises StudyNotFound, and MirasError for a task, level, cell or seed that there is not or that does not fit the
    models, and for a study that has nothing to be evaluated yet.
    """
    source = queries.study(db, wanted.study)
    if "evaluated" in source.config:
        origin = cast(Mapping[str, object], source.config["evaluated"])["study"]
        raise MirasError(f"{source.name}: it is an evaluation itself and trained nothing: evaluate {origin}")
    if wanted.name is not None and not re.match(NAME, wanted.name):
        what = "is not a name: use letters, digits, '.', '_' and '-', at most 100, beginning with a letter or digit"
        raise MirasError(f"--as {wanted.name}: {wanted.name!r} {what}")
    if wanted.name == source.name:
        raise MirasError(f"--as {wanted.name}: so the trainings are called: store their evaluation under another name")
    given = settings(wanted.overrides)
    trained = _trained_task(source, wanted.trained_on)
    found = levels(trained.spec, wanted.tasks, given.task)
    modules = _plugins(db, source)
    try:
        plugins.use(modules)
        cells = _cells(db, source, trained.name)
    except SpecError as error:
        raise MirasError(f"{source.name}: {error.problems[0]}: it cannot be evaluated here") from error
    reported = _reported(source)
    jobs = [row for row in queries.jobs(db, source.id) if row.task == trained.name and reported(row.seed)]
    picked, seeds = _picked(source, cells, jobs, wanted)
    at = {cell.number: number for number, cell in enumerate(picked)}
    cells = [_renumbered(cell, at, given) for cell in picked]
    base = cells[0]
    made = Study(
        name=wanted.name or source.name,
        question=source.question,
        kind="evaluation",
        design=str(source.config["design"]),
        metric=source.metric if METRICS[source.metric].split == "test" else "accuracy",
        seeds=seeds,
        tasks=tuple(StudyTask(level.name, level.spec) for level in found),
        model=base.model,
        train=base.train,
        base=base.design,
        base_name=base.name,
        cells=tuple(cells),
        axes=(),
        controls=tuple(cell.name for cell in cells if cell.role == "control"),
        resources=_resources(source),
        execution=str(source.config["execution"]),
        mixed=False,
        yaml=f"# Evaluated: {shlex.join(wanted.words)}\n# What was trained:\n{source.config_yaml}",
        path=source.name,
        plugins=modules,
        evaluated=Evaluated(source.name, trained.name, trained.spec, tuple(cell.number for cell in picked)),
    )
    if wanted.name is not None:
        return made
    return dataclasses.replace(made, name=f"{source.name}.eval-{made.space_hash[:8]}")


def _trained_task(source: StudyRow, wanted: str | None) -> StudyTask:
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


def _plugins(db: Database, source: StudyRow) -> tuple[Plugin, ...]:
    """The plugins of the newest run that used any, with the source that it had."""
    for run in reversed(queries.runs(db, source.id)):
        if kept := run.provenance.get("plugins"):
            known = cast(Mapping[str, Mapping[str, str]], kept)
            return tuple(Plugin(name, one["path"], one["source"], one["hash"]) for name, one in known.items())
    return ()


def _reported(source: StudyRow) -> Callable[[int], bool]:
    """Which seeds a table of the study shows."""
    scheme = Scheme.of(source.config, source.metric)
    if source.kind == "search":
        return confirms
    return lambda seed: scheme is None or seed not in scheme.seeds


def _cells(db: Database, source: StudyRow, task: str) -> list[Cell]:
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


def _picked(
    source: StudyRow, cells: Sequence[Cell], jobs: Sequence[JobRow], wanted: Wanted
) -> tuple[list[Cell], tuple[int, ...]]:
    """The wanted cells that have a training with one of the wanted seeds, and those seeds in the order of training."""
    known = dict.fromkeys(row.seed for row in jobs)
    for seed in wanted.seeds:
        if seed not in known:
            raise MirasError(f"--seeds {seed}: {source.name} is trained with {', '.join(map(str, known))}")
    seeds = tuple(seed for seed in known if not wanted.seeds or seed in wanted.seeds)
    picked = {cells[0].number} | {_named(cells, name, source.name) for name in wanted.cells}
    here = [row for row in jobs if row.seed in seeds and (not wanted.cells or row.trial_number in picked)]
    if not any(row.state == "complete" for row in here):
        raise MirasError(f"{source.name}: no such training is complete: `miras-search status {source.name}`")
    trained = {row.trial_number for row in here}
    missing = [cell.name for cell in cells if cell.number in picked and cell.number not in trained]
    if missing:
        raise MirasError(f"{source.name}: {missing[0]} has no training with these seeds: leave --seeds out")
    return [cell for cell in cells if cell.number in trained], seeds


def _named(cells: Sequence[Cell], wanted: str, study: str) -> int:
    """The number of the cell of that name or number. Raises MirasError with the nearest names."""
    for cell in cells:
        if wanted in (cell.name, str(cell.number)):
            return cell.number
    names = [cell.name for cell in cells]
    near = difflib.get_close_matches(wanted, names, n=1)
    cure = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(names)}"
    raise MirasError(f"--cell {wanted}: {study} has no such cell: {cure}")


def _renumbered(cell: Cell, at: Mapping[int, int], given: Settings) -> Cell:
    """The cell by its place in the evaluation, looked at as the evaluation says. Raises MirasError."""
    try:
        train = build(TrainConfig, {**cell.train.to_plain(), **given.train}, ("train",))
    except SpecError as error:
        key = str(error.problems[0].where[-1])
        raise MirasError(f"--set train.{key}={given.train.get(key)}: {error.problems[0].what}") from error
    controls = {name: at[number] for name, number in cell.controls.items() if number in at}
    return dataclasses.replace(cell, number=at[cell.number], train=train, controls=controls)


def _resources(source: StudyRow) -> Resources:
    """What one process was given; an evaluation is by itself, and what a study may spend was for its trainings."""
    given = cast(Mapping[str, object], source.config["resources"])
    kept = {key: given[key] for key in ("cpus", "gpus", "kernels", "silence") if key in given}
    return Resources.model_construct(None, **kept, pack=1, save_every=None)
