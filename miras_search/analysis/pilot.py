"""What stored trainings say of a study before it is trained: how long, how large a difference it can see, what budgets.

A pilot is this study itself once some of its jobs have run, else the newest stored study with trainings of the same
shape: the same model and length of training on the same task.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeAlias, cast

import numpy as np
from numpy.typing import NDArray

from miras_search.analysis import timing
from miras_search.analysis.cells import Cell, gather
from miras_search.analysis.comparison import by_seed, deciding_p
from miras_search.analysis.noise import Flags, sides, uneven_and_lean
from miras_search.analysis.paired import BCA_SEEDS, Floats, leaning_t, student_t
from miras_search.analysis.timing import Timing
from miras_search.analysis.tuned import Tuning
from miras_search.analysis.verdict import ALPHA
from miras_search.metrics import METRICS
from miras_search.seeds import smallest_p
from miras_search.store import queries
from miras_search.store.database import Database
from miras_search.store.types import ResultRow, StudyRow

POWER = 0.8
STUDIES = (100, 400)  # simulated: fewest and most
CELLS = 24_000  # simulated, or the fewest studies: a plan is to take a second
FLIPS = 999  # drawn in a simulated study of more seeds than have so few: a p of .05 is then known to +-0.01
COUNTED = 10  # seeds whose flips are all counted
PRECISION = 0.01  # of the difference that is sought
_BLOCK = 2**18  # flipped cells that are handled at once
Places: TypeAlias = NDArray[np.intp]


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
    timed: Timing | None = None
    spreads: dict[str, Spread] = {}
    params: dict[int, float] | None = None
    base: dict[str, float] | None = None
    wanted = timing.shapes(config)
    metric = str(config["metric"])
    for row in timing.models(db, name, own=own):
        if timed and len(spreads) == len(wanted):
            break
        is_own = own and row.name == name
        theirs = timing.shapes(row.config)
        same = {task: [other for other, shape in theirs.items() if shape == wanted[task]] for task in wanted}
        if not any(same.values()):
            continue
        results: Sequence[ResultRow] = queries.results(db, row.id)
        tuning = Tuning.of(row, results)
        reported = results if tuning is None else tuning.reported(results)  # settings differ more than seeds do
        if is_own:
            params, base = _params(results), _accuracy(results, cast(Sequence[int], config["seeds"]))
        tasks = {other for others in same.values() for other in others}
        seconds = [one.values[timing.SECONDS] for one in results if one.task in tasks and timing.SECONDS in one.values]
        timed = timed or timing.of(seconds, row)
        for task, others in same.items():
            if others and task not in spreads and (found := _spread(reported, task, others[0], metric, row)):
                spreads[task] = found
    return Pilot(timed, tuple(spreads[task] for task in wanted if task in spreads), params, base)


@dataclass(frozen=True, slots=True)
class Detectable:
    """A difference that is decided four times in five, as far as a simulation can tell."""

    difference: float
    studies: int
    """That were simulated."""

    @property
    def error(self) -> float:
        """Half of the 95 % interval that so many studies leave around their power."""
        return 1.96 * math.sqrt(POWER * (1.0 - POWER) / self.studies)


def detectable(sd: float, seeds: int, family: int, level: float = ALPHA) -> Detectable | None:
    """The smallest true difference of one cell that the table decides four times in five, for an sd of the differences.

    By simulating studies with normal noise of one size and the table's whole test, its check of the noise included: it
    takes some of them for skewed and asks more of those, and lets intervals of most lean a little. Where the noise is
    skewed, more is needed than this. None where so few seeds cannot decide anything, however large the difference.
    """
    if smallest_p(seeds) >= level:
        return None
    family = max(1, family)
    studies = min(max(CELLS // family, STUDIES[0]), STUDIES[1])
    return Detectable(sd * _simulated(studies, seeds, family, level), studies)


@lru_cache(maxsize=32)
def _simulated(studies: int, seeds: int, family: int, level: float) -> float:
    """As `detectable` for an sd of one. Cells that share a base correlate by a half.

    A difference that is decided stays so when it grows, so a study needs a look only while its own threshold may lie
    between the ends of the search, and the search costs little more than two looks at all of them.
    """
    random = np.random.default_rng(0)
    base = random.normal(scale=math.sqrt(0.5), size=(studies, seeds, 1))
    noise = random.normal(scale=math.sqrt(0.5), size=(studies, seeds, family)) - base
    is_uneven, lean = uneven_and_lean(noise)  # a difference that is the same in all seeds changes none of it
    lean = np.where(sides(noise)[:, 0] < 0, -lean, lean)
    wanted = math.ceil(POWER * studies)

    def decided(open_: Places, shift: float) -> Flags:
        return _decided(noise[open_] + shift * (np.arange(family) == 0), is_uneven[open_], lean[open_], level)

    low, high, below, open_ = 0.0, 1.0, 0, np.arange(studies)  # `below`: studies that decide at `low` already
    while below + np.count_nonzero(found := decided(open_, high)) < wanted:
        low, high, below, open_ = high, 2.0 * high, below + int(np.count_nonzero(found)), open_[~found]
    open_ = open_[found]
    while high - low > PRECISION * high:
        middle = (low + high) / 2.0
        found = decided(open_, middle)
        if below + np.count_nonzero(found) < wanted:
            low, below, open_ = middle, below + int(np.count_nonzero(found)), open_[~found]
        else:
            high, open_ = middle, open_[found]
    return high


def _decided(differences: Floats, is_uneven: Flags, lean: Floats, level: float) -> Flags:
    """Of each study `[studies, seeds, cells]` whether the table would call the first cell's difference decided; `lean`
    is how far its interval leans, and by its sign to which side. From 20 seeds on the bootstrap is left out.
    """
    seeds, cells = differences.shape[1:]
    flips = 2 ** (seeds - 1) if seeds <= COUNTED else FLIPS
    step = max(1, _BLOCK // (flips * cells))
    blocks = [slice(start, start + step) for start in range(0, len(differences), step)]
    p = [deciding_p(differences[one], is_uneven[one], draws=FLIPS, exact=COUNTED)[:, 0] for one in blocks]
    first = differences[:, :, 0]
    t = first.mean(axis=1) / (first.std(axis=1, ddof=1) / math.sqrt(seeds))
    wanted = np.where(lean * t < 0, *leaning_t(seeds, lean=np.abs(lean)))  # for an interval without zero
    if seeds >= BCA_SEEDS:
        wanted = np.maximum(wanted, student_t(seeds))
    found: Flags = (np.concatenate(p) < level) & (np.abs(t) > wanted)
    return found


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
