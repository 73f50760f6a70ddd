"""What the bodies of all kernels share: which memory a program runs, where the cells of its tile lie, signals' limits.

Legend: B batch, H heads, K key dim, V value dim, both padded to powers of two in tiles.
"""

from __future__ import annotations

from typing import Final

import triton
import triton.language as tl

# True when jit bodies were built for the CPU interpreter (decided when triton decorates them).
INTERPRETED: Final[bool] = bool(triton.knobs.runtime.interpret)

# Given at every launch: a product and a sum may be one operation, which Triton 3.9 warns of where it is not said.
FUSED: Final = {"enable_fp_fusion": True}

# What the torch paths hold signals in where gradients are not exact (recurrence.SIGNAL_LIMIT).
_LIMIT: Final = tl.constexpr(1e6)


@triton.jit
def memory_of(H):
    """The memory that a program runs: its place in [B, H], its batch and its head."""
    program = tl.program_id(0).to(tl.int64)
    return program, program // H, program % H


@triton.jit
def cells_of(value, K: tl.constexpr, V: tl.constexpr, BLOCK_K: tl.constexpr):
    """Key channels [K], where the value channels `value` exist [1, V], and the cells [K, V]: whether they exist, and
    their places in a state.
    """
    key = tl.arange(0, BLOCK_K)
    channel = (value < V)[None, :]
    return key, channel, (key < K)[:, None] & channel, key[:, None] * V + value[None, :]


@triton.jit
def limited(u):
    """A signal within the limit."""
    # Comparisons rather than tl.clamp: NaN must stay NaN, or a diverged training would look alive.
    return tl.where(u > _LIMIT, _LIMIT, tl.where(u < -_LIMIT, -_LIMIT, u))


@triton.jit
def inside(u):
    """Where the limit lets a gradient pass."""
    return (u > -_LIMIT) & (u < _LIMIT)
