"""Matrix memory token by token under any link: the jit bodies, forward and backward.

One program runs one (batch, head): what it keeps stays on chip and the writes follow one another. docs/kernels.md holds
the derivation of the backward, in the names used here; loop_launch.py starts the bodies.

Legend: B batch, T tokens, N = T * WRITES writes, H heads, K key dim, V value dim. What is kept are tiles of one array
[B, H, TILES, K, V]: z the accumulator (or the weights); s momentum, if MOMENTUM; r the running weights of a chunk, if
TANGENT; f where a chunk's gradients are taken, if FROZEN. Modes:

    LINKED   the weights in force are LINK(z);  PRIMAL: a write ends with LINK on the weights in place
    TANGENT  they are r, which moves as z does and is set to LINK(z) at a chunk's end;  RESTART: z itself is, there
    FROZEN   gradients are taken at f, which a chunk's end sets to what the next one starts from
    DECAYED  keep fades what the gradient is taken at, too
"""

# ruff: noqa: SIM102  (what is known when a body is compiled stands in an `if` of its own)
from __future__ import annotations

import triton
import triton.language as tl

from miras_search.kernels.triton.loop_parts import (
    gate,
    gates,
    get_tiles,
    linked,
    only,
    put_gate,
    put_tiles,
    signal_of,
    threshold_of,
    vector,
    write_of,
    written,
)
from miras_search.kernels.triton.tiles import cells_of, inside, memory_of


@triton.jit
def _next_chunk(
    z, r, f, cell, parameter, LINK: tl.constexpr, SETTINGS: tl.constexpr, TANGENT: tl.constexpr,
    RESTART: tl.constexpr, FROZEN: tl.constexpr,
):  # fmt: skip
    """z, r and f where a chunk ends and the next one starts."""
    if RESTART:
        z = linked(z, cell, parameter, LINK, SETTINGS, True)
    if TANGENT:
        r = linked(z, cell, parameter, LINK, SETTINGS, True)
    if FROZEN:
        f = r if TANGENT else z
    return z, r, f


@triton.jit
def forward_kernel(
    q_ptr, k_ptr, v_ptr, w_ptr, log_keep_ptr, step_ptr, momentum_ptr, threshold_ptr, parameter_ptr, state_ptr,
    y_ptr, final_ptr, saved_ptr, N, H, position,
    K: tl.constexpr, V: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_V: tl.constexpr,
    SIGNAL: tl.constexpr, BIAS: tl.constexpr, LINK: tl.constexpr, SETTINGS: tl.constexpr,
    LINKED: tl.constexpr, PRIMAL: tl.constexpr, TANGENT: tl.constexpr, RESTART: tl.constexpr, FROZEN: tl.constexpr,
    DECAYED: tl.constexpr, CHUNK: tl.constexpr, WRITES: tl.constexpr, KEEP: tl.constexpr, STEP: tl.constexpr,
    MOMENTUM: tl.constexpr, THRESHOLD: tl.constexpr, OWN_KEYS: tl.constexpr, HAS_PARAMETER: tl.constexpr,
    EVERY: tl.constexpr, SAVE: tl.constexpr, TILES: tl.constexpr,
):  # fmt: skip
    """One (batch, head): y, what is kept at the end, and at every EVERY-th write when the backward will want it."""
    program, batch, head = memory_of(H)
    value = tl.arange(0, BLOCK_V)
    key, channel, cell, inner = cells_of(value, K, V, BLOCK_K)
    LIMITED: tl.constexpr = FROZEN
    # whether a gradient is taken at the weights that the write before left in force
    SHARED: tl.constexpr = not (DECAYED or FROZEN)
    parameter = tl.load(parameter_ptr + program) if HAS_PARAMETER else 0.0
    segments = tl.cdiv(N, EVERY)

    z, s, r, f = get_tiles(state_ptr + program * TILES * K * V, inner, cell, K, V, MOMENTUM, TANGENT, FROZEN)
    weights = linked(z, cell, parameter, LINK, SETTINGS, LINKED)
    for i in range(0, segments):
        if SAVE:
            place = saved_ptr + (program * segments + i) * TILES * K * V
            put_tiles(place, z, s, r, f, inner, cell, K, V, MOMENTUM, TANGENT, FROZEN)
        for n in range(i * EVERY, tl.minimum((i + 1) * EVERY, N)):
            pair, token, first, last = write_of(n, batch, head, N, H, WRITES)
            keep, step, beta = gates(
                log_keep_ptr, step_ptr, momentum_ptr, token, pair, first, key, value, K, V, KEEP, STEP, MOMENTUM
            )
            k = vector(k_ptr, pair, key, K)
            v = vector(v_ptr, pair, value, V)
            threshold = threshold_of(threshold_ptr, pair, value, V, THRESHOLD)
            if SHARED and LINKED:
                seen = weights
            else:
                at = f if FROZEN else (r if TANGENT else z)
                seen = linked(keep * at if DECAYED else at, cell, parameter, LINK, SETTINGS, LINKED)
            _prediction, u = signal_of(seen, k, v, threshold, channel, SIGNAL, BIAS, LIMITED)
            h = vector(w_ptr, pair, key, K) if OWN_KEYS else k
            z, s, r = written(
                z, s, r, h, u, keep, step, beta, cell, parameter, LINK, SETTINGS, PRIMAL, TANGENT, MOMENTUM
            )
            weights = linked(r if TANGENT else z, cell, parameter, LINK, SETTINGS, LINKED)
            q = vector(q_ptr, token, key, K)
            tl.store(y_ptr + token * V + value, tl.sum(weights * q[:, None], axis=0), mask=only(value < V, last))
            if CHUNK > 0:
                if last & ((position + n // WRITES + 1) % CHUNK == 0):
                    z, r, f = _next_chunk(z, r, f, cell, parameter, LINK, SETTINGS, TANGENT, RESTART, FROZEN)
    put_tiles(
        final_ptr + program * TILES * K * V, z, s, r, f, inner, cell, K, V, MOMENTUM, TANGENT, FROZEN
    )  # fmt: skip


@triton.jit
def backward_kernel(
    q_ptr, k_ptr, v_ptr, w_ptr, log_keep_ptr, step_ptr, momentum_ptr, threshold_ptr, parameter_ptr, saved_ptr,
    d_y_ptr, d_final_ptr, scratch_ptr,
    d_q_ptr, d_k_ptr, d_v_ptr, d_w_ptr, d_log_keep_ptr, d_step_ptr, d_momentum_ptr, d_threshold_ptr, d_parameter_ptr,
    d_state_ptr, N, H, position,
    K: tl.constexpr, V: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_V: tl.constexpr,
    SIGNAL: tl.constexpr, VJP: tl.constexpr, BIAS: tl.constexpr, LINK: tl.constexpr, LINK_VJP: tl.constexpr,
    SETTINGS: tl.constexpr, LINKED: tl.constexpr, PRIMAL: tl.constexpr, TANGENT: tl.constexpr, RESTART: tl.constexpr,
    FROZEN: tl.constexpr, DECAYED: tl.constexpr, CHUNK: tl.constexpr, WRITES: tl.constexpr, KEEP: tl.constexpr,
    STEP: tl.constexpr, MOMENTUM: tl.constexpr, THRESHOLD: tl.constexpr, OWN_KEYS: tl.constexpr,
    HAS_PARAMETER: tl.constexpr, EVERY: tl.constexpr, TILES: tl.constexpr,
):  # fmt: skip
    """One (batch, head): segments in reverse, each replayed from its saved start and differentiated write by write."""
    program, batch, head = memory_of(H)
    value = tl.arange(0, BLOCK_V)
    key, channel, cell, inner = cells_of(value, K, V, BLOCK_K)
    LIMITED: tl.constexpr = FROZEN
    SHARED: tl.constexpr = not (DECAYED or FROZEN)
    parameter = tl.load(parameter_ptr + program) if HAS_PARAMETER else 0.0
    segments = tl.cdiv(N, EVERY)
    slots = scratch_ptr + program * EVERY * TILES * K * V

    d_z, d_s, d_r, d_f = get_tiles(
        d_final_ptr + program * TILES * K * V, inner, cell, K, V, MOMENTUM, TANGENT, FROZEN
    )  # fmt: skip
    d_parameter = tl.sum(tl.zeros_like(d_z))
    # of the weights in force after the write at hand, by the gradient that the next write takes there
    d_seen = tl.zeros_like(d_z)
    seen = tl.zeros_like(d_z)

    for j in range(0, segments):
        i = segments - 1 - j
        begin = i * EVERY
        end = tl.minimum(begin + EVERY, N)
        tl.debug_barrier()  # the segment before may still be reading the slots
        z, s, r, f = get_tiles(
            saved_ptr + (program * segments + i) * TILES * K * V, inner, cell, K, V, MOMENTUM, TANGENT, FROZEN
        )
        for n in range(begin, end):
            put_tiles(slots + (n - begin) * TILES * K * V, z, s, r, f, inner, cell, K, V, MOMENTUM, TANGENT, FROZEN)
            pair, token, first, last = write_of(n, batch, head, N, H, WRITES)
            keep, step, beta = gates(
                log_keep_ptr, step_ptr, momentum_ptr, token, pair, first, key, value, K, V, KEEP, STEP, MOMENTUM
            )
            k = vector(k_ptr, pair, key, K)
            v = vector(v_ptr, pair, value, V)
            threshold = threshold_of(threshold_ptr, pair, value, V, THRESHOLD)
            at = f if FROZEN else (r if TANGENT else z)
            here = linked(keep * at if DECAYED else at, cell, parameter, LINK, SETTINGS, LINKED)
            _prediction, u = signal_of(here, k, v, threshold, channel, SIGNAL, BIAS, LIMITED)
            h = vector(w_ptr, pair, key, K) if OWN_KEYS else k
            z, s, r = written(
                z, s, r, h, u, keep, step, beta, cell, parameter, LINK, SETTINGS, PRIMAL, TANGENT, MOMENTUM
            )
            if CHUNK > 0:
                if last & ((position + n // WRITES + 1) % CHUNK == 0):
                    z, r, f = _next_chunk(z, r, f, cell, parameter, LINK, SETTINGS, TANGENT, RESTART, FROZEN)
        tl.debug_barrier()  # a load below may map elements to threads differently from the stores above
        if SHARED and LINKED:
            if j == 0:
                seen = linked(z, cell, parameter, LINK, SETTINGS, LINKED)

        for back in range(0, end - begin):
            n = end - 1 - back
            pair, token, first, last = write_of(n, batch, head, N, H, WRITES)
            z, s, r, f = get_tiles(
                slots + (n - begin) * TILES * K * V, inner, cell, K, V, MOMENTUM, TANGENT, FROZEN
            )  # fmt: skip
            keep, step, beta = gates(
                log_keep_ptr, step_ptr, momentum_ptr, token, pair, first, key, value, K, V, KEEP, STEP, MOMENTUM
            )
            q = vector(q_ptr, token, key, K)
            k = vector(k_ptr, pair, key, K)
            v = vector(v_ptr, pair, value, V)
            h = vector(w_ptr, pair, key, K) if OWN_KEYS else k
            threshold = threshold_of(threshold_ptr, pair, value, V, THRESHOLD)
            at = f if FROZEN else (r if TANGENT else z)
            here = linked(keep * at if DECAYED else at, cell, parameter, LINK, SETTINGS, LINKED)
            prediction, u = signal_of(here, k, v, threshold, channel, SIGNAL, BIAS, LIMITED)
            # the same as written, with what its backward needs
            change = -step * (h[:, None] * u)
            if MOMENTUM != "none":
                change += beta * s
            moved = keep * z + change
            z1 = moved
            if PRIMAL:
                z1 = tl.where(cell, LINK(moved, step, cell, parameter, SETTINGS), 0.0)
            r1 = keep * r + change if TANGENT else z1

            # a chunk's end, which comes after the read
            if CHUNK > 0:
                if last & ((position + n // WRITES + 1) % CHUNK == 0):
                    if FROZEN:
                        if TANGENT:
                            d_r += d_f
                        else:
                            d_z += d_f
                        d_f = tl.zeros_like(d_z)
                    if TANGENT:
                        w1 = linked(z1, cell, parameter, LINK, SETTINGS, True)
                        d_at, d_par = LINK_VJP(z1, w1, cell, parameter, d_r, SETTINGS)
                        d_z += tl.where(cell, d_at, 0.0)
                        d_parameter += d_par
                        d_r = tl.zeros_like(d_z)
                    if RESTART:
                        w1 = linked(z1, cell, parameter, LINK, SETTINGS, True)
                        d_at, d_par = LINK_VJP(z1, w1, cell, parameter, d_z, SETTINGS)
                        d_z = tl.where(cell, d_at, 0.0)
                        d_parameter += d_par

            # the read
            d_y = tl.load(d_y_ptr + token * V + value, mask=only(value < V, last), other=0.0).to(tl.float32)
            d_weights = q[:, None] * d_y[None, :]
            if LINKED:
                if SHARED:
                    w1 = seen
                    d_weights += d_seen
                else:
                    w1 = linked(z1, cell, parameter, LINK, SETTINGS, LINKED)
                d_at, d_par = LINK_VJP(z1, w1, cell, parameter, d_weights, SETTINGS)
                d_z += tl.where(cell, d_at, 0.0)
                d_parameter += d_par
            elif TANGENT:
                w1 = r1
                d_r += d_weights
            else:
                w1 = z1
                d_z += d_weights
            d_q = tl.sum(w1 * d_y[None, :], axis=1)
            tl.store(d_q_ptr + token * K + key, d_q, mask=only(key < K, last))

            # the write
            d_step = tl.zeros_like(d_z)
            if PRIMAL:
                d_moved, d_shrunk, d_par = LINK_VJP(moved, step, cell, parameter, d_z, SETTINGS)
                d_z = tl.where(cell, d_moved, 0.0)
                d_step += tl.where(cell, d_shrunk, 0.0)
                d_parameter += d_par
            d_change = d_z
            d_keep = d_z * z
            d_z = keep * d_z
            if TANGENT:
                d_change += d_r
                d_keep += d_r * r
                d_r = keep * d_r
            if MOMENTUM != "none":
                d_change += d_s
                d_beta = d_change * s
                d_s = beta * d_change
                rows, cols = gate(momentum_ptr, pair, key, value, K, V, MOMENTUM, 1.0)
                d_rows = tl.sum(d_beta * cols[None, :], axis=1)
                d_cols = tl.sum(d_beta * rows[:, None], axis=0)
                put_gate(d_momentum_ptr, pair, d_rows, d_cols, pair >= 0, key, value, K, V, MOMENTUM)
            d_step -= d_change * (h[:, None] * u)
            rows, cols = gate(step_ptr, pair, key, value, K, V, STEP, 1.0)
            d_rows = tl.sum(d_step * cols[None, :], axis=1)
            d_cols = tl.sum(d_step * rows[:, None], axis=0)
            put_gate(d_step_ptr, pair, d_rows, d_cols, pair >= 0, key, value, K, V, STEP)
            d_outer = -step * d_change
            d_h = tl.sum(d_outer * u, axis=1)
            d_u = tl.sum(d_outer * h[:, None], axis=0)[None, :]

            # the signal
            if LIMITED:
                d_u = tl.where(inside(u), d_u, 0.0)
            d_u = tl.where(channel, d_u, 0.0)
            d_p, d_v, d_threshold = VJP(prediction, v[None, :], threshold, d_u, channel, BIAS)
            d_p = tl.where(channel, d_p, 0.0)
            tl.store(d_v_ptr + pair * V + value[None, :], d_v, mask=channel)
            if THRESHOLD == "head":
                d_threshold = tl.where(channel, d_threshold, 0.0)
                tl.store(d_threshold_ptr + pair + tl.arange(0, 1), tl.sum(d_threshold, axis=1))
            elif THRESHOLD == "value":
                tl.store(d_threshold_ptr + pair * V + value[None, :], d_threshold, mask=channel)
            d_k = tl.sum(here * d_p, axis=1)
            if OWN_KEYS:
                tl.store(d_w_ptr + pair * K + key, d_h, mask=key < K)
            else:
                d_k += d_h
            tl.store(d_k_ptr + pair * K + key, d_k, mask=key < K)

            # where the gradient was taken
            d_at = k[:, None] * d_p
            if LINKED and SHARED:
                d_seen = d_at  # added to what the read before it gives back, in the next pass
                seen = here
            else:
                if LINKED:
                    d_at, d_par = LINK_VJP(
                        keep * at if DECAYED else at, here, cell, parameter, d_at, SETTINGS
                    )  # fmt: skip
                    d_at = tl.where(cell, d_at, 0.0)
                    d_parameter += d_par
                if DECAYED:
                    d_keep += d_at * at
                    d_at = keep * d_at
                if FROZEN:
                    d_f += d_at
                elif TANGENT:
                    d_r += d_at
                else:
                    d_z += d_at
            d_log = d_keep * keep
            put_gate(
                d_log_keep_ptr, token, tl.sum(d_log, axis=1), tl.sum(d_log, axis=0), first, key, value, K, V, KEEP
            )  # fmt: skip

    if LINKED and SHARED:
        if segments > 0:
            z, s, r, f = get_tiles(
                saved_ptr + program * segments * TILES * K * V, inner, cell, K, V, MOMENTUM, TANGENT, FROZEN
            )
            d_at, d_par = LINK_VJP(z, seen, cell, parameter, d_seen, SETTINGS)
            d_z += tl.where(cell, d_at, 0.0)
            d_parameter += d_par
    put_tiles(
        d_state_ptr + program * TILES * K * V, d_z, d_s, d_r, d_f, inner, cell, K, V, MOMENTUM, TANGENT, FROZEN
    )  # fmt: skip
    if HAS_PARAMETER:
        tl.store(d_parameter_ptr + program, d_parameter)
