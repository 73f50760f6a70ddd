"""A test in several looks: a study may train more seeds for what is undecided, and still err once in twenty.

Each look at the data has a level of its own, and the levels add up to the declared one. At a look all undecided cells
are tested as one family on all seeds so far, and what is decided stays decided. While no true null has been rejected,
all of them are still in the family, so a look errs with at most its own level, and the looks together with at most the
sum. That holds for any rule about who gets more seeds, as long as the family's cells get the same ones.

A look is over, and tells p and spends its error, once all of its trainings have a result. One that failed has none: the
look waits for it to be trained, or leaves its seed out where the study declared that before there were results. To test
what is there and to test again when the rest has come would be two looks at the price of one.

A p that is shown is that of the look times what the whole may err over what the look may: below .05 exactly where the
look decides, and comparable between looks. All that is said of a cell is said by the look that decided it, else by the
last one: its p, its seeds, and what the noise asked of its p and of its interval.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import cast

from miras_search.analysis.cells import Cell
from miras_search.analysis.comparison import JointTest, by_test, compare, joint_test
from miras_search.analysis.verdict import is_decided
from miras_search.store.types import StudyRow


@dataclass(frozen=True, slots=True)
class Looks:
    """The looks that a study declared."""

    seeds: tuple[int, ...]
    """All that it may train, in order."""
    counts: tuple[int, ...]
    """How many of them each look takes into account, ascending."""
    levels: tuple[float, ...]
    """What each look may err."""
    leaves_out: bool = False
    """Whether a training that failed is left out; else its look waits for it."""

    @classmethod
    def of(cls, study: StudyRow) -> Looks | None:
        """Those of a stored study; None where it declared none."""
        given = study.config.get("top_up")
        if not isinstance(given, Mapping):
            return None
        numbers = cast(Mapping[str, Sequence[int]], given)
        return cls(
            tuple(numbers["seeds"]),
            tuple(numbers["looks"]),
            tuple(cast(Mapping[str, Sequence[float]], given)["levels"]),
            given.get("failed") == "leave_out",
        )

    def until(self, look: int) -> frozenset[int]:
        """The seeds that a look takes into account."""
        return frozenset(self.seeds[: self.counts[look]])

    @property
    def alpha(self) -> float:
        """The error of all looks together."""
        return sum(self.levels)

    def factor(self, look: int) -> float:
        """What a p of this look is multiplied by."""
        return self.alpha / self.levels[look]


@dataclass(frozen=True, slots=True)
class Looked:
    """What the looks that could be taken have found."""

    tests: Mapping[int, JointTest] = field(default_factory=dict)
    """Trial number -> the test of the look that decided the cell, else of the last one; p and Holm p times its factor.
    """
    taken: int = 0
    """Looks that are over: every training that they wait for has a result."""
    decided: Mapping[int, int] = field(default_factory=dict)
    """Trial number -> the look that decided the cell."""
    wanting: tuple[int, ...] = ()
    """Trial numbers of the cells on whose trainings, beside the reference's, the next look waits; empty where there is
    no next one."""
    failed: Mapping[str, Sequence[int]] = field(default_factory=dict)
    """Cell -> seeds for which the next look waits though no run trains them by itself: they failed."""


def test_in_looks(reference: Cell, family: Sequence[Cell], looks: Looks, *, check: bool = False) -> Looked:
    """Test the family look by look, as far as the trainings have come; `check` as in `joint_test`.

    A look is told once it is over. A cell that diverged on a look's seeds leaves the family and wants no more of them;
    nobody does if the reference diverged.
    """
    left, decided, taken = list(family), dict[int, int](), 0
    tests, failed = dict[int, JointTest](), dict[str, list[int]]()
    for look in range(len(looks.counts)):
        seeds = looks.until(look)
        if not looks.leaves_out:
            failed = {cell.name: lost for cell in (reference, *left) if (lost := sorted(cell.lost & seeds))}
        known = [cell.ended | cell.lost for cell in (reference, *left)]
        if failed or not all(seeds <= one for one in known):
            break
        base = within(reference, seeds)
        cells = {cell.number: within(cell, seeds) for cell in left}
        found = joint_test(base, list(cells.values()), check=check)
        paid = scaled(found, looks, look)
        tests = {number: one for number, one in tests.items() if number not in cells}
        tests |= dict.fromkeys(paid.p, paid)
        taken = look + 1
        level = looks.levels[look]
        decided |= {
            number: look
            for number, p in found.p.items()
            if p < level and is_decided(by_test(compare(cells[number], base, worst=None), found), p, level)
        }
        left = [cell for cell in left if cell.number not in decided and not cells[cell.number].diverged]
        if not left or base.diverged:
            left = []
            break
    more = bool(left) and 0 < taken < len(looks.counts)
    return Looked(tests, taken, decided, tuple(cell.number for cell in left) if more else (), failed)


def scaled(test: JointTest, looks: Looks, look: int) -> JointTest:
    """The test with what this look pays for the others."""
    factor = looks.factor(look)
    p, holm = ({number: min(1.0, p * factor) for number, p in one.items()} for one in (test.p, test.holm))
    return replace(test, p=p, holm=holm, factor=factor, look=look)


def within(cell: Cell, seeds: frozenset[int]) -> Cell:
    """The cell as far as these seeds go."""
    values = {seed: value for seed, value in cell.values.items() if seed in seeds}
    return replace(cell, values=values, diverged=cell.diverged & seeds)


def looks_text(looks: Looks, looked: Looked) -> str:
    """The sentence that a caption says of the looks."""
    counts = [str(count) for count in looks.counts]
    when = f"{', '.join(counts[:-1])} and {counts[-1]}"
    each = _percent(looks.levels)
    stopped = "; all that can be decided is" if not looked.wanting and 0 < looked.taken < len(counts) else ""
    times = "the error of all looks over that of its own"
    return (
        f"Looks at {when} seeds, declared before any result, spend {each} of the {100 * looks.alpha:.3g} % error; "
        f"{looked.taken} of {len(counts)} are taken{stopped}. p is that of the look which decided a cell, or of the "
        f"last, times {times}; differences and intervals are over that look's seeds, as if it were the only one"
    )


def waits_text(looks: Looks, looked: Looked) -> str:
    """What the next look waits for, where a reader must know; empty where the table says all that there is."""
    if looked.taken == len(looks.counts):
        return ""
    name = f"The look at {looks.counts[looked.taken]} seeds"
    if looked.failed:
        whose = [
            f"{cell}: {'seed' if len(seeds) == 1 else 'seeds'} {', '.join(map(str, seeds))}"
            for cell, seeds in looked.failed.items()
        ]
        return f"{name} waits for trainings that failed and so have no result ({'; '.join(whose)})"
    return "" if looked.taken else f"{name}, the first, waits for its trainings; before, nothing is tested"


def _percent(levels: Sequence[float]) -> str:
    if len({f"{level:.6f}" for level in levels}) == 1:
        return f"{100 * levels[0]:.3g} % each"
    shown = [f"{100 * level:.2g}" for level in levels]
    return f"{', '.join(shown[:-1])} and {shown[-1]} %"
