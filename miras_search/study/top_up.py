"""`top_up`: more seeds for what the first ones leave undecided, by a rule that is written down before any result.

    top_up: {max_seeds: 16, looks: 3, spending: even, failed: wait}

The study is looked at so many times, at evenly spaced numbers of seeds from its own `seeds` to `max_seeds`. After each
look the base and the cells that are still undecided get the seeds up to the next one. Looking again is another chance
to err, so each look has a level of its own and the levels add up to the declared one (analysis/looks.py). A
training that failed has no result: a look waits for it, or with `failed: leave_out` does without its seed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, cast, get_args

from miras_search.metrics import METRICS
from miras_search.space.fields import Path, Plain, Problem, SpecError, nearest
from miras_search.study.schema import MAX_SEED, MAX_SEEDS

ALPHA = 0.05
MAX_LOOKS = 20
KEYS = ("max_seeds", "looks", "spending", "failed")
Spending = Literal["even", "late"]
Failed = Literal["wait", "leave_out"]


@dataclass(frozen=True, slots=True)
class TopUp:
    """When a study is looked at, and what each look may spend of the error."""

    seeds: tuple[int, ...]
    """All that may be trained: the study's own first, then those of the top-ups, in order."""
    looks: tuple[int, ...]
    """Seeds at each look, ascending: the study's own at the first, all at the last."""
    levels: tuple[float, ...]
    """Of the looks; their sum is the declared error."""
    spending: Spending
    failed: Failed = "wait"
    """What a look does about trainings that failed."""

    @property
    def extra(self) -> tuple[int, ...]:
        """The seeds that only top-ups train."""
        return self.seeds[self.looks[0] :]

    def to_plain(self) -> dict[str, Plain]:
        """As plain data, for the study's configuration."""
        return {
            "seeds": list(self.seeds),
            "looks": list(self.looks),
            "levels": list(self.levels),
            "spending": self.spending,
            **({} if self.failed == "wait" else {"failed": self.failed}),  # as studies have it that were stored without
        }


def top_up(given: Mapping[str, object], seeds: Sequence[int], metric: str, tuned: Sequence[int] = ()) -> TopUp | None:
    """The top-up that a file asks for; None where it asks for none.

    `seeds` are the study's own, `tuned` those of its tuning, which may not be reported. Raises `SpecError` with every
    problem.
    """
    if not given:
        return None
    problems = [Problem(("top_up", key), f"unknown key{nearest(str(key), KEYS)}") for key in given if key not in KEYS]
    if not METRICS[metric].split:
        problems.append(Problem(("metric",), f"{metric} is a cost, and seeds are added for a quality: set accuracy"))
    spending = given.get("spending", "even")
    if spending not in get_args(Spending):
        problems.append(Problem(("top_up", "spending"), f"{spending!r} is none of {', '.join(get_args(Spending))}"))
    failed = given.get("failed", "wait")
    if failed not in get_args(Failed):
        problems.append(Problem(("top_up", "failed"), f"{failed!r} is none of {', '.join(get_args(Failed))}"))
    most = given.get("max_seeds")
    fewest = len(seeds) + 1
    if not _is_whole(most, fewest, MAX_SEEDS):
        what = "'max_seeds' is missing" if most is None else f"{most!r} is no number of seeds"
        where: Path = ("top_up",) if most is None else ("top_up", "max_seeds")
        problems.append(Problem(where, f"{what}: give {fewest} to {MAX_SEEDS}, more than the study's {len(seeds)}"))
    looks = given.get("looks", 2)
    if not _is_whole(looks, 2, MAX_LOOKS):
        problems.append(Problem(("top_up", "looks"), f"{looks!r} is no number of looks from 2 to {MAX_LOOKS}"))
    if problems:
        raise SpecError(problems)
    count, all_ = cast(int, looks), cast(int, most)
    if all_ - len(seeds) < count - 1:
        what = f"{count} looks do not fit between {len(seeds)} and {all_} seeds: give fewer looks, or more seeds"
        raise SpecError.at(("top_up", "looks"), what)
    first = max(seeds) + 1
    extra = range(first, first + all_ - len(seeds))
    if both := sorted(set(extra) & set(tuned)) or [seed for seed in (extra[-1],) if seed > MAX_SEED]:
        what = f"a top-up would report seed {both[0]}, which is the tuning's or too large: list other `seeds`"
        raise SpecError.at(("top_up", "max_seeds"), what)
    step = (all_ - len(seeds)) / (count - 1)
    numbers = tuple(round(len(seeds) + look * step) for look in range(count))
    spent = levels(numbers, cast(Spending, spending))
    if not spent[0]:  # too little for a float, and p would be divided by it
        what = (
            f"'late' leaves the look at {numbers[0]} of {all_} seeds nothing to decide with: give more seeds, or even"
        )
        raise SpecError.at(("top_up", "spending"), what)
    return TopUp((*seeds, *extra), numbers, spent, cast(Spending, spending), cast(Failed, failed))


def levels(looks: Sequence[int], spending: Spending, alpha: float = ALPHA) -> tuple[float, ...]:
    """What each look may spend: the same, or little at first, as O'Brien and Fleming's boundaries do.

    `late` is what Lan and DeMets' spending function 2 - 2 Phi(z / sqrt(t)) has let go by the share t of the seeds, less
    what was spent before.
    """
    if spending == "even":
        return (alpha / len(looks),) * len(looks)
    from statistics import NormalDist

    normal = NormalDist()
    z = normal.inv_cdf(1 - alpha / 2)
    spent = [2 - 2 * normal.cdf(z / math.sqrt(count / looks[-1])) for count in looks]
    return tuple(now - before for before, now in zip([0.0, *spent], spent, strict=False))


def _is_whole(value: object, low: int, high: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high
