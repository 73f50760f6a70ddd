"""`tune`: nuisance settings, such as the learning rate, chosen for every cell alike.

    tune: {train.lr: [1e-3, 3e-3, 1e-2, 3e-2], model.conv: [0, 4], seeds: 2, failed: wait}

Each cell is trained with every combination of the values on seeds that the study does not report; the best on the
validation split is what the cell's reported seeds are trained with, task by task. Every cell, the base and the controls
too, gets the same number of trials: a cell that was tuned more would win by that. So a choice waits for trainings that
failed, unless `failed: leave_out` says that they count against their setting, as diverged ones do.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import cast

from miras_search.metrics import METRICS
from miras_search.models import fit
from miras_search.seeds import FIRST_TUNE_SEED
from miras_search.space.fields import Path, Plain, Problem, SpecError
from miras_search.study import levels
from miras_search.study.drafts import Cell, Grid
from miras_search.study.levels import Variant
from miras_search.study.schema import MAX_SEEDS
from miras_search.study.whole import PRESET

SEEDS, FAILED = "seeds", "failed"
ABOUT_FAILED = ("wait", "leave_out")
USUAL_SEEDS = 3
MAX_TRIALS = 20_000
FEWEST = {"train.lr": 4}  # values of a path; two of another one
UNEVEN = 3.0  # the widest of a rate's steps may be so many times the narrowest

_REFUSED = {
    "execution": "a cell's execution is held, or the comparison measures the solver: vary it instead",
    "control": "controls are rows of their own: list them under controls",
    "train.steps": "a cell that trains for longer wins by that: it is the same for all",
    "train.batch": "a cell that sees more data wins by that: it is the same for all",
}


@dataclass(frozen=True, slots=True)
class Tuning:
    """What is tuned, and the trials that it takes."""

    values: Mapping[str, tuple[str, ...]]
    """Path -> its values as text, numbers in ascending order."""
    seeds: tuple[int, ...]
    """None of them is reported."""
    trials: tuple[Cell, ...]
    """Every setting of every cell, cell after cell; a trial's number is its index."""
    failed: str = "wait"
    """What a choice does about trainings that failed: wait or leave_out."""

    @property
    def size(self) -> int:
        """Settings of a cell."""
        return math.prod(map(len, self.values.values()))

    def to_plain(self) -> dict[str, Plain]:
        """What decides which trials there are, as plain data."""
        found: dict[str, Plain] = {
            "values": {path: list(texts) for path, texts in self.values.items()},
            "seeds": list(self.seeds),
        }
        return {**found, **({} if self.failed == "wait" else {"failed": self.failed})}  # as studies of before have it


def tuning(
    given: Mapping[str, object], cells: Sequence[Cell], grid: Grid, seeds: Sequence[int], metric: str
) -> Tuning | None:
    """The tuning that a file asks for; None where it asks for none. Raises `SpecError` with every problem."""
    if not given:
        return None
    problems: list[Problem] = []
    own: tuple[int, ...] = ()
    chosen: dict[str, list[object]] = {}
    for read in (lambda: _seeds(given.get(SEEDS, USUAL_SEEDS), seeds), lambda: _metric(metric)):
        try:
            own = read() or own
        except SpecError as error:
            problems += error.problems
    for path, values in given.items():
        if path in (SEEDS, FAILED):
            continue
        try:
            chosen[path] = _values(path, values, grid)
        except SpecError as error:
            problems += error.problems
    failed = given.get(FAILED, "wait")
    if failed not in ABOUT_FAILED:
        problems.append(Problem(("tune", FAILED), f"{failed!r} is none of {', '.join(ABOUT_FAILED)}"))
    if not chosen and not problems:
        example = "{train.lr: [1e-3, 3e-3, 1e-2, 3e-2]}"
        problems.append(Problem(("tune",), f"nothing is tuned: name a setting, as in {example}"))
    count = len(cells) * math.prod(map(len, chosen.values()))
    if count > MAX_TRIALS:
        problems.append(Problem(("tune",), f"{count} trials are more than {MAX_TRIALS}: give fewer values"))
    if problems:
        raise SpecError(problems)
    trials = _trials(cells, chosen, grid)
    base = trials[: len(trials) // len(cells)]
    texts = {path: tuple(dict.fromkeys(trial.levels[path] for trial in base)) for path in chosen}
    for path, found in texts.items():
        if len(found) < len(chosen[path]):
            raise SpecError.at(("tune", path), "a value is there twice: a setting would be tried twice")
    return Tuning(texts, own, trials, str(failed))


def _seeds(given: object, reported: Sequence[int]) -> tuple[int, ...]:
    """The tuning's seeds: a count, from which they are derived, or a list; none of those that are reported."""
    where: Path = ("tune", SEEDS)
    if isinstance(given, int) and not isinstance(given, bool) and 1 <= given <= MAX_SEEDS:
        given = list(range(FIRST_TUNE_SEED, FIRST_TUNE_SEED + given))
    good = isinstance(given, list) and given and all(isinstance(s, int) and not isinstance(s, bool) for s in given)
    if not good:
        raise SpecError.at(
            where, f"expected how many seeds (1 to {MAX_SEEDS}), or a list of whole numbers, got {given!r}"
        )
    seeds = cast(list[int], given)
    both = sorted(set(seeds) & set(reported))
    if both:
        what = f"{both[0]} is among the reported seeds too: what it chose would be tested on what it was chosen by"
        raise SpecError.at(where, f"{what}; take others, or only say how many")
    if len(set(seeds)) < len(seeds) or min(seeds) < 0:
        raise SpecError.at(where, "seeds are different whole numbers from 0 up")
    return tuple(seeds)


def _metric(metric: str) -> None:
    if not METRICS[metric].split:
        raise SpecError.at(("metric",), f"{metric} is a cost, and tuning chooses by quality: set accuracy or loss")


def _values(path: str, given: object, grid: Grid) -> list[object]:
    """The values of a path, numbers in ascending order. Raises `SpecError`."""
    where: Path = ("tune", path)
    levels.check_path(path, where)
    head = path.split(".")[0]
    if (reason := _REFUSED.get(path) or _REFUSED.get(head)) is not None:
        raise SpecError.at(where, reason)
    if "." not in path:
        raise SpecError.at(where, "a whole choice is what a study compares: list it under vary")
    for varied in grid.vary:
        if path == varied or path.startswith(f"{varied}.") or varied.startswith(f"{path}."):
            raise SpecError.at(where, f"vary.{varied} is what the study compares, so it cannot be tuned away: drop one")
    _check_wholes(path, grid)
    fewest = FEWEST.get(path, 2)
    if not isinstance(given, list) or len(given) < fewest:
        raise SpecError.at(where, f"expected a list of {fewest} values or more, got {given!r}")
    numbers = [value for value in given if isinstance(value, int | float) and not isinstance(value, bool)]
    values: list[object] = list(given) if len(numbers) < len(given) else [*sorted(numbers)]
    if path == "train.lr" and len(numbers) == len(given) and min(numbers) > 0:
        steps = [math.log(high / low) for low, high in itertools.pairwise(sorted(numbers))]
        if min(steps) <= 0 or max(steps) > UNEVEN * min(steps):
            what = "rates are tried on a log scale: space them evenly, as in [1e-3, 3e-3, 1e-2, 3e-2]"
            raise SpecError.at(where, what)
    return values


def _check_wholes(path: str, grid: Grid) -> None:
    """Raise `SpecError` where a level of `preset` brings a value of its own."""
    head, _, rest = path.partition(".")
    given = grid.vary.get(PRESET)
    for i, level in enumerate(given if isinstance(given, list) else []):
        settings = level.get(head) if isinstance(level, Mapping) else None
        if isinstance(settings, Mapping) and rest in settings:
            what = f"{path} is tuned for every cell alike: drop this value, or tune.{path}"
            raise SpecError.at(("vary", PRESET, i, head, rest), what)


def _trials(cells: Sequence[Cell], chosen: Mapping[str, Sequence[object]], grid: Grid) -> tuple[Cell, ...]:
    found: list[Cell] = []
    problems: dict[Problem, str] = {}  # with the first cell that has it
    for cell in cells:
        for combination in itertools.product(*(enumerate(values) for values in chosen.values())):
            try:
                found.append(_trial(len(found), cell, dict(zip(chosen, combination, strict=True)), grid))
            except SpecError as error:
                for one in error.problems:
                    problems.setdefault(one, cell.name)
    if problems:
        raise SpecError(Problem(one.where, f"{name}: {one.what}") for one, name in problems.items())
    return tuple(found)


def _trial(number: int, cell: Cell, setting: Mapping[str, tuple[int, object]], grid: Grid) -> Cell:
    variant = Variant(cell.design, cell.model, cell.train)
    for path in levels.application_order(setting):
        place, value = setting[path]
        variant = levels.applied(variant, path, value, grid.held, ("tune", path, place))
    for broken in fit.violations(variant.design, variant.model):
        path, (place, _) = list(setting.items())[-1]
        raise SpecError.at(("tune", path, place), str(broken.what))
    texts = {path: levels.text_at(variant, path) or "" for path in setting}
    name = " / ".join([cell.name, *(levels.label(path, text, texts) for path, text in texts.items())])
    return replace(
        cell,
        number=number,
        name=name,
        changes={**cell.changes, **texts},
        levels={**cell.levels, **texts},
        design=variant.design,
        model=variant.model,
        train=variant.train,
        controls={},
    )
