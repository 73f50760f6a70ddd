"""An error budget over several looks: a study may train more seeds for what is undecided, and still err once in twenty.

Each look at the data has a level of its own, and the levels add up to the declared one. At a look all undecided
contrasts are tested as one family on all seeds so far, and what is decided stays decided. While no true null has been
rejected, all of them are still in the family, so a look errs with at most its own level, and the looks together with at
most the sum. That holds for any rule about who gets more seeds, as long as the family's cells get the same ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


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


def budget(alpha: float = 0.05, looks: int = 2) -> Budget:
    """Split `alpha` over the looks equally.

    Raises ValueError for a level outside of (0, 1) or no looks.
    """
    if not 0 < alpha < 1:
        raise ValueError(f"alpha is {alpha}; it must lie between 0 and 1")
    if looks < 1:
        raise ValueError(f"looks is {looks}; there must be at least one")
    return Budget((alpha / looks,) * looks)
