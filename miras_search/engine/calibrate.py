"""Calibration: the difficulty of its task at which a study's base is between chance and the ceiling, and its rates.

Rungs of the task's ladder are tried by bisection. On each the base is trained at several rates, on seeds of the
calibration's own, as a small study of its own in the same database: an interrupted calibration goes on where it was.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Mapping, Sequence

from miras_search.engine.crossing import BASE_ALONE
from miras_search.engine.driver import RunOptions, run_study
from miras_search.engine.events import Event, RunSummary
from miras_search.errors import MirasError
from miras_search.metrics import standing
from miras_search.seeds import FIRST_CALIBRATION_SEED
from miras_search.space.fields import Plain
from miras_search.store import queries
from miras_search.store.database import Database
from miras_search.study.loader import loads
from miras_search.study.study import Study
from miras_search.tasks import task_from_spec
from miras_search.tasks.difficulty import ladder

WINDOW = (0.5, 0.85)  # of the range above chance
NEAR = 0.9  # a rate is in the window where it reaches this part of the best one's standing
SPREAD = (0.1, 0.3, 1.0, 3.0)  # of the study's rate, where it names none to try


@dataclasses.dataclass(frozen=True, slots=True)
class Rung:
    """One difficulty, as the base found it."""

    task: Mapping[str, Plain]
    standings: Mapping[float, float]
    """Rate -> mean standing on validation: 0 is chance, 1 is perfect; a training that diverged stands at 0."""
    accuracies: Mapping[float, Sequence[float]]
    """Rate -> accuracy on validation a seed, of the trainings that came to an end."""

    @property
    def rate(self) -> float:
        """The best one; the smallest of equal ones."""
        return max(sorted(self.standings), key=lambda rate: self.standings[rate])

    @property
    def standing(self) -> float:
        """That of the best rate."""
        return self.standings[self.rate]

    @property
    def fits(self) -> bool:
        """Whether there is room above the base and below it."""
        return WINDOW[0] <= self.standing <= WINDOW[1]


@dataclasses.dataclass(frozen=True, slots=True)
class Calibration:
    """What a calibration found."""

    rungs: Sequence[Rung]
    """In the order in which they were tried."""
    best: Rung
    """The first that fits; else the one nearest to the middle of the window."""
    changed: Mapping[str, Plain]
    """Settings of the task that are not the study's."""
    seeds: Sequence[int]

    @property
    def window(self) -> tuple[float, float]:
        """The smallest and the largest rate nearly as good as the best."""
        near = [rate for rate, value in self.best.standings.items() if value >= NEAR * self.best.standing]
        return min(near), max(near)

    @property
    def rates(self) -> list[float]:
        """Four values to tune over: from the rate tried below the window to the one above, evenly on a log scale. Where
        none was tried there, a step of those that were.
        """
        tried = sorted(self.best.standings)
        if len(tried) == 1:
            return _around(tried[0])
        wider = [tried[0] ** 2 / tried[1], *tried, tried[-1] ** 2 / tried[-2]]
        low, high = (wider.index(rate) for rate in self.window)
        first, last = wider[low - 1], wider[high + 1]
        return [float(f"{first * (last / first) ** (i / 3):.2g}") for i in range(4)]

    def evidence(self, base: str) -> list[str]:
        """What was seen, a line a rung, for the study file."""
        low, high = self.window
        seeds = f"seeds {self.seeds[0]} to {self.seeds[-1]}" if len(self.seeds) > 1 else f"seed {self.seeds[0]}"
        lines = [f"accuracy of {base} on validation, mean over {seeds}, by learning rate"]
        for rung in self.rungs:
            settings = ", ".join(f"{name} {rung.task[name]}" for name in _turned(self.rungs, rung)) or "as it was"
            found = ", ".join(f"{rate:g}: {_mean(values)}" for rate, values in sorted(rung.accuracies.items()))
            chosen = " <- taken" if rung is self.best else ""
            lines.append(f"{settings}: {found}; {rung.standing:.2f} of the range above chance{chosen}")
        lines.append(f"rates from {low:g} to {high:g} reach {NEAR:.0%} of that; worth tuning over {self.rates}")
        tried = sorted(self.best.standings)
        if len(tried) > 1 and self.best.rate in (tried[0], tried[-1]):
            end = "first" if self.best.rate == tried[0] else "last"
            lines.append(f"{self.best.rate:g} is the {end} of the rates tried: a better one may lie beyond (--rates)")
        return lines


def calibrate(
    study: Study,
    db: Database,
    options: RunOptions,
    on_event: Callable[[Event], None],
    *,
    seeds: int = 3,
    rates: Sequence[float] = (),
) -> Calibration:
    """Find the difficulty and the rates of a study of one task.

    `rates` are tried on every rung; else those that the study tunes over, or a spread around its own. Raises
    MirasError for a study that cannot be calibrated, and what `run_study` raises.
    """
    if study.search is not None or len(study.tasks) != 1:
        raise MirasError(f"{study.name}: only an ablation of one task is calibrated: name one under task")
    spec = study.tasks[0].spec
    rungs, place = ladder(spec)
    if len(rungs) == 1:
        raise MirasError(f"{study.name}: the task {spec['name']} has no difficulty to be set: calibrate another")
    own = range(FIRST_CALIBRATION_SEED, FIRST_CALIBRATION_SEED + seeds)
    if both := set(own) & set(study.seeds):
        raise MirasError(f"{study.name}: seed {min(both)} is kept for calibration: report other seeds")
    tried: dict[int, Rung] = {}
    low, high = -1, len(rungs)  # the hardest that is too easy, the easiest that is too hard
    step = 1
    while high - low > 1:
        one = _rung(study, rungs[place], own, rates or _rates(study), db, options, on_event)
        tried[place] = one
        if one.fits:
            break
        low, high = (place, high) if one.standing > WINDOW[1] else (low, place)
        if low >= 0 and high < len(rungs):
            place = (low + high) // 2
        else:  # one side is open: ever longer steps
            place = min(low + step, len(rungs) - 1) if low >= 0 else max(high - step, 0)
            step *= 2
    middle = sum(WINDOW) / 2
    best = next((one for one in tried.values() if one.fits), None)
    best = best or min(tried.values(), key=lambda one: abs(one.standing - middle))
    changed = {name: value for name, value in best.task.items() if value != spec[name]}
    return Calibration(tuple(tried.values()), best, changed, own)


def _rates(study: Study) -> list[float]:
    if study.tuning is not None and "train.lr" in study.tuning.values:
        return [float(text) for text in study.tuning.values["train.lr"]]
    return _around(study.train.lr)


def _around(rate: float) -> list[float]:
    return [float(f"{rate * share:.2g}") for share in SPREAD]


def _rung(
    study: Study,
    task: Mapping[str, Plain],
    seeds: Sequence[int],
    rates: Sequence[float],
    db: Database,
    options: RunOptions,
    on_event: Callable[[Event], None],
) -> Rung:
    """Train the base on a task at every rate, as far as the database lacks it."""
    first, *others = rates
    given = {
        "task": dict(task),
        **BASE_ALONE,
        "vary": {"train.lr": others} if others else {},
        "train.lr": first,
        "seeds": list(seeds),
        "metric": "accuracy",
    }
    made = loads(study.yaml, study.path, [f"{path}={json.dumps(value)}" for path, value in given.items()])
    made = dataclasses.replace(made, name=f"{study.name}.calibration-{made.space_hash[:8]}")
    _through(run_study(made, db, dataclasses.replace(options, retry_failed=True), on_event))
    chance = task_from_spec(task).chance
    accuracies: dict[float, list[float]] = {cell.train.lr: [] for cell in made.cells}
    for row in queries.results(db, queries.study(db, made.name).id):
        value = row.values.get(("accuracy", "validation"), math.nan)
        if row.state == "complete" and math.isfinite(value):
            accuracies[made.cells[row.number].train.lr].append(value)
    standings = {
        rate: math.fsum(standing(value, chance) for value in values) / len(seeds) for rate, values in accuracies.items()
    }
    return Rung(dict(task), standings, accuracies)


def _through(summary: RunSummary) -> None:
    """Raise MirasError where a training has no result: its machine's fault would be taken for the task's difficulty."""
    left = summary.failed + summary.waiting
    if left:
        why = summary.spent or f"{summary.failed} failed"
        raise MirasError(
            f"{summary.study}: {left} of its trainings {'has' if left == 1 else 'have'} no result ({why}), and nothing "
            f"is decided without: `miras-search status {summary.study}` tells more; the same command goes on"
        )


def _turned(rungs: Sequence[Rung], rung: Rung) -> list[str]:
    """The settings in which the rungs differ."""
    return [name for name in rung.task if len({str(other.task[name]) for other in rungs}) > 1]


def _mean(values: Sequence[float]) -> str:
    return f"{math.fsum(values) / len(values):.2f}" if values else "diverged"
