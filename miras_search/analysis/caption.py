"""The words around a table: the caption, the legend of its marks, and notes on whatever is missing or left out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from miras_search.analysis.cells import Cell
from miras_search.analysis.comparison import Comparison, JointTest
from miras_search.analysis.numbers import fixed, plain
from miras_search.analysis.paired import BCA_SEEDS
from miras_search.analysis.verdict import ALPHA
from miras_search.metrics import Metric
from miras_search.seeds import DRAWS, EXACT_SEEDS, smallest_p
from miras_search.tasks import Guess

MOST_NAMED = 8  # cells in one sentence
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


def notes(
    *,
    reference: Cell,
    found: Sequence[Comparison],
    cells: Mapping[int, JointTest],
    controls: JointTest,
    fates: tuple[JointTest, JointTest],
    devices: Mapping[str, int],
    censored: Sequence[str],
    worst: float | None,
    decimals: int,
    chance: float | None = None,
    unbound: Guess | None = None,
    margin: float = 0.0,
    waits: str = "",
) -> list[str]:
    """Sentences on everything that a reader would otherwise have to guess.

    `fates` are the tests of what is left and of what is gone under controls; `devices` says how many jobs ran on which;
    `chance` is the accuracy of guessing and `unbound` what can be had without binding: cells are named that are no
    more than `margin` above. `waits` is what a look waits for.
    """
    left, gone = fates
    lines = [f"{waits}."] if waits else []
    lines += _reach(found, cells) if cells or not waits else []
    if controls.size:
        lines.append(
            f"Controls are a family of their own: p is step-down over {_many(controls.size, 'control')} "
            f"(n = {len(controls.seeds)})."
        )
    if gone.size:
        careful = f"; and, because these look uneven, Holm's over their {EXPONENTIAL}" if gone.is_guarded else ""
        lines.append(
            "An effect survives a control under which it is decidedly smaller, seed by seed (step-down over "
            f"{_many(gone.size, 'such difference')}, a family of their own, n = {len(gone.seeds)}{careful}"
            f"{_of_fates(left, gone)})."
        )
    tests = [("cells", test) for test in _distinct(cells)] + [("controls", controls)]
    for name, test in tests:
        mine = [item for item in found if item.cell.number in (cells if name == "cells" else controls.p)]
        if any(item.pairs > len(test.seeds) for item in mine if cells.get(item.cell.number, test) is test):
            lines.append(f"The joint test of the {name} uses the {len(test.seeds)} seeds that all of them completed.")
    lines += _divergences(reference, found, worst=worst, decimals=decimals)
    tested = {*cells, *controls.p}
    if not reference.diverged:
        few = [item for item in found if item.cell.number not in tested and not item.cell.diverged and item.pairs]
        if waits or not cells:  # which has been said of all cells
            few = [item for item in few if item.cell.role == "control"]
        lines += [f"{item.cell.name}: {_many(item.pairs, 'paired seed')}, too few for the joint test." for item in few]
    if len(devices) > 1:
        each = ", ".join(f"{many} on {device}" for device, many in sorted(devices.items()))
        lines.append(
            f"Jobs ran on unlike devices ({each}), which round otherwise, and a training may make much of that: "
            "neither differences within a seed nor speeds are the choice's alone."
        )
    everyone = [reference, *(item.cell for item in found)]
    lines += _guesses(everyone, chance, unbound, margin)
    lines += [f"{cell.name}: {cell.failed} of {_many(cell.of, 'job')} failed." for cell in everyone if cell.failed]
    if censored:
        lines.append(
            f"Censored (all values at floor or ceiling, as {reference.name}'s): {', '.join(censored)}. "
            "The task hardly tells them apart."
        )
    lines += [
        f"{cell.name}: {_many(cell.silent, 'completed job')} recorded no value of this metric."
        for cell in everyone
        if cell.silent
    ]
    waiting = sum(cell.of - len(cell.values) - cell.failed - len(cell.diverged) - cell.silent for cell in everyone)
    if waiting > 0:
        lines.append(f"{waiting} of {_many(sum(cell.of for cell in everyone), 'job')} not finished yet.")
    return lines


def _guesses(cells: Sequence[Cell], chance: float | None, unbound: Guess | None, margin: float) -> list[str]:
    """What can be had without a memory of keys, and who has no more; nothing while there is no result."""
    means = {cell.name: cell.mean for cell in cells if cell.mean is not None}
    if chance is None or not means:
        return []
    has_guess = unbound is not None and unbound.accuracy > chance
    level = unbound.accuracy if unbound is not None and has_guess else chance
    near = [name for name, mean in means.items() if mean <= level + margin]
    more = f" and {len(near) - MOST_NAMED} more" if len(near) > MOST_NAMED else ""
    who = f"; no more than {plain(margin)} above it: {', '.join(near[:MOST_NAMED])}{more}" if near else ""
    if unbound is None or not has_guess:
        return [f"Chance is {chance:.2g}{who}."]
    return [f"Chance is {chance:.2g}; {level:.2g} can be had without binding a value to a key, {unbound.how}{who}."]


def _reach(found: Sequence[Comparison], cells: Mapping[int, JointTest]) -> list[str]:
    if not any(item.cell.role != "control" and item.pairs for item in found):
        return []
    if not cells:
        return ["No joint test of the cells: it needs two seeds that all cells completed, none of them diverged."]
    last = _distinct(cells)[-1]
    if last.smallest < ALPHA:
        return []
    n = need = len(last.seeds)
    while smallest_p(need) * last.factor >= ALPHA:
        need += 1
    of_looks = f" x {last.factor:.3g}" if last.factor > 1 else ""
    return [
        f"With n = {n} the joint test cannot reach p < {plain(ALPHA)} (smallest p 2/2^{n}{of_looks} = "
        f"{last.smallest:.3g}); {need} seeds can ({smallest_p(need) * last.factor:.3g})."
    ]


def _divergences(reference: Cell, found: Sequence[Comparison], *, worst: float | None, decimals: int) -> list[str]:
    lines: list[str] = []
    value = "" if worst is None else f"the worst attained value of the study ({fixed(worst, decimals)})"
    if reference.diverged:
        lines.append(
            f"{reference.name}: diverged in {len(reference.diverged)} of {_many(reference.of, 'seed')}; differences "
            "to it are over the seeds that survived, so nothing is tested or marked."
        )
    for item in found:
        cell = item.cell
        if not cell.diverged:
            continue
        line = f"{cell.name}: diverged in {len(cell.diverged)} of {_many(cell.of, 'seed')}, so no test and no mark"
        if item.imputed is not None:
            shown = fixed(item.imputed, decimals, signed=True)
            line += f"; with {value} in their place the mean difference would be {shown}"
        lines.append(line + ".")
    return lines


def _distinct(tests: Mapping[int, JointTest]) -> list[JointTest]:
    """The tests that decide, look by look."""
    return sorted({test.look: test for test in tests.values()}.values(), key=lambda test: test.look)


def _tests(found: Sequence[Comparison], cells: Mapping[int, JointTest], reference: str) -> list[str]:
    """A sentence for each test that decides; with several, which cells it does."""
    distinct = _distinct(cells)
    lines = []
    for test in distinct:
        names = [item.cell.name for item in found if cells.get(item.cell.number) is test]
        whose = "p" if len(distinct) == 1 else f"p of {', '.join(names)}"
        n, family = len(test.seeds), _many(test.size, "cell")
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
        alike.setdefault(_usual(cells.get(item.cell.number, JointTest())), []).append(item)
    kinds = {few: _interval_kind(few, [item.pairs for item in items]) for few, items in alike.items()}
    others, usual = alike.pop("t", []), kinds.pop("t", "t")
    if not alike:
        return f"{usual} intervals {alone}"
    controls = all(item.cell.role == "control" for item in others)
    if len(alike) == 1 and controls:
        return f"intervals {alone}, by {kinds.popitem()[1]}{f'; of controls by {usual}' if others else ''}"
    named = [f"of {', '.join(item.cell.name for item in items)} by {kinds[few]}" for few, items in alike.items()]
    return f"intervals {alone}, {', '.join(named)}{f', else by {usual}' if others else ''}"


def _of_fates(left: JointTest, gone: JointTest) -> str:
    """How the intervals of what is left and of what is gone under controls are made, where they lean."""
    if left.lean == gone.lean == 0:
        return ""
    of_gone, of_left = (
        _interval_kind(_usual(test, "their mean", "each one's own"), [len(test.seeds)]) for test in (gone, left)
    )
    return f"; intervals by {of_gone}" + ("" if of_left == of_gone else f", of what is left by {of_left}")


def _usual(test: JointTest, mean: str = "the cells' mean", own: str = "each cell's own") -> str:
    """The kind of intervals below 20 seeds: t, and where it leans with whose skewness."""
    if test.noise is None or test.lean == 0:
        return "t"
    part = "" if test.lean == 1 else f" {min(99, max(1, round(100 * test.lean)))} % of the way"
    return f"t that leans{part} with {mean if test.noise.is_agreed else own} skewness"


def _interval_kind(few: str, pairs: Sequence[int]) -> str:
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


def _many(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
