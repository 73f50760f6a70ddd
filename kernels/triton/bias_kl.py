"""The divergence of two softmaxes, for the bias kl. No settings."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def _softmax(x, channel):
    x = tl.where(channel, x, -float("inf"))
    e = tl.exp(x - tl.max(x, axis=1)[:, None])
    return e / tl.sum(e, axis=1)[:, None]


@triton.jit
def _back(x, channel, d_signal):
    s = _softmax(x, channel)
    return s * (d_signal - tl.sum(s * d_signal, axis=1)[:, None])


@triton.jit
def signal(prediction, value, threshold, channel, SETTINGS: tl.constexpr):
    """u = softmax(p) - softmax(v)."""
    return _softmax(prediction, channel) - _softmax(value, channel)


@triton.jit
def vjp(prediction, value, threshold, d_signal, channel, SETTINGS: tl.constexpr):
    """Through each softmax by its own values."""
    return _back(prediction, channel, d_signal), -_back(value, channel, d_signal), tl.zeros_like(d_signal)
