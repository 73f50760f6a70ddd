"""The notes under a table: who is tested with whom, what diverged, failed or is missing, what a guess gets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from miras_search.analysis.caption import EXPONENTIAL, distinct, interval_kind, many, usual_interval
from miras_search.analysis.cells import Cell
from miras_search.analysis.comparison import Comparison, JointTest
from miras_search.analysis.numbers import fixed, plain
from miras_search.analysis.verdict import ALPHA
from miras_search.seeds import smallest_p
from miras_search.tasks import Guess

MOST_NAMED = 8  # cells in one sentence


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
    everyone = [reference, *(item.cell for item in found)]
    lines = [f"{waits}."] if waits else []
    lines += _reach(found, cells) if cells or not waits else []
    lines += _families(controls, *fates)
    lines += _fewer_seeds(found, cells, controls)
    lines += _divergences(reference, found, worst=worst, decimals=decimals)
    lines += [] if reference.diverged else _untested(found, cells, controls, waits=bool(waits))
    lines += _unlike_devices(devices)
    lines += _guesses(everyone, chance, unbound, margin)
    lines += [f"{cell.name}: {cell.failed} of {many(cell.of, 'job')} failed." for cell in everyone if cell.failed]
    if censored:
        lines.append(
            f"Censored (all values at floor or ceiling, as {reference.name}'s): {', '.join(censored)}. "
            "The task hardly tells them apart."
        )
    return lines + _without_value(everyone)


def _families(controls: JointTest, left: JointTest, gone: JointTest) -> list[str]:
    """Who is tested together, beside the cells."""
    lines = []
    if controls.size:
        lines.append(
            f"Controls are a family of their own: p is step-down over {many(controls.size, 'control')} "
            f"(n = {len(controls.seeds)})."
        )
    if gone.size:
        careful = f"; and, because these look uneven, Holm's over their {EXPONENTIAL}" if gone.is_guarded else ""
        lines.append(
            "An effect survives a control under which it is decidedly smaller, seed by seed (step-down over "
            f"{many(gone.size, 'such difference')}, a family of their own, n = {len(gone.seeds)}{careful}"
            f"{_of_fates(left, gone)})."
        )
    return lines


def _fewer_seeds(found: Sequence[Comparison], cells: Mapping[int, JointTest], controls: JointTest) -> list[str]:
    """The joint tests that use fewer seeds than some cell's difference does."""
    lines = []
    for name, test in [("cells", test) for test in distinct(cells)] + [("controls", controls)]:
        mine = [item for item in found if item.cell.number in (cells if name == "cells" else controls.p)]
        if any(item.pairs > len(test.seeds) for item in mine if cells.get(item.cell.number, test) is test):
            lines.append(f"The joint test of the {name} uses the {len(test.seeds)} seeds that all of them completed.")
    return lines


def _untested(
    found: Sequence[Comparison], cells: Mapping[int, JointTest], controls: JointTest, *, waits: bool
) -> list[str]:
    """Who has too few seeds for a test; controls alone, where the same has been said of all cells."""
    few = [item for item in found if item.pairs and not item.cell.diverged]
    few = [item for item in few if item.cell.number not in {*cells, *controls.p}]
    if waits or not cells:
        few = [item for item in few if item.cell.role == "control"]
    return [f"{item.cell.name}: {many(item.pairs, 'paired seed')}, too few for the joint test." for item in few]


def _unlike_devices(devices: Mapping[str, int]) -> list[str]:
    if len(devices) < 2:
        return []
    each = ", ".join(f"{many} on {device}" for device, many in sorted(devices.items()))
    return [
        f"Jobs ran on unlike devices ({each}), which round otherwise, and a training may make much of that: neither "
        "differences within a seed nor speeds are the choice's alone."
    ]


def _without_value(cells: Sequence[Cell]) -> list[str]:
    """Jobs that recorded nothing of the metric, and those that wait."""
    lines = [
        f"{cell.name}: {many(cell.silent, 'completed job')} recorded no value of this metric."
        for cell in cells
        if cell.silent
    ]
    waiting = sum(cell.of - len(cell.values) - cell.failed - len(cell.diverged) - cell.silent for cell in cells)
    if waiting > 0:
        lines.append(f"{waiting} of {many(sum(cell.of for cell in cells), 'job')} not finished yet.")
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
    last = distinct(cells)[-1]
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
            f"{reference.name}: diverged in {len(reference.diverged)} of {many(reference.of, 'seed')}; differences "
            "to it are over the seeds that survived, so nothing is tested or marked."
        )
    for item in found:
        cell = item.cell
        if not cell.diverged:
            continue
        line = f"{cell.name}: diverged in {len(cell.diverged)} of {many(cell.of, 'seed')}, so no test and no mark"
        if item.imputed is not None:
            shown = fixed(item.imputed, decimals, signed=True)
            line += f"; with {value} in their place the mean difference would be {shown}"
        lines.append(line + ".")
    return lines


def _of_fates(left: JointTest, gone: JointTest) -> str:
    """How the intervals of what is left and of what is gone under controls are made, where they lean."""
    if left.lean == gone.lean == 0:
        return ""
    of_gone, of_left = (
        interval_kind(usual_interval(test, "their mean", "each one's own"), [len(test.seeds)]) for test in (gone, left)
    )
    return f"; intervals by {of_gone}" + ("" if of_left == of_gone else f", of what is left by {of_left}")
