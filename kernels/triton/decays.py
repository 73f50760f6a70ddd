"""Products of gates inside a chunk, from their logarithms: one gate a head, and the gradients back to the logs.

Legend: C rows of a chunk (writes, padded), t the row (reader) and s the column (writer) of a C x C tile.
"""

from __future__ import annotations

from typing import Final

import triton
import triton.language as tl

from miras_search.kernels.triton.products import ones, product

# exp(-30) is zero beside 1 in float32; the clamp keeps a gate of exactly zero (log gate -inf) out of differences.
LOG_FLOOR: Final = tl.constexpr(-30.0)
# The same for gates that come as they are.
GATE_FLOOR: Final = tl.constexpr(9.357622968840175e-14)


@triton.jit
def spans(g, BLOCK_C: tl.constexpr, PRECISION: tl.constexpr):
    """Products of gates with logs g [C] (0 on padding rows).

    Returns the product up to each row [C], that after each row, that of the whole chunk, D_ts = prod_{s<i<=t} for
    s <= t else 0 [C, C], and its logarithm.
    """
    row = tl.arange(0, BLOCK_C)
    earlier = row[:, None] > row[None, :]
    upto = row[:, None] >= row[None, :]
    through = tl.exp(tl.sum(tl.where(upto, g[None, :], 0.0), axis=1))
    after = tl.exp(tl.sum(tl.where(earlier, g[:, None], 0.0), axis=0))
    # sum of g over s < i <= t as a product with a 0/1 triangle: differences of one running sum would lose the small
    # gates that follow a reset (a running sum near -1900 has steps of 1e-4).
    segment = product(ones(upto), tl.where(earlier, g[:, None], 0.0), PRECISION)
    between = tl.where(upto, tl.exp(segment), 0.0)
    return through, after, tl.exp(tl.sum(g, axis=0)), between, segment


@triton.jit
def shifted(g, through, between, segment, DECAYED: tl.constexpr, BLOCK_C: tl.constexpr):
    """The products at the weights where gradients are taken: one write earlier, faded by the row's own gate if DECAYED.

    Returns that of `through` [C], and D'_ts for s < t else 0 [C, C].
    """
    row = tl.arange(0, BLOCK_C)
    earlier = row[:, None] > row[None, :]
    if DECAYED:
        return through, tl.where(earlier, between, 0.0)
    else:
        before = tl.exp(tl.sum(tl.where(earlier, g[None, :], 0.0), axis=1))
        return before, tl.where(earlier, tl.exp(tl.where(earlier, segment - g[:, None], 0.0)), 0.0)


@triton.jit
def spans_vjp(d_segment, d_through, d_after, d_whole, BLOCK_C: tl.constexpr):
    """Gradient of g [C], from those of the logarithms of what `spans` returns.

    Row i takes part in the product up to t where i <= t, in D_ts where s < i <= t, in the product after s where s < i.
    """
    row = tl.arange(0, BLOCK_C)
    flow = d_through + tl.sum(d_segment, axis=1) - tl.sum(d_segment, axis=0)
    d_g = tl.sum(tl.where(row[:, None] >= row[None, :], flow[:, None], 0.0), axis=0)
    return d_g + tl.sum(tl.where(row[:, None] > row[None, :], d_after[None, :], 0.0), axis=1) + d_whole


@triton.jit
def gates_vjp(
    g, through, after, between, segment, d_through, d_after, d_whole, d_between,
    BLOCK_C: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Gradient of the gates themselves [C], not of their logs g, from those of what `spans` returns.

    A product without row i's factor is that up to the row before times that after i. It is formed so and never divided
    by the gate: of the gradient of a log, rounding is left where the gate is small.
    """
    before, between_before = shifted(g, through, between, segment, False, BLOCK_C)
    later = flipped(between, BLOCK_C)  # [i, t]: the product after i up to t
    d_gate = tl.sum(between_before * product(later, d_between, PRECISION), axis=1)
    d_gate += before * tl.sum(later * d_through[None, :], axis=1)
    return d_gate + after * (tl.sum(between_before * d_after[None, :], axis=1) + before * d_whole)


@triton.jit
def before_vjp(d_before, d_between_before, BLOCK_C: tl.constexpr):
    """What the shift by a row adds to `spans_vjp` where the gradient is taken before the row's own gate: gradient of
    g [C], from those of the logarithms; D' is in `d_segment` already.
    """
    row = tl.arange(0, BLOCK_C)
    later = row[:, None] > row[None, :]
    return tl.sum(tl.where(later, d_before[:, None], 0.0), axis=0) - tl.sum(d_between_before, axis=1)


@triton.jit
def flipped(x, BLOCK_C: tl.constexpr):
    """A lower triangular tile [C, C] transposed, by way of an elementwise product.

    dot(trans(x), y) with x from a dot was miscompiled on Hopper by some Triton versions.
    """
    row = tl.arange(0, BLOCK_C)
    return tl.where(row[:, None] <= row[None, :], tl.trans(x), 0.0)
