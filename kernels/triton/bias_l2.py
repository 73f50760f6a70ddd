"""The squared error, for the bias l2. SETTINGS: the slope, 1 (half) or 2 (full)."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def signal(prediction, value, threshold, channel, SETTINGS: tl.constexpr):
    """u = slope * r."""
    return SETTINGS[0] * (prediction - value)


@triton.jit
def vjp(prediction, value, threshold, d_signal, channel, SETTINGS: tl.constexpr):
    """Linear."""
    d_prediction = SETTINGS[0] * d_signal
    return d_prediction, -d_prediction, tl.zeros_like(d_signal)
