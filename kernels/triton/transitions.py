"""What every chunk does to the state, all chunks at once, and the walk that is left: for few memories.

One program a memory (chunked.py) leaves most of a GPU idle where memories are few. If signals are linear in the
prediction, those of a chunk are u = P Z + U for its start state Z, and what the chunk does to a state is

    Z+ = a Z - X^T u = a Z - X^T (P Z) + F        F = -X^T U         from the first chunk's start on
    dZ = a dZ+ - P^T (X dZ+) + G                                     from the last chunk's end back

with X, P [C, K], a keep for each key channel a [K], F and G [K, V]: none of them knows Z. `transition_kernel` makes
them, a program a chunk; `carry_kernel` walks either way with two products a chunk. Then every chunk's start, or the
gradient of its end, is known, and the bodies of chunked.py and chunked_backward.py take a program a chunk too
(AT_ONCE).

Legend: as in chunked.py. docs/kernels.md has the derivation.
"""

from __future__ import annotations

import triton
import triton.language as tl

from miras_search.kernels.triton.channel_decays import keyed, rows_of
from miras_search.kernels.triton.chunked import found, inputs_of, log_gates, put, rows_at
from miras_search.kernels.triton.decays import flipped, shifted, spans
from miras_search.kernels.triton.products import product
from miras_search.kernels.triton.tiles import cells_of, memory_of


@triton.jit
def transition_kernel(
    q_ptr, k_ptr, v_ptr, w_ptr, log_keep_ptr, step_ptr, threshold_ptr, d_y_ptr,
    taken_ptr, given_ptr, whole_ptr, added_ptr, T, H,
    K: tl.constexpr, V: tl.constexpr, SIGNAL: tl.constexpr, SETTINGS: tl.constexpr, SLOPE: tl.constexpr,
    CHUNK: tl.constexpr, WRITES: tl.constexpr, SWEEPS: tl.constexpr, EXACT: tl.constexpr, SOLVE: tl.constexpr,
    DECAYED: tl.constexpr, KEYED: tl.constexpr, HAS_W: tl.constexpr, THRESHOLD: tl.constexpr, BACKWARD: tl.constexpr,
    NEAR: tl.constexpr, BLOCK_C: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_V: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """One chunk of one (batch, head): P and X if SOLVE, for else P is 0; a; and F, or G if BACKWARD."""
    program, batch, head = memory_of(H)
    i = tl.program_id(2)
    row = tl.arange(0, BLOCK_C)
    value = tl.program_id(1) * BLOCK_V + tl.arange(0, BLOCK_V)
    key, channel, cell, inner = cells_of(value, K, V, BLOCK_K)
    place = program * tl.num_programs(2) + i
    written = w_ptr if HAS_W else k_ptr

    ordinal, live, fades, reads, write, token = rows_at(i, row, batch, head, T, H, CHUNK, WRITES)
    q, k, v, w, e, th = inputs_of(
        q_ptr, k_ptr, v_ptr, w_ptr, step_ptr, threshold_ptr, live, reads, write, token, key, value,
        K, V, HAS_W, THRESHOLD, BLOCK_C,
    )  # fmt: skip

    if KEYED:
        q, k, w = q.to(tl.float32), k.to(tl.float32), w.to(tl.float32)
        _g, _fade, through, before, after, whole, _faded, overlap, seen = keyed(
            q, k, w, written, log_keep_ptr, write, token, ordinal, live, fades, key, H,
            K, WRITES, NEAR, DECAYED, BLOCK_C, PRECISION,
        )  # fmt: skip
    else:
        g = log_gates(log_keep_ptr, token, fades)
        through_row, after_row, whole_head, between, segment = spans(g, BLOCK_C, PRECISION)
        before_row, between_before = shifted(g, through_row, between, segment, DECAYED, BLOCK_C)
        overlap = between_before * product(k, tl.trans(w), PRECISION)
        seen = between * product(q, tl.trans(w), PRECISION)
        through, before, after = through_row[:, None], before_row[:, None], after_row[:, None]
        whole = tl.zeros([BLOCK_K], dtype=tl.float32) + whole_head

    nothing = tl.zeros([BLOCK_C, BLOCK_V], dtype=tl.float32)
    u, inverse, _last = found(
        nothing, nothing, overlap * e[None, :], v, th, channel, None,
        SIGNAL, SETTINGS, SLOPE, SWEEPS, EXACT, SOLVE, 0, BLOCK_C, PRECISION,
    )  # fmt: skip
    given = e[:, None] * after * w.to(tl.float32)
    if BACKWARD:
        d_y = rows_of(d_y_ptr, token, reads, value, V)
        added = product(tl.trans(through * q.to(tl.float32)), d_y, PRECISION)
    else:
        added = -product(tl.trans(given), u, PRECISION)
    if SOLVE:
        reader = SLOPE * before * k.to(tl.float32)
        taken = product(inverse, reader, PRECISION)
        if BACKWARD:
            # P^T dU as (M k~)^T dU = k~^T (M^T dU): see `flipped`
            d_u = product(flipped(seen, BLOCK_C) * e[:, None], d_y, PRECISION)
            added -= product(tl.trans(reader), product(flipped(inverse, BLOCK_C), d_u, PRECISION), PRECISION)
    tl.store(added_ptr + place * K * V + inner, added, mask=cell)
    if tl.program_id(1) == 0:  # the same for all value channels
        tl.store(whole_ptr + place * K + key, whole, mask=key < K)
        if SOLVE:
            put(taken_ptr, taken, place * BLOCK_C + row, row < BLOCK_C, key, K)
            put(given_ptr, given, place * BLOCK_C + row, row < BLOCK_C, key, K)


@triton.jit
def carry_kernel(
    begin_ptr, reader_ptr, writer_ptr, whole_ptr, added_ptr, states_ptr, end_ptr, chunks, H,
    K: tl.constexpr, V: tl.constexpr, SOLVE: tl.constexpr, HAS_BEGIN: tl.constexpr, BACKWARD: tl.constexpr,
    BLOCK_C: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_V: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """One (batch, head) and a block of value channels: the state on the near side of every chunk, and the last one.

    The reader is P and the writer X, or the other way round if BACKWARD, where the last chunk comes first.
    """
    program, batch, head = memory_of(H)
    row = tl.arange(0, BLOCK_C)
    value = tl.program_id(1) * BLOCK_V + tl.arange(0, BLOCK_V)
    key, _channel, cell, inner = cells_of(value, K, V, BLOCK_K)
    z = tl.zeros([BLOCK_K, BLOCK_V], dtype=tl.float32)
    if HAS_BEGIN:
        z = tl.load(begin_ptr + program * K * V + inner, mask=cell, other=0.0)

    # Nothing that is loaded waits for z: loads run two chunks ahead, so that the walk is that of the products alone.
    for j in tl.range(0, chunks, num_stages=3):
        i = chunks - 1 - j if BACKWARD else j
        place = program * chunks + i
        tl.store(states_ptr + ((batch * chunks + i) * H + head) * K * V + inner, z, mask=cell)
        whole = tl.load(whole_ptr + place * K + key, mask=key < K, other=0.0)
        moved = whole[:, None] * z + tl.load(added_ptr + place * K * V + inner, mask=cell, other=0.0)
        if SOLVE:
            reader = rows_of(reader_ptr, place * BLOCK_C + row, row < BLOCK_C, key, K)
            writer = rows_of(writer_ptr, place * BLOCK_C + row, row < BLOCK_C, key, K)
            moved -= product(tl.trans(writer), product(reader, z, PRECISION), PRECISION)
        z = moved

    tl.store(end_ptr + program * K * V + inner, z, mask=cell)
