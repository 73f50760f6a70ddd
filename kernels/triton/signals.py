"""The bias as a pair of jit functions: the signal u = d loss / d prediction, and the vjp of that signal.

A kernel takes the pair as compile-time constants, so one kernel body serves every bias that is written this way.
The vjp is needed because the outer loss is differentiated through the inner gradient.

Legend: C tokens of a chunk (padded), V value channels (padded). `prediction`, `value`, `d_signal` are float32 [C, V],
`threshold` is float32 [C] (zeros where the caller gave none).

    signal(prediction, value, threshold) -> u [C, V]
    vjp(prediction, value, threshold, d_signal) -> (d_prediction [C, V], d_value [C, V], d_threshold [C])

Padding channels and tokens hold prediction = value = 0 there. A pair must be finite at that point, and such channels
must not change the others (a softmax over channels would need a mask; no pair here has one).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

import triton
import triton.language as tl

# Keeps sqrt differentiable at a zero residual; the torch bias and the oracle of the tests use the same value.
_NORM_EPS: Final = tl.constexpr(1e-12)


class BiasPair(NamedTuple):
    """Jit functions of one bias: `signal`, its `vjp`, and whether they read the threshold."""

    signal: Callable[..., object]
    vjp: Callable[..., object]
    uses_threshold: bool = False


@triton.jit
def l2_signal(prediction, value, threshold):
    """Half squared error: u = p - v."""
    return prediction - value


@triton.jit
def l2_vjp(prediction, value, threshold, d_signal):
    """Pull `d_signal` back through `l2_signal`."""
    return d_signal, -d_signal, tl.zeros_like(threshold)


@triton.jit
def huber_norm_signal(prediction, value, threshold):
    """Huber of the residual norm: u = r * min(1, threshold / |r|)."""
    residual = prediction - value
    norm = tl.sqrt(tl.sum(residual * residual, axis=1) + _NORM_EPS)
    return residual * tl.minimum(threshold / norm, 1.0)[:, None]


@triton.jit
def huber_norm_vjp(prediction, value, threshold, d_signal):
    """Pull `d_signal` back through `huber_norm_signal`; outside the threshold only the direction of r matters."""
    residual = prediction - value
    norm = tl.sqrt(tl.sum(residual * residual, axis=1) + _NORM_EPS)
    outside = threshold < norm
    scale = tl.where(outside, threshold / norm, 1.0)
    # r is divided by its norm first: norm**3 would leave the float32 range for residuals that are still finite.
    direction = residual / norm[:, None]
    along = tl.where(outside, tl.sum(direction * d_signal, axis=1), 0.0)
    d_prediction = scale[:, None] * (d_signal - along[:, None] * direction)
    return d_prediction, -d_prediction, along


BIASES: Final[dict[str, BiasPair]] = {
    "l2": BiasPair(l2_signal, l2_vjp),
    "huber_norm": BiasPair(huber_norm_signal, huber_norm_vjp, uses_threshold=True),
}
