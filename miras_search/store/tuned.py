"""What the tuning of a study found: each cell's settings by their trainings on validation, and the one that is chosen.

A tuned study stores a trial for every setting of every cell, cell after cell. All of them are trained on the tuning's
own seeds; the seeds that the study reports are trained with the chosen setting alone, so the jobs on them say which one
was chosen, and a choice stays what it is however often its tuning is made again. Used by the engine to choose and by
the readers to show.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import cast

from miras_search.metrics import METRICS, Direction
from miras_search.store.types import FINAL_STATES, ResultRow

SPLIT = "validation"  # the test split is for what is reported


@dataclasses.dataclass(frozen=True, slots=True)
class Scheme:
    """How a study is tuned, from its configuration."""

    values: Mapping[str, Sequence[str]]
    """Path -> its values as text, in order; the last path's change first from trial to trial."""
    seeds: frozenset[int]
    metric: str
    waits: bool = True
    """Whether a choice waits for trainings that failed; else they count as diverged ones do, against their setting."""

    @classmethod
    def of(cls, config: Mapping[str, object], metric: str) -> Scheme | None:
        """That of a study's configuration; None where nothing is tuned."""
        given = config.get("tune")
        if not isinstance(given, Mapping):
            return None
        values = cast(Mapping[str, Sequence[str]], given["values"])
        waits = given.get("failed", "wait") == "wait"
        return cls(values, frozenset(cast(Sequence[int], given["seeds"])), metric, waits)

    @property
    def size(self) -> int:
        """Settings of a cell."""
        return math.prod(map(len, self.values.values()))

    @property
    def direction(self) -> Direction:
        """Which way the metric is better."""
        return METRICS[self.metric].direction

    def cell(self, trial: int) -> int:
        """The number of the cell that a trial is a setting of."""
        return trial // self.size

    def places(self, trial: int) -> dict[str, int]:
        """Path -> the position of the trial's value in its list."""
        left, found = trial % self.size, {}
        for path, values in reversed(list(self.values.items())):
            left, found[path] = divmod(left, len(values))
        return {path: found[path] for path in self.values}


@dataclasses.dataclass(frozen=True, slots=True)
class Tried:
    """One setting of one cell on one task, as its tuning saw it."""

    trial: int
    values: Mapping[int, float]
    """Seed -> the metric on validation, of the trainings that came to an end."""
    bad: int
    """Trainings that diverged or failed."""
    loss: float
    """Mean on validation; infinite where none came to an end."""

    @property
    def mean(self) -> float | None:
        """Over the seeds; None where a training was bad, or is missing."""
        return math.fsum(self.values.values()) / len(self.values) if self.values and not self.bad else None

    def rank(self, scheme: Scheme) -> tuple[float, ...]:
        """The smaller the better: fewest bad trainings, then the metric, then the loss, then the order of the file."""
        sign = -1.0 if scheme.direction == "maximize" else 1.0
        value = sign * math.fsum(self.values.values()) / len(self.values) if self.values else math.inf
        return (self.bad, value, self.loss, self.trial)


@dataclasses.dataclass(frozen=True, slots=True)
class Tuned:
    """A cell on a task: what was tried and what is chosen."""

    tried: Sequence[Tried]
    """In the order of the settings."""
    chosen: int | None
    """The trial's number; None while the tuning goes on."""
    best: int | None = None
    """The one that its trainings speak for as they are now: another than was chosen where one was made again since."""
    failed: int = 0
    """Trainings without a result, which a choice waits for where the scheme says so."""


def tuned(results: Iterable[ResultRow], scheme: Scheme) -> dict[tuple[int, str], Tuned]:
    """What is known of each (cell, task), from the results of all trials."""
    by_trial: dict[tuple[int, str], dict[int, list[ResultRow]]] = {}
    taken: dict[tuple[int, str], int] = {}
    for row in results:
        key = (scheme.cell(row.number), row.task)
        if row.seed in scheme.seeds:
            by_trial.setdefault(key, {}).setdefault(row.number, []).append(row)
        else:
            taken[key] = row.number
    found = {}
    for key, trials in by_trial.items():
        tried = [_tried(number, rows, scheme) for number, rows in sorted(trials.items())]
        states = [row.state for rows in trials.values() for row in rows]
        failed = states.count("failed")
        through = all(state in FINAL_STATES for state in states) and not (failed and scheme.waits)
        best = min(tried, key=lambda one: one.rank(scheme)).trial if through else None
        found[key] = Tuned(tried, taken.get(key, best), best, failed)
    return found


def _tried(number: int, rows: Sequence[ResultRow], scheme: Scheme) -> Tried:
    done = [row for row in rows if row.state == "complete"]
    values = {row.seed: row.values.get((scheme.metric, SPLIT), math.nan) for row in done}
    values = {seed: value for seed, value in values.items() if math.isfinite(value)}
    losses = [row.values.get(("loss", SPLIT), math.inf) for row in done]
    ended = sum(row.state in FINAL_STATES for row in rows)
    return Tried(number, values, ended - len(values), math.fsum(losses) / len(losses) if losses else math.inf)
