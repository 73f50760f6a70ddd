"""How a search stands: how many trials competed, which were best, and what was left of that on fresh seeds.

The best of many trials is best partly by luck, the more so the more there were. So no trial is shown as best without
the number of its competitors, and what the search saw stands beside what the confirmation found: their difference is
the shrinkage, positive where the search promised too much.
"""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

from miras_search.metrics import METRICS
from miras_search.seeds import confirms
from miras_search.store import queries
from miras_search.store.database import Database
from miras_search.store.ranked import Candidate, Sought, candidates, front
from miras_search.store.types import FINAL_STATES, ResultRow, StudyRow, TrialRow

SHOWN = 10  # of the best, while none is confirmed


@dataclass(frozen=True, slots=True)
class Found:
    """One of the best trials, or the base."""

    number: int
    cell: str
    role: str
    rank: int | None
    """Among the competitors by the first objective; None for one that is not among them, as a base may be."""
    values: tuple[float | None, ...]
    """Each objective as the search saw it, the mean over its jobs."""
    jobs: int
    confirmed: float | None
    """The first objective on fresh seeds, on the split that the search looked at: the mean over the jobs."""
    sd: float | None
    n: int
    of: int
    shrinkage: float | None


@dataclass(frozen=True, slots=True)
class SearchReport:
    """The state of a search. `rows` has what is confirmed, or before that the best; the base last."""

    study: str
    objectives: Sought
    competitors: int
    """Trained trials beside the base, ended early ones too: so many the best was chosen from."""
    trials: Mapping[str, int]
    """Trials by state; refused ones, which were never trained, have a state of their own."""
    confirmed: bool
    """Whether the confirmation has begun."""
    rows: tuple[Found, ...]
    on_front: tuple[str, ...]
    """With several objectives: the cells that no other one beats in all."""


def search_report(db: Database, study: StudyRow) -> SearchReport | None:
    """How a stored study of kind search stands; None for one of another kind."""
    if study.kind != "search":
        return None
    settings = cast(Mapping[str, Mapping[str, object]], study.config["search"])
    sought: Sought = [
        (name, "validation" if METRICS[name].split else "", cast(str, direction))
        for name, direction in settings["objectives"].items()
    ]
    limits = cast(Mapping[str, float], settings["constraints"])
    results = queries.results(db, study.id)
    trials = queries.trials(db, study.id)
    ranked = [it for it in candidates(results, sought, limits) if it.number]
    ranks = {it.number: place for place, it in enumerate(ranked, 1)}
    base = [it for it in candidates(results, sought, {}) if not it.number]
    fresh = {row.number for row in results if confirms(row.seed)}
    shown = [it for it in ranked if it.number in fresh] or ranked[:SHOWN]
    rows = tuple(_found(it, trials[it.number], results, sought, ranks.get(it.number)) for it in [*shown, *base])
    return SearchReport(
        study=study.name,
        objectives=sought,
        competitors=len({row.number for row in results if row.number and _searched(row)}),
        trials=_states(trials),
        confirmed=bool(fresh),
        rows=rows,
        on_front=tuple(it.cell for it in front(ranked, sought)) if len(sought) > 1 else (),
    )


def _searched(row: ResultRow) -> bool:
    return row.state in FINAL_STATES and not confirms(row.seed)


def _states(trials: Sequence[TrialRow]) -> dict[str, int]:
    return dict(Counter("refused" if row.role == "refused" else row.state for row in trials))


def _found(it: Candidate, trial: TrialRow, results: Sequence[ResultRow], sought: Sought, rank: int | None) -> Found:
    metric, split, direction = sought[0]
    planned = [row for row in results if row.number == it.number and confirms(row.seed)]
    done = [row for row in planned if row.state == "complete"]
    values = [value for row in done if math.isfinite(value := row.values.get((metric, split), math.nan))]
    found = math.fsum(values) / len(values) if values else None
    sign = 1 if direction == "maximize" else -1
    return Found(
        number=it.number,
        cell=it.cell,
        role=trial.role,
        rank=rank,
        values=it.values,
        jobs=it.jobs,
        confirmed=found,
        sd=statistics.stdev(values) if len(values) > 1 else None,
        n=len(values),
        of=len(planned),
        shrinkage=None if found is None else sign * (it.values[0] - found),
    )
