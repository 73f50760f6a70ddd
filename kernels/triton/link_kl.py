"""The link of retention `kl`: a scaled softmax over columns (axis 0), rows (1) or the whole matrix (2).

SETTINGS: the axis, whether the scale is learned (its logarithm is the parameter), and the scale where it is not.
"""

from __future__ import annotations

import triton
import triton.language as tl

from miras_search.kernels.triton.elementary import largest, total


@triton.jit
def _scale(parameter, SETTINGS: tl.constexpr):
    if SETTINGS[1]:
        return tl.exp(parameter)
    else:
        return SETTINGS[2]


@triton.jit
def link(z, cell, parameter, SETTINGS: tl.constexpr):
    """c softmax(z)."""
    top = largest(tl.where(cell, z, -float("inf")), SETTINGS[0])
    top = tl.where(top == -float("inf"), 0.0, top)  # a slice of padding
    weights = tl.where(cell, tl.exp(z - top), 0.0)
    mass = total(weights, SETTINGS[0])
    return _scale(parameter, SETTINGS) * weights / tl.where(mass > 0, mass, 1.0)


@triton.jit
def link_vjp(z, w, cell, parameter, d_w, SETTINGS: tl.constexpr):
    """Through the softmax by its own values."""
    weighted = w * d_w
    mean = total(weighted, SETTINGS[0]) / _scale(parameter, SETTINGS)
    return weighted - w * mean, tl.sum(weighted)
