"""The thresholds of retention `elastic_net`: of the accumulator as it is read (link), or of the weights in place.

SETTINGS: the threshold's name, whether shrink is learned (its logarithm is the parameter), shrink where it is not, and
the sharpness of the smooth one.
"""

from __future__ import annotations

from typing import Final

import triton
import triton.language as tl

from miras_search.kernels.triton.elementary import HALF_PI, arctan, sigmoid, sign, softplus

_FLOOR: Final = tl.constexpr(1e-12)


@triton.jit
def _shrink(parameter, SETTINGS: tl.constexpr):
    if SETTINGS[1]:
        return tl.exp(parameter)
    else:
        return SETTINGS[2]


@triton.jit
def _thresholded(z, y, SETTINGS: tl.constexpr):
    if SETTINGS[0] == "hard":
        return tl.where(tl.abs(z) < y, 0.0, z - sign(z) * y)
    elif SETTINGS[0] == "smooth":
        return (softplus(SETTINGS[3] * (z - y)) - softplus(SETTINGS[3] * (-z - y))) / SETTINGS[3]
    else:
        return tl.abs(z) * arctan(z / (y + _FLOOR)) / HALF_PI


@triton.jit
def _slopes(z, y, SETTINGS: tl.constexpr):
    """Derivatives by z and by y."""
    if SETTINGS[0] == "hard":
        kept = tl.where(tl.abs(z) < y, 0.0, 1.0)
        return kept, -sign(z) * kept
    elif SETTINGS[0] == "smooth":
        above, below = sigmoid(SETTINGS[3] * (z - y)), sigmoid(SETTINGS[3] * (-z - y))
        return above + below, below - above
    else:
        width = y + _FLOOR
        ratio = z / width
        bell = ratio / (1 + ratio * ratio) / HALF_PI  # |z| d/dz of the angle is sign(z) times this
        return sign(z) * (arctan(ratio) / HALF_PI + bell), -tl.abs(ratio) * bell


@triton.jit
def link(z, cell, parameter, SETTINGS: tl.constexpr):
    """S_shrink(z)."""
    return _thresholded(z, _shrink(parameter, SETTINGS), SETTINGS)


@triton.jit
def link_vjp(z, w, cell, parameter, d_w, SETTINGS: tl.constexpr):
    """Through z and through the logarithm of shrink."""
    shrink = _shrink(parameter, SETTINGS)
    by_z, by_y = _slopes(z, shrink, SETTINGS)
    return d_w * by_z, tl.sum(tl.where(cell, d_w * by_y, 0.0)) * shrink


@triton.jit
def shrunk(z, step, cell, parameter, SETTINGS: tl.constexpr):
    """S_(|step| shrink)(z)."""
    return _thresholded(z, tl.abs(step) * _shrink(parameter, SETTINGS), SETTINGS)


@triton.jit
def shrunk_vjp(z, step, cell, parameter, d_w, SETTINGS: tl.constexpr):
    """Through z, the step and the logarithm of shrink."""
    shrink = _shrink(parameter, SETTINGS)
    by_z, by_y = _slopes(z, tl.abs(step) * shrink, SETTINGS)
    d_y = tl.where(cell, d_w * by_y, 0.0)
    return d_w * by_z, d_y * sign(step) * shrink, tl.sum(d_y * tl.abs(step)) * shrink
