"""Start the chunked kernels: what they accept, their block sizes, their warps and stages, their buffers.

Everything a tuned launcher would change is in `launch_options`. The values there are guesses that compile, not the
result of a measurement.

Legend: B batch, T time, H heads, K key dim, V value dim, N chunks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import torch
import triton
from torch import Tensor

from miras_search.kernels.triton.chunked import backward_kernel, forward_kernel
from miras_search.kernels.triton.signals import BiasPair

# tl.dot wants tiles of at least 16; biases that couple channels keep a whole state of one head in one program.
_SMALLEST_BLOCK: Final = 16
_LARGEST_STATE: Final = 128 * 128
_LARGEST_CHUNK: Final = 64
# At chunk 64 a state of 128 x 128 asks for 240 KiB of shared memory; an H200 has 227.
_LARGEST_STATE_AT_LONG_CHUNKS: Final = 64 * 64


@dataclass(frozen=True, slots=True)
class Rule:
    """The part of the design point that the kernel compiles in."""

    bias: BiasPair
    chunk: int
    sweeps: int
    decayed: bool


@dataclass(frozen=True, slots=True)
class LaunchOptions:
    """How a body is compiled: threads are 32 * `num_warps`, `num_stages` is the depth of load pipelining.

    `precision` is the `input_precision` of every tl.dot; anything but "ieee" changes the numbers.
    """

    num_warps: int
    num_stages: int
    precision: str


def block(size: int) -> int:
    """The padded extent of an axis: a power of two, at least 16."""
    return max(_SMALLEST_BLOCK, 1 << (size - 1).bit_length())


def launch_options(block_c: int, block_k: int, block_v: int, backward: bool) -> LaunchOptions:
    """Warps and stages for a tile shape. Untimed: of 4, 8 and 16 warps, the count that spills least for sm_90."""
    volume = block_c * block_k * block_v
    if volume <= 16**3:
        warps = 4
    elif volume <= 16 * 64 * 64 and not backward:
        warps = 8
    else:
        warps = 16
    return LaunchOptions(num_warps=warps, num_stages=1, precision="ieee")


def why_not(key_dim: int, value_dim: int, chunk: int, dtype: torch.dtype) -> str | None:
    """The reason that the kernel cannot run this shape, or None when it can."""
    if dtype not in (torch.float32, torch.bfloat16):
        return f"dtype: {str(dtype).removeprefix('torch.')}: the Triton kernel takes float32 or bfloat16"
    if min(key_dim, value_dim, chunk) < 1:
        return f"K={key_dim}, V={value_dim}, chunk={chunk}: each must be at least 1"
    if chunk > _LARGEST_CHUNK:
        return f"chunk: {chunk}: the Triton kernel takes at most {_LARGEST_CHUNK}; use less or chunkwise torch"
    state = block(key_dim) * block(value_dim)
    if chunk > 32 and state > _LARGEST_STATE_AT_LONG_CHUNKS:
        return f"K={key_dim}, V={value_dim}, chunk={chunk}: the backward would not fit on chip; use chunk 32 or less"
    if state > _LARGEST_STATE:
        padded = f"{block(key_dim)} x {block(value_dim)} after padding"
        return f"K={key_dim}, V={value_dim}: {padded} exceeds 128 x 128; use more heads or chunkwise torch"
    return None


def run_forward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    log_keep: Tensor,
    step: Tensor,
    threshold: Tensor | None,
    initial_state: Tensor | None,
    rule: Rule,
    save_starts: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Launch the forward body.

    q, k [B, T, H, K] and v [B, T, H, V] share a dtype; gates [B, T, H] and states are float32.

    Returns y [B, T, H, V] in the dtype of v, the final state [B, H, K, V], and the chunk-start states [B, N, H, K, V]
    (N = 0 unless `save_starts`).
    """
    B, T, H, K = q.shape
    V = v.shape[-1]
    chunks = triton.cdiv(T, rule.chunk) if save_starts else 0
    y = torch.empty((B, T, H, V), dtype=v.dtype, device=v.device)
    final = torch.empty((B, H, K, V), dtype=torch.float32, device=v.device)
    starts = torch.empty((B, chunks, H, K, V), dtype=torch.float32, device=v.device)
    if B * H == 0:
        return y, final, starts
    blocks = (block(rule.chunk), block(K), block(V))
    options = launch_options(*blocks, backward=False)
    with torch.cuda.device_of(v):
        forward_kernel[(B * H,)](
            q.contiguous(),
            k.contiguous(),
            v.contiguous(),
            log_keep.contiguous(),
            step.contiguous(),
            None if threshold is None else threshold.contiguous(),
            None if initial_state is None else initial_state.contiguous(),
            y,
            final,
            starts,
            T,
            H,
            K=K,
            V=V,
            SIGNAL=rule.bias.signal,
            SETTINGS=rule.bias.settings,
            CHUNK=rule.chunk,
            SWEEPS=rule.sweeps,
            DECAYED=rule.decayed,
            HAS_THRESHOLD=threshold is not None,
            HAS_INITIAL=initial_state is not None,
            SAVE_STARTS=save_starts,
            BLOCK_C=blocks[0],
            BLOCK_K=blocks[1],
            BLOCK_V=blocks[2],
            PRECISION=options.precision,
            num_warps=options.num_warps,
            num_stages=options.num_stages,
        )
    return y, final, starts


def run_backward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    log_keep: Tensor,
    step: Tensor,
    threshold: Tensor | None,
    starts: Tensor,
    d_y: Tensor,
    d_final: Tensor,
    rule: Rule,
) -> tuple[Tensor, ...]:
    """Launch the backward body on what `run_forward` took and saved, and the gradients of its outputs.

    Returns d_q, d_k, d_v (dtypes of q, k, v), d_log_keep, d_step, d_initial_state (float32), and d_threshold last
    when there is a threshold.
    """
    B, T, H, K = q.shape
    V = v.shape[-1]
    d_q, d_k, d_v = (torch.empty(x.shape, dtype=x.dtype, device=x.device) for x in (q, k, v))
    gates = [torch.empty((B, T, H), dtype=torch.float32, device=v.device) for _ in range(2 if threshold is None else 3)]
    d_initial = torch.empty((B, H, K, V), dtype=torch.float32, device=v.device)
    d_threshold = gates[2:]
    if B * H > 0:
        blocks = (block(rule.chunk), block(K), block(V))
        options = launch_options(*blocks, backward=True)
        scratch = torch.empty((B * H, rule.sweeps + 1, blocks[0], blocks[2]), dtype=torch.float32, device=v.device)
        with torch.cuda.device_of(v):
            backward_kernel[(B * H,)](
                q.contiguous(),
                k.contiguous(),
                v.contiguous(),
                log_keep.contiguous(),
                step.contiguous(),
                None if threshold is None else threshold.contiguous(),
                starts.contiguous(),
                d_y.contiguous(),
                d_final.contiguous(),
                scratch,
                d_q,
                d_k,
                d_v,
                gates[0],
                gates[1],
                d_threshold[0] if d_threshold else None,
                d_initial,
                T,
                H,
                K=K,
                V=V,
                SIGNAL=rule.bias.signal,
                SETTINGS=rule.bias.settings,
                VJP=rule.bias.vjp,
                CHUNK=rule.chunk,
                SWEEPS=rule.sweeps,
                DECAYED=rule.decayed,
                HAS_THRESHOLD=threshold is not None,
                BLOCK_C=blocks[0],
                BLOCK_K=blocks[1],
                BLOCK_V=blocks[2],
                PRECISION=options.precision,
                num_warps=options.num_warps,
                num_stages=options.num_stages,
            )
    return d_q, d_k, d_v, gates[0], gates[1], d_initial, *d_threshold
