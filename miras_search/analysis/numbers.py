"""How numbers are written: digits that the spread supports, short counts, bytes, p values.

Every renderer and every sentence formats through here, so that one table never shows one number in two ways.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

ROUNDING = 1e-9  # an interval narrower than this share of its ends is a point
MORE = 2  # decimals that the end of an interval may ask for beyond its width's
NOTHING = "-"  # shown where a number has no meaning or is not there yet


def decimals_for(spreads: Iterable[float | None], values: Iterable[float | None] = ()) -> int:
    """Decimals for a column: at least the first digit of the typical spread, two of them up to three decimals.

    Without any spread, a hundredth of the largest value stands in for it.
    """
    positive = sorted(spread for spread in spreads if spread is not None and spread > 0 and math.isfinite(spread))
    if positive:
        typical = positive[len(positive) // 2]
    else:
        typical = 0.01 * max((abs(value) for value in values if value is not None), default=0.0)
    if typical <= 0:
        return 3
    first = -math.floor(math.log10(typical))
    return min(max(first, min(first + 1, 3), 0), 9)


def interval_decimals(low: float, high: float) -> int:
    """Decimals for an interval in a sentence: one digit of its half width, two where that digit is a 1; and so many
    that an end beside 0 is not written as 0, which would deny what is decided.
    """
    half = (high - low) / 2.0
    if half <= ROUNDING * max(abs(low), abs(high)):
        return 3
    first = -math.floor(math.log10(half))
    leading = half * 10.0**first
    found = max(first + (1 if leading < 2 else 0), 0)
    for end in (low, high):
        if end and round(end, found) == 0:
            found = max(found, min(-math.floor(math.log10(abs(end))), found + MORE))
    return min(found, 9)


def fixed(value: float | None, decimals: int, *, signed: bool = False) -> str:
    """A number with `decimals` decimals; never a negative zero, but a signed one keeps the sign that it rounds away."""
    if value is None:
        return NOTHING
    return f"{value + 0.0:+.{decimals}f}" if signed else f"{round(value, decimals) + 0.0:.{decimals}f}"


def end_text(value: float, decimals: int) -> str:
    """An end of an interval: one below 0 that rounds to it keeps its sign, or nobody could tell on which side it is."""
    return f"{value + 0.0:.{decimals}f}"


def measured(value: float | None, low: float | None, high: float | None) -> str:
    """A difference with its interval: +0.21 [0.17, 0.25]; alone where it has none."""
    if low is None or high is None:
        return fixed(value, 3, signed=True)
    digits = interval_decimals(low, high)
    return f"{fixed(value, digits, signed=True)} [{end_text(low, digits)}, {end_text(high, digits)}]"


def plain(value: float) -> str:
    """A number as short as it can be: 0.01, 0.005, 20."""
    return f"{value:.6g}"


def p_text(p: float | None) -> str:
    """A p value with three decimals, or "<0.001"; four, rounded down, where three would reach the limit of a mark."""
    if p is None:
        return NOTHING
    for limit in (0.05, 0.01):
        if p < limit <= round(p, 3):
            return f"{min(p, limit - 1e-4):.4f}"
    return "<0.001" if p < 0.0005 else f"{p:.3f}"


def count_text(value: float | None) -> str:
    """A count with three digits and k, M or G: 12.3k."""
    if value is None:
        return NOTHING
    for size, suffix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= 0.9995 * size:
            return _three_digits(value / size) + suffix
    return f"{value:.0f}" if float(value).is_integer() else _three_digits(value)


def bytes_text(value: float | None) -> str:
    """A size with three digits and B, KiB, MiB or GiB."""
    if value is None:
        return NOTHING
    for size, suffix in ((2**30, " GiB"), (2**20, " MiB"), (2**10, " KiB")):
        if abs(value) >= 0.9995 * size:
            return _three_digits(value / size) + suffix
    return f"{value:.0f} B"


def _three_digits(value: float) -> str:
    if abs(value) >= 99.95:
        return f"{value:.0f}"
    return f"{value:.1f}" if abs(value) >= 9.995 else f"{value:.2f}"
