"""Matrix memory by gradient descent, chunk by chunk: the jit bodies, forward and backward.

One program runs one (batch, head): the state stays on chip and the chunks follow one another. docs/kernels.md holds
the tiling, what is saved, and the derivation of the backward; its symbols are the names here.

Legend: B batch, T time, H heads, K key dim, V value dim, N chunks; C tokens of a chunk. Row vectors: the state is
[K, V] and a read is q @ state. In the bodies t is the row (the reader) and s the column (the writer) of a C x C tile.

The bodies carry no autotuner, so that the CPU interpreter can run them; launch.py starts them, autograd.py makes them
one differentiable function. Every dot asks for "ieee" float32: tf32 keeps ten bits, and the sweeps feed errors back.
"""

from __future__ import annotations

from typing import Final

import triton
import triton.language as tl

# True when this module's bodies were built for the CPU interpreter (decided when triton decorates them).
INTERPRETED: Final[bool] = bool(triton.knobs.runtime.interpret)

# exp(-30) is zero beside 1 in float32; the clamp keeps a gate of exactly zero (log gate -inf) out of differences.
_LOG_FLOOR: Final = tl.constexpr(-30.0)
# Iterates of the sweeps may overflow where the recurrence is finite; the fixed point is far inside this bound.
_ITERATE_BOUND: Final = tl.constexpr(1e6)


@triton.jit
def _bounded(u, channel):
    # Comparisons rather than tl.clamp: NaN must stay NaN, or a diverged training would look alive.
    u = tl.where(u > _ITERATE_BOUND, _ITERATE_BOUND, tl.where(u < -_ITERATE_BOUND, -_ITERATE_BOUND, u))
    return tl.where(channel, u, 0.0)


@triton.jit
def _inside(u, channel):
    return (u >= -_ITERATE_BOUND) & (u <= _ITERATE_BOUND) & channel


@triton.jit
def _tile(pointer, token, live, width, WIDTH: tl.constexpr):
    """Rows `token` of a [tokens, WIDTH] array as float32, zero outside."""
    address = pointer + token[:, None] * WIDTH + width[None, :]
    return tl.load(address, mask=live[:, None] & (width < WIDTH)[None, :], other=0.0).to(tl.float32)


@triton.jit
def _put(pointer, tile, token, live, width, WIDTH: tl.constexpr):
    address = pointer + token[:, None] * WIDTH + width[None, :]
    tl.store(address, tile, mask=live[:, None] & (width < WIDTH)[None, :])


@triton.jit
def _decays(g, DECAYED: tl.constexpr, BLOCK_C: tl.constexpr, PRECISION: tl.constexpr):
    """Products of keeps inside a chunk, from log keeps g [C] (0 on padding rows).

    Returns A_t, the shifted A_s of the predictions, D_ts (s <= t), its shifted form (s < t), the product after each
    token, and that of the whole chunk.
    """
    row = tl.arange(0, BLOCK_C)
    earlier = row[:, None] > row[None, :]
    upto = row[:, None] >= row[None, :]
    through = tl.exp(tl.sum(tl.where(upto, g[None, :], 0.0), axis=1))
    after = tl.exp(tl.sum(tl.where(earlier, g[:, None], 0.0), axis=0))
    # sum of g over s < i <= t as a product with a 0/1 triangle: differences of one running sum would lose the small
    # gates that follow a reset (a running sum near -1900 has steps of 1e-4).
    segment = tl.dot(upto.to(tl.float32), tl.where(earlier, g[:, None], 0.0), input_precision=PRECISION)
    between = tl.where(upto, tl.exp(segment), 0.0)
    if DECAYED:
        before = through
        between_before = tl.where(earlier, between, 0.0)
    else:
        before = tl.exp(tl.sum(tl.where(earlier, g[None, :], 0.0), axis=1))
        between_before = tl.where(earlier, tl.exp(tl.where(earlier, segment - g[:, None], 0.0)), 0.0)
    return through, before, between, between_before, after, tl.exp(tl.sum(g, axis=0))


@triton.jit
def forward_kernel(
    q_ptr,
    k_ptr,
    v_ptr,
    log_keep_ptr,
    step_ptr,
    threshold_ptr,
    initial_ptr,
    y_ptr,
    final_ptr,
    starts_ptr,
    T,
    H,
    K: tl.constexpr,
    V: tl.constexpr,
    SIGNAL: tl.constexpr,
    SETTINGS: tl.constexpr,
    CHUNK: tl.constexpr,
    SWEEPS: tl.constexpr,
    DECAYED: tl.constexpr,
    HAS_THRESHOLD: tl.constexpr,
    HAS_INITIAL: tl.constexpr,
    SAVE_STARTS: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_V: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """One (batch, head): y and the final state, and the chunk-start states when the backward will want them."""
    program = tl.program_id(0).to(tl.int64)
    batch = program // H
    head = program % H
    row = tl.arange(0, BLOCK_C)
    key = tl.arange(0, BLOCK_K)
    value = tl.arange(0, BLOCK_V)
    channel = (value < V)[None, :]
    cell = (key < K)[:, None] & channel
    inner = key[:, None] * V + value[None, :]
    chunks = tl.cdiv(T, CHUNK)

    if HAS_INITIAL:
        z = tl.load(initial_ptr + program * K * V + inner, mask=cell, other=0.0)
    else:
        z = tl.zeros([BLOCK_K, BLOCK_V], dtype=tl.float32)

    for i in range(0, chunks):
        if SAVE_STARTS:
            tl.store(starts_ptr + ((batch * chunks + i) * H + head) * K * V + inner, z, mask=cell)
        time = i * CHUNK + row
        live = (row < CHUNK) & (time < T)
        token = (batch * T + time) * H + head
        q = _tile(q_ptr, token, live, key, K)
        k = _tile(k_ptr, token, live, key, K)
        v = _tile(v_ptr, token, live, value, V)
        g = tl.maximum(tl.load(log_keep_ptr + token, mask=live, other=0.0), _LOG_FLOOR)
        e = tl.load(step_ptr + token, mask=live, other=0.0)
        if HAS_THRESHOLD:
            th = tl.load(threshold_ptr + token, mask=live, other=0.0)[:, None]
        else:
            th = tl.zeros([BLOCK_C, 1], dtype=tl.float32)
        through, before, between, between_before, after, whole = _decays(g, DECAYED, BLOCK_C, PRECISION)

        kz = tl.dot(k, z, input_precision=PRECISION)
        prediction = tl.exp(g)[:, None] * kz if DECAYED else kz
        u = _bounded(SIGNAL(prediction, v, th, channel, SETTINGS), channel)
        influence = between_before * e[None, :] * tl.dot(k, tl.trans(k), input_precision=PRECISION)
        for _ in range(SWEEPS):
            prediction = before[:, None] * kz - tl.dot(influence, u, input_precision=PRECISION)
            u = _bounded(SIGNAL(prediction, v, th, channel, SETTINGS), channel)

        reads = between * e[None, :] * tl.dot(q, tl.trans(k), input_precision=PRECISION)
        y = through[:, None] * tl.dot(q, z, input_precision=PRECISION) - tl.dot(reads, u, input_precision="ieee")
        _put(y_ptr, y, token, live, value, V)
        z = whole * z - tl.dot(tl.trans(k), (e * after)[:, None] * u, input_precision=PRECISION)

    tl.store(final_ptr + program * K * V + inner, z, mask=cell)


@triton.jit
def backward_kernel(
    q_ptr,
    k_ptr,
    v_ptr,
    log_keep_ptr,
    step_ptr,
    threshold_ptr,
    starts_ptr,
    d_y_ptr,
    d_final_ptr,
    scratch_ptr,
    d_q_ptr,
    d_k_ptr,
    d_v_ptr,
    d_log_keep_ptr,
    d_step_ptr,
    d_threshold_ptr,
    d_initial_ptr,
    T,
    H,
    K: tl.constexpr,
    V: tl.constexpr,
    SIGNAL: tl.constexpr,
    SETTINGS: tl.constexpr,
    VJP: tl.constexpr,
    CHUNK: tl.constexpr,
    SWEEPS: tl.constexpr,
    DECAYED: tl.constexpr,
    HAS_THRESHOLD: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_V: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """One (batch, head): chunks in reverse, each replayed from its start and differentiated through all sweeps."""
    program = tl.program_id(0).to(tl.int64)
    batch = program // H
    head = program % H
    row = tl.arange(0, BLOCK_C)
    key = tl.arange(0, BLOCK_K)
    value = tl.arange(0, BLOCK_V)
    channel = (value < V)[None, :]
    cell = (key < K)[:, None] & channel
    inner = key[:, None] * V + value[None, :]
    upto = row[:, None] >= row[None, :]
    earlier = row[:, None] > row[None, :]
    # The predictions of all sweeps of the chunk at hand, one [C, V] slot each; rewritten for every chunk.
    slot = scratch_ptr + program * (SWEEPS + 1) * BLOCK_C * BLOCK_V + row[:, None] * BLOCK_V + value[None, :]
    chunks = tl.cdiv(T, CHUNK)
    d_z = tl.load(d_final_ptr + program * K * V + inner, mask=cell, other=0.0)

    for j in range(0, chunks):
        i = chunks - 1 - j
        time = i * CHUNK + row
        live = (row < CHUNK) & (time < T)
        token = (batch * T + time) * H + head
        q = _tile(q_ptr, token, live, key, K)
        k = _tile(k_ptr, token, live, key, K)
        v = _tile(v_ptr, token, live, value, V)
        d_y = _tile(d_y_ptr, token, live, value, V)
        log_keep = tl.load(log_keep_ptr + token, mask=live, other=0.0)
        g = tl.maximum(log_keep, _LOG_FLOOR)
        e = tl.load(step_ptr + token, mask=live, other=0.0)
        if HAS_THRESHOLD:
            th = tl.load(threshold_ptr + token, mask=live, other=0.0)[:, None]
        else:
            th = tl.zeros([BLOCK_C, 1], dtype=tl.float32)
        z = tl.load(starts_ptr + ((batch * chunks + i) * H + head) * K * V + inner, mask=cell, other=0.0)
        through, before, between, between_before, after, whole = _decays(g, DECAYED, BLOCK_C, PRECISION)

        # Replay the sweeps.
        kz = tl.dot(k, z, input_precision=PRECISION)
        kk = tl.dot(k, tl.trans(k), input_precision=PRECISION)
        influence = between_before * e[None, :] * kk
        prediction = tl.exp(g)[:, None] * kz if DECAYED else kz
        tl.debug_barrier()  # the previous chunk may still be reading the slots
        tl.store(slot, prediction)
        for m in range(SWEEPS):
            u = _bounded(SIGNAL(prediction, v, th, channel, SETTINGS), channel)
            prediction = before[:, None] * kz - tl.dot(influence, u, input_precision=PRECISION)
            tl.store(slot + (m + 1) * BLOCK_C * BLOCK_V, prediction)
        tl.debug_barrier()  # a load below may map elements to threads differently from the stores above
        u = _bounded(SIGNAL(prediction, v, th, channel, SETTINGS), channel)

        # The read and the state handed on. A transposed tile is formed by a dot of its own, or transposed before an
        # elementwise product: dot(trans(x), y) with x from a dot was miscompiled on Hopper by some Triton versions.
        k_dz = tl.dot(k, d_z, input_precision=PRECISION)
        handed = e * after
        d_reads = -tl.dot(d_y, tl.trans(u), input_precision=PRECISION)
        d_reads_t = -tl.dot(u, tl.trans(d_y), input_precision=PRECISION)
        between_t = tl.trans(between) * e[:, None]
        d_q = tl.dot(d_reads * between * e[None, :], k, input_precision=PRECISION)
        d_q += tl.dot(through[:, None] * d_y, tl.trans(z), input_precision=PRECISION)
        _put(d_q_ptr, d_q, token, live, key, K)
        d_k = tl.dot(d_reads_t * between_t, q, input_precision=PRECISION)
        d_k -= tl.dot(handed[:, None] * u, tl.trans(d_z), input_precision=PRECISION)
        reads_t = between_t * tl.dot(k, tl.trans(q), input_precision=PRECISION)
        d_u = -tl.dot(reads_t, d_y, input_precision=PRECISION) - handed[:, None] * k_dz

        d_between = d_reads * tl.dot(q, tl.trans(k), input_precision=PRECISION) * between  # dP_ts * D_ts
        d_handed = -tl.sum(u * k_dz, axis=1)
        d_e = tl.sum(d_between, axis=0) + d_handed * after
        d_segment = d_between * e[None, :]
        d_after = d_handed * handed
        d_through = through * tl.sum(d_y * tl.dot(q, z, input_precision=PRECISION), axis=1)
        d_whole = whole * tl.sum(d_z * z)
        d_z = whole * d_z + tl.dot(tl.trans(q), through[:, None] * d_y, input_precision=PRECISION)

        # The sweeps, last to first: prediction(m) = before * kz - influence @ u(m - 1).
        influence_t = tl.trans(between_before) * e[:, None] * kk
        d_kz = tl.zeros([BLOCK_C, BLOCK_V], dtype=tl.float32)
        d_v = tl.zeros([BLOCK_C, BLOCK_V], dtype=tl.float32)
        d_influence = tl.zeros([BLOCK_C, BLOCK_C], dtype=tl.float32)
        d_before = tl.zeros([BLOCK_C], dtype=tl.float32)
        d_th = tl.zeros([BLOCK_C], dtype=tl.float32)
        for n in range(SWEEPS):
            m = SWEEPS - n
            prediction = tl.load(slot + m * BLOCK_C * BLOCK_V)
            d_u = tl.where(_inside(SIGNAL(prediction, v, th, channel, SETTINGS), channel), d_u, 0.0)
            d_p, d_value, d_threshold = VJP(prediction, v, th, d_u, channel, SETTINGS)
            d_v += d_value
            d_th += tl.sum(d_threshold, axis=1)
            d_kz += before[:, None] * d_p
            d_before += tl.sum(d_p * kz, axis=1)
            u = _bounded(SIGNAL(tl.load(slot + (m - 1) * BLOCK_C * BLOCK_V), v, th, channel, SETTINGS), channel)
            d_influence -= tl.dot(d_p, tl.trans(u), input_precision=PRECISION)
            d_u = -tl.dot(influence_t, d_p, input_precision=PRECISION)

        # Sweep 0 predicts from the chunk start.
        prediction = tl.load(slot)
        d_u = tl.where(_inside(SIGNAL(prediction, v, th, channel, SETTINGS), channel), d_u, 0.0)
        d_p, d_value, d_threshold = VJP(prediction, v, th, d_u, channel, SETTINGS)
        d_v += d_value
        d_th += tl.sum(d_threshold, axis=1)
        d_first = tl.sum(d_p * kz, axis=1)
        if DECAYED:
            d_kz += tl.exp(g)[:, None] * d_p
        else:
            d_kz += d_p

        d_kk = d_influence * between_before * e[None, :]
        d_k += tl.dot(d_kk + tl.trans(d_kk), k, input_precision=PRECISION)
        d_k += tl.dot(d_kz, tl.trans(z), input_precision=PRECISION)
        d_z += tl.dot(tl.trans(k), d_kz, input_precision=PRECISION)
        d_between = d_influence * kk * between_before
        d_e += tl.sum(d_between, axis=0)
        d_shifted = d_between * e[None, :]
        d_segment += d_shifted

        # Log keeps: token i takes part in every product that runs across it.
        flow = d_through + tl.sum(d_segment, axis=1) - tl.sum(d_segment, axis=0)
        d_before = d_before * before
        if DECAYED:
            flow += d_before
        d_g = tl.sum(tl.where(upto, flow[:, None], 0.0), axis=0)
        d_g += tl.sum(tl.where(earlier, d_after[None, :], 0.0), axis=1) + d_whole
        if DECAYED:
            d_g += tl.exp(g) * d_first
        else:
            d_g += tl.sum(tl.where(earlier, d_before[:, None], 0.0), axis=0) - tl.sum(d_shifted, axis=1)
        d_g = tl.where(log_keep >= _LOG_FLOOR, d_g, 0.0)

        _put(d_k_ptr, d_k, token, live, key, K)
        _put(d_v_ptr, d_v, token, live, value, V)
        tl.store(d_log_keep_ptr + token, d_g, mask=live)
        tl.store(d_step_ptr + token, d_e, mask=live)
        if HAS_THRESHOLD:
            tl.store(d_threshold_ptr + token, d_th, mask=live)

    tl.store(d_initial_ptr + program * K * V + inner, d_z, mask=cell)
