"""What stored trainings say of a study before it is trained: how long, how large a difference it can see, what budgets.

A pilot is this study itself once some of its jobs have run, else the newest stored study with trainings of the same
shape: the same model and length of training on the same task.
"""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import cast

import numpy as np
from scipy import special

from miras_search.analysis.cells import Cell, gather
from miras_search.analysis.comparison import by_seed
from miras_search.analysis.paired import Floats, sign_flip_stepdown, smallest_p, t_interval
from miras_search.analysis.verdict import ALPHA
from miras_search.metrics import METRICS
from miras_search.store import queries
from miras_search.store.database import Database
from miras_search.store.types import ResultRow, StudyRow

POWER = 0.8
COARSE = 9  # seeds up to which a t test promises more than sign flips hold
ROUNDS = 400  # of a simulation: the power is known to +-0.04
LENGTH = ("steps", "batch")  # of the training's settings those that decide how long it takes and what is learned


@dataclass(frozen=True, slots=True)
class Timing:
    """How long a job took on average, in seconds, and of which jobs."""

    seconds: float
    jobs: int
    study: str


@dataclass(frozen=True, slots=True)
class Spread:
    """How much paired differences to the base vary between seeds on a task: the sd within cells, pooled."""

    task: str
    sd: float
    freedom: int
    """Degrees of freedom of the sd: differences less cells."""
    cells: int
    study: str


@dataclass(frozen=True, slots=True)
class Pilot:
    """All that is known before; empty where nothing is."""

    timing: Timing | None = None
    spreads: tuple[Spread, ...] = ()
    params: Mapping[int, float] | None = None
    """Of this study's cells that have run, by trial number: parameters as a multiple of the base's."""
    base: Mapping[str, float] | None = None
    """Of this study's base, by task where reported seeds of it have run: the mean test accuracy."""


def pilot(db: Database, name: str, config: Mapping[str, object], *, own: bool) -> Pilot:
    """What the database says of the study called `name`; `own` is whether what it holds of that name is this study."""
    stored = queries.studies(db)
    candidates = [row for row in stored if own and row.name == name]
    # an evaluation takes no time to speak of, and its spread is that of the trainings it looks at
    candidates += [row for row in reversed(stored) if row not in candidates and "evaluated" not in row.config]
    timing: Timing | None = None
    spreads: dict[str, Spread] = {}
    params: dict[int, float] | None = None
    base: dict[str, float] | None = None
    wanted = _shapes(config)
    metric = str(config["metric"])
    for row in candidates:
        if timing and len(spreads) == len(wanted):
            break
        is_own = own and row.name == name
        theirs = _shapes(row.config)
        same = {task: [other for other, shape in theirs.items() if shape == wanted[task]] for task in wanted}
        if not any(same.values()):
            continue
        results = queries.results(db, row.id)
        if is_own:
            params, base = _params(results), _accuracy(results, cast(Sequence[int], config["seeds"]))
        tasks = {other for others in same.values() for other in others}
        timing = timing or _timing([one for one in results if one.task in tasks], row)
        for task, others in same.items():
            if others and task not in spreads and (found := _spread(results, task, others[0], metric, row)):
                spreads[task] = found
    return Pilot(timing, tuple(spreads[task] for task in wanted if task in spreads), params, base)


def detectable(sd: float, seeds: int, family: int, level: float = ALPHA) -> float | None:
    """The smallest true difference that sign flips decide four times in five, for an sd of paired differences.

    Where differences look skewed the table asks more than sign flips (noise.py), and more is needed.

    From ten seeds on by the t test at `level` over the size of the family, of which the joint sign flips come close;
    below, where they are so few that p is coarse, by simulating the test itself on normal noise of one size. None where
    so few seeds cannot decide anything, however large the difference.
    """
    if smallest_p(seeds) >= level:
        return None
    freedom = seeds - 1
    limit = float(special.stdtrit(freedom, 1.0 - level / max(1, family) / 2.0))

    def missing(shift: float) -> float:
        return POWER - 1.0 + float(special.nctdtr(freedom, shift, limit))

    from scipy import optimize  # takes long to load, and most plans have no pilot

    high = limit + 1.0
    while missing(high) > 0:
        high *= 2.0
    shift = float(optimize.brentq(missing, 0.0, high)) / math.sqrt(seeds)
    return sd * (_simulated(shift, seeds, family, level) if seeds <= COARSE else shift)


@lru_cache(maxsize=32)
def _simulated(start: float, seeds: int, family: int, level: float) -> float:
    """As `detectable` for an sd of one, near `start`. Cells that share a base correlate by a half."""
    random = np.random.default_rng(0)
    base = random.normal(scale=math.sqrt(0.5), size=(ROUNDS, seeds, 1))
    noise = random.normal(scale=math.sqrt(0.5), size=(ROUNDS, seeds, max(1, family))) - base

    def decided(shift: float) -> float:
        effect = np.where(np.arange(noise.shape[2]) == 0, shift, 0.0)
        return statistics.fmean(_is_decided(one + effect, level) for one in noise)

    low, high = 0.5 * start, 2.0 * start
    while decided(high) < POWER:
        high *= 2.0
    while high - low > 0.02 * start:
        middle = (low + high) / 2.0
        low, high = (middle, high) if decided(middle) < POWER else (low, middle)
    return high


def _is_decided(differences: Floats, level: float) -> bool:
    """Whether the table would call the first cell's difference decided."""
    low, high = t_interval(differences[:, 0])
    return bool(sign_flip_stepdown(differences)[0] < level) and not low <= 0.0 <= high


def _shapes(config: Mapping[str, object]) -> dict[str, str]:
    """For each task of a study what decides how long its trainings take and what they can learn, as text."""
    base = cast(Mapping[str, Mapping[str, object]], config["base"])
    tasks = cast(Sequence[Mapping[str, object]], config["tasks"])
    around = [base["model"], [base["train"].get(key) for key in LENGTH]]
    return {str(task["name"]): json.dumps([around, task["spec"]], sort_keys=True) for task in tasks}


def _timing(results: Sequence[ResultRow], study: StudyRow) -> Timing | None:
    seconds = [one.values[key] for one in results if (key := ("wall_seconds", "")) in one.values]
    return Timing(statistics.fmean(seconds), len(seconds), study.name) if seconds else None


def _spread(results: Sequence[ResultRow], task: str, theirs: str, metric: str, study: StudyRow) -> Spread | None:
    key = (metric, METRICS[metric].split)
    if not any(one.task == theirs and one.state == "complete" and key in one.values for one in results):
        return None
    cells = gather(results, task=theirs, metric=metric, split=key[1])
    base = next((cell for cell in cells if cell.role == "base"), None)
    if base is None:
        return None
    found = [_differences(cell, base) for cell in cells if cell.role == "cell"]
    found = [one for one in found if len(one) > 1]
    freedom = sum(len(one) - 1 for one in found)
    if not freedom:
        return None
    squares = math.fsum((len(one) - 1) * statistics.variance(one) for one in found)
    return Spread(task, math.sqrt(squares / freedom), freedom, len(found), study.name)


def _differences(cell: Cell, base: Cell) -> list[float]:
    return list(by_seed(cell, base).values())


def _params(results: Sequence[ResultRow]) -> dict[int, float] | None:
    counts = {one.number: one.values[key] for one in results if (key := ("params", "")) in one.values}
    base = counts.get(0)
    return {number: count / base for number, count in counts.items()} if base else None


def _accuracy(results: Sequence[ResultRow], seeds: Sequence[int]) -> dict[str, float]:
    found: dict[str, list[float]] = {}
    for one in results:
        if one.role == "base" and one.seed in seeds and (key := ("accuracy", "test")) in one.values:
            found.setdefault(one.task, []).append(one.values[key])
    return {task: statistics.fmean(values) for task, values in found.items()}
