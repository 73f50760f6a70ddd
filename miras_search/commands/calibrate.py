"""`calibrate`: find a task difficulty at which the base has room on both sides, and its learning rates."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from miras_search import files
from miras_search.commands.common import DbOption, JsonOption, database_setting, emit, note, say
from miras_search.commands.study import StudyArgument
from miras_search.errors import EnvironmentProblem, MirasError


def calibrate(
    study: StudyArgument,
    seeds: Annotated[int, typer.Option(min=1, max=100, metavar="N", help="Seeds, none of which is reported.")] = 3,
    rates: Annotated[
        str | None, typer.Option(metavar="X,X", help="Learning rates to try; else the study's `tune`, or a spread.")
    ] = None,
    db: DbOption = None,
    workers: Annotated[int | None, typer.Option(min=1, metavar="N", help="Jobs at once; else as many as fit.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print what was found and leave the file alone.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Find the difficulty at which the base is at 0.5 to 0.85 of the range above chance, and write it into the study.

    The base alone is trained, on harder or easier settings of the task and at several learning rates; the difficulty,
    the best rate and the evidence go into the file. Run again, it goes on where it ended.
    """
    from miras_search.commands.run import reporter
    from miras_search.engine import calibrate as engine
    from miras_search.engine.driver import RunOptions
    from miras_search.engine.events import Interrupted
    from miras_search.store.database import Database
    from miras_search.study.calibration import rewritten
    from miras_search.study.loader import load

    loaded = load(study)
    if loaded.shipped and not dry_run:
        raise MirasError(f"{study}: it ships with the package and stays as it is: copy it, or add --dry-run")
    tried = _rates(rates)
    options = RunOptions(executor="local", workers=workers)
    with Database.open(database_setting(db).value, create=True) as database:
        try:
            with reporter(loaded, as_json=False, quiet=as_json) as report:
                found = engine.calibrate(loaded, database, options, report, seeds=seeds, rates=tried)
        except Interrupted as stop:
            note(f"{stop}; all of it is stored, and the same command goes on")
            raise typer.Exit(stop.exit_code) from None
    evidence = found.evidence(loaded.base_name)
    text = rewritten(loaded.yaml, found.changed, found.best.rate, found.rates, evidence)
    if as_json:
        emit(
            {
                "study": loaded.name,
                "fits": found.best.fits,
                "task": found.best.task,
                "changed": found.changed,
                "standing": found.best.standing,
                "lr": found.best.rate,
                "window": found.window,
                "rates": found.rates,
                "rungs": found.rungs,
                "written": None if dry_run else loaded.path,
            }
        )
    else:
        say("\n".join(evidence))
    if not found.best.fits:
        reason = "no difficulty on the ladder has the base between 0.5 and 0.85 of the range above chance"
        note(f"{loaded.name}: {reason}: the file is left alone; change the model, the steps or the task")
        raise typer.Exit(1)
    if not dry_run:
        try:
            if Path(loaded.path).read_bytes().decode("utf-8-sig") != loaded.yaml:
                raise MirasError(f"{loaded.path}: it was changed meanwhile: run again, nothing is trained twice")
            files.replace(Path(loaded.path), text.encode())
        except OSError as error:
            raise EnvironmentProblem(f"{loaded.path}: cannot be written: {error.strerror}: add --dry-run") from error
        note(f"written to {loaded.path}")


def _rates(given: str | None) -> list[float]:
    """The rates of a list with commas. Raises MirasError for anything else."""
    found = []
    for part in (given or "").split(",") if given is not None else []:
        try:
            rate = float(part)
        except ValueError:
            rate = 0.0
        if not 0 < rate < float("inf"):
            raise MirasError(f"--rates {given}: {part!r} is no rate above 0: write them as 1e-3,3e-3,1e-2")
        found.append(rate)
    return sorted(set(found))
