"""The Hebbian bias dot. No settings."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def signal(prediction, value, threshold, channel, SETTINGS: tl.constexpr):
    """u = -v."""
    return -value


@triton.jit
def vjp(prediction, value, threshold, d_signal, channel, SETTINGS: tl.constexpr):
    """Nothing goes back to the prediction."""
    nothing = tl.zeros_like(d_signal)
    return nothing, -d_signal, nothing
