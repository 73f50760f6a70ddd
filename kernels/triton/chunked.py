"""Matrix memory by gradient descent, chunk by chunk: the jit body of the forward, and what the backward shares with it.

One program runs one (batch, head) and a block of value channels: the state stays on chip and the chunks follow one
another. docs/kernels.md holds the tiling, what is saved, and the derivation of the backward; its symbols are the names
here.

Legend: B batch, T time, H heads, K key dim, V value dim, N chunks; C rows of a chunk, one a write. Row vectors: the
state is [K, V] and a read is q @ state. In the bodies t is the row (the reader) and s the column (the writer) of a
C x C tile. A token's keep is that of its first write, its query that of its last; other rows have keep 1 and no query.

The bodies carry no autotuner, so that the CPU interpreter can run them; chunked_launch.py starts them, autograd.py
makes them one differentiable function. No product is in tf32, which keeps ten bits: the sweeps feed errors back
(products.py).
"""

from __future__ import annotations

import triton
import triton.language as tl

from miras_search.kernels.triton.channel_decays import keyed, rows_of
from miras_search.kernels.triton.decays import GATE_FLOOR, LOG_FLOOR, shifted, spans
from miras_search.kernels.triton.elementary import at_least
from miras_search.kernels.triton.products import product
from miras_search.kernels.triton.solve import unit_inverse
from miras_search.kernels.triton.tiles import cells_of, limited, memory_of


@triton.jit
def bounded(u, channel):
    """Iterates held within the limit, padding zeroed: they may overflow where the recurrence is finite."""
    return tl.where(channel, limited(u), 0.0)


@triton.jit
def rows_at(i, row, batch, head, T, H, CHUNK: tl.constexpr, WRITES: tl.constexpr):
    """The rows of chunk i: their ordinals among the writes; which exist, which are a token's first write, which its
    last; their places in arrays of writes and of tokens.
    """
    ordinal = i * (CHUNK * WRITES) + row
    live = (row < CHUNK * WRITES) & (ordinal < T * WRITES)
    fades = live & (ordinal % WRITES == 0)
    reads = live & (ordinal % WRITES == WRITES - 1)
    write = (batch * T * WRITES + ordinal) * H + head
    token = (batch * T + ordinal // WRITES) * H + head
    return ordinal, live, fades, reads, write, token


@triton.jit
def put(pointer, tile, place, live, channel, WIDTH: tl.constexpr):
    """Store rows of a [places, WIDTH] array."""
    address = pointer + place[:, None] * WIDTH + channel[None, :]
    tl.store(address, tile, mask=live[:, None] & (channel < WIDTH)[None, :])


@triton.jit
def thresholds(pointer, write, live, value, V: tl.constexpr, SCOPE: tl.constexpr, BLOCK_C: tl.constexpr):
    """The threshold [C, 1] or, with a value a channel, [C, V]; zeros where there is none."""
    if SCOPE == "value":
        return rows_of(pointer, write, live, value, V)
    elif SCOPE == "head":
        return tl.load(pointer + write, mask=live, other=0.0)[:, None]
    else:
        return tl.zeros([BLOCK_C, 1], dtype=tl.float32)


@triton.jit
def inputs_of(
    q_ptr, k_ptr, v_ptr, w_ptr, step_ptr, threshold_ptr, live, reads, write, token, key, value,
    K: tl.constexpr, V: tl.constexpr, HAS_W: tl.constexpr, THRESHOLD: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """The rows at these places: q, k, v, the write keys, steps and thresholds, zero where there is none."""
    q = rows_of(q_ptr, token, reads, key, K)
    k = rows_of(k_ptr, write, live, key, K)
    w = rows_of(w_ptr, write, live, key, K) if HAS_W else k
    v = rows_of(v_ptr, write, live, value, V).to(tl.float32)
    e = tl.load(step_ptr + write, mask=live, other=0.0)
    return q, k, v, w, e, thresholds(threshold_ptr, write, live, value, V, THRESHOLD, BLOCK_C)


@triton.jit
def log_gates(pointer, place, live):
    """Log keeps [C] of one a head."""
    return at_least(tl.load(pointer + place, mask=live, other=0.0), LOG_FLOOR)


@triton.jit
def log_momenta(pointer, write, live):
    """Logs of momenta [C], which come as they are and may be 0."""
    return tl.log(at_least(tl.load(pointer + write, mask=live, other=1.0), GATE_FLOOR))


@triton.jit
def found(
    first, base, influence, v, th, channel, slot,
    SIGNAL: tl.constexpr, SETTINGS: tl.constexpr, SLOPE: tl.constexpr, SWEEPS: tl.constexpr, EXACT: tl.constexpr,
    SOLVE: tl.constexpr, SLOT: tl.constexpr, BLOCK_C: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """The signals u [C, V] that are written, from the predictions at the chunk's start and without its own writes.

    Returns u, the inverse that it was solved with and the last prediction, each for the backward that needs it. Where
    sweeps end early and SLOT, the size of one, is not 0, all their predictions are stored from `slot` on.
    """
    inverse = influence
    last = base
    if SOLVE:
        inverse = unit_inverse(SLOPE * influence, BLOCK_C, PRECISION)
        right = SLOPE * base + SIGNAL(tl.zeros_like(v), v, th, channel, SETTINGS)
        u = tl.where(channel, product(inverse, right, PRECISION), 0.0)
    elif EXACT:
        for _ in range(SWEEPS):
            u = bounded(SIGNAL(last, v, th, channel, SETTINGS), channel)
            last = base - product(influence, u, PRECISION)
        u = tl.where(channel, SIGNAL(last, v, th, channel, SETTINGS), 0.0)
    else:
        if SLOT > 0:
            tl.debug_barrier()  # the previous chunk may still be reading the slots
            tl.store(slot, first)
        u = bounded(SIGNAL(first, v, th, channel, SETTINGS), channel)
        for m in range(SWEEPS):
            last = base - product(influence, u, PRECISION)
            if SLOT > 0:
                tl.store(slot + (m + 1) * SLOT, last)
            u = bounded(SIGNAL(last, v, th, channel, SETTINGS), channel)
        if SLOT > 0:
            tl.debug_barrier()  # a load may map elements to threads differently from the stores above
    return u, inverse, last


@triton.jit
def forward_kernel(
    q_ptr, k_ptr, v_ptr, w_ptr, log_keep_ptr, step_ptr, momentum_ptr, threshold_ptr, initial_ptr, initial_s_ptr,
    y_ptr, final_ptr, final_s_ptr, starts_ptr, starts_s_ptr, T, H,
    K: tl.constexpr, V: tl.constexpr, SIGNAL: tl.constexpr, SETTINGS: tl.constexpr, SLOPE: tl.constexpr,
    CHUNK: tl.constexpr, WRITES: tl.constexpr, SWEEPS: tl.constexpr, EXACT: tl.constexpr, SOLVE: tl.constexpr,
    DECAYED: tl.constexpr, KEYED: tl.constexpr, HAS_W: tl.constexpr, HAS_MOMENTUM: tl.constexpr,
    THRESHOLD: tl.constexpr, HAS_INITIAL: tl.constexpr, SAVE_STARTS: tl.constexpr, AT_ONCE: tl.constexpr,
    NEAR: tl.constexpr, BLOCK_C: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_V: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """One (batch, head): y and the final state, and the chunk-start states when the backward will want them.

    AT_ONCE: one chunk of it, and y alone; `initial` then holds the states at all chunks' starts (transitions.py).
    """
    program, batch, head = memory_of(H)
    row = tl.arange(0, BLOCK_C)
    value = tl.program_id(1) * BLOCK_V + tl.arange(0, BLOCK_V)
    key, channel, cell, inner = cells_of(value, K, V, BLOCK_K)
    chunks = tl.cdiv(T, CHUNK)
    written = w_ptr if HAS_W else k_ptr

    lowest = tl.program_id(2)  # 0 unless AT_ONCE
    highest = lowest + 1 if AT_ONCE else chunks
    begin = (batch * chunks + lowest) * H + head if AT_ONCE else program
    z = tl.zeros([BLOCK_K, BLOCK_V], dtype=tl.float32)
    s = tl.zeros([BLOCK_K, BLOCK_V], dtype=tl.float32)
    if HAS_INITIAL:
        z = tl.load(initial_ptr + begin * K * V + inner, mask=cell, other=0.0)
        if HAS_MOMENTUM:
            s = tl.load(initial_s_ptr + begin * K * V + inner, mask=cell, other=0.0)

    for i in range(lowest, highest):
        if SAVE_STARTS:
            start = ((batch * chunks + i) * H + head) * K * V + inner
            tl.store(starts_ptr + start, z, mask=cell)
            if HAS_MOMENTUM:
                tl.store(starts_s_ptr + start, s, mask=cell)
        ordinal, live, fades, reads, write, token = rows_at(i, row, batch, head, T, H, CHUNK, WRITES)
        q, k, v, w, e, th = inputs_of(
            q_ptr, k_ptr, v_ptr, w_ptr, step_ptr, threshold_ptr, live, reads, write, token, key, value,
            K, V, HAS_W, THRESHOLD, BLOCK_C,
        )  # fmt: skip

        if KEYED:
            q, k, w = q.to(tl.float32), k.to(tl.float32), w.to(tl.float32)
            _g, _fade, through, before, after, whole, faded, overlap, seen = keyed(
                q, k, w, written, log_keep_ptr, write, token, ordinal, live, fades, key, H,
                K, WRITES, NEAR, DECAYED, BLOCK_C, PRECISION,
            )  # fmt: skip
            first = product(faded, z, PRECISION)
            base = product(k * before, z, PRECISION)
            y = product(q * through, z, PRECISION)
            z = whole[:, None] * z
            given = w * after
            handed = tl.full([BLOCK_C], 1.0, tl.float32)
        else:
            g = log_gates(log_keep_ptr, token, fades)
            through, after, whole, between, segment = spans(g, BLOCK_C, PRECISION)
            before, between_before = shifted(g, through, between, segment, DECAYED, BLOCK_C)
            kz = product(k, z, PRECISION)
            first = tl.exp(g)[:, None] * kz if DECAYED else kz
            base = before[:, None] * kz
            y = through[:, None] * product(q, z, PRECISION)
            z = whole * z
            if HAS_MOMENTUM:
                h = log_momenta(momentum_ptr, write, live)
                m_through, m_after, m_whole, lasting, _ = spans(h, BLOCK_C, PRECISION)
                after = tl.where(live, after, 0.0)  # padding rows add no momentum
                # What the start momentum has added by each row, and what is left at the end of each write.
                m_before = tl.sum(between_before * m_through[None, :], axis=1)
                base += m_before[:, None] * product(k, s, PRECISION)
                m_read = tl.sum(between * m_through[None, :], axis=1)
                y += m_read[:, None] * product(q, s, PRECISION)
                z += tl.sum(after * m_through) * s
                after = tl.sum(lasting * after[:, None], axis=0)
                between = product(between, lasting, PRECISION)
                between_before = product(between_before, lasting, PRECISION)
            overlap = between_before * product(k, tl.trans(w), PRECISION)
            seen = between * product(q, tl.trans(w), PRECISION)
            given = w
            handed = after

        u, _inverse, _last = found(
            first, base, overlap * e[None, :], v, th, channel, None,
            SIGNAL, SETTINGS, SLOPE, SWEEPS, EXACT, SOLVE, 0, BLOCK_C, PRECISION,
        )  # fmt: skip
        y -= product(seen * e[None, :], u, PRECISION)
        put(y_ptr, y, token, reads, value, V)
        z -= product(tl.trans(given), (e * handed)[:, None] * u, PRECISION)
        if HAS_MOMENTUM:
            s = m_whole * s - product(tl.trans(w), (e * m_after)[:, None] * u, PRECISION)

    if not AT_ONCE:
        tl.store(final_ptr + program * K * V + inner, z, mask=cell)
    if HAS_MOMENTUM:
        tl.store(final_s_ptr + program * K * V + inner, s, mask=cell)
