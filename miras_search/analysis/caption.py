"""The words above a table: the caption, which says how it was tested, and the legend of its marks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from miras_search.analysis.cells import Cell
from miras_search.analysis.comparison import Comparison, JointTest
from miras_search.analysis.paired import BCA_SEEDS
from miras_search.metrics import Metric
from miras_search.seeds import DRAWS, EXACT_SEEDS

EXPONENTIAL = "t tests against noise as skewed as an exponential's"


@dataclass(frozen=True, slots=True)
class TableContext:
    """Where the numbers come from, for the caption, and the limits of what they can tell."""

    commit: str | None = None
    date: str | None = None
    execution: str | None = None  # what was held fixed for every cell, in words
    command: str | None = None  # the command that prints this table again
    ceiling: float = 0.99  # accuracy from here on is saturated
    floor_margin: float = 0.02  # accuracy up to chance plus this is at the floor
    lock: str | None = None  # what was locked before any result, in words, or that nothing was
    evaluated: str | None = None  # whose models these are, where nothing was trained
    searched: str | None = None  # how many competed for the rows of a search, and what chose them
    looked: str | None = None  # what looks at something else mean for this table
    margin: float | None = None  # the half width that "not decided" aims at; None: by the metric


def caption(
    *,
    study: str,
    task: str,
    metric: Metric,
    split: str,
    reference: Cell,
    found: Sequence[Comparison],
    cells: Mapping[int, JointTest],
    context: TableContext,
    looks: str = "",
) -> str:
    """Test, n, task, metric with direction, looks, execution, lock, commit and date, in plain text.

    `cells` is the test of each cell that has one, by its number.
    """
    measure = ", ".join(part for part in (metric.unit, split, f"{_direction(metric)} is better") if part)
    planned = [reference, *(item.cell for item in found)]
    counts = _range([len(cell.values) for cell in planned])
    of = _range([cell.of for cell in planned])
    parts = [f"Study {study}, task {task}: {metric.name} ({measure}), mean and sd over seeds (n = {counts} of {of})"]
    parts += [said for said in (context.searched, context.evaluated) if said]
    if found:
        intervals = _intervals(found, cells)
        parts.append(f"Differences to {reference.name} are paired by seed, with 95 % {intervals}")
    parts += _tests(found, cells, reference.name)
    if looks:
        parts.append(looks)
    if context.looked:
        parts.append(context.looked)
    if context.execution:
        parts.append(f"Execution: {context.execution}")
    if context.lock:
        parts.append(context.lock[0].upper() + context.lock[1:])
    origin = ", ".join(part for part in (context.commit and f"commit {context.commit}", context.date) if part)
    if origin:
        parts.append(origin[0].upper() + origin[1:])
    return ". ".join(parts) + "."


def legend(*, best: str = "bold", second: str = "underlined", censored: bool = False) -> str:
    """One line that explains the marks, in the words of the renderer."""
    text = (
        f"{best.capitalize()}: best, {second}: second best of the complete cells, controls apart; "
        "† p < .05, ‡ p < .01 by the corrected test"
    )
    return text + ("; § censored at floor or ceiling." if censored else ".")


def distinct(tests: Mapping[int, JointTest]) -> list[JointTest]:
    """The tests that decide, look by look."""
    return sorted({test.look: test for test in tests.values()}.values(), key=lambda test: test.look)


def _tests(found: Sequence[Comparison], cells: Mapping[int, JointTest], reference: str) -> list[str]:
    """A sentence for each test that decides; with several, which cells it does."""
    tests = distinct(cells)
    lines = []
    for test in tests:
        names = [item.cell.name for item in found if cells.get(item.cell.number) is test]
        whose = "p" if len(tests) == 1 else f"p of {', '.join(names)}"
        n, family = len(test.seeds), many(test.size, "cell")
        how = "exact" if n <= EXACT_SEEDS else f"{DRAWS:,} drawn"
        smallest = f"smallest p {test.smallest:.2g}"
        if test.is_guarded and test.noise is not None:
            reason = test.noise.reason(reference)
            lines.append(
                f"{whose}: because {reason}, the larger of joint per-seed sign flips' (n = {n}, {how}), step-down over "
                f"{family}, and Holm's over the cells' {EXPONENTIAL}; {smallest}"
            )
        else:
            lines.append(f"{whose}: joint per-seed sign flips (n = {n}, {how}, {smallest}), step-down over {family}")
    if lines:
        lines[-1] += "; Holm p: Holm over each cell's own sign-flip test"
    return lines


def _intervals(found: Sequence[Comparison], cells: Mapping[int, JointTest]) -> str:
    """How the intervals are made: by the test that decides the cell, for this one cell."""
    alone = "for each cell alone"
    alike: dict[str, list[Comparison]] = {}
    for item in found:
        alike.setdefault(usual_interval(cells.get(item.cell.number, JointTest())), []).append(item)
    kinds = {few: interval_kind(few, [item.pairs for item in items]) for few, items in alike.items()}
    others, usual = alike.pop("t", []), kinds.pop("t", "t")
    if not alike:
        return f"{usual} intervals {alone}"
    controls = all(item.cell.role == "control" for item in others)
    if len(alike) == 1 and controls:
        return f"intervals {alone}, by {kinds.popitem()[1]}{f'; of controls by {usual}' if others else ''}"
    named = [f"of {', '.join(item.cell.name for item in items)} by {kinds[few]}" for few, items in alike.items()]
    return f"intervals {alone}, {', '.join(named)}{f', else by {usual}' if others else ''}"


def usual_interval(test: JointTest, mean: str = "the cells' mean", own: str = "each cell's own") -> str:
    """The kind of intervals below 20 seeds: t, and where it leans with whose skewness."""
    if test.noise is None or test.lean == 0:
        return "t"
    part = "" if test.lean == 1 else f" {min(99, max(1, round(100 * test.lean)))} % of the way"
    return f"t that leans{part} with {mean if test.noise.is_agreed else own} skewness"


def interval_kind(few: str, pairs: Sequence[int]) -> str:
    """`few` is the kind below 20 seeds."""
    many = [one >= BCA_SEEDS for one in pairs if one >= 2]
    own = ", ".join(dict.fromkeys((few, "t")))
    if many and all(many):
        return f"{own} and BCa bootstrap (the outer end of {'both' if few == 't' else 'all'})"
    return f"{few} (from 20 seeds the outer end of {own} and BCa bootstrap)" if any(many) else few


def _direction(metric: Metric) -> str:
    return "higher" if metric.direction == "maximize" else "lower"


def _range(numbers: Sequence[int]) -> str:
    low, high = min(numbers), max(numbers)
    return str(low) if low == high else f"{low} to {high}"


def many(count: int, noun: str) -> str:
    """`1 seed`, `2 seeds`."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
