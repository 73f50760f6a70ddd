"""Products of tiles, in the arithmetic that a launch asks for.

"ieee": float32 by multiply-add. "split": on tensor cores, a float32 operand as the sum of two bfloat16 numbers, without
the product of the two small ones: 16 bits of an operand count, and sums stay float32. An operand that is bfloat16 by
type, as loaded keys may be, is one number, and nothing of it is lost.
"""

from __future__ import annotations

import triton
import triton.language as tl

from miras_search.kernels.triton.tiles import INTERPRETED

_INTERPRETED = tl.constexpr(INTERPRETED)


@triton.jit
def ones(mask):
    """1 where the mask holds, else 0: bfloat16, so that products with it take one number of it."""
    return mask.to(tl.float32).to(tl.bfloat16)  # in two steps: the interpreter has no way from a truth value


@triton.jit
def _high(x):
    """x rounded to bfloat16."""
    # The interpreter would multiply bfloat16's bits as whole numbers.
    return x.to(tl.bfloat16).to(tl.float32) if _INTERPRETED else x.to(tl.bfloat16)


@triton.jit
def _low(x):
    """What that leaves, rounded as well."""
    return _high(x - x.to(tl.bfloat16).to(tl.float32))


@triton.jit
def product(a, b, PRECISION: tl.constexpr):
    """a @ b in float32, of tiles in float32 or bfloat16."""
    if PRECISION == "split":
        x = _high(a)
        y = _high(b)
        total = tl.zeros([a.shape[0], b.shape[1]], dtype=tl.float32)
        if a.dtype == tl.float32:
            total = tl.dot(_low(a), y, total)
        if b.dtype == tl.float32:
            total = tl.dot(x, _low(b), total)
        return tl.dot(x, y, total)
    else:
        return tl.dot(a.to(tl.float32), b.to(tl.float32), input_precision=PRECISION)
