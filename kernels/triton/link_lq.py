"""The links of retention `lq`: an accumulator read through its own norm, over columns, rows or the whole matrix.

SETTINGS: the form, the norm's exponent s, a number, the axis and epsilon. Form `scaled` is x n^number, form `powered`
number * x (|x/n|^2 + epsilon^2)^(s/2 - 1), with n = sqrt(|x|_s^2 + epsilon^2).
"""

from __future__ import annotations

from typing import Final

import triton
import triton.language as tl

from miras_search.kernels.triton.elementary import at_least, at_most, largest, power, sign, total

_TINY: Final = tl.constexpr(1e-30)


@triton.jit
def _norms(x, SETTINGS: tl.constexpr):
    """|x|_s (tiny at x = 0) and n, from numbers divided by their largest, whose powers neither overflow nor vanish."""
    unit = at_least(largest(tl.abs(x), SETTINGS[3]), _TINY)
    sums = at_least(total(power(tl.abs(x) / unit, SETTINGS[1]), SETTINGS[3]), 1.0)
    plain = unit * power(sums, 1 / SETTINGS[1])
    # the larger leg first: the square of a small norm would vanish
    above = at_least(plain, SETTINGS[4])
    ratio = at_most(plain, SETTINGS[4]) / above
    return plain, above * tl.sqrt(1 + ratio * ratio)


@triton.jit
def link(z, cell, parameter, SETTINGS: tl.constexpr):
    """As the form says."""
    _, norm = _norms(z, SETTINGS)
    if SETTINGS[0] == "scaled":
        return z * power(norm, SETTINGS[2])
    else:
        ratio = z / norm
        return SETTINGS[2] * z * power(ratio * ratio + SETTINGS[4] * SETTINGS[4], SETTINGS[1] / 2 - 1)


@triton.jit
def link_vjp(z, w, cell, parameter, d_w, SETTINGS: tl.constexpr):
    """Entry by entry, and through the norm: dn/dx = (|x|_s/n) sign(x) (|x|/|x|_s)^(s-1)."""
    plain, norm = _norms(z, SETTINGS)
    slope = plain / norm * sign(z) * power(tl.abs(z) / plain, SETTINGS[1] - 1)
    if SETTINGS[0] == "scaled":
        scale = power(norm, SETTINGS[2])
        d_norm = SETTINGS[2] * (scale / norm) * total(d_w * z, SETTINGS[3])
        return d_w * scale + d_norm * slope, 0.0
    else:
        ratio = z / norm
        square = ratio * ratio + SETTINGS[4] * SETTINGS[4]
        factor = SETTINGS[2] * power(square, SETTINGS[1] / 2 - 1)
        along = d_w * factor * (SETTINGS[1] - 2) * (ratio * ratio / square)
        d_norm = -total(along * ratio, SETTINGS[3])
        return d_w * factor + along + d_norm * slope, 0.0
