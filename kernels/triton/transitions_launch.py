"""Launch the bodies of transitions.py: the states at all chunks' starts, or the gradients of those at their ends.

Legend: B batch, T time, H heads, K key dim, V value dim, C rows of a chunk, padded.
"""

from __future__ import annotations

import functools
import os
from typing import Final

import torch
import triton
from torch import Tensor

from miras_search.kernels.triton.launch import Given, KernelInputError, Rule, accepted, block, start
from miras_search.kernels.triton.transitions import carry_kernel, transition_kernel

_WORDS: Final = ("auto", "at_once", "in_turn")
_FEWEST_CHUNKS: Final = 4
_MOST_CHUNKS: Final = 65_535  # of a grid's third axis
_LARGEST_MET: Final = 32 * 256  # of P and of X: with two chunks of them on chip 178 KiB; an H200 has 227
_LARGEST_STATES: Final = 2**28  # numbers of all chunks' starts, 1 GiB: in turn there are none without gradients
_CARRIED: Final = 16  # value channels of a program that walks: as few as a product takes, for they do not meet


@functools.cache
def multiprocessors(device: torch.device) -> int:
    """Of a GPU; 0 of anything else, where programs run one after the other."""
    return torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else 0


def at_once(given: Given, rule: Rule) -> bool:
    """Whether chunks are run at once: what they do to the state is linear in it, and memories alone leave
    multiprocessors idle.

    It costs about twice the work, and memory. Where that pays has not been measured, a program a multiprocessor is a
    guess: MIRAS_TRITON_CHUNKS says otherwise. Raises KernelInputError where that is no word of `_WORDS`.
    """
    asked = os.environ.get("MIRAS_TRITON_CHUNKS", "auto")
    if asked not in _WORDS:
        raise KernelInputError(f"MIRAS_TRITON_CHUNKS: {asked}: must be one of {', '.join(_WORDS)}")
    chunks = triton.cdiv(given.q.shape[1], rule.chunk)
    linear = (rule.solves or rule.slope == 0) and given.momentum is None
    memories, parts = given.grid(rule)
    large = rule.solves and block(rule.rows) * block(given.q.shape[-1]) > _LARGEST_MET
    if asked == "in_turn" or not linear or large or memories == 0 or chunks > _MOST_CHUNKS:
        return False
    states = memories * chunks * given.q.shape[-1] * given.v.shape[-1]
    few = memories * parts <= multiprocessors(given.v.device)
    return asked == "at_once" or (few and chunks >= _FEWEST_CHUNKS and states <= _LARGEST_STATES)


def chunk_starts(given: Given, initial: Tensor | None, rule: Rule) -> tuple[Tensor, Tensor]:
    """The states at the chunks' starts [B,chunks,H,K,V] and the final one [B,H,K,V]."""
    return _walked(given, None, initial, rule)


def chunk_ends(given: Given, d_y: Tensor, d_final: Tensor, rule: Rule) -> tuple[Tensor, Tensor]:
    """The gradients of the states at the chunks' ends [B,chunks,H,K,V] and of the initial one [B,H,K,V]."""
    return _walked(given, d_y, d_final, rule)


def _walked(given: Given, d_y: Tensor | None, begin: Tensor | None, rule: Rule) -> tuple[Tensor, Tensor]:
    """Forward without `d_y`, else backward."""
    batch, tokens, heads, keys = given.q.shape
    values, dtype = given.v.shape[-1], given.q.dtype
    chunks = triton.cdiv(tokens, rule.chunk)
    constants = given.constants(rule)
    rows = constants["BLOCK_C"]
    memories, parts = given.grid(rule)

    def room(*shape: int) -> Tensor:
        return torch.empty(shape, dtype=torch.float32, device=given.v.device)

    met = rows if rule.solves else 0
    taken, gave = room(memories, chunks, met, keys), room(memories, chunks, met, keys)
    whole, added = room(memories, chunks, keys), room(memories, chunks, keys, values)
    states, end = room(batch, chunks, heads, keys, values), room(batch, heads, keys, values)
    q, k, v, w, log_keep, step, _, threshold = given.pointers()
    backward = d_y is not None
    with torch.cuda.device_of(given.v):
        start(transition_kernel, (memories, parts, chunks), dtype, rows)(
            q, k, v, w, log_keep, step, threshold, None if d_y is None else d_y.contiguous(),
            taken, gave, whole, added, tokens, heads,
            BACKWARD=backward, **accepted(transition_kernel, constants),
        )  # fmt: skip
        start(carry_kernel, (memories, triton.cdiv(values, _CARRIED)), dtype, rows)(
            None if begin is None else begin.contiguous(),
            *((gave, taken) if backward else (taken, gave)),
            whole,
            added,
            states,
            end,
            chunks,
            heads,
            HAS_BEGIN=begin is not None,
            BACKWARD=backward,
            **accepted(carry_kernel, constants | {"BLOCK_V": _CARRIED}),
        )
    return states, end
