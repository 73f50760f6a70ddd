"""One sentence a row: what the study says about the cell, and what it would take to say more.

"Decided" needs both the corrected test (p < .05) and an interval that leaves out zero. Anything less says "not
decided" and how many seeds more would narrow the interval to a width that matters.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from miras_search.analysis.comparison import Comparison
from miras_search.analysis.numbers import ROUNDING, fixed, measured, p_text, plain
from miras_search.analysis.paired import more_seeds, t_interval
from miras_search.metrics import Metric
from miras_search.seeds import smallest_p

ALPHA = 0.05
MANY_SEEDS = 999  # an estimate beyond this is only "more than"


@dataclass(frozen=True, slots=True)
class Limits:
    """Where a metric cannot tell cells apart any more; None where it has no such end."""

    floor: float | None = None
    ceiling: float | None = None

    def side(self, values: Iterable[float]) -> Literal["floor", "ceiling"] | None:
        """The end at which all the values lie, or None."""
        known = list(values)
        if not known:
            return None
        if self.floor is not None and max(known) <= self.floor:
            return "floor"
        if self.ceiling is not None and min(known) >= self.ceiling:
            return "ceiling"
        return None


def censored_side(found: Comparison, limits: Limits) -> Literal["floor", "ceiling"] | None:
    """The end at which both the cell and its reference lie with all their values, or None."""
    side = limits.side(found.cell.values.values())
    return side if side == limits.side(found.reference.values.values()) else None


def seeds_needed() -> int:
    """The fewest seeds whose smallest p lies below .05: six."""
    n = 1
    while smallest_p(n) >= ALPHA:
        n += 1
    return n


def default_margin(metric: Metric, reference_mean: float | None) -> float:
    """The half width worth paying for: 0.01 of accuracy, else about 1 % of the reference with one digit."""
    if metric.name == "accuracy" or not reference_mean:
        return 0.01
    return _one_digit(0.01 * abs(reference_mean))


def verdict(
    found: Comparison,
    *,
    metric: Metric,
    limits: Limits,
    p: float | None,
    tested: int,
    margin: float,
    decimals: int = 3,
) -> str:
    """The sentence of one row.

    `p` is the step-down p (None without a test), `tested` the number of seeds in that test, `margin` the half width
    worth aiming at, `decimals` those of the table (for the imputed difference, which has no interval).
    """
    cell, reference = found.cell, found.reference
    if cell.diverged:
        return f"{cell.name}: diverged in {len(cell.diverged)} of {cell.of}{_with_worst(found, decimals)}"
    if not cell.values:
        return f"{cell.name}: no result, {_why_empty(found)}"
    pair = f"{cell.name} vs {reference.name}"
    if reference.diverged:
        count = f"{len(reference.diverged)} of {reference.of}"
        return f"{pair}: not decided; {reference.name} diverged in {count}{_with_worst(found, decimals)}"
    side = censored_side(found, limits)
    if side is not None:
        bound = limits.floor if side == "floor" else limits.ceiling
        sign = "<=" if side == "floor" else ">="
        return f"{pair}: censored, all values of both at the {side} ({sign} {plain(bound or 0.0)})"
    if found.difference is None or found.ci_low is None or found.ci_high is None:
        return f"{pair}: not decided; {found.pairs} paired seed{'' if found.pairs == 1 else 's'} so far"
    if not any(found.differences):
        return f"{pair}: no difference in any of {found.pairs} seeds"
    spans_zero = found.ci_low <= 0.0 <= found.ci_high
    if is_decided(found, p):
        sign = ">" if found.difference > 0 else "<"
        hint = "" if metric.direction == "maximize" else " (lower is better)"
        return f"{cell.name} {sign} {reference.name}: {_measured(found)}, decided{hint}"
    return f"{pair}: not decided; {_undecided(found, p=p, tested=tested, margin=margin, spans_zero=spans_zero)}"


def is_decided(found: Comparison, p: float | None, level: float = ALPHA) -> bool:
    """Whether the corrected test, at its level, and the 95 % interval agree that there is a difference."""
    if p is None or p >= level or found.ci_low is None or found.ci_high is None:
        return False
    return any(found.differences) and not found.ci_low <= 0.0 <= found.ci_high


def _undecided(found: Comparison, *, p: float | None, tested: int, margin: float, spans_zero: bool) -> str:
    """Why it is open, where that is not plain from the row, and the seeds to add."""
    reach = _reach(found)
    aim = margin if reach > margin or reach == 0 else _one_digit(reach / 2.0)
    wanted = _more_seeds(found, aim, reach)
    missing = seeds_needed() - tested
    reasons: list[str] = []
    if missing > 0:
        reasons.append(f"{tested} seed{'' if tested == 1 else 's'} cannot reach p < {plain(ALPHA)}")
        if reach <= margin or wanted <= missing:
            return f"{reasons[0]}; at least {missing} more"
    elif p is None:
        reasons.append(f"{_measured(found)} alone, without a joint test")
    elif not spans_zero:
        reasons.append(f"{_measured(found)} alone, but p = {p_text(p)} in the whole family")
    elif p < ALPHA:
        reasons.append(f"p = {p_text(p)}, but the interval spans zero")
    elif reach <= margin:
        reasons.append(f"{_measured(found)}, already within \N{PLUS-MINUS SIGN}{plain(margin)} of its mean")
    if reach > 0:
        count = f"more than {MANY_SEEDS}" if wanted > MANY_SEEDS else f"about {wanted}"
        seeds = "seed" if wanted == 1 else "seeds"
        reasons.append(f"{count} more {seeds} for \N{PLUS-MINUS SIGN}{plain(aim)}")
    return "; ".join(reasons)


def _measured(found: Comparison) -> str:
    """The difference with its interval: +0.21 [0.17, 0.25]."""
    return measured(found.difference, found.ci_low or 0.0, found.ci_high or 0.0)


def _reach(found: Comparison) -> float:
    """How far the interval reaches from the difference, to its longer side where it leans."""
    middle, low, high = found.difference or 0.0, found.ci_low or 0.0, found.ci_high or 0.0
    reach = max(high - middle, middle - low)
    return reach if reach > ROUNDING * max(abs(low), abs(high)) else 0.0  # equal differences, equal but for rounding


def _more_seeds(found: Comparison, aim: float, reach: float) -> int:
    """About how many more seeds bring that to `aim`, as Student's interval narrows, whichever interval is shown."""
    if reach == 0:
        return 0
    low, high = t_interval(found.differences)
    return more_seeds(found.differences, aim * (high - low) / 2.0 / reach)


def _with_worst(found: Comparison, decimals: int) -> str:
    if found.imputed is None:
        return ""
    return f"; difference {fixed(found.imputed, decimals, signed=True)} with the worst attained value in their place"


def _why_empty(found: Comparison) -> str:
    cell = found.cell
    if cell.failed:
        return f"{cell.failed} of {cell.of} failed"
    return f"0 of {cell.of} seeds finished"


def _one_digit(value: float) -> float:
    """The value rounded down to one significant digit."""
    unit = 10.0 ** math.floor(math.log10(value))
    return float(f"{math.floor(value / unit + 1e-9) * unit:.1g}")
