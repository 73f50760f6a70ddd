"""The p-th power error in its two smoothings, for the biases lp and l1.

SETTINGS: the smoothing, p, the factor s p, epsilon, and the sharpness a.
"""

from __future__ import annotations

import triton
import triton.language as tl

from miras_search.kernels.triton.bias_logcosh import tanh_slope
from miras_search.kernels.triton.elementary import power, tanh


@triton.jit
def signal(prediction, value, threshold, channel, SETTINGS: tl.constexpr):
    """u = s p r (r^2 + eps)^(p/2 - 1), or s p tanh(a r) (r^2 + eps)^((p - 1)/2)."""
    r = prediction - value
    x = r * r + SETTINGS[3]
    if SETTINGS[0] == "epsilon":
        return SETTINGS[2] * r * power(x, SETTINGS[1] / 2 - 1)
    else:
        return SETTINGS[2] * tanh(SETTINGS[4] * r) * power(x, (SETTINGS[1] - 1) / 2)


@triton.jit
def vjp(prediction, value, threshold, d_signal, channel, SETTINGS: tl.constexpr):
    """By the slope of the signal in r; quotients like r^2/x are bounded where their parts may not be."""
    r = prediction - value
    x = r * r + SETTINGS[3]
    if SETTINGS[0] == "epsilon":
        slope = power(x, SETTINGS[1] / 2 - 1) * (1.0 + (SETTINGS[1] - 2) * (r * r / x))
    else:
        a = SETTINGS[4]
        slope = power(x, (SETTINGS[1] - 1) / 2) * (a * tanh_slope(a * r) + (SETTINGS[1] - 1) * tanh(a * r) * (r / x))
    d_prediction = SETTINGS[2] * slope * d_signal
    return d_prediction, -d_prediction, tl.zeros_like(d_signal)
