"""An evaluation as a study of its own: the cells and seeds of a stored study, on other tasks, with nothing trained.

It is made from the rows of the trainings, not from a study file, so that it is about what was trained, whatever the
file says by now; plugins come with their source from the runs that used them.
"""

from __future__ import annotations

import dataclasses
import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from typing import cast

from miras_search.engine.stored_cells import cell_named, cells_of, plugins_of, trained_task
from miras_search.errors import MirasError
from miras_search.metrics import METRICS
from miras_search.seeds import confirms
from miras_search.space import plugins
from miras_search.space.fields import SpecError, build
from miras_search.store import queries
from miras_search.store.database import Database
from miras_search.store.trained import trained_by
from miras_search.store.tuned import Scheme
from miras_search.store.types import JobRow, StudyRow
from miras_search.study.drafts import Cell
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
    if origin := trained_by(source):
        raise MirasError(f"{source.name}: it is an evaluation itself and trained nothing: evaluate {origin}")
    if wanted.name is not None and not re.match(NAME, wanted.name):
        what = "is not a name: use letters, digits, '.', '_' and '-', at most 100, beginning with a letter or digit"
        raise MirasError(f"--as {wanted.name}: {wanted.name!r} {what}")
    if wanted.name == source.name:
        raise MirasError(f"--as {wanted.name}: so the trainings are called: store their evaluation under another name")
    given = settings(wanted.overrides)
    trained = trained_task(source, wanted.trained_on)
    found = levels(trained.spec, wanted.tasks, given.task)
    modules = plugins_of(db, source)
    try:
        plugins.use(modules)
        cells = cells_of(db, source, trained.name)
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


def _reported(source: StudyRow) -> Callable[[int], bool]:
    """Which seeds a table of the study shows."""
    scheme = Scheme.of(source.config, source.metric)
    if source.kind == "search":
        return confirms
    return lambda seed: scheme is None or seed not in scheme.seeds


def _picked(
    source: StudyRow, cells: Sequence[Cell], jobs: Sequence[JobRow], wanted: Wanted
) -> tuple[list[Cell], tuple[int, ...]]:
    """The wanted cells that have a training with one of the wanted seeds, and those seeds in the order of training."""
    known = dict.fromkeys(row.seed for row in jobs)
    for seed in wanted.seeds:
        if seed not in known:
            raise MirasError(f"--seeds {seed}: {source.name} is trained with {', '.join(map(str, known))}")
    seeds = tuple(seed for seed in known if not wanted.seeds or seed in wanted.seeds)
    picked = {cells[0].number} | {cell_named(cells, name, source.name) for name in wanted.cells}
    here = [row for row in jobs if row.seed in seeds and (not wanted.cells or row.trial_number in picked)]
    if not any(row.state == "complete" for row in here):
        raise MirasError(f"{source.name}: no such training is complete: `miras-search status {source.name}`")
    trained = {row.trial_number for row in here}
    missing = [cell.name for cell in cells if cell.number in picked and cell.number not in trained]
    if missing:
        raise MirasError(f"{source.name}: {missing[0]} has no training with these seeds: leave --seeds out")
    return [cell for cell in cells if cell.number in trained], seeds


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
