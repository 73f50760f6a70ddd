"""Huber's family, for the bias huber. SETTINGS: the form. d is the threshold."""

from __future__ import annotations

from typing import Final

import triton
import triton.language as tl

from miras_search.kernels.triton.elementary import at_least, at_most, sign

# Those of the torch bias: a norm whose gradient at 0 is 0, and a threshold that may be divided by.
_EPS: Final = tl.constexpr(1e-12)
_FLOOR: Final = tl.constexpr(1e-12)


@triton.jit
def residual_norm(r):
    """|r| [C, 1], differentiable at 0."""
    return tl.sqrt(tl.sum(r * r, axis=1) + _EPS)[:, None]


@triton.jit
def _shrink(x, FORM: tl.constexpr):
    """1/sqrt(1 + x^2) for x = r/d, per channel or of the norm."""
    if FORM == "pseudo":
        return 1.0 / tl.sqrt(1.0 + x * x)
    else:
        return 1.0 / tl.sqrt(1.0 + tl.sum(x * x, axis=1)[:, None])


@triton.jit
def signal(prediction, value, threshold, channel, SETTINGS: tl.constexpr):
    """As the equation of the form says."""
    r = prediction - value
    if SETTINGS[0] == "coordinate":
        clipped = tl.where(r > threshold, threshold, tl.where(r < -threshold, -threshold, r))
        return tl.where(threshold == threshold, clipped, threshold)  # NaN compares false, and would clip nothing
    elif SETTINGS[0] == "norm":
        return r * at_most(threshold / residual_norm(r), 1.0)
    elif SETTINGS[0] == "switch":
        return tl.where(residual_norm(r) <= threshold, r, threshold * sign(r))
    else:
        return r * _shrink(r / at_least(threshold, _FLOOR), SETTINGS[0])


@triton.jit
def vjp(prediction, value, threshold, d_signal, channel, SETTINGS: tl.constexpr):
    """By cases of the form; r is divided by its size first, as its powers may leave the float32 range."""
    r = prediction - value
    if SETTINGS[0] == "coordinate":
        above, below = r > threshold, r < -threshold
        d_prediction = tl.where(above | below, 0.0, d_signal)
        d_threshold = tl.where(above, d_signal, tl.where(below, -d_signal, 0.0))
    elif SETTINGS[0] == "norm":
        norm = residual_norm(r)
        outside = threshold < norm
        direction = r / norm
        d_threshold = tl.where(outside, direction * d_signal, 0.0)
        along = tl.sum(d_threshold, axis=1)[:, None]
        d_prediction = tl.where(outside, threshold / norm, 1.0) * (d_signal - along * direction)
    elif SETTINGS[0] == "switch":
        inside = residual_norm(r) <= threshold
        d_prediction = tl.where(inside, d_signal, 0.0)
        d_threshold = tl.where(inside, 0.0, sign(r) * d_signal)
    else:
        x = r / at_least(threshold, _FLOOR)
        shrink = _shrink(x, SETTINGS[0])
        share = x * shrink  # at most 1
        along = share * d_signal
        if SETTINGS[0] == "pseudo":
            d_prediction = shrink * (d_signal - along * share)
            d_threshold = along * share * share
        else:
            d_prediction = shrink * (d_signal - tl.sum(along, axis=1)[:, None] * share)
            d_threshold = along * tl.sum(share * share, axis=1)[:, None]
        d_threshold = tl.where(threshold >= _FLOOR, d_threshold, 0.0)
    return d_prediction, -d_prediction, d_threshold
