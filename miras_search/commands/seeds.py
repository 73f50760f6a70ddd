"""`seeds`: how much of the spread over seeds is the starting weights', the training data's and the evaluation's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from miras_search.commands.common import DbOption, JsonOption, SetOption, database_setting, emit, grid, note, say
from miras_search.commands.study import StudyArgument, tell_shipped
from miras_search.errors import MirasError

if TYPE_CHECKING:
    from miras_search.analysis.seed_shares import TaskShares


def seeds(
    study: StudyArgument,
    overrides: SetOption = None,
    levels: Annotated[
        int,
        typer.Option(min=2, max=10, metavar="N", help="Starts, draws of data and evaluations: N x N x N trainings."),
    ] = 3,
    db: DbOption = None,
    workers: Annotated[int | None, typer.Option(min=1, metavar="N", help="Jobs at once; else as many as fit.")] = None,
    as_json: JsonOption = False,
) -> None:
    """How much of the spread over seeds comes from starting weights, training data and evaluation data.

    A study's seed sets all three at once. The base alone is trained with every start on every draw of data and every
    evaluation, on seeds of its own, and the variance is taken apart. Run again, it goes on where it ended.
    """
    from miras_search.analysis.seed_shares import stored_shares
    from miras_search.commands.run import reporter
    from miras_search.engine.crossing import crossed_study
    from miras_search.engine.driver import RunOptions, run_study
    from miras_search.engine.events import Interrupted
    from miras_search.store.database import Database
    from miras_search.study.loader import load

    loaded = load(study, overrides or ())
    tell_shipped(loaded, study)
    if loaded.search is not None:
        raise MirasError(f"{loaded.name}: a search has no base whose seeds matter: give an ablation")
    made = crossed_study(loaded, levels)
    with Database.open(database_setting(db).value, create=True) as database:
        try:
            with reporter(made, as_json=False, quiet=as_json) as report:
                run_study(made, database, RunOptions(executor="local", workers=workers, retry_failed=True), report)
        except Interrupted as stop:
            note(f"{stop}; all of it is stored, and the same command goes on")
            raise typer.Exit(stop.exit_code) from None
        found = stored_shares(database, made.name, levels)
    if as_json:
        emit({"study": loaded.name, "base": loaded.base_name, "metric": made.metric, "levels": levels, "tasks": found})
        return
    say("\n\n".join(_text(one, loaded.base_name, made.metric, levels) for one in found))


def _text(found: TaskShares, base: str, metric: str, levels: int) -> str:
    size = f"{levels} x {levels} x {levels} trainings"
    head = f"{found.task}: {metric} of {base}, {size}, mean {found.mean:.4g}, sd {found.sd:.2g}"
    if found.components is None:
        return f"{head}\n  {found.why}"
    rows = [["source", "sd", "share of the variance"]]
    rows += [[str(one), f"{one.variance**0.5:.2g}", f"{one.share:.0%}"] for one in found.components]
    return f"{head}\n{grid(rows, indent='  ', numbers=(1, 2))}"
