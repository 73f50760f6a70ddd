"""Which variants of a space's parts go together: what may still be chosen after what has been chosen.

Rules look at few traits of a part, so its variants fall into few classes that no rule tells apart; a table for each
rule says which combinations of classes it refuses (`combinations.tabulated`). Parts are decided in a fixed order, and
of the classes chosen so far only what rules still want to know is carried along, so that counting what is left is a
small recursion. A variant with numbers to be drawn stands for two points, all numbers lowest and all highest: both have
to be valid. A point is checked once more when its numbers are known.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from miras_search.space.combinations import PARTS, Table, tabulated
from miras_search.space.design import DesignPoint
from miras_search.space.rules import RULES, Rule
from miras_search.space.sampling_place import ORDER, Built

State = tuple[tuple[tuple[int, int], ...], ...]  # by rule, the cases (numbers lowest, highest) of the parts so far


@dataclasses.dataclass(frozen=True, slots=True)
class _Constraint:
    """A rule on the parts that it looks at."""

    parts: tuple[int, ...]
    cases: tuple[tuple[tuple[int, int], ...], ...]
    """By part in the order of `ORDER`, by variant: its case with numbers lowest and highest."""
    allowed: frozenset[tuple[int, ...]]
    """Cases of its parts that it does not refuse."""

    def passes(self, found: Sequence[tuple[int, int]]) -> bool:
        """Whether the cases of all its parts go together."""
        return all(tuple(pair[end] for pair in found) in self.allowed for end in (0, 1))


class Fitting:
    """The valid combinations of the variants of all parts, in `ORDER`."""

    def __init__(self, parts: Sequence[Sequence[Built]], dims: Sequence[tuple[int, int]]) -> None:
        self._parts = parts
        self._constraints = list(_constraints(parts, dims))
        self._classes = [self._classified(number) for number in range(len(parts))]
        self._left: dict[tuple[int, State], float] = {}
        self._known: dict[tuple[int, State], tuple[int, ...]] = {}

    @property
    def start(self) -> State:
        """Before anything is chosen."""
        return ((),) * len(self._constraints)

    def after(self, part: int, state: State, variant: int) -> State | None:
        """The state after a variant of the next part; None where a rule refuses it."""
        after: list[tuple[tuple[int, int], ...]] = []
        for rule, found in zip(self._constraints, state, strict=True):
            if part not in rule.parts:
                after.append(found)
                continue
            cases = (*found, rule.cases[part][variant])
            if part != rule.parts[-1]:
                after.append(cases)
            elif rule.passes(cases):
                after.append(())  # it has seen all that it wants
            else:
                return None
        return tuple(after)

    def left(self, part: int, state: State) -> float:
        """How many combinations of this and the later parts are valid; infinite where numbers are drawn."""
        if part == len(self._parts):
            return 1
        if (part, state) not in self._left:
            total: float = 0
            for members in self._classes[part]:
                after = self.after(part, state, members[0])
                further = 0 if after is None else self.left(part + 1, after)
                total += sum(self._parts[part][i].size for i in members) * further if further else 0
            self._left[part, state] = total
        return self._left[part, state]

    def able(self, part: int, state: State) -> tuple[int, ...]:
        """The variants of the next part that some completion is valid with, in their order."""
        if (part, state) not in self._known:
            found: list[int] = []
            for members in self._classes[part]:
                after = self.after(part, state, members[0])
                if after is not None and self.left(part + 1, after):
                    found += members
            self._known[part, state] = tuple(sorted(found))
        return self._known[part, state]

    def contexts(self) -> list[dict[tuple[int, ...], None]]:
        """By part every set of variants that can be the able ones, in the order of their discovery."""
        found: list[dict[tuple[int, ...], None]] = []
        states: dict[State, None] = {self.start: None}
        for part in range(len(self._parts)):
            found.append(dict.fromkeys(self.able(part, state) for state in states))
            following: dict[State, None] = {}
            for state in states:
                able = set(self.able(part, state))
                for members in self._classes[part]:
                    after = self.after(part, state, members[0]) if members[0] in able else None
                    if after is not None:
                        following[after] = None
            states = following
        return found

    def _classified(self, part: int) -> list[list[int]]:
        """The variants of a part, those together that no rule tells apart."""
        found: dict[tuple[tuple[int, int], ...], list[int]] = {}
        for i in range(len(self._parts[part])):
            case = tuple(rule.cases[part][i] for rule in self._constraints if part in rule.parts)
            found.setdefault(case, []).append(i)
        return list(found.values())


def _constraints(parts: Sequence[Sequence[Built]], dims: Sequence[tuple[int, int]]) -> Iterator[_Constraint]:
    """Every rule that refuses something here."""
    lows: dict[str, list[Any]] = {name: [it.low for it in own] for name, own in zip(ORDER, parts, strict=True)}
    highs = {name: [it.high for it in own if it.variant.ranges] for name, own in zip(ORDER, parts, strict=True)}
    whole = {name: [*lows[name], *highs[name]] for name in PARTS}
    for rule in RULES:
        for widths in dims:
            table = tabulated(_refuses(rule, widths), whole)
            if any(table.outcomes.values()):
                yield _constraint(table, parts)


def _constraint(table: Table, parts: Sequence[Sequence[Built]]) -> _Constraint:
    at = [PARTS.index(name) for name in ORDER]  # a table has its parts in an order of its own
    looked = [n for n in range(len(ORDER)) if len(set(table.cases[at[n]])) > 1] or [0]
    cases = []
    for number, own in enumerate(parts):
        known, drawn = table.cases[at[number]], len(own)
        pairs = []
        for i, it in enumerate(own):
            high = known[drawn] if it.variant.ranges else known[i]
            drawn += bool(it.variant.ranges)
            pairs.append((known[i], high))
        cases.append(tuple(pairs))
    allowed = frozenset(
        tuple(key[at[number]] for number in looked) for key, refused in table.outcomes.items() if not refused
    )
    return _Constraint(tuple(looked), tuple(cases), allowed)


def _refuses(rule: Rule, dims: tuple[int, int]) -> Callable[[DesignPoint], bool]:
    return lambda point: rule.problem(point, *dims) is not None
