"""Elementary functions of float32 tiles that Triton's language lacks, for links and their derivatives.

The vendors' libraries have them, but not the CPU interpreter. Relative errors in float32 are at most 4e-7.
"""

from __future__ import annotations

from typing import Final

import triton
import triton.language as tl

HALF_PI: Final = tl.constexpr(1.5707963267948966)
_QUARTER_PI: Final = tl.constexpr(0.7853981633974483)
# Below this a power's base is taken as zero: its logarithm would not be finite.
_TINY: Final = tl.constexpr(1e-37)


@triton.jit
def at_least(x, least):
    """max(x, least), but NaN stays NaN: tl.maximum gives the other number, and a diverged training would look alive."""
    return tl.where(x < least, least, x)


@triton.jit
def at_most(x, most):
    """min(x, most), but NaN stays NaN."""
    return tl.where(x > most, most, x)


@triton.jit
def power(x, exponent):
    """x^exponent of numbers x >= 0; 0 at x = 0, so the exponent must be positive there. NaN stays NaN."""
    return tl.where(x <= _TINY, 0.0, tl.exp(exponent * tl.log(at_least(x, _TINY))))


@triton.jit
def sign(x):
    """-1, 0 or 1; NaN stays NaN."""
    return tl.where(x > 0, 1.0, tl.where(x < 0, -1.0, x))


@triton.jit
def tanh(x):
    """By the series near zero, where a quotient of exponentials would lose its digits."""
    s = x * x
    series = x * (1 + s * (-1 / 3 + s * (2 / 15 + s * (-17 / 315 + s * (62 / 2835 - s * (1382 / 155925))))))
    rest = tl.exp(-2 * tl.abs(x))
    return tl.where(tl.abs(x) < 0.3, series, sign(x) * (1 - rest) / (1 + rest))


@triton.jit
def sinh(x):
    """By the series near zero, as above."""
    s = x * x
    series = x * (1 + s * (1 / 6 + s * (1 / 120 + s * (1 / 5040 + s / 362880))))
    return tl.where(tl.abs(x) < 0.7, series, (tl.exp(x) - tl.exp(-x)) / 2)


@triton.jit
def cosh(x):
    """(exp(x) + exp(-x)) / 2."""
    return (tl.exp(x) + tl.exp(-x)) / 2


@triton.jit
def softplus(x):
    """log(1 + exp(x)), without overflow."""
    return at_least(x, 0.0) + tl.log(1 + tl.exp(-tl.abs(x)))


@triton.jit
def sigmoid(x):
    """1 / (1 + exp(-x)), without overflow."""
    return tl.exp(at_most(x, 0.0)) / (1 + tl.exp(-tl.abs(x)))


@triton.jit
def arctan(x):
    """By reduction to |x| <= tan(pi/8) and a polynomial of degree 9."""
    size = tl.abs(x)
    large = size > 2.414213562373095
    middle = (size > 0.4142135623730951) & (size <= 2.414213562373095)
    r = tl.where(large, -1 / at_least(size, 1.0), tl.where(middle, (size - 1) / (size + 1), size))
    s = r * r
    tail = ((0.0805374449538 * s - 0.138776856032) * s + 0.199777106478) * s - 0.333329491539
    angle = tl.where(large, HALF_PI, tl.where(middle, _QUARTER_PI, 0.0)) + r + r * s * tail
    return sign(x) * angle


@triton.jit
def total(x, AXIS: tl.constexpr):
    """The sum over rows (0), columns (1) or the whole tile (2), so that it broadcasts over the tile."""
    if AXIS == 0:
        return tl.sum(x, axis=0)[None, :]
    elif AXIS == 1:
        return tl.sum(x, axis=1)[:, None]
    else:
        return tl.sum(x)


@triton.jit
def largest(x, AXIS: tl.constexpr):
    """The maximum over the same."""
    if AXIS == 0:
        return tl.max(x, axis=0)[None, :]
    elif AXIS == 1:
        return tl.max(x, axis=1)[:, None]
    else:
        return tl.max(x)
