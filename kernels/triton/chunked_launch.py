"""Launch the chunked kernels' bodies: their buffers, and the sums over what value channels share.

Legend: B batch, T time, H heads, K key dim, V value dim.
"""

from __future__ import annotations

import torch
import triton
from torch import Tensor

from miras_search.kernels.triton.chunked import forward_kernel
from miras_search.kernels.triton.chunked_backward import backward_kernel
from miras_search.kernels.triton.launch import Given, Rule, start
from miras_search.kernels.triton.signals import pair_of
from miras_search.kernels.triton.transitions_launch import at_once, chunk_ends, chunk_starts


def run_forward(
    given: Given, initial: Tensor | None, initial_s: Tensor | None, rule: Rule, *, save: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Launch the forward body.

    Returns y [B,T,H,V] in the dtype of v, the final state and momentum [B,H,K,V], and with `save` those at the chunks'
    starts [B,chunks,H,K,V]. What there is none of has shape [B,0].
    """
    batch, tokens, heads, keys = given.q.shape
    values, device = given.v.shape[-1], given.v.device
    has_s = given.momentum is not None

    def state(*axes: int, there: bool) -> Tensor:
        shape = (batch, *axes, heads, keys, values) if there else (batch, 0)
        return torch.empty(shape, dtype=torch.float32, device=device)

    given = given.contiguous()
    chunks, together = triton.cdiv(tokens, rule.chunk), at_once(given, rule)
    final_s, starts_s = state(there=has_s), state(chunks, there=save and has_s)
    begin = initial
    if together:
        begin, final = chunk_starts(given, initial, rule)
        starts = begin if save else state(there=False)
    else:
        final, starts = state(there=True), state(chunks, there=save)
    y = torch.empty((batch, tokens, heads, values), dtype=given.v.dtype, device=device)
    if batch * heads > 0:
        constants = given.constants(rule)
        with torch.cuda.device_of(given.v):
            start(forward_kernel, (*given.grid(rule), chunks if together else 1), given.q.dtype, constants["BLOCK_C"])(
                *given.pointers(),
                *(None if x is None else x.contiguous() for x in (begin, initial_s)),
                y,
                final,
                final_s,
                starts,
                starts_s,
                tokens,
                heads,
                HAS_INITIAL=begin is not None,
                SAVE_STARTS=save and not together,
                AT_ONCE=together,
                **constants,
            )
    return y, final, final_s, starts, starts_s


def run_backward(
    given: Given, starts: Tensor, starts_s: Tensor, d_y: Tensor, d_final: Tensor, d_final_s: Tensor, rule: Rule
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Launch the backward body on what `run_forward` took and saved, and the gradients of its outputs.

    Returns the gradients of the tensors in `given`, in their order, and of the initial state and momentum. What there
    is none of has shape [B,0].
    """
    batch, tokens, heads, _ = given.q.shape
    device = given.v.device
    given, d_y = given.contiguous(), d_y.contiguous()
    constants = given.constants(rule)
    memories, parts = given.grid(rule)
    together = at_once(given, rule)
    grid = (memories, parts, triton.cdiv(tokens, rule.chunk) if together else 1)

    def shared(x: Tensor | None) -> Tensor:
        """Room for a gradient to which every part of the value channels adds."""
        if x is None:
            return torch.empty((batch, 0), dtype=torch.float32, device=device)
        if parts == 1:
            return torch.empty(x.shape, dtype=x.dtype, device=device)
        return torch.empty((parts, *x.shape), dtype=torch.float32, device=device)

    def total(gradient: Tensor, x: Tensor | None) -> Tensor:
        return gradient if x is None or parts == 1 else gradient.sum(0).to(x.dtype)

    def own(x: Tensor) -> Tensor:
        return torch.empty(x.shape, dtype=x.dtype, device=device)

    split = {name: getattr(given, name) for name in ("q", "k", "w", "log_keep", "step", "momentum")}
    by_channel = given.threshold is not None and given.threshold.dim() == 4
    if not by_channel:
        split["threshold"] = given.threshold
    room = {name: shared(x) for name, x in split.items()}
    room["v"] = own(given.v)
    if given.threshold is not None and by_channel:
        room["threshold"] = own(given.threshold)
    d_initial, d_initial_s = own(d_final), own(d_final_s)
    if together:
        d_final, d_initial = chunk_ends(given, d_y, d_final, rule)
    names = ("q", "k", "v", "w", "log_keep", "step", "momentum", "threshold")
    if batch * heads > 0:
        slots = 0 if rule.sweeps is None else rule.loops + 1
        slot = (constants["BLOCK_C"], constants["BLOCK_V"])
        scratch = torch.empty((*grid, slots, *slot), dtype=torch.float32, device=device)
        with torch.cuda.device_of(given.v):
            start(backward_kernel, grid, given.q.dtype, constants["BLOCK_C"])(
                *given.pointers(),
                starts.contiguous(),
                starts_s.contiguous(),
                d_y,
                d_final.contiguous(),
                d_final_s.contiguous(),
                scratch,
                *(room[name] for name in names),
                d_initial,
                d_initial_s,
                tokens,
                heads,
                VJP=pair_of(rule.bias).vjp,
                AT_ONCE=together,
                **constants,
            )
    q, k, v, w, log_keep, step, momentum, threshold = (
        total(room[name], split.get(name)) if name in split else room[name] for name in names
    )
    return q, k, v, w, log_keep, step, momentum, threshold, d_initial, d_initial_s
