"""The worst case over shifts of the value, for the bias value_shift. No settings; D is the threshold."""

from __future__ import annotations

import triton
import triton.language as tl

from miras_search.kernels.triton.bias_huber import residual_norm


@triton.jit
def signal(prediction, value, threshold, channel, SETTINGS: tl.constexpr):
    """u = r + D r/|r|."""
    r = prediction - value
    return r + threshold * (r / residual_norm(r))


@triton.jit
def vjp(prediction, value, threshold, d_signal, channel, SETTINGS: tl.constexpr):
    """By the slope of r/|r|."""
    r = prediction - value
    norm = residual_norm(r)
    direction = r / norm
    along = direction * d_signal
    d_prediction = d_signal + threshold / norm * (d_signal - tl.sum(along, axis=1)[:, None] * direction)
    return d_prediction, -d_prediction, along
