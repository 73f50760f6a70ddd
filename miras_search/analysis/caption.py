"""The words around a table: the caption, the legend of its marks, and notes on whatever is missing or left out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from miras_search.analysis.cells import Cell
from miras_search.analysis.comparison import Comparison, JointTest
from miras_search.analysis.numbers import fixed, plain
from miras_search.analysis.paired import BCA_SEEDS, DRAWS, EXACT_SEEDS, smallest_p
from miras_search.analysis.verdict import ALPHA
from miras_search.metrics import Metric


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
    cells: JointTest,
    context: TableContext,
    looks: str = "",
) -> str:
    """Test, n, task, metric with direction, looks, execution, lock, commit and date, in plain text."""
    measure = ", ".join(part for part in (metric.unit, split, f"{_direction(metric)} is better") if part)
    planned = [reference, *(item.cell for item in found)]
    counts = _range([len(cell.values) for cell in planned])
    of = _range([cell.of for cell in planned])
    parts = [f"Study {study}, task {task}: {metric.name} ({measure}), mean and sd over seeds (n = {counts} of {of})"]
    if context.evaluated:
        parts.append(context.evaluated)
    if found:
        pairs = [item.pairs for item in found]
        kind = _interval_kind(pairs)
        parts.append(
            f"Differences to {reference.name} are paired by seed, with 95 % {kind} intervals for each cell alone"
        )
    if cells.size:
        n = len(cells.seeds)
        flips = f"exact, smallest p {smallest_p(n) * cells.factor:.2g}" if n <= EXACT_SEEDS else f"{DRAWS:,} drawn"
        family = _many(cells.size, "cell")
        parts.append(
            f"p: joint per-seed sign flips (n = {n}, {flips}), step-down over {family}; "
            "Holm p: Holm over each cell's own sign-flip test"
        )
        if cells.is_guarded and cells.noise is not None:
            parts.append(
                f"Because {cells.noise.reason(reference.name)}, p is not below Holm's over {family} of t tests that "
                "hold for noise as skewed as an exponential's, and the cells' intervals are theirs"
            )
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
    cells: JointTest,
    controls: JointTest,
    gone: JointTest,
    censored: Sequence[str],
    worst: float | None,
    decimals: int,
) -> list[str]:
    """Sentences on everything that a reader would otherwise have to guess."""
    lines: list[str] = []
    lines += _reach(found, cells)
    if controls.size:
        lines.append(
            f"Controls are a family of their own: p is step-down over {_many(controls.size, 'control')} "
            f"(n = {len(controls.seeds)})."
        )
    if gone.size:
        lines.append(
            "An effect survives a control under which it is decidedly smaller, seed by seed "
            f"(step-down over {_many(gone.size, 'such difference')}, a family of their own, n = {len(gone.seeds)})."
        )
    for name, test in (("cells", cells), ("controls", controls)):
        if any(item.pairs > len(test.seeds) for item in found if item.cell.number in test.p):
            lines.append(f"The joint test of the {name} uses the {len(test.seeds)} seeds that all of them completed.")
    lines += _divergences(reference, found, worst=worst, decimals=decimals)
    tested = {**cells.p, **controls.p}
    if not reference.diverged:
        few = [item for item in found if item.cell.number not in tested and not item.cell.diverged and item.pairs]
        lines += [f"{item.cell.name}: {_many(item.pairs, 'paired seed')}, too few for the joint test." for item in few]
    everyone = [reference, *(item.cell for item in found)]
    lines += [f"{cell.name}: {cell.failed} of {_many(cell.of, 'job')} failed." for cell in everyone if cell.failed]
    if censored:
        lines.append(
            f"Censored (all values at floor or ceiling, as {reference.name}'s): {', '.join(censored)}. "
            "The task cannot tell them apart."
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


def _reach(found: Sequence[Comparison], cells: JointTest) -> list[str]:
    n = len(cells.seeds)
    compared = [item for item in found if item.cell.role != "control" and item.pairs]
    if not compared or (n and cells.smallest < ALPHA):
        return []
    if n == 0:
        return ["No joint test of the cells: it needs two seeds that all cells completed, none of them diverged."]
    need = n
    while smallest_p(need) * cells.factor >= ALPHA:
        need += 1
    of_looks = f" x {cells.factor:.3g}" if cells.factor > 1 else ""
    return [
        f"With n = {n} the joint test cannot reach p < {plain(ALPHA)} (smallest p 2/2^{n}{of_looks} = "
        f"{cells.smallest:.3g}); {need} seeds can ({smallest_p(need) * cells.factor:.3g})."
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


def _interval_kind(pairs: Sequence[int]) -> str:
    many = [count >= BCA_SEEDS for count in pairs if count >= 2]
    if many and all(many):
        return "t and BCa bootstrap (the outer end of both)"
    return "t (from 20 seeds the outer end of t and BCa bootstrap)" if any(many) else "t"


def _direction(metric: Metric) -> str:
    return "higher" if metric.direction == "maximize" else "lower"


def _range(numbers: Sequence[int]) -> str:
    low, high = min(numbers), max(numbers)
    return str(low) if low == high else f"{low} to {high}"


def _many(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
