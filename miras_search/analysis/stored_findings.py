"""The findings of a stored study: the same results as its tables, and the curves for steps to the solution."""

from __future__ import annotations

from collections.abc import Sequence

from miras_search.analysis.cells import metric_named
from miras_search.analysis.findings import Findings, findings, ranks
from miras_search.analysis.locked import locked_margin
from miras_search.analysis.looks import Looks
from miras_search.analysis.ranks import RankTable
from miras_search.analysis.reported import Reported
from miras_search.analysis.table import AblationTable
from miras_search.store import queries
from miras_search.store.database import Database
from miras_search.store.locks import lock_of

CURVES = "validation"  # the split that a training looks at as it goes


def stored_findings(
    db: Database,
    name: str,
    tables: Sequence[AblationTable],
    *,
    margin: float | None = None,
    limit: float | None = None,
) -> tuple[list[Findings], RankTable | None]:
    """What goes with the tables of the study called `name`: one a table, and the ranks over them.

    `margin` and `limit` as in `findings`; the margin is the locked one by default. Raises StudyNotFound.
    """
    study = queries.study(db, name)
    margin = locked_margin(lock_of(db, study.id)) if margin is None else margin
    reported, declared = Reported.of(db, study), (study.metric, metric_named(study.metric).split)
    found = [
        findings(
            reported.results,
            table,
            margin=margin,
            limit=limit,
            curves=reported.curves(db, table.metric, CURVES, task=table.task),
            tried=reported.searched if study.kind == "search" else None,
            looks=Looks.of(study) if (table.metric, table.split) == declared else None,
            crossed=study.config.get("design") in ("factorial", "fractional"),
        )
        for table in tables
    ]
    return found, ranks(tables)
