"""One token from a state, forward only: the jit body of the decode step of every matrix memory, and its operator.

One program runs one (batch, head). Unlike the loop it takes refined gradients as well: what is kept then ends with a
tower of SWEEPS lower levels, each the accumulator (or the running weights) and, with momentum, the momentum. A chunk's
end is not the kernel's: decode_run.py knows the position.

Legend: B batch, H heads, K key dim, V value dim, WRITES of the token. Tiles as token_loop.py has them, but f is what is
kept at the chunk's start, before any link.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from miras_search.kernels.triton.loop_launch import LoopInputs, LoopRule, block, warps
from miras_search.kernels.triton.loop_ops import inputs_of
from miras_search.kernels.triton.loop_parts import (
    gates,
    get_tiles,
    linked,
    put_tiles,
    signal_of,
    threshold_of,
    vector,
    written,
)
from miras_search.kernels.triton.tiles import FUSED, cells_of, memory_of
from miras_search.kernels.vmap import folded


@triton.jit
def decode_kernel(
    q_ptr, k_ptr, v_ptr, w_ptr, log_keep_ptr, step_ptr, momentum_ptr, threshold_ptr, parameter_ptr, state_ptr,
    y_ptr, final_ptr, H,
    K: tl.constexpr, V: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_V: tl.constexpr,
    SIGNAL: tl.constexpr, BIAS: tl.constexpr, LINK: tl.constexpr, SETTINGS: tl.constexpr,
    LINKED: tl.constexpr, PRIMAL: tl.constexpr, TANGENT: tl.constexpr, DECAYED: tl.constexpr, WRITES: tl.constexpr,
    KEEP: tl.constexpr, STEP: tl.constexpr, MOMENTUM: tl.constexpr, THRESHOLD: tl.constexpr, OWN_KEYS: tl.constexpr,
    HAS_PARAMETER: tl.constexpr, EXACT: tl.constexpr, SWEEPS: tl.constexpr, TILES: tl.constexpr,
):  # fmt: skip
    """One (batch, head): the token's writes, all levels of each, then the read."""
    program, batch, head = memory_of(H)
    value = tl.arange(0, BLOCK_V)
    key, channel, cell, inner = cells_of(value, K, V, BLOCK_K)
    FROZEN: tl.constexpr = not EXACT
    parameter = tl.load(parameter_ptr + program) if HAS_PARAMETER else 0.0
    base = program * TILES * K * V
    depth = 2 if MOMENTUM != "none" else 1  # tiles of a level
    levels = TILES - SWEEPS * depth  # the first of them

    z, s, r, f = get_tiles(state_ptr + base, inner, cell, K, V, MOMENTUM, TANGENT, FROZEN)
    for j in tl.static_range(WRITES):
        source = state_ptr + base if j == 0 else final_ptr + base
        if j > 0:
            tl.debug_barrier()  # the levels that the write before has stored
        pair = (batch * WRITES + j) * H + head
        keep, step, beta = gates(
            log_keep_ptr, step_ptr, momentum_ptr, program, pair, j == 0, key, value, K, V, KEEP, STEP, MOMENTUM
        )
        k = vector(k_ptr, pair, key, K)
        h = vector(w_ptr, pair, key, K) if OWN_KEYS else k
        v = vector(v_ptr, pair, value, V)
        threshold = threshold_of(threshold_ptr, pair, value, V, THRESHOLD)
        if EXACT:
            at = r if TANGENT else z
        else:
            at = linked(f, cell, parameter, LINK, SETTINGS, TANGENT)
            for m in range(SWEEPS):
                place = (levels + m * depth) * K * V + inner
                zm = tl.load(source + place, mask=cell, other=0.0)
                sm = zm
                if MOMENTUM != "none":
                    sm = tl.load(source + place + K * V, mask=cell, other=0.0)
                seen = linked(keep * at if DECAYED else at, cell, parameter, LINK, SETTINGS, LINKED)
                _prediction, u = signal_of(seen, k, v, threshold, channel, SIGNAL, BIAS, True)
                z1, s1, _unused = written(
                    zm, sm, zm, h, u, keep, step, beta, cell, parameter, LINK, SETTINGS, PRIMAL, False, MOMENTUM
                )
                tl.store(final_ptr + base + place, z1, mask=cell)
                if MOMENTUM != "none":
                    tl.store(final_ptr + base + place + K * V, s1, mask=cell)
                at = zm
        seen = linked(keep * at if DECAYED else at, cell, parameter, LINK, SETTINGS, LINKED)
        _prediction, u = signal_of(seen, k, v, threshold, channel, SIGNAL, BIAS, FROZEN)
        z, s, r = written(z, s, r, h, u, keep, step, beta, cell, parameter, LINK, SETTINGS, PRIMAL, TANGENT, MOMENTUM)
    put_tiles(final_ptr + base, z, s, r, f, inner, cell, K, V, MOMENTUM, TANGENT, FROZEN)
    weights = linked(r if TANGENT else z, cell, parameter, LINK, SETTINGS, LINKED)
    q = vector(q_ptr, program, key, K)
    tl.store(y_ptr + program * V + value, tl.sum(weights * q[:, None], axis=0), mask=value < V)


@torch.library.custom_op("miras::decode", mutates_args=())
def decode_op(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    log_keep: Tensor,
    step: Tensor,
    state: Tensor,
    w: Tensor | None,
    momentum: Tensor | None,
    threshold: Tensor | None,
    parameter: Tensor | None,
    rule: str,
) -> tuple[Tensor, Tensor]:
    """y [B,1,H,V] and what is kept after the token, [B,H,TILES,K,V]."""
    x: LoopInputs = inputs_of(q, k, v, log_keep, step, state, w, momentum, threshold, parameter)
    B, _, H, K = q.shape
    V = v.shape[-1]
    y = torch.empty((B, 1, H, V), dtype=v.dtype, device=v.device)
    final = torch.empty(x.state.shape, dtype=torch.float32, device=v.device)
    if B * H > 0:
        known = LoopRule.from_text(rule)
        wanted = ("RESTART", "FROZEN", "CHUNK")
        constants = {name: value for name, value in known.constants().items() if name not in wanted}
        with torch.cuda.device_of(v):
            decode_kernel[(B * H,)](
                x.q, x.k, x.v, x.w, x.log_keep, x.step, x.momentum, x.threshold, x.parameter, x.state, y, final, H,
                K=K, V=V, BLOCK_K=block(K), BLOCK_V=block(V), OWN_KEYS=x.w is not None,
                HAS_PARAMETER=x.parameter is not None, EXACT=known.sweeps is None, SWEEPS=known.sweeps or 0,
                num_warps=warps(K, V), num_stages=1, **constants, **FUSED,
            )  # fmt: skip
    return y, final


@decode_op.register_fake
def _(
    q: Tensor, k: Tensor, v: Tensor, log_keep: Tensor, step: Tensor, state: Tensor, w: Tensor | None,
    momentum: Tensor | None, threshold: Tensor | None, parameter: Tensor | None, rule: str,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    final = torch.empty_like(state, memory_format=torch.contiguous_format)
    return v.new_empty((v.shape[0], 1, *v.shape[2:])), final


decode_op.register_vmap(lambda info, dims, *args: folded(decode_op, info, dims, args))
