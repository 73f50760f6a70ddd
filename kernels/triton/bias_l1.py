"""The sign of the residual, for the bias l1; its smooth forms are lp's. No settings."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def sign(x):
    """-1, 0 or 1; NaN stays NaN, or a diverged training would look alive."""
    return tl.where(x > 0.0, 1.0, tl.where(x < 0.0, -1.0, x))


@triton.jit
def signal(prediction, value, threshold, channel, SETTINGS: tl.constexpr):
    """u = sign(r)."""
    return sign(prediction - value)


@triton.jit
def vjp(prediction, value, threshold, d_signal, channel, SETTINGS: tl.constexpr):
    """It is flat."""
    nothing = tl.zeros_like(d_signal)
    return nothing, nothing, nothing
