"""What the token loop and the decode step share: gates over a tile, the weights in force, one write.

Legend: K key dim, V value dim, both padded to powers of two in tiles. `key` and `value` are aranges over the padded
axes, `cell` [K, V] is False on padding. A gate's scope says what has a value of its own: the head (a number), key or
value channels (K or V numbers), or key_value (K + V numbers, whose product it is).
"""

from __future__ import annotations

import triton
import triton.language as tl

from miras_search.kernels.triton.tiles import limited


@triton.jit
def gate(pointer, place, key, value, K: tl.constexpr, V: tl.constexpr, SCOPE: tl.constexpr, NEUTRAL: tl.constexpr):
    """A gate's factors of rows [K] and of columns [V] at a token; NEUTRAL where it has none, and on padding."""
    rows = tl.full(key.shape, NEUTRAL, tl.float32)
    cols = tl.full(value.shape, NEUTRAL, tl.float32)
    if SCOPE == "head":
        rows = rows * 0 + tl.load(pointer + place)
    elif SCOPE == "key":
        rows = tl.load(pointer + place * K + key, mask=key < K, other=NEUTRAL)
    elif SCOPE == "value":
        cols = tl.load(pointer + place * V + value, mask=value < V, other=NEUTRAL)
    else:
        rows = tl.load(pointer + place * (K + V) + key, mask=key < K, other=NEUTRAL)
        cols = tl.load(pointer + place * (K + V) + K + value, mask=value < V, other=NEUTRAL)
    return rows, cols


@triton.jit
def only(mask, flag):
    """The mask where a scalar flag is true. Not `mask & flag`: the interpreter makes integers of such a mask."""
    return tl.where(flag, mask, mask != mask)


@triton.jit
def put_gate(
    pointer, place, d_rows, d_cols, live, key, value, K: tl.constexpr, V: tl.constexpr, SCOPE: tl.constexpr
):  # fmt: skip
    """Store a gate's gradient, given those of its rows [K] and of its columns [V]; `live` says whether."""
    if SCOPE == "head":
        one = tl.arange(0, 1)
        tl.store(pointer + place + one, tl.sum(d_rows), mask=only(one == 0, live))
    elif SCOPE == "key":
        tl.store(pointer + place * K + key, d_rows, mask=only(key < K, live))
    elif SCOPE == "value":
        tl.store(pointer + place * V + value, d_cols, mask=only(value < V, live))
    else:
        tl.store(pointer + place * (K + V) + key, d_rows, mask=only(key < K, live))
        tl.store(pointer + place * (K + V) + K + value, d_cols, mask=only(value < V, live))


@triton.jit
def keep_of(
    pointer, place, first, key, value, K: tl.constexpr, V: tl.constexpr, SCOPE: tl.constexpr
):  # fmt: skip
    """The keep of a token over the tile; 1 for all but its first write."""
    rows, cols = gate(pointer, place, key, value, K, V, SCOPE, 0.0)
    return tl.where(first, tl.exp(rows)[:, None] * tl.exp(cols)[None, :], 1.0)


@triton.jit
def vector(pointer, place, channel, SIZE: tl.constexpr):
    """Row `place` of a [rows, SIZE] array as float32, 0 on padding."""
    return tl.load(pointer + place * SIZE + channel, mask=channel < SIZE, other=0.0).to(tl.float32)


@triton.jit
def threshold_of(pointer, place, value, V: tl.constexpr, SCOPE: tl.constexpr):
    """The threshold of a pair, [1, 1], or [1, V] where channels have their own; 0 where there is none."""
    if SCOPE == "none":
        return tl.zeros([1, 1], tl.float32)
    elif SCOPE == "head":
        return tl.load(pointer + place + tl.arange(0, 1))[None, :]
    else:
        return tl.load(pointer + place * V + value, mask=value < V, other=0.0)[None, :]


@triton.jit
def linked(z, cell, parameter, LINK: tl.constexpr, SETTINGS: tl.constexpr, LINKED: tl.constexpr):
    """The weights of accumulators z, 0 on padding."""
    if LINKED:
        return tl.where(cell, LINK(z, cell, parameter, SETTINGS), 0.0)
    else:
        return z


@triton.jit
def signal_of(
    weights, k, v, threshold, channel, SIGNAL: tl.constexpr, BIAS: tl.constexpr, LIMITED: tl.constexpr
):  # fmt: skip
    """The prediction and the signal of a pair, both [1, V], 0 on padding."""
    prediction = tl.sum(weights * k[:, None], axis=0)[None, :]
    u = SIGNAL(prediction, v[None, :], threshold, channel, BIAS)
    if LIMITED:
        u = limited(u)
    return prediction, tl.where(channel, u, 0.0)


@triton.jit
def write_of(n, batch, head, N, H, WRITES: tl.constexpr):
    """The places of write n and of its token, and whether it is the token's first and its last."""
    pair = (batch * N + n) * H + head
    token = (batch * (N // WRITES) + n // WRITES) * H + head
    return pair, token, n % WRITES == 0, n % WRITES == WRITES - 1


@triton.jit
def gates(
    log_keep_ptr, step_ptr, momentum_ptr, token, pair, first, key, value, K: tl.constexpr, V: tl.constexpr,
    KEEP: tl.constexpr, STEP: tl.constexpr, MOMENTUM: tl.constexpr,
):  # fmt: skip
    """Keep, step and momentum of a write over the tile (0 where there is no momentum)."""
    keep = keep_of(log_keep_ptr, token, first, key, value, K, V, KEEP)
    rows, cols = gate(step_ptr, pair, key, value, K, V, STEP, 1.0)
    step = rows[:, None] * cols[None, :]
    if MOMENTUM == "none":
        beta = tl.zeros_like(step)
    else:
        rows, cols = gate(momentum_ptr, pair, key, value, K, V, MOMENTUM, 1.0)
        beta = rows[:, None] * cols[None, :]
    return keep, step, beta


@triton.jit
def written(
    z, s, r, h, u, keep, step, beta, cell, parameter, LINK: tl.constexpr, SETTINGS: tl.constexpr,
    PRIMAL: tl.constexpr, TANGENT: tl.constexpr, MOMENTUM: tl.constexpr,
):  # fmt: skip
    """z, s and r after the write of u under the key h."""
    change = -step * (h[:, None] * u)
    if MOMENTUM != "none":
        change += beta * s
        s = change
    z = keep * z + change
    if PRIMAL:
        z = tl.where(cell, LINK(z, step, cell, parameter, SETTINGS), 0.0)
    if TANGENT:
        r = keep * r + change
    return z, s, r


@triton.jit
def put_tiles(
    pointer, z, s, r, f, inner, cell, K: tl.constexpr, V: tl.constexpr, MOMENTUM: tl.constexpr, TANGENT: tl.constexpr,
    FROZEN: tl.constexpr,
):  # fmt: skip
    """Store what is kept, tile after tile."""
    tl.store(pointer + inner, z, mask=cell)
    if MOMENTUM != "none":
        pointer += K * V
        tl.store(pointer + inner, s, mask=cell)
    if TANGENT:
        pointer += K * V
        tl.store(pointer + inner, r, mask=cell)
    if FROZEN:
        pointer += K * V
        tl.store(pointer + inner, f, mask=cell)


@triton.jit
def get_tiles(
    pointer, inner, cell, K: tl.constexpr, V: tl.constexpr, MOMENTUM: tl.constexpr, TANGENT: tl.constexpr,
    FROZEN: tl.constexpr,
):  # fmt: skip
    """Load z, s, r, f; those that are not kept are z again, and nothing reads them."""
    z = tl.load(pointer + inner, mask=cell, other=0.0)
    s, r, f = z, z, z
    if MOMENTUM != "none":
        pointer += K * V
        s = tl.load(pointer + inner, mask=cell, other=0.0)
    if TANGENT:
        pointer += K * V
        r = tl.load(pointer + inner, mask=cell, other=0.0)
    if FROZEN:
        pointer += K * V
        f = tl.load(pointer + inner, mask=cell, other=0.0)
    return z, s, r, f
