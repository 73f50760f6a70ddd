"""Log cosh of the residual, for the bias logcosh. No settings."""

from __future__ import annotations

import triton
import triton.language as tl

from miras_search.kernels.triton.elementary import tanh


@triton.jit
def tanh_slope(x):
    """The derivative of tanh, 1 - tanh(x)^2, without the difference."""
    e = tl.exp(-2.0 * tl.abs(x))
    return 4.0 * e / ((1.0 + e) * (1.0 + e))


@triton.jit
def signal(prediction, value, threshold, channel, SETTINGS: tl.constexpr):
    """u = tanh(r)."""
    return tanh(prediction - value)


@triton.jit
def vjp(prediction, value, threshold, d_signal, channel, SETTINGS: tl.constexpr):
    """By the slope of tanh."""
    d_prediction = tanh_slope(prediction - value) * d_signal
    return d_prediction, -d_prediction, tl.zeros_like(d_signal)
