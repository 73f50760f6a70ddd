"""Whether an effect survives a negative control: differences of paired differences, a family of their own.

With cells c, base b and control g, seed by seed:

    effect        c - b
    left under g  (c under g) - (b under g)
    gone under g  effect - left

An effect that is still there when the thing it is said to come from is taken away does not come from it. So a decided
effect survives g where what is gone under g is decided, in the effect's own direction; it does not where instead what
is left is decided in that direction, or what is gone in the other. Where a cell under g and the base under g are one
function, nothing is left and nothing need be tested. Effects that are not decided have nothing to survive.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from miras_search.analysis.cells import Cell
from miras_search.analysis.comparison import Comparison, JointTest, by_seed, family_test
from miras_search.analysis.numbers import measured
from miras_search.analysis.verdict import ALPHA, Limits, censored_side, is_decided

Answer = Literal["yes", "no", "not decided"]
Controlled = Mapping[int, Mapping[str, int]]
"""Trial number -> control -> number of the trial that is this one under it."""


@dataclass(frozen=True, slots=True)
class Mean:
    """A mean over seeds with its interval, which one seed has not, and its step-down p, which few seeds have not."""

    value: float
    low: float | None
    high: float | None
    seeds: int
    p: float | None = None

    def towards(self, sign: float) -> bool:
        """Whether it is decided and has this sign."""
        if self.low is None or self.high is None or self.p is None or self.p >= ALPHA:
            return False
        return (self.low > 0 or self.high < 0) and self.value * sign > 0

    def __str__(self) -> str:
        return measured(self.value, self.low, self.high)


@dataclass(frozen=True, slots=True)
class Survival:
    """A cell's effect under one control."""

    control: str
    cell: Cell
    """The cell under the control."""
    reference: Cell
    left: Mean | None
    """None without a seed that all four cells completed."""
    gone: Mean | None
    answer: Answer | None = None
    """None where the effect itself is not decided."""
    at: str | None = None
    """The end of the metric at which both cells under the control lie."""

    @property
    def is_shared(self) -> bool:
        """Whether cell and reference are one function under the control."""
        return self.cell is self.reference

    @property
    def numbers(self) -> dict[str, float | None]:
        """The effect left under the control, and what of it is gone there with its p."""
        found: dict[str, float | None] = {}
        for name, mean in (("left", self.left), ("gone", self.gone)):
            low, high = (None, None) if mean is None else (mean.low, mean.high)
            found |= {name: None if mean is None else mean.value, f"{name}_low": low, f"{name}_high": high}
        return {**found, "p": None if self.gone is None else self.gone.p}

    @property
    def diverged(self) -> Cell | None:
        """The cell under the control that diverged."""
        return next((cell for cell in (self.cell, self.reference) if cell.diverged), None)


@dataclass(frozen=True, slots=True)
class Survivals:
    """Those of all cells, by number, and the tests of what is left and of what is gone."""

    of: Mapping[int, Sequence[Survival]]
    left: JointTest
    gone: JointTest


def survivals(
    found: Sequence[Comparison],
    cells: Sequence[Cell],
    controlled: Controlled,
    decided: Mapping[int, float],
    limits: Limits,
) -> Survivals:
    """How every compared cell fares under every control that it and the reference have.

    `decided` is the p that decides each effect, by the cell's number. What a control's row was trained for is taken
    from `controlled`.
    """
    rows = {cell.number: cell for cell in cells}
    plain: list[tuple[Comparison, Survival]] = []
    for item in found:
        own, base = (controlled.get(cell.number, {}) for cell in (item.cell, item.reference))
        for control in own:
            if control in base and own[control] in rows and base[control] in rows:
                plain.append((item, Survival(control, rows[own[control]], rows[base[control]], None, None)))
    left: dict[int, dict[int, float]] = {}
    gone: dict[int, dict[int, float]] = {}
    for i, (item, one) in enumerate(plain):  # of the seeds that all four completed
        effect = by_seed(item.cell, item.reference)
        left[i] = {seed: x for seed, x in by_seed(one.cell, one.reference).items() if seed in effect}
        gone[i] = {seed: effect[seed] - x for seed, x in left[i].items()}
    new = [
        i
        for i, (item, one) in enumerate(plain)
        if not (one.is_shared or one.diverged or item.cell.diverged or item.reference.diverged)
    ]
    most = max((len(left[i]) for i in left), default=0)
    of_left, of_gone = (family_test({i: one[i] for i in new}, most, check=True) for one in (left, gone))
    by_number: dict[int, list[Survival]] = {}
    for i, (item, one) in enumerate(plain):
        sides = {limits.side(cell.values.values()) for cell in (one.cell, one.reference)}
        p = decided.get(item.cell.number)
        one = replace(
            one,
            left=_mean(left[i], of_left, i),
            gone=_whole(item, p) if one.is_shared and len(gone[i]) == item.pairs else _mean(gone[i], of_gone, i),
            at=sides.pop() if len(sides) == 1 else None,
        )
        if is_decided(item, p) and censored_side(item, limits) is None:
            one = replace(one, answer=_answer(one, item.difference or 0.0))
        by_number.setdefault(item.cell.number, []).append(one)
    return Survivals(by_number, of_left, of_gone)


def _whole(effect: Comparison, p: float | None) -> Mean | None:
    """All of the effect, told as in its own row."""
    if effect.difference is None:
        return None
    return Mean(effect.difference, effect.ci_low, effect.ci_high, effect.pairs, p)


def _mean(differences: Mapping[int, float], test: JointTest, place: int) -> Mean | None:
    values = list(differences.values())
    if not values:
        return None
    low, high = test.interval(place, values) if len(values) >= 2 else (None, None)
    return Mean(sum(values) / len(values), low, high, len(values), test.p.get(place))


def _answer(one: Survival, effect: float) -> Answer:
    if one.is_shared:
        return "yes"
    if one.left is None or one.gone is None or one.diverged:
        return "not decided"
    if one.gone.towards(effect):
        return "yes"
    return "no" if one.left.towards(effect) or one.gone.towards(-effect) else "not decided"


def sentence(found: Sequence[Survival], effect: float) -> str:
    """`survives no_write and ascent; does not survive q_is_k: +0.02 [0.01, 0.03] remains there`; empty for none."""
    whole = [one for one in found if one.answer == "yes" and not _remains(one, effect)]
    parts = []
    if whole:
        parts.append("survives " + _listed([_at_its_end(one) for one in whole]))
    for one in found:
        if one.answer == "yes" and one not in whole:
            parts.append(f"survives {one.control} in part: {one.left} remains there")
        elif one.answer == "no":
            parts.append(f"does not survive {one.control}: {one.left} remains there")
        elif one.answer == "not decided":
            parts.append(f"not decided under {one.control}: {_open(one)}")
    return "; ".join(parts)


def _remains(one: Survival, effect: float) -> bool:
    return one.left is not None and one.left.towards(effect)


def _at_its_end(one: Survival) -> str:
    """A model that a control takes to chance has no effects of any kind: that is worth saying."""
    return one.control if one.at is None or one.is_shared else f"{one.control} (where both are at the {one.at})"


def _open(one: Survival) -> str:
    if one.diverged:
        return f"{one.diverged.name} diverged in {len(one.diverged.diverged)} of {one.diverged.of}"
    if one.left is None or one.gone is None:
        return f"no seed of {one.cell.name} and {one.reference.name} finished"
    if one.gone.p is None:
        return f"{one.left} remains there, without a joint test"
    return f"{one.left} remains there, {one.gone} is gone"


def _listed(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
