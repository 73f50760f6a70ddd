"""`show`: one trial of a stored study in full: design, settings, metrics, attempts, provenance, how to rerun it."""

from __future__ import annotations

import difflib
import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from miras_search.commands.common import (
    DbOption,
    JsonOption,
    duration,
    emit,
    grid,
    inline,
    local_time,
    many,
    mapping,
    number,
    open_database,
    say,
)
from miras_search.commands.neighbours import neighbour_study
from miras_search.commands.table import StoredStudy
from miras_search.errors import MirasError, cause

if TYPE_CHECKING:
    from miras_search.space.plugin_text import Told
    from miras_search.store.types import AttemptRow, ResultRow, RunRow, TrialRow

OF_ANOTHER = re.compile(r"\.(calibration|seeds)-[0-9a-f]{8}$")  # names of studies that a verb made of another's file


def show(
    study: StoredStudy,
    trial: Annotated[str, typer.Argument(metavar="TRIAL", help="The trial's number, or the name of its cell.")],
    neighbours: Annotated[
        list[str] | None,
        typer.Option(metavar="AXIS", help="Print a study of all other options of this axis around it. Repeatable."),
    ] = None,
    db: DbOption = None,
    as_json: JsonOption = False,
) -> None:
    """One trial of a study in full.

    Design, settings, metrics, attempts, provenance, and the command that trains it again.
    """
    from miras_search.space.plugin_text import told
    from miras_search.store import queries

    if neighbours and as_json:
        raise MirasError("show: --neighbours prints a study file, which has no JSON form: leave --json out")
    with open_database(db) as database:
        stored = queries.study(database, study)
        found = _find(queries.trials(database, stored.id), trial, study)
        if neighbours:
            say(neighbour_study(stored, found, neighbours))
            return
        results = [row for row in queries.results(database, stored.id) if row.number == found.number]
        attempts = queries.attempts(database, stored.id, found.number)
        runs = queries.runs(database, stored.id)
    used = {attempt.run_id for attempt in attempts}
    mine = [run for run in runs if run.id in used]
    evaluated = "evaluated" in stored.config
    again = rerun(study, mine or runs, found.number, db, evaluated=evaluated)
    options = _options(found.design, told(run.provenance for run in mine or runs))
    if as_json:
        emit(
            {
                "study": study,
                "trial": found,
                "equations": {axis: equation for axis, (_, equation) in options.items()},
                "jobs": [_job(row) for row in results],
                "attempts": attempts,
                "runs": mine,
                "rerun": again,
            }
        )
        return
    title = f"{study}, trial {found.number}: {found.cell} ({found.role}), {found.state}"
    changes = "\n".join(f"  {path} = {text}" for path, text in found.changes.items())
    say(f"{title}\n{changes}\n" if changes else f"{title}\n")
    say(_design(found.design, options, found.design_hash))
    say(_settings(found.settings))
    say(_metrics(results))
    say(_attempts(attempts))
    say("provenance\n" + ("\n".join(_run(run) for run in mine) or "  never run"))
    if again is not None:
        say(f"\n{'evaluate' if evaluated else 'train'} it again: {again}")


def _find(trials: Sequence[TrialRow], wanted: str, study: str) -> TrialRow:
    """The trial of that number or cell name. Raises MirasError with the nearest names."""
    for row in trials:
        if wanted in (str(row.number), row.cell):
            return row
    cells = [row.cell for row in trials]
    near = difflib.get_close_matches(wanted, cells, n=1)
    cure = f"did you mean {near[0]!r}?" if near else f"give 0 to {len(trials) - 1}, or one of {', '.join(cells)}"
    raise MirasError(f"trial: {study} has no trial {wanted!r}: {cure}")


def rerun(study: str, runs: Sequence[RunRow], trial: int, db: str | None, *, evaluated: bool = False) -> str | None:
    """The command that trains the trial again, or evaluates it, from the words of the newest run of the study.

    None for what `calibrate` and `seeds` trained: the file that they were given is another study's.
    """
    from miras_search.analysis.duel import trial_flags

    if OF_ANOTHER.search(study):
        return None
    words = runs[-1].provenance.get("argv") if runs else None
    argv = [str(word) for word in words] if isinstance(words, list) else []
    flag = ["--db", db] if db is not None else []
    again = _evaluation_words(argv) if evaluated else _study_words(argv)
    return shlex.join(["miras-search", *again, *flag, *trial_flags("" if evaluated else study, trial)])


def _study_words(argv: Sequence[str]) -> list[str]:
    """`run` with the study and the options that belong to its meaning, out of its arguments."""
    from miras_search.commands.run import run

    given = _given("run", run, argv)
    kept = [word for value in _list(given, "overrides") for word in ("--set", value)]
    if given.get("name") is not None:
        kept += ["--as", str(given["name"])]
    return ["run", str(given.get("study") or "STUDY.yaml"), *kept]


def _evaluation_words(argv: Sequence[str]) -> list[str]:
    """`eval` with the study and the options that belong to its meaning, out of its arguments."""
    from miras_search.commands.evaluate import evaluate

    given = _given("eval", evaluate, argv)
    flags = {"tasks": "--task", "overrides": "--set", "cells": "--cell"}
    kept = [word for key, flag in flags.items() for value in _list(given, key) for word in (flag, value)]
    single = {"trained_on": "--trained-on", "seeds": "--seeds", "name": "--as"}
    kept += [word for key, flag in single.items() if given.get(key) is not None for word in (flag, str(given[key]))]
    return ["eval", str(given.get("study") or "STUDY"), *kept]


def _given(verb: str, function: Callable[..., None], argv: Sequence[str]) -> Mapping[str, object]:
    """What the arguments of a verb say, by parameter; nothing where they are another verb's."""
    if verb not in argv:
        return {}
    app = typer.Typer(add_completion=False)
    app.command()(function)
    command = typer.main.get_command(app)
    words = list(argv[argv.index(verb) + 1 :])
    found: dict[str, object] = command.make_context(verb, words, resilient_parsing=True).params
    return found


def _list(given: Mapping[str, object], key: str) -> list[str]:
    values = given.get(key)
    return [str(value) for value in values] if isinstance(values, Sequence) else []


def _job(row: ResultRow) -> dict[str, object]:
    metrics = [{"name": name, "split": split, "value": value} for (name, split), value in row.values.items()]
    return {"task": row.task, "seed": row.seed, "state": row.state, "last_step": row.last_step, "metrics": metrics}


def _options(design: Mapping[str, object], others: Mapping[str, Told]) -> dict[str, tuple[str, str | None]]:
    """Each option as text, with its equation; of a plugin's what its text tells, None where it is not known here."""
    from miras_search.space.design import AXES
    from miras_search.space.fields import SpecError
    from miras_search.space.option import short, split

    found: dict[str, tuple[str, str | None]] = {}
    for axis in (axis for axis in AXES if axis in design):
        try:
            option = AXES[axis].parse(design[axis])
            found[axis] = short(option), option.equation
        except SpecError:
            name, settings = split(design[axis])
            given = ", ".join(f"{key}={inline(value)}" for key, value in settings.items())
            foreign = others.get(name)
            found[axis] = f"{name}({given})" if given else name, foreign.equation if foreign else None
    return found


def _design(design: Mapping[str, object], options: Mapping[str, tuple[str, str | None]], digest: str) -> str:
    from miras_search.space.execution import Execution
    from miras_search.space.fields import SpecError
    from miras_search.space.gates import Gate

    if "mixer" in design:  # as it is stored: its file need not be here
        mixer = mapping(design["mixer"])
        args = ", ".join(f"{key}={inline(value)}" for key, value in mapping(mixer.get("args")).items())
        rows = [["mixer", f"{mixer.get('module')}({args})", f"source {mixer.get('digest')}"]]
        return f"design {digest}\n{grid(rows, indent='  ')}\n"
    unknown = "its equation is not known here"
    rows = [[axis, text, unknown if equation is None else equation] for axis, (text, equation) in options.items()]
    if options["control"][0] == "none":
        rows.pop()
    try:
        step, execution = str(Gate.from_plain(design["step"], ())), str(Execution.from_plain(design["execution"], ()))
    except SpecError:  # written by another version
        step, execution = inline(design["step"]), inline(design["execution"])
    rows += [["step", step, ""], ["execution", execution, ""]]
    return f"design {digest}\n{grid(rows, indent='  ')}\n"


def _settings(settings: Mapping[str, object]) -> str:
    lines = ["settings"]
    for part, values in settings.items():
        inner = mapping(values)
        if part == "tasks":
            lines += [f"  task {name}: {_listed(mapping(spec))}" for name, spec in inner.items()]
        else:
            lines.append(f"  {part}: {_listed(inner)}")
    return "\n".join(lines) + "\n"


def _listed(values: Mapping[str, object]) -> str:
    return ", ".join(f"{key} {inline(value)}" for key, value in values.items() if key != "name")


def _metrics(results: Sequence[ResultRow]) -> str:
    """A line a job: what it found by split, and below what it cost."""
    keys = dict.fromkeys(key for row in results for key in row.values)
    quality = [key for key in keys if key[1]]
    rows = [["task", "seed", "state", "steps", *(f"{split} {name}" for name, split in quality)]]
    costs = [["task", "seed", *(name for name, split in keys if not split)]]
    for row in results:
        found = [number(row.values.get(key)) for key in quality]
        rows.append([row.task, str(row.seed), row.state, number(row.last_step), *found])
        costs.append([row.task, str(row.seed), *(number(row.values.get(key)) for key in keys if not key[1])])
    text = "jobs\n" + grid(rows, indent="  ", numbers=(1, *range(3, len(rows[0]))))
    if len(costs[0]) > 2:
        text += "\ncosts\n" + grid(costs, indent="  ", numbers=range(1, len(costs[0])))
    return text + "\n"


def _attempts(attempts: Sequence[AttemptRow]) -> str:
    if not attempts:
        return "no attempts yet\n"
    rows = [["task", "seed", "try", "state", "run", "where", "started", "took", "error"]]
    for one in attempts:
        error = cause(one.error_text, one.error_type)
        rows.append(
            [
                one.task,
                str(one.seed),
                str(one.attempt),
                one.state,
                str(one.run_id),
                f"{one.host} {one.device}".strip(),
                local_time(one.started_at),
                "-" if one.wall_seconds is None else duration(one.wall_seconds),
                error,
            ]
        )
    return many(len(attempts), "attempt") + "\n" + grid(rows, indent="  ", numbers=(1, 2, 4)) + "\n"


def _run(run: RunRow) -> str:
    from miras_search.analysis.commits import commit_of

    versions = mapping(run.provenance.get("versions"))
    told = ", ".join(f"{name} {version}" for name, version in versions.items())
    for name, plugin in mapping(run.provenance.get("plugins")).items():
        told += f", plugin {name} {str(mapping(plugin).get('hash'))[:12]}"
    for task, digest in mapping(run.provenance.get("corpora")).items():
        told += f", files of {task} {str(digest)[:12]}"
    argv = run.provenance.get("argv")
    command = shlex.join(["miras-search", *map(str, argv[1:])]) if isinstance(argv, list) and argv else "-"
    head = f"  run {run.id}: {run.status}, started {local_time(run.started_at)} on {run.host}"
    return f"{head}, commit {commit_of(run.provenance) or 'unknown'}\n    {command}\n    {told}"
