"""Keep gates by key channel: products of keys in which every channel has faded by its own share.

    overlap(x)_ts = sum_k x_tk w_sk prod_{s<i<t} a_ik      s < t, else 0

Neither 1/a nor a difference of running sums is formed, so gates near 0 do no harm. Inside a block of 16 rows pairs are
taken by their distance, and the sum of logs grows with it; between blocks the product is split at the start of the
reader's block, which leaves two factors of at most 1 and a matrix product.

Legend: C rows of a chunk, K key channels, both padded; t reads, s writes. `write` and `token` are the rows' places in
[tokens * writes] and [tokens]; `ordinal` counts the writes of the sequence.
"""

from __future__ import annotations

import triton
import triton.language as tl

from miras_search.kernels.triton.decays import LOG_FLOOR, flipped
from miras_search.kernels.triton.elementary import at_least
from miras_search.kernels.triton.products import ones, product


@triton.jit
def rows_of(pointer, place, live, channel, WIDTH: tl.constexpr):
    """Rows `place` of a [places, WIDTH] array as they are stored, zero outside."""
    address = pointer + place[:, None] * WIDTH + channel[None, :]
    return tl.load(address, mask=live[:, None] & (channel < WIDTH)[None, :], other=0.0)


@triton.jit
def log_keeps(pointer, token, fades, channel, K: tl.constexpr):
    """Log keeps [C, K], 0 where a row fades nothing."""
    return at_least(rows_of(pointer, token, fades, channel, K), LOG_FLOOR)


@triton.jit
def channel_spans(g, DECAYED: tl.constexpr, BLOCK_C: tl.constexpr, PRECISION: tl.constexpr):
    """Products of keeps with logs g [C, K]: up to each row, where its gradient is taken, after each row, the whole."""
    row = tl.arange(0, BLOCK_C)
    through = tl.exp(product(ones(row[:, None] >= row[None, :]), g, PRECISION))
    after = tl.exp(product(ones(row[:, None] < row[None, :]), g, PRECISION))
    before = through if DECAYED else tl.exp(product(ones(row[:, None] > row[None, :]), g, PRECISION))
    return through, before, after, tl.exp(tl.sum(g, axis=0))


@triton.jit
def _split(g, at: tl.constexpr, BLOCK_C: tl.constexpr, PRECISION: tl.constexpr):
    """Products of keeps from row `at` to before each row of its block, and from after each earlier row to before it."""
    row = tl.arange(0, BLOCK_C)
    t, i = row[:, None], row[None, :]
    readers, writers = (row >= at) & (row < at + 16), row < at
    left = tl.exp(product(ones(readers[:, None] & (i >= at) & (i < t)), g, PRECISION))
    right = tl.exp(product(ones(writers[:, None] & (i < at) & (i > t)), g, PRECISION))
    return tl.where(readers[:, None], left, 0.0), tl.where(writers[:, None], right, 0.0)


@triton.jit
def overlaps(
    x, y, w, g, w_ptr, log_keep_ptr, write, token, ordinal, live, channel, H,
    K: tl.constexpr, WRITES: tl.constexpr, NEAR: tl.constexpr, BLOCK_C: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """The overlaps [C, C] of x and of y [C, K] with the write keys w. NEAR: rows of a block that can be in use."""
    row = tl.arange(0, BLOCK_C)
    apart = row[:, None] - row[None, :]
    of_x = tl.zeros([BLOCK_C, BLOCK_C], dtype=tl.float32)
    of_y = tl.zeros([BLOCK_C, BLOCK_C], dtype=tl.float32)
    span = tl.zeros_like(g)  # logs between the row and the one `d` before it, both left out
    for d in range(1, NEAR):
        near = live & (row % 16 >= d)
        seen = rows_of(w_ptr, write - d * H, near, channel, K).to(tl.float32) * tl.exp(span)
        here = (apart == d) & near[:, None]
        of_x += tl.where(here, tl.sum(x * seen, axis=1)[:, None], 0.0)
        of_y += tl.where(here, tl.sum(y * seen, axis=1)[:, None], 0.0)
        back = token + ((ordinal - d) // WRITES - ordinal // WRITES) * H
        span += log_keeps(log_keep_ptr, back, near & ((ordinal - d) % WRITES == 0), channel, K)
    for at in tl.static_range(16, BLOCK_C, 16):
        left, right = _split(g, at, BLOCK_C, PRECISION)
        written = tl.trans(w * right)
        of_x += product(x * left, written, PRECISION)
        of_y += product(y * left, written, PRECISION)
    return of_x, of_y


@triton.jit
def keyed(
    q, k, w, w_ptr, log_keep_ptr, write, token, ordinal, live, fades, channel, H,
    K: tl.constexpr, WRITES: tl.constexpr, NEAR: tl.constexpr, DECAYED: tl.constexpr,
    BLOCK_C: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """A chunk's coefficients: log keeps and keeps [C, K]; what `channel_spans` returns; the keys where gradients are
    taken; the overlaps of these keys and of the queries, which see their own row's write too.
    """
    row = tl.arange(0, BLOCK_C)
    g = log_keeps(log_keep_ptr, token, fades, channel, K)
    fade = tl.exp(g)
    through, before, after, whole = channel_spans(g, DECAYED, BLOCK_C, PRECISION)
    faded = k * fade if DECAYED else k
    overlap, seen = overlaps(
        faded, q * fade, w, g, w_ptr, log_keep_ptr, write, token, ordinal, live, channel, H,
        K, WRITES, NEAR, BLOCK_C, PRECISION,
    )  # fmt: skip
    seen += tl.where(row[:, None] == row[None, :], tl.sum(q * w, axis=1)[:, None], 0.0)
    return g, fade, through, before, after, whole, faded, overlap, seen


@triton.jit
def overlaps_vjp(
    d_of_x, d_of_y, x, y, w, g, q_ptr, k_ptr, w_ptr, log_keep_ptr, write, token, ordinal, live, last, channel, H,
    K: tl.constexpr, WRITES: tl.constexpr, NEAR: tl.constexpr, DECAYED: tl.constexpr,
    BLOCK_C: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Gradients of x, y and w [C, K] from those of the overlaps, which are 0 for s >= t.

    x are the keys, y the queries, both times the row's own keep (keys only if DECAYED); rows further on are read again.
    `last` is the ordinal after the chunk's last.
    """
    row = tl.arange(0, BLOCK_C)
    apart = row[:, None] - row[None, :]
    d_x = tl.zeros_like(g)
    d_y = tl.zeros_like(g)
    d_w = tl.zeros_like(g)
    behind = tl.zeros_like(g)
    ahead = tl.zeros_like(g)
    for d in range(1, NEAR):
        pair_x = tl.where(apart == d, d_of_x, 0.0)
        pair_y = tl.where(apart == d, d_of_y, 0.0)
        near = live & (row % 16 >= d)
        seen = rows_of(w_ptr, write - d * H, near, channel, K).to(tl.float32) * tl.exp(behind)
        d_x += tl.sum(pair_x, axis=1)[:, None] * seen
        d_y += tl.sum(pair_y, axis=1)[:, None] * seen
        back = token + ((ordinal - d) // WRITES - ordinal // WRITES) * H
        behind += log_keeps(log_keep_ptr, back, near & ((ordinal - d) % WRITES == 0), channel, K)

        near = live & (row % 16 + d < 16) & (ordinal + d < last)
        later = token + ((ordinal + d) // WRITES - ordinal // WRITES) * H
        gates = log_keeps(log_keep_ptr, later, near & ((ordinal + d) % WRITES == 0), channel, K)
        key = rows_of(k_ptr, write + d * H, near, channel, K)
        if DECAYED:
            key = key * tl.exp(gates)
        query = rows_of(q_ptr, later, near & ((ordinal + d) % WRITES == WRITES - 1), channel, K) * tl.exp(gates)
        from_x = tl.where(near, tl.sum(pair_x, axis=0), 0.0)[:, None] * key
        from_y = tl.where(near, tl.sum(pair_y, axis=0), 0.0)[:, None] * query
        d_w += (from_x + from_y) * tl.exp(ahead)
        ahead += gates
    for at in tl.static_range(16, BLOCK_C, 16):
        left, right = _split(g, at, BLOCK_C, PRECISION)
        written = w * right
        d_x += left * product(d_of_x, written, PRECISION)
        d_y += left * product(d_of_y, written, PRECISION)
        back = product(flipped(d_of_x, BLOCK_C), x * left, PRECISION)
        back += product(flipped(d_of_y, BLOCK_C), y * left, PRECISION)
        d_w += right * back
    return d_x, d_y, d_w


@triton.jit
def channel_spans_vjp(
    d_through, d_before, d_after, d_whole, d_readers, d_writers, d_own, DECAYED: tl.constexpr, BLOCK_C: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """Gradient of g [C, K], from those of the logarithms of `channel_spans`, of the overlaps' products (summed over
    writers for each reader, and over readers for each writer), and of the rows' own gates.
    """
    row = tl.arange(0, BLOCK_C)
    i, other = row[:, None], row[None, :]
    from_on = ones(other >= i)
    beyond = ones(other > i)
    if DECAYED:
        d_through += d_before
        d_beyond = d_readers
    else:
        d_beyond = d_readers + d_before
    d_g = product(from_on, d_through - d_writers, PRECISION)
    d_g += product(beyond, d_beyond, PRECISION)
    d_g += product(ones(other < i), d_after, PRECISION)
    return d_g + d_whole[None, :] + d_own
