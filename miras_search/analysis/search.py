"""How a search stands: how many trials competed, which were best, and what was left of that on fresh seeds.

The best of many trials is best partly by luck, the more so the more there were. So no trial is shown as best without
the number of its competitors, and what the search saw stands beside what the confirmation found: their difference is
the shrinkage, positive where the search promised too much.
"""

from __future__ import annotations

import itertools
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
from miras_search.store.types import FINAL_STATES, ResultRow, StudyRow

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
class Seen:
    """A trial of the search by what the search saw of it, and the best up to there."""

    number: int
    cell: str
    value: float
    """The first objective."""
    best: float
    values: tuple[float, ...]
    """All objectives."""


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
    front: tuple[Candidate, ...] = ()
    """The same with their values, the best by the first objective first."""


def search_report(db: Database, study: StudyRow, results: Sequence[ResultRow] | None = None) -> SearchReport | None:
    """How a stored study of kind search stands; None for one of another kind. `results` are its, if they were read."""
    if study.kind != "search":
        return None
    sought, limits = sought_of(study)
    results = queries.results(db, study.id) if results is None else results
    states = queries.trial_states(db, study.id)
    roles = {number: role for number, role, _ in states}
    ranked = [it for it in candidates(results, sought, limits) if it.number]
    ranks = {it.number: place for place, it in enumerate(ranked, 1)}
    base = candidates([row for row in results if not row.number], sought, {})
    fresh = {row.number for row in results if confirms(row.seed)}
    shown = [it for it in ranked if it.number in fresh] or ranked[:SHOWN]
    rows = tuple(_found(it, roles[it.number], results, sought, ranks.get(it.number)) for it in [*shown, *base])
    unbeaten = tuple(front(ranked, sought)) if len(sought) > 1 else ()
    return SearchReport(
        study=study.name,
        objectives=sought,
        competitors=len({row.number for row in results if row.number and _searched(row)}),
        trials=dict(Counter("refused" if role == "refused" else state for _, role, state in states)),
        confirmed=bool(fresh),
        rows=rows,
        on_front=tuple(it.cell for it in unbeaten),
        front=unbeaten,
    )


def history(db: Database, study: StudyRow) -> list[Seen]:
    """The trials within the limits that came to an end, the base among them, in the order in which they were drawn."""
    sought, limits = sought_of(study)
    found = sorted(candidates(queries.results(db, study.id), sought, limits), key=lambda it: it.number)
    better = max if sought[0][2] == "maximize" else min
    best = list(itertools.accumulate((it.values[0] for it in found), better))
    return [Seen(it.number, it.cell, it.values[0], top, it.values) for it, top in zip(found, best, strict=True)]


def headline(report: SearchReport) -> str:
    """The best in one sentence: never without its competitors, and with what fresh seeds left of it."""
    best = next((row for row in report.rows if row.rank), None)
    if best is None:
        return "no trial has come to an end within the limits yet"
    competitors = f"{report.competitors} competitor{'' if report.competitors == 1 else 's'}"
    if best.confirmed is None or best.shrinkage is None or best.values[0] is None:
        return f"{best.cell} is the best of {competitors}, partly by luck: nothing is confirmed on fresh seeds yet"
    name = objective_name(report)
    jobs = f"{best.n} fresh job{'' if best.n == 1 else 's'}"
    return (
        f"the search saw {name} {_short(best.values[0])} of its best of {competitors}; on {jobs} it has "
        f"{_short(best.confirmed)} (shrinkage {_short(best.shrinkage)}); compare the confirmed alone"
    )


def chosen_among(report: SearchReport) -> str:
    """What a caption says of the choice: a table without it would pass for an ablation that compared only its rows."""
    total = sum(report.trials.values())
    best = sum(row.rank is not None for row in report.rows)
    names = " and ".join(objective_name(report, index) for index in range(len(report.objectives)))
    return (
        f"The rows are the best {best} of {report.competitors} competitors in a search of {total} trials by {names}, "
        "compared here on other seeds, which chose nothing"
    )


def shrinkages(report: SearchReport) -> str | None:
    """A note on what the search promised and fresh seeds did not keep."""
    known = [row for row in report.rows if row.shrinkage is not None]
    if not known:
        return None
    each = ", ".join(f"{row.cell} ({_short(row.shrinkage or 0.0)})" for row in known)
    return f"Shrinkage, {objective_name(report)} as the search saw it less that on these seeds: {each}."


def objective_name(report: SearchReport, index: int = 0) -> str:
    """`validation accuracy`, `params`."""
    name, split, _ = report.objectives[index]
    return f"{split} {name}".strip()


def _short(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value + 0.0:.4g}"  # never a negative zero


def sought_of(study: StudyRow) -> tuple[Sought, Mapping[str, float]]:
    """Objectives and limits of a stored search."""
    settings = cast(Mapping[str, Mapping[str, object]], study.config["search"])
    sought: Sought = [
        (name, "validation" if METRICS[name].split else "", cast(str, direction))
        for name, direction in settings["objectives"].items()
    ]
    return sought, cast(Mapping[str, float], settings["constraints"])


def _searched(row: ResultRow) -> bool:
    return row.state in FINAL_STATES and not confirms(row.seed)


def _found(it: Candidate, role: str, results: Sequence[ResultRow], sought: Sought, rank: int | None) -> Found:
    metric, split, direction = sought[0]
    planned = [row for row in results if row.number == it.number and confirms(row.seed)]
    done = [row for row in planned if row.state == "complete"]
    values = [value for row in done if math.isfinite(value := row.values.get((metric, split), math.nan))]
    found = math.fsum(values) / len(values) if values else None
    sign = 1 if direction == "maximize" else -1
    return Found(
        number=it.number,
        cell=it.cell,
        role=role,
        rank=rank,
        values=it.values,
        jobs=it.jobs,
        confirmed=found,
        sd=statistics.stdev(values) if len(values) > 1 else None,
        n=len(values),
        of=len(planned),
        shrinkage=None if found is None else sign * (it.values[0] - found),
    )
