"""The links of retention `bregman`: entry by entry, the inverse slope of a potential.

SETTINGS: the potential's name; the width b of arcsinh, or the exponent's half ((1/(r-1) - 1)/2) and epsilon of power.
"""

from __future__ import annotations

from typing import Final

import triton
import triton.language as tl

from miras_search.kernels.triton.elementary import at_least, at_most, cosh, power, sigmoid, sinh, tanh

# The torch link's: exp(30) is 1e13, whose square is still finite.
_CEILING: Final = tl.constexpr(30.0)


@triton.jit
def link(z, cell, parameter, SETTINGS: tl.constexpr):
    """(f')^-1(z)."""
    if SETTINGS[0] == "logit":
        return sigmoid(z)
    elif SETTINGS[0] == "tanh":
        return tanh(z)
    elif SETTINGS[0] == "arcsinh":
        return SETTINGS[1] * sinh(at_least(at_most(z, _CEILING), -_CEILING))
    elif SETTINGS[0] == "entropy":
        return tl.exp(at_most(z, _CEILING))
    else:
        return z * power(z * z + SETTINGS[2], SETTINGS[1])


@triton.jit
def link_vjp(z, w, cell, parameter, d_w, SETTINGS: tl.constexpr):
    """Times the slope of the link."""
    if SETTINGS[0] == "logit":
        slope = w * sigmoid(-z)
    elif SETTINGS[0] == "tanh":
        slope = 1 - w * w
    elif SETTINGS[0] == "arcsinh":
        slope = tl.where(tl.abs(z) <= _CEILING, SETTINGS[1] * cosh(at_least(at_most(z, _CEILING), -_CEILING)), 0.0)
    elif SETTINGS[0] == "entropy":
        slope = tl.where(z <= _CEILING, w, 0.0)
    else:
        square = z * z + SETTINGS[2]
        slope = power(square, SETTINGS[1]) * (1 + 2 * SETTINGS[1] * (z * z / square))
    return d_w * slope, 0.0
