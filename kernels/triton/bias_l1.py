"""The sign of the residual, for the bias l1; its smooth forms are lp's. No settings."""

from __future__ import annotations

import triton
import triton.language as tl

from miras_search.kernels.triton.elementary import sign


@triton.jit
def signal(prediction, value, threshold, channel, SETTINGS: tl.constexpr):
    """u = sign(r)."""
    return sign(prediction - value)


@triton.jit
def vjp(prediction, value, threshold, d_signal, channel, SETTINGS: tl.constexpr):
    """It is flat."""
    nothing = tl.zeros_like(d_signal)
    return nothing, nothing, nothing
