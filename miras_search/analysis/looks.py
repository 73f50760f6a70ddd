"""An error budget over several looks: a study may train more seeds for what is undecided, and still err once in twenty.

Each look at the data has a level of its own, and the levels add up to the declared one. At a look all undecided
contrasts are tested as one family on all seeds so far, and what is decided stays decided. While no true null has been
rejected, all of them are still in the family, so a look errs with at most its own level, and the looks together with at
most the sum. That holds for any rule about who gets more seeds, as long as the family's cells get the same ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from miras_search.analysis.paired import smallest_p

Spending = Literal["equal", "late"]


@dataclass(frozen=True, slots=True)
class Budget:
    """The levels of the planned looks, first look first."""

    levels: tuple[float, ...]

    @property
    def alpha(self) -> float:
        """The error of all looks together."""
        return sum(self.levels)

    def decided(self, look: int, p: Mapping[int, float]) -> set[int]:
        """The contrasts that look number `look` (from 0) decides, of those whose p it is given."""
        return {number for number, value in p.items() if value < self.levels[look]}


def budget(alpha: float = 0.05, looks: int = 2, spending: Spending = "equal") -> Budget:
    """Split `alpha` over the looks: equally, or `late`, where each look has twice the level of the one before.

    Raises ValueError for a level outside of (0, 1) or no looks.
    """
    if not 0 < alpha < 1:
        raise ValueError(f"alpha is {alpha}; it must lie between 0 and 1")
    if looks < 1:
        raise ValueError(f"looks is {looks}; there must be at least one")
    shares = [1.0 if spending == "equal" else 2.0**look for look in range(looks)]
    return Budget(tuple(alpha * share / sum(shares) for share in shares))


def unreachable(levels: Budget, seeds: Sequence[int]) -> list[int]:
    """The looks (from 0) at which that many seeds cannot decide anything, however large the effect.

    A plan with such a look pays for it and gets nothing. Raises ValueError unless there is a count for every look.
    """
    if len(seeds) != len(levels.levels):
        raise ValueError(f"{len(seeds)} counts of seeds for {len(levels.levels)} looks")
    return [look for look, n in enumerate(seeds) if smallest_p(n) >= levels.levels[look]]
