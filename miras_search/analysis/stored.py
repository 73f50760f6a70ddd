"""The tables of a stored study, with the words around them: what the command line prints and the dashboard shows.

Commit and date are those of the trainings, not of the moment of reading: the same results give the same table, byte for
byte, whoever reads them and however often.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import cast

from miras_search.analysis.cells import gather, metric_named, task_names
from miras_search.analysis.commits import commits
from miras_search.analysis.locked import lock_text, locked_margin
from miras_search.analysis.looks import Looked, Looks, test_in_looks
from miras_search.analysis.matched import with_ratios
from miras_search.analysis.reported import Reported
from miras_search.analysis.search import chosen_among, search_report, shrinkages
from miras_search.analysis.table import AblationTable, TableContext, ablation_tables
from miras_search.errors import MirasError
from miras_search.metrics import has_levels, saturation
from miras_search.seeds import confirms
from miras_search.space.fields import SpecError, flow
from miras_search.store import queries
from miras_search.store.database import Database
from miras_search.store.locks import lock_of
from miras_search.store.trained import trained_by
from miras_search.store.tuned import Scheme
from miras_search.store.types import AttemptRow, RunRow, StudyRow
from miras_search.tasks import Guess, Task, task_from_spec, unbound

FINISHED = ("complete", "diverged")


def stored_tables(
    db: Database,
    name: str,
    *,
    metric: str | None = None,
    split: str | None = None,
    against: str | None = None,
    task: str | None = None,
    margin: float | None = None,
) -> list[AblationTable]:
    """One table a task of the study called `name`, or the one of `task`; the metric is the study's own by default.

    `margin` is one that is read with the tables instead of the locked one, for the caption. Of a search what is
    confirmed, against the base; of a tuned study the reported seeds, with what was chosen for them. Raises
    StudyNotFound, and MirasError for an unknown task, metric, split or cell, for a study without jobs, for a search
    without a confirmation, and while a tuning goes on.
    """
    study = queries.study(db, name)
    reported = Reported.of(db, study)
    results, tuning = reported.results, reported.tuning
    if not reported.everything:
        raise MirasError(f"{name}: the study has no jobs yet: start it with `miras-search run`")
    if not results and tuning is None:
        raise MirasError(f"{name}: nothing is confirmed on fresh seeds yet: `miras-search status {name}`")
    if not results:
        raise MirasError(f"{name}: no reported seed is trained before the tuning ends: `miras-search status {name}`")
    metric = study.metric if metric is None else metric
    context = table_context(db, study, metric=metric, split=split, against=against, task=task, margin=margin)
    report = search_report(db, study, reported.everything)
    if report is not None:
        context = replace(context, searched=chosen_among(report))
    chances = chance_levels(study)
    looks = Looks.of(study)
    own = metric == study.metric and split in (None, metric_named(metric).split)
    if looks is not None and not (own and against in (None, base_name(study))):
        about = f"{study.metric} against {base_name(study)}"
        context = replace(
            context, looked=f"Seeds were added after looks at {about}, which p here leaves out of account"
        )
        looks = None
    trained = trained_study(db, study)
    if trained is not None and Looks.of(trained) is not None:
        about = f"what {trained.name} had trained"
        context = replace(
            context, looked=f"Seeds were added after looks at {about}, which p here leaves out of account"
        )
    tables = ablation_tables(
        results,
        study=name,
        metric=metric,
        split=split,
        against=against,
        task=task,
        chances=chances,
        guesses=unbound_levels(study),
        controlled=controlled_trials(study),
        looks=looks,
        provenance=context,
    )
    tables = tables if tuning is None else list(map(tuning.shown, tables))
    if report is not None and (said := shrinkages(report)) is not None:
        tables = [replace(table, notes=(*table.notes, said)) for table in tables]
    if trained is not None:  # it tells of models, and is no choice of a task that tells them apart
        return tables
    return [_with_saturation(with_ratios(table, study), chances.get(table.task)) for table in tables]


def looked(db: Database, name: str) -> dict[str, Looked]:
    """How far the declared looks at the study called `name` have come, by task; empty where it declared none, or
    where nothing is reported yet. Raises StudyNotFound.
    """
    study = queries.study(db, name)
    looks, results = Looks.of(study), Reported.of(db, study).results
    if looks is None:
        return {}
    found = {}
    for task in task_names(results):
        cells = gather(results, task=task, metric=study.metric, split=metric_named(study.metric).split)
        family = [cell for cell in cells if cell.role == "cell"]
        found[task] = test_in_looks(cells[0], family, looks, check=True)
    return found


def base_name(study: StudyRow) -> str:
    """The name of a stored study's base."""
    return str(cast(Mapping[str, object], study.config["base"])["name"])


def _with_saturation(table: AblationTable, chance: float | None) -> AblationTable:
    """The table with a note where its reference leaves no room above it, or below."""
    mean = next(row.mean for row in table.rows if row.cell == table.base)
    if table.metric != "accuracy" or mean is None or chance is None:
        return table
    said = saturation(table.base, mean, chance)
    return table if said is None else replace(table, notes=(*table.notes, said))


def confirmed(db: Database, name: str) -> bool:
    """Whether there is anything to compare: there is not before a search is confirmed, or a tuning has ended."""
    study = queries.study(db, name)
    scheme = Scheme.of(study.config, study.metric)
    if study.kind != "search" and scheme is None:
        return True
    seeds = {row.seed for row in queries.jobs(db, study.id)}
    return any(map(confirms, seeds)) if scheme is None else bool(seeds - scheme.seeds)


def table_context(
    db: Database,
    study: StudyRow,
    *,
    metric: str | None = None,
    split: str | None = None,
    against: str | None = None,
    task: str | None = None,
    margin: float | None = None,
) -> TableContext:
    """Commit, date, execution and lock of a study's trainings, and the command that prints the table again."""
    attempts = [attempt for attempt in queries.attempts(db, study.id) if attempt.state in FINISHED]
    ended = [attempt.ended_at for attempt in attempts if attempt.ended_at is not None]
    options = {"metric": metric if metric != study.metric else None, "split": split, "against": against, "task": task}
    words = [f"--{option} {shlex.quote(str(value))}" for option, value in options.items() if value is not None]
    execution = study.config.get("execution")
    return TableContext(
        commit=commits(attempts, queries.runs(db, study.id)),
        date=max(ended).date().isoformat() if ended else None,
        execution=execution if isinstance(execution, str) else None,
        evaluated=_evaluated(study),
        lock=_lock(db, study, metric or study.metric, split, against, margin),
        margin=_margin(db, study, metric or study.metric) if margin is None else margin,
        command=" ".join(["miras-search table", shlex.quote(study.name), *words]),
    )


def trained_study(db: Database, study: StudyRow) -> StudyRow | None:
    """The study whose models an evaluation tries; None for one that trains its own."""
    name = trained_by(study)
    return None if name is None else queries.study(db, name)


def _evaluated(study: StudyRow) -> str | None:
    """What the caption says of whose models an evaluation tries; None where models were trained."""
    given = study.config.get("evaluated")
    if not isinstance(given, Mapping):
        return None
    spec = ", ".join(f"{key} {flow(value)}" for key, value in given["spec"].items() if key != "name")
    return f"Models as study {given['study']} trained them on {given['task']} ({spec}), evaluated without more training"


def _lock(
    db: Database, study: StudyRow, metric: str, split: str | None, against: str | None, margin: float | None
) -> str | None:
    """What the caption says of the study's lock; nothing of a search, whose confirmation is on fresh seeds anyway."""
    if study.kind == "search":
        return None
    scheme = Scheme.of(study.config, study.metric)
    own = scheme.seeds if scheme is not None else frozenset[int]()  # those that tune are in no table
    seeds = list(dict.fromkeys(job.seed for job in queries.jobs(db, study.id) if job.seed not in own))
    shown = metric_named(metric).split if split is None else split
    added = set[int]()
    for one in filter(None, (study, trained_study(db, study))):
        added |= added_seeds(queries.runs(db, one.id), queries.attempts(db, one.id))
    lock = lock_of(db, study.id)
    return lock_text(
        lock, seeds=seeds, metric=metric, split=shown, against=against, margin=margin, added=[*added & {*seeds}]
    )


def _margin(db: Database, study: StudyRow, metric: str) -> float | None:
    """The half width that was declared to matter, of the metric that it was declared for."""
    return locked_margin(lock_of(db, study.id)) if metric == study.metric else None


def added_seeds(runs: Sequence[RunRow], attempts: Sequence[AttemptRow]) -> set[int]:
    """The seeds that were first asked for when a run had found something already: by its results, perhaps."""
    known, added = set[int](), set[int]()
    for run in sorted(runs, key=lambda run: run.id):
        asked = run.provenance.get("seeds")
        if not isinstance(asked, Sequence):  # of a version that did not note it
            continue
        done = [one for one in attempts if one.state in FINISHED and one.seed in known]
        if any(one.ended_at is not None and one.ended_at <= run.started_at for one in done):
            added |= set(asked) - known
        known |= set(asked)
    return added


def chance_levels(study: StudyRow) -> dict[str, float | None]:
    """The accuracy of guessing for each task of the study; None for a task that this version does not know."""
    return {name: None if task is None else task.chance for name, task in _tasks(study).items()}


def unbound_levels(study: StudyRow) -> dict[str, Guess | None]:
    """What can be had of each task of the study without binding; None where that is not known."""
    return {name: None if task is None else unbound(task) for name, task in _tasks(study).items()}


def levels_of(study: StudyRow, task: str, metric: str, split: str) -> dict[str, float]:
    """By name the levels that a curve of the study is read against; none but for held-out accuracy."""
    if not has_levels(metric, split):
        return {}
    guess = unbound_levels(study).get(task)
    levels = {"chance": chance_levels(study).get(task), "without binding": None if guess is None else guess.accuracy}
    return {name: level for name, level in levels.items() if level is not None}


def _tasks(study: StudyRow) -> dict[str, Task | None]:
    tasks = study.config.get("tasks")
    if not isinstance(tasks, Sequence):
        return {}
    found: dict[str, Task | None] = {}
    for task in cast(Sequence[Mapping[str, object]], tasks):
        try:
            found[str(task["name"])] = task_from_spec(cast(Mapping[str, object], task["spec"]))
        except SpecError:
            found[str(task["name"])] = None
    return found


def controlled_trials(study: StudyRow) -> dict[int, Mapping[str, int]]:
    """Which trial is which other one under a control; empty where only the base is controlled."""
    cells = cast(Sequence[Mapping[str, object]], study.config.get("cells", ()))
    return {
        cast(int, cell["number"]): cast(Mapping[str, int], cell["controls"]) for cell in cells if cell.get("controls")
    }
