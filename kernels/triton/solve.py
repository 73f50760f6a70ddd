"""The inverse of a unit lower triangular tile, for exact gradients whose signal is linear in the prediction."""

from __future__ import annotations

import triton
import triton.language as tl

from miras_search.kernels.triton.products import product


@triton.jit
def unit_inverse(n, BLOCK_C: tl.constexpr, PRECISION: tl.constexpr):
    """(I + N)^-1 for a strictly lower triangular N [C, C], C up to 64.

    Blocks of 16 on the diagonal by forward substitution, all at once; they are merged by a Neumann series, which ends
    after as many terms as there are blocks. A series over rows would end too, but its terms grow like binomials and
    cancel.
    """
    row = tl.arange(0, BLOCK_C)
    t, s = row[:, None], row[None, :]
    same = t // 16 == s // 16
    inner = tl.where(same, n, 0.0)
    x = tl.where(t == s, 1.0, 0.0)
    for j in range(1, 16):
        # Row j of every block: blocks share no columns, so one vector holds the rows of all.
        current = (t % 16 == j) & same
        weights = tl.sum(tl.where(current, inner, 0.0), axis=0)
        x -= tl.where(current, tl.sum(weights[:, None] * x, axis=0)[None, :], 0.0)
    if BLOCK_C > 16:
        m = product(x, tl.where(same, 0.0, n), PRECISION)
        if BLOCK_C > 32:
            x += product(m, product(m, x, PRECISION), PRECISION)
        x -= product(m, x, PRECISION)
    return x
