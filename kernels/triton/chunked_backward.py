"""Matrix memory by gradient descent, chunk by chunk: the jit body of the backward, derived in docs/kernels.md.

Chunks are walked in reverse; each is replayed from its saved start. Names are those of chunked.py, and d_x is the
gradient of x.

Where value channels are split over programs, what is shared by them (queries, keys, gates) is stored once a program, in
arrays with a leading axis of parts that the launcher sums.
"""

from __future__ import annotations

import triton
import triton.language as tl

from miras_search.kernels.triton.channel_decays import channel_spans_vjp, keyed, overlaps_vjp, rows_of
from miras_search.kernels.triton.chunked import bounded, found, inputs_of, log_gates, log_momenta, put, rows_at
from miras_search.kernels.triton.decays import LOG_FLOOR, before_vjp, flipped, gates_vjp, shifted, spans, spans_vjp
from miras_search.kernels.triton.products import product
from miras_search.kernels.triton.tiles import cells_of, inside, memory_of


@triton.jit
def through_signals(
    d_u, first, base, influence, u, inverse, last, v, th, channel, slot,
    SIGNAL: tl.constexpr, VJP: tl.constexpr, SETTINGS: tl.constexpr, SLOPE: tl.constexpr, SWEEPS: tl.constexpr,
    EXACT: tl.constexpr, SOLVE: tl.constexpr, BLOCK_C: tl.constexpr, BLOCK_V: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Gradients of the predictions `first` and `base`, the influence, values and thresholds, from that of u.

    An exact u solves u = signal(base - influence u), so d_p = vjp(d_u - influence^T d_p): the same solve or sweeps,
    transposed. Sweeps that end early are gone through one by one, from the predictions in their slots.
    """
    turned = flipped(influence, BLOCK_C)
    if EXACT:
        if SOLVE:
            d_u = product(flipped(inverse, BLOCK_C), d_u, PRECISION)
        else:
            total = d_u
            for _ in range(SWEEPS):
                d_p, _d_v, _d_th = VJP(last, v, th, tl.where(channel, total, 0.0), channel, SETTINGS)
                total = d_u - product(turned, tl.where(channel, d_p, 0.0), PRECISION)
            d_u = total
        d_base, d_v, d_th = VJP(last, v, th, tl.where(channel, d_u, 0.0), channel, SETTINGS)
        d_base = tl.where(channel, d_base, 0.0)
        d_influence = -product(d_base, tl.trans(u), PRECISION)
        d_first = tl.zeros_like(d_base)
    else:
        d_base = tl.zeros_like(d_u)
        d_v = tl.zeros_like(d_u)
        d_th = tl.zeros_like(d_u)
        d_influence = tl.zeros([BLOCK_C, BLOCK_C], dtype=tl.float32)
        for n in range(SWEEPS):
            m = SWEEPS - n
            prediction = tl.load(slot + m * BLOCK_C * BLOCK_V)
            d_u = tl.where(inside(SIGNAL(prediction, v, th, channel, SETTINGS)) & channel, d_u, 0.0)
            d_p, d_value, d_threshold = VJP(prediction, v, th, d_u, channel, SETTINGS)
            d_p = tl.where(channel, d_p, 0.0)
            d_v += d_value
            d_th += d_threshold
            d_base += d_p
            earlier = tl.load(slot + (m - 1) * BLOCK_C * BLOCK_V)
            earlier = bounded(SIGNAL(earlier, v, th, channel, SETTINGS), channel)
            d_influence -= product(d_p, tl.trans(earlier), PRECISION)
            d_u = -product(turned, d_p, PRECISION)
        d_u = tl.where(inside(SIGNAL(first, v, th, channel, SETTINGS)) & channel, d_u, 0.0)
        d_first, d_value, d_threshold = VJP(first, v, th, d_u, channel, SETTINGS)
        d_first = tl.where(channel, d_first, 0.0)
        d_v += d_value
        d_th += d_threshold
    return d_first, d_base, d_influence, d_v, tl.where(channel, d_th, 0.0)


@triton.jit
def backward_kernel(
    q_ptr, k_ptr, v_ptr, w_ptr, log_keep_ptr, step_ptr, momentum_ptr, threshold_ptr, starts_ptr, starts_s_ptr,
    d_y_ptr, d_final_ptr, d_final_s_ptr, scratch_ptr,
    d_q_ptr, d_k_ptr, d_v_ptr, d_w_ptr, d_log_keep_ptr, d_step_ptr, d_momentum_ptr, d_threshold_ptr,
    d_initial_ptr, d_initial_s_ptr, T, H,
    K: tl.constexpr, V: tl.constexpr, SIGNAL: tl.constexpr, VJP: tl.constexpr, SETTINGS: tl.constexpr,
    SLOPE: tl.constexpr, CHUNK: tl.constexpr, WRITES: tl.constexpr, SWEEPS: tl.constexpr, EXACT: tl.constexpr,
    SOLVE: tl.constexpr, DECAYED: tl.constexpr, KEYED: tl.constexpr, HAS_W: tl.constexpr, HAS_MOMENTUM: tl.constexpr,
    THRESHOLD: tl.constexpr, AT_ONCE: tl.constexpr, NEAR: tl.constexpr,
    BLOCK_C: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_V: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """One (batch, head): chunks in reverse, each replayed from its start and differentiated through its signals.

    AT_ONCE: one chunk of it; `d_final` then holds the gradients of all chunks' end states (transitions.py).
    """
    program, batch, head = memory_of(H)
    part = tl.program_id(1).to(tl.int64)
    row = tl.arange(0, BLOCK_C)
    value = tl.program_id(1) * BLOCK_V + tl.arange(0, BLOCK_V)
    key, channel, cell, inner = cells_of(value, K, V, BLOCK_K)
    diagonal = row[:, None] == row[None, :]
    # The predictions of all sweeps of the chunk at hand, one [C, V] slot each; rewritten for every chunk.
    own = (program * tl.num_programs(1) + part) * tl.num_programs(2) + tl.program_id(2)
    own *= (SWEEPS + 1) * BLOCK_C * BLOCK_V
    slot = scratch_ptr + own + row[:, None] * BLOCK_V + tl.arange(0, BLOCK_V)[None, :]
    tokens = part * tl.num_programs(0) * T  # where this part begins in arrays [parts, B * T * H, ..]
    chunks = tl.cdiv(T, CHUNK)
    written = w_ptr if HAS_W else k_ptr
    lowest = tl.program_id(2)  # 0 unless AT_ONCE
    highest = lowest + 1 if AT_ONCE else chunks
    final = (batch * chunks + lowest) * H + head if AT_ONCE else program
    d_z = tl.load(d_final_ptr + final * K * V + inner, mask=cell, other=0.0)
    d_s = tl.zeros([BLOCK_K, BLOCK_V], dtype=tl.float32)
    if HAS_MOMENTUM:
        d_s = tl.load(d_final_s_ptr + final * K * V + inner, mask=cell, other=0.0)

    for j in range(lowest, highest):
        i = j if AT_ONCE else chunks - 1 - j
        start = ((batch * chunks + i) * H + head) * K * V + inner
        z = tl.load(starts_ptr + start, mask=cell, other=0.0)
        ordinal, live, fades, reads, write, token = rows_at(i, row, batch, head, T, H, CHUNK, WRITES)
        q, k, v, w, e, th = inputs_of(
            q_ptr, k_ptr, v_ptr, w_ptr, step_ptr, threshold_ptr, live, reads, write, token, key, value,
            K, V, HAS_W, THRESHOLD, BLOCK_C,
        )  # fmt: skip
        d_y = rows_of(d_y_ptr, token, reads, value, V)

        # Replay: coefficients and predictions as in the forward.
        if KEYED:
            q, k, w = q.to(tl.float32), k.to(tl.float32), w.to(tl.float32)
            g, fade, through, before, after, whole, faded, overlap, seen = keyed(
                q, k, w, written, log_keep_ptr, write, token, ordinal, live, fades, key, H,
                K, WRITES, NEAR, DECAYED, BLOCK_C, PRECISION,
            )  # fmt: skip
            first = product(faded, z, PRECISION)
            base = product(k * before, z, PRECISION)
            given = w * after
        else:
            g = log_gates(log_keep_ptr, token, fades)
            fade = tl.exp(g)
            through, after, whole, between, segment = spans(g, BLOCK_C, PRECISION)
            before, between_before = shifted(g, through, between, segment, DECAYED, BLOCK_C)
            kz = product(k, z, PRECISION)
            first = fade[:, None] * kz if DECAYED else kz
            base = before[:, None] * kz
            kw = product(k, tl.trans(w), PRECISION)
            qw = product(q, tl.trans(w), PRECISION)
            if HAS_MOMENTUM:
                s = tl.load(starts_s_ptr + start, mask=cell, other=0.0)
                h = log_momenta(momentum_ptr, write, live)
                m_through, m_after, m_whole, lasting, m_segment = spans(h, BLOCK_C, PRECISION)
                after = tl.where(live, after, 0.0)  # padding rows add no momentum
                ks = product(k, s, PRECISION)
                m_before = tl.sum(between_before * m_through[None, :], axis=1)
                m_read = tl.sum(between * m_through[None, :], axis=1)
                base += m_before[:, None] * ks
                handed = tl.sum(lasting * after[:, None], axis=0)
                p = product(between, lasting, PRECISION)
                p_before = product(between_before, lasting, PRECISION)
            else:
                handed = after
                p = between
                p_before = between_before
            overlap = p_before * kw
            seen = p * qw

        influence = overlap * e[None, :]
        u, inverse, last = found(
            first, base, influence, v, th, channel, slot,
            SIGNAL, SETTINGS, SLOPE, SWEEPS, EXACT, SOLVE, BLOCK_C * BLOCK_V, BLOCK_C, PRECISION,
        )  # fmt: skip

        # The reads, y = (q * through) z - (seen * e) u, and the state handed on, whole * z - given^T (e * u).
        eu = e[:, None] * u
        d_read = -product(d_y, tl.trans(u), PRECISION)
        d_given = -product(eu, tl.trans(d_z), PRECISION)
        d_eu = -product(given, d_z, PRECISION) if KEYED else -handed[:, None] * product(w, d_z, PRECISION)
        if HAS_MOMENTUM:
            d_given_s = -product(eu, tl.trans(d_s), PRECISION)
            d_eu -= m_after[:, None] * product(w, d_s, PRECISION)
        d_u = e[:, None] * d_eu - product(flipped(seen, BLOCK_C) * e[:, None], d_y, PRECISION)
        d_e = tl.sum(u * d_eu, axis=1) + tl.sum(d_read * seen, axis=0)
        d_seen = d_read * e[None, :]
        d_qz = product(d_y, tl.trans(z), PRECISION)

        d_first, d_base, d_influence, d_v, d_th = through_signals(
            d_u, first, base, influence, u, inverse, last, v, th, channel, slot,
            SIGNAL, VJP, SETTINGS, SLOPE, SWEEPS, EXACT, SOLVE, BLOCK_C, BLOCK_V, PRECISION,
        )  # fmt: skip
        d_e += tl.sum(d_influence * overlap, axis=0)
        d_overlap = d_influence * e[None, :]

        if KEYED:
            d_overlap = tl.where(row[:, None] > row[None, :], d_overlap, 0.0)
            met = tl.sum(tl.where(diagonal, d_seen, 0.0), axis=1)[:, None]
            d_seen = tl.where(row[:, None] > row[None, :], d_seen, 0.0)
            end = tl.minimum((i + 1) * (CHUNK * WRITES), T * WRITES)
            d_faded, d_q_faded, d_w = overlaps_vjp(
                d_overlap, d_seen, faded, q * fade, w, g, q_ptr, k_ptr, written, log_keep_ptr,
                write, token, ordinal, live, end, key, H, K, WRITES, NEAR, DECAYED, BLOCK_C, PRECISION,
            )  # fmt: skip
            d_readers = faded * d_faded + q * fade * d_q_faded
            d_writers = w * d_w
            d_faded += product(d_first, tl.trans(z), PRECISION)
            d_k_before = product(d_base, tl.trans(z), PRECISION)
            d_own = q * fade * d_q_faded
            if DECAYED:
                d_own += faded * d_faded
                d_k = fade * d_faded + before * d_k_before
            else:
                d_k = d_faded + before * d_k_before
            d_q = fade * d_q_faded + met * w + through * d_qz
            d_w += met * q + after * d_given
            d_g = channel_spans_vjp(
                q * through * d_qz, k * before * d_k_before, given * d_given, whole * tl.sum(d_z * z, axis=1),
                d_readers, d_writers, d_own, DECAYED, BLOCK_C, PRECISION,
            )  # fmt: skip
            d_z = whole[:, None] * d_z + product(tl.trans(q * through), d_y, PRECISION)
            d_z += product(tl.trans(k * before), d_base, PRECISION)
            d_z += product(tl.trans(faded), d_first, PRECISION)
            raw = rows_of(log_keep_ptr, token, fades, key, K)
            put(d_log_keep_ptr, tl.where(raw >= LOG_FLOOR, d_g, 0.0), tokens + token, fades, key, K)
        else:
            d_qw = d_seen * p
            d_kw = d_overlap * p_before
            d_p = d_seen * qw
            d_p_before = d_overlap * kw
            d_kz = before[:, None] * d_base
            d_kz += fade[:, None] * d_first if DECAYED else d_first
            d_q = product(d_qw, w, PRECISION) + through[:, None] * d_qz
            d_k = product(d_kw, w, PRECISION)
            d_k += product(d_kz, tl.trans(z), PRECISION)
            d_w = product(flipped(d_qw, BLOCK_C), q, PRECISION)
            d_w += product(flipped(d_kw, BLOCK_C), k, PRECISION)
            d_w += handed[:, None] * d_given
            d_through = tl.sum(q * d_qz, axis=1)
            d_before = tl.sum(d_base * kz, axis=1)
            d_after = tl.sum(w * d_given, axis=1)
            d_whole = whole * tl.sum(d_z * z)
            d_old = whole * d_z + product(tl.trans(q), through[:, None] * d_y, PRECISION)
            d_old += product(tl.trans(k), d_kz, PRECISION)
            if HAS_MOMENTUM:
                d_qs = product(d_y, tl.trans(s), PRECISION)
                d_q += m_read[:, None] * d_qs
                d_k += m_before[:, None] * product(d_base, tl.trans(s), PRECISION)
                d_w += m_after[:, None] * d_given_s
                d_m_read = tl.sum(q * d_qs, axis=1)
                d_m_before = tl.sum(d_base * ks, axis=1)
                d_m_after = tl.sum(w * d_given_s, axis=1)
                d_m_end = tl.sum(d_z * s)
                d_m_whole = tl.sum(d_s * s)
                d_s = m_whole * d_s + tl.sum(after * m_through) * d_z
                d_s += product(tl.trans(q), m_read[:, None] * d_y, PRECISION)
                d_s += product(tl.trans(k), m_before[:, None] * d_base, PRECISION)
                # P = D M, P' = D' M, and the sums over D, D' and the product after each row with M's first column.
                enduring = flipped(lasting, BLOCK_C)
                d_between = product(d_p, enduring, PRECISION) + d_m_read[:, None] * m_through[None, :]
                d_between_before = product(d_p_before, enduring, PRECISION)
                d_between_before += d_m_before[:, None] * m_through[None, :]
                d_lasting = product(flipped(between, BLOCK_C), d_p, PRECISION)
                d_lasting += product(flipped(between_before, BLOCK_C), d_p_before, PRECISION)
                d_lasting += after[:, None] * d_after[None, :]
                d_m_through = tl.sum(between * d_m_read[:, None] + between_before * d_m_before[:, None], axis=0)
                d_m_through += after * d_m_end
                d_after = tl.sum(lasting * d_after[None, :], axis=1) + m_through * d_m_end
                d_momentum = gates_vjp(
                    h, m_through, m_after, lasting, m_segment, d_m_through, d_m_after, d_m_whole, d_lasting,
                    BLOCK_C, PRECISION,
                )  # fmt: skip
                writes = part * tl.num_programs(0) * T * WRITES + write
                tl.store(d_momentum_ptr + writes, d_momentum, mask=live)
            else:
                d_between = d_p
                d_between_before = d_p_before
            d_shift = d_between_before * between_before
            d_segment = d_between * between + d_shift
            d_before = before * d_before
            d_through = through * d_through
            if DECAYED:
                d_through += d_before
            d_g = spans_vjp(d_segment, d_through, after * d_after, d_whole, BLOCK_C)
            if DECAYED:
                d_g += fade * tl.sum(d_first * kz, axis=1)
            else:
                d_g += before_vjp(d_before, d_shift, BLOCK_C)
            raw = tl.load(log_keep_ptr + token, mask=fades, other=0.0)
            tl.store(d_log_keep_ptr + tokens + token, tl.where(raw >= LOG_FLOOR, d_g, 0.0), mask=fades)
            d_z = d_old

        writes = part * tl.num_programs(0) * T * WRITES + write
        put(d_q_ptr, d_q, tokens + token, reads, key, K)
        if HAS_W:
            put(d_w_ptr, d_w, writes, live, key, K)
        else:
            d_k += d_w
        put(d_k_ptr, d_k, writes, live, key, K)
        put(d_v_ptr, d_v, write, live, value, V)
        tl.store(d_step_ptr + writes, d_e, mask=live)
        if THRESHOLD == "value":
            put(d_threshold_ptr, d_th, write, live, value, V)
        elif THRESHOLD == "head":
            tl.store(d_threshold_ptr + writes, tl.sum(d_th, axis=1), mask=live)

    if not AT_ONCE:
        tl.store(d_initial_ptr + program * K * V + inner, d_z, mask=cell)
    if HAS_MOMENTUM:
        tl.store(d_initial_s_ptr + program * K * V + inner, d_s, mask=cell)
