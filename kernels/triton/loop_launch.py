"""Start the token loop's kernels: what they compile in, what they refuse, their warps, their buffers.

Legend: B batch, T tokens, N writes, H heads, K key dim, V value dim; TILES kept tiles of token_loop.py.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import Final

import torch
import triton
from torch import Tensor

from miras_search.kernels.triton.links import Link, link_of
from miras_search.kernels.triton.rule_text import from_text, to_text
from miras_search.kernels.triton.signals import BiasPair, pair_of
from miras_search.kernels.triton.tiles import FUSED
from miras_search.kernels.triton.token_loop import backward_kernel, forward_kernel
from miras_search.space.jit import Jit

# One program holds what is kept of one head, with all that the backward needs of it.
_LARGEST_STATE: Final = 128 * 128
# Writes between two saved states: about the square root of the length costs least memory; not below this.
_SHORTEST_SEGMENT: Final = 8


@dataclass(frozen=True, slots=True)
class LoopRule:
    """The part of a design point that the kernels compile in; gates by their scope, `none` where there is none."""

    bias: Jit
    retention: Jit | None = None  # None: its link is the identity
    primal: bool = False  # the link acts on the weights in place, after each write
    refresh: str = "token"  # token; tangent: the identity inside a chunk; restart: applied in place at a chunk's end
    sweeps: int | None = None  # None: exact gradients; 0: frozen; more: refined, which only the decode step knows
    decayed: bool = False
    chunk: int = 0  # 0: chunks are no part of the function
    writes: int = 1
    keep: str = "head"
    step: str = "head"
    momentum: str = "none"
    threshold: str = "none"

    @property
    def frozen(self) -> bool:
        """Whether gradients are taken from the chunk's start on."""
        return self.sweeps is not None

    @property
    def tiles(self) -> int:
        """Tiles [K, V] that are kept of a head."""
        level = 1 + (self.momentum != "none")
        return level + (self.refresh == "tangent") + self.frozen + (self.sweeps or 0) * level

    def to_text(self) -> str:
        """As an operator's argument."""
        function = self.bias, self.retention, self.primal, self.refresh, self.sweeps, self.decayed, self.chunk
        gates = self.keep, self.step, self.momentum, self.threshold
        return to_text((*function, self.writes, *gates))

    @classmethod
    @functools.cache
    def from_text(cls, text: str) -> LoopRule:
        """Back from `to_text`."""
        bias, retention, *others = from_text(text)
        return cls(Jit(*bias), None if retention is None else Jit(*retention), *others)

    @property
    def pair(self) -> BiasPair:
        """The bias's jit functions."""
        return pair_of(self.bias)

    @property
    def link(self) -> Link | None:
        """The gate's jit functions."""
        return None if self.retention is None else link_of(self.retention, primal=self.primal)

    def constants(self) -> dict[str, object]:
        """What both bodies are compiled with."""
        pair, link = self.pair, self.link
        return {
            "SIGNAL": pair.signal,
            "BIAS": pair.settings,
            "LINK": None if link is None else link.forward,
            "SETTINGS": () if link is None else link.settings,
            "LINKED": link is not None and self.refresh == "token" and not self.primal,
            "PRIMAL": self.primal,
            "TANGENT": self.refresh == "tangent",
            "RESTART": self.refresh == "restart",
            "FROZEN": self.frozen,
            "DECAYED": self.decayed,
            "CHUNK": self.chunk,
            "WRITES": self.writes,
            "KEEP": self.keep,
            "STEP": self.step,
            "MOMENTUM": self.momentum,
            "THRESHOLD": self.threshold,
            "TILES": self.tiles,
        }


@dataclass(frozen=True, slots=True)
class LoopInputs:
    """The tensors of a call, contiguous; gates and everything kept in float32."""

    q: Tensor  # [B,T,H,K]
    k: Tensor  # [B,N,H,K]
    v: Tensor  # [B,N,H,V]
    log_keep: Tensor  # [B,T,H], [B,T,H,C]
    step: Tensor  # [B,N,H], [B,N,H,C]
    state: Tensor  # [B,H,TILES,K,V]
    w: Tensor | None = None  # [B,N,H,K]
    momentum: Tensor | None = None  # as step
    threshold: Tensor | None = None  # [B,N,H], [B,N,H,V]
    parameter: Tensor | None = None  # [B,H]


def block(size: int) -> int:
    """The padded extent of an axis."""
    return 1 << (size - 1).bit_length()


def warps(key_dim: int, value_dim: int) -> int:
    """Threads / 32 of a program. Untimed: about 16 numbers of a tile a thread."""
    return min(16, max(1, block(key_dim) * block(value_dim) // 512))


def segment(writes: int) -> int:
    """Writes between two saved states."""
    return max(_SHORTEST_SEGMENT, block(math.isqrt(max(writes - 1, 1)) + 1))


def loop_why_not(key_dim: int, value_dim: int, dtype: torch.dtype) -> str | None:
    """The reason that the kernels cannot run this shape, or None when they can."""
    if dtype not in (torch.float32, torch.bfloat16):
        return f"dtype: {str(dtype).removeprefix('torch.')}: the Triton kernel takes float32 or bfloat16"
    if block(key_dim) * block(value_dim) > _LARGEST_STATE:
        padded = f"{block(key_dim)} x {block(value_dim)} after padding"
        return f"K={key_dim}, V={value_dim}: {padded} exceeds 128 x 128; use more heads or chunkwise torch"
    return None


def loop_forward(x: LoopInputs, rule: LoopRule, position: int, *, save: bool) -> tuple[Tensor, Tensor, Tensor]:
    """y [B,T,H,V] in the dtype of v, what is kept at the end [B,H,TILES,K,V], and the saved states
    [B,H,S,TILES,K,V] of the starts of S segments (none unless `save`).
    """
    B, T, H, K = x.q.shape
    N, V = x.v.shape[1], x.v.shape[-1]
    every = segment(N)
    y = torch.empty((B, T, H, V), dtype=x.v.dtype, device=x.v.device)
    final = torch.empty_like(x.state)
    count = triton.cdiv(N, every) if save else 0
    saved = torch.empty((B, H, count, *x.state.shape[2:]), dtype=torch.float32, device=x.v.device)
    if B * H > 0:
        with torch.cuda.device_of(x.v):
            forward_kernel[(B * H,)](
                x.q, x.k, x.v, x.w, x.log_keep, x.step, x.momentum, x.threshold, x.parameter, x.state, y, final, saved,
                N, H, position, K=K, V=V, BLOCK_K=block(K), BLOCK_V=block(V), OWN_KEYS=x.w is not None,
                HAS_PARAMETER=x.parameter is not None, EVERY=every, SAVE=save, num_warps=warps(K, V), num_stages=1,
                **rule.constants(), **FUSED,
            )  # fmt: skip
    return y, final, saved


def loop_backward(
    x: LoopInputs, saved: Tensor, d_y: Tensor, d_final: Tensor, rule: LoopRule, position: int
) -> dict[str, Tensor]:
    """Gradients by the names of `LoopInputs`, of what the call was given; x.state itself is not read."""
    B, _, H, K = x.q.shape
    N, V = x.v.shape[1], x.v.shape[-1]
    every = segment(N)
    names = ("q", "k", "v", "log_keep", "step", "w", "momentum", "threshold", "parameter")
    given = {name: getattr(x, name) for name in names}
    found = {name: torch.empty_like(tensor) for name, tensor in given.items() if tensor is not None}
    found["state"] = torch.empty_like(d_final)
    if B * H > 0:
        scratch = torch.empty((B, H, every, *d_final.shape[2:]), dtype=torch.float32, device=x.v.device)
        with torch.cuda.device_of(x.v):
            backward_kernel[(B * H,)](
                x.q, x.k, x.v, x.w, x.log_keep, x.step, x.momentum, x.threshold, x.parameter, saved, d_y, d_final,
                scratch, *(found.get(n) for n in ("q", "k", "v", "w", "log_keep", "step", "momentum", "threshold")),
                found.get("parameter"), found["state"], N, H, position, K=K, V=V, BLOCK_K=block(K), BLOCK_V=block(V),
                VJP=rule.pair.vjp, LINK_VJP=None if rule.link is None else rule.link.backward, OWN_KEYS=x.w is not None,
                HAS_PARAMETER=x.parameter is not None, EVERY=every, num_warps=warps(K, V), num_stages=1,
                **rule.constants(), **FUSED,
            )  # fmt: skip
    return found
