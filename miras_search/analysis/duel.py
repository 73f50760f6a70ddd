"""A search against its rival: the first of each, as it ranked its trials, on the fresh seeds that both confirm on.

Each side stands with the trial that its search put first: chosen before any fresh seed was seen, so that the comparison
is as fair to a lucky search as to a good one. The difference is paired by seed. It is one of two runs: what another run
of either search would find varies too, and no interval here tells how much.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

from miras_search.analysis.cells import has_diverged
from miras_search.analysis.search import sought_of
from miras_search.metrics import METRICS
from miras_search.seeds import confirms
from miras_search.store import queries
from miras_search.store.database import Database
from miras_search.store.ranked import candidates
from miras_search.store.types import FINAL_STATES, ResultRow, StudyRow


def trial_flags(study: str, trial: int) -> list[str]:
    """What `run` needs, beside the file, to train one trial of the stored study of that name again."""
    return ["--trial", str(trial), *(["--rival"] if study.endswith(".rival") else [])]


@dataclass(frozen=True, slots=True)
class Side:
    """One of the two searches."""

    study: str
    means: str
    """Sampler and pruner."""
    competitors: int
    """Trials beside the base that were trained, pruned ones too."""
    steps: int
    """Training steps that the search took, its confirmation left out."""
    number: int
    cell: str
    seen: float
    """The first objective as the search saw it."""
    mean: float
    """The metric on the fresh seeds, its own split."""
    sd: float | None
    n: int
    of: int
    diverged: int
    """Of its trainings on fresh seeds."""


@dataclass(frozen=True, slots=True)
class Duel:
    """Two searches and the difference between their first trials: the study's less its rival's."""

    metric: str
    split: str
    sides: tuple[Side, Side]
    pairs: int
    """Fresh seeds that both completed on every task."""
    difference: float | None
    ci_low: float | None
    ci_high: float | None
    p: float | None
    """Two-sided, by sign flips. None, as the interval, with less than two pairs, or where one of the two diverged: the
    seeds that it lacks are its bad ones.
    """


def duel(db: Database, study: StudyRow) -> Duel | None:
    """The comparison of a stored search with its rival; None before both are confirmed, or where there is none."""
    name = study.config.get("rival")
    other = next((row for row in queries.studies(db) if row.name == name), None) if isinstance(name, str) else None
    if other is None:
        return None
    split = METRICS[study.metric].split
    found = [_side(db, one, study.metric, split) for one in (study, other)]
    if found[0] is None or found[1] is None:
        return None
    import numpy as np  # `status` need load neither it nor scipy

    from miras_search.analysis.paired import interval, sign_flip_each

    (mine, ours), (theirs, others) = found[0], found[1]
    shared = sorted(ours.keys() & others.keys())
    differences = np.asarray([ours[seed] - others[seed] for seed in shared], dtype=np.float64)
    tested = len(shared) > 1 and not (mine.diverged or theirs.diverged)
    low, high = interval(differences) if tested else (None, None)
    return Duel(
        metric=study.metric,
        split=split,
        sides=(mine, theirs),
        pairs=len(shared),
        difference=float(differences.mean()) if shared else None,
        ci_low=low,
        ci_high=high,
        p=float(sign_flip_each(differences[:, None])[0]) if tested else None,
    )


def _side(db: Database, study: StudyRow, metric: str, split: str) -> tuple[Side, dict[int, float]] | None:
    """A search and its first trial's values by fresh seed; None while some of them are still to come."""
    results = queries.results(db, study.id)
    sought, limits = sought_of(study)
    first = next((it for it in candidates(results, sought, limits) if it.number), None)
    if first is None:
        return None
    fresh = [row for row in results if row.number == first.number and confirms(row.seed)]
    values = _by_seed(fresh, metric, split)
    if not values or any(row.state not in FINAL_STATES for row in fresh):
        return None
    searched = [row for row in results if not confirms(row.seed)]
    about = cast(Mapping[str, object], study.config["search"])
    side = Side(
        study=study.name,
        means=f"{about['sampler']}, pruner {about['pruner']}",
        competitors=len({row.number for row in searched if row.number and row.state in FINAL_STATES}),
        steps=sum(row.last_step or 0 for row in searched),
        number=first.number,
        cell=first.cell,
        seen=first.values[0],
        mean=statistics.fmean(values.values()),
        sd=statistics.stdev(values.values()) if len(values) > 1 else None,
        n=len(values),
        of=len({row.seed for row in fresh}),
        diverged=sum(has_diverged(row, metric, split) for row in fresh),
    )
    return side, values


def _by_seed(rows: Sequence[ResultRow], metric: str, split: str) -> dict[int, float]:
    """The mean over the tasks for each seed that is complete on all of them."""
    found: dict[int, list[float]] = {}
    for row in rows:
        value = row.values.get((metric, split), math.nan) if row.state == "complete" else math.nan
        found.setdefault(row.seed, []).append(value)
    return {seed: statistics.fmean(values) for seed, values in found.items() if all(map(math.isfinite, values))}
