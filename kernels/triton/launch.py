"""What the chunked kernels accept, their block sizes, their warps and stages, and how a body of theirs is started.

Everything a tuner may change is in `configurations`, the first of which is used. They are guesses that compile, not the
result of a measurement. The bodies stay plain jit functions, as the CPU interpreter cannot run an autotuner; on a
device MIRAS_TRITON_TUNE=1 times all configurations of a shape at its first call and keeps the fastest.

Legend: B batch, T time, H heads, N writes in all, K key dim, V value dim, C rows of a chunk.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any, Final

import torch
import triton
from torch import Tensor

from miras_search.errors import MirasError
from miras_search.kernels.triton.rule_text import from_text, to_text
from miras_search.kernels.triton.signals import pair_of
from miras_search.kernels.triton.tiles import FUSED, INTERPRETED
from miras_search.space.jit import Jit

_SMALLEST_BLOCK: Final = 16  # what tl.dot takes
_LARGEST_STATE: Final = 128 * 128
_LARGEST_KEY: Final = 256
_LARGEST_ROWS: Final = 64
_LARGEST_SPLIT_ROWS: Final = 32
_REGISTERS: Final = 65_536  # of a multiprocessor
# At chunk 64 a state of 128 x 128 asks for 240 KiB of shared memory; an H200 has 227.
_LARGEST_STATE_OF_LONG_CHUNKS: Final = 64 * 64
# Nor does it hold the 64 bfloat16 keys of 256 channels that a backward widens: its compile for sm_90 asks for 256 KiB.
_LARGEST_KEY_OF_LONG_NARROW_CHUNKS: Final = 128


class KernelInputError(MirasError):
    """The tensors or the settings of a kernel call do not fit the kernel."""


@dataclass(frozen=True, slots=True)
class Rule:
    """The part of the design point that the kernel compiles in."""

    bias: Jit
    slope: float | None
    couples: bool
    chunk: int
    writes: int
    sweeps: int | None
    """None: exact."""
    decayed: bool

    @property
    def rows(self) -> int:
        """Writes a chunk."""
        return self.chunk * self.writes

    @property
    def loops(self) -> int:
        """Sweeps that are run; none where one triangular solve does, or where signals see no prediction."""
        if self.slope == 0 or (self.solves and self.sweeps is None):
            return 0
        return self.rows - 1 if self.sweeps is None else self.sweeps

    @property
    def solves(self) -> bool:
        """Whether exact signals come from a triangular solve."""
        return self.sweeps is None and bool(self.slope)

    def to_text(self) -> str:
        """As an operator's argument."""
        flags = self.slope, self.couples, self.chunk, self.writes, self.sweeps, self.decayed
        return to_text((self.bias, *flags))

    @classmethod
    @functools.cache
    def from_text(cls, text: str) -> Rule:
        """Back from `to_text`."""
        bias, *flags = from_text(text)
        return cls(Jit(*bias), *flags)


@dataclass(frozen=True, slots=True)
class Configuration:
    """How a body is compiled: threads are 32 * `num_warps`, `num_stages` is the depth of load pipelining.

    `precision` is the arithmetic of all products (products.py).
    """

    num_warps: int
    num_stages: int = 1
    precision: str = "ieee"

    def options(self) -> dict[str, int]:
        """What Triton compiles it with.

        Registers a thread: as many as there are when one program has a multiprocessor to itself. Left alone, ptxas
        gives 32 to bodies that spill even with 255, and they spill two to three times as much.
        """
        registers = min(255, _REGISTERS // (32 * self.num_warps))
        return {"num_warps": self.num_warps, "num_stages": self.num_stages, "maxnreg": registers}


def block(size: int) -> int:
    """The padded extent of an axis: a power of two, at least 16."""
    return max(_SMALLEST_BLOCK, 1 << (size - 1).bit_length())


def value_block(key_dim: int, value_dim: int, *, couples: bool) -> int:
    """Value channels of one program: all where the bias couples them, else as many as keep the state's tile small."""
    whole = block(value_dim)
    return whole if couples else min(whole, max(_SMALLEST_BLOCK, _LARGEST_STATE_OF_LONG_CHUNKS // block(key_dim)))


def configurations(dtype: torch.dtype, block_c: int) -> list[Configuration]:
    """Those worth trying, the untuned default first; they agree in precision, so that none changes the numbers.

    Four warps, as with them the fewest instructions are issued for a token by what is compiled for sm_90
    (docs/kernels.md); none was timed. bfloat16 inputs are multiplied on tensor cores, except in chunks of 64: there
    Hopper had products of transposed tiles miscompiled by Triton before 3.7.1. And by no more than one group of four
    warps: what waits for a product of Hopper's did not wait for the other groups' part of it.
    """
    if dtype == torch.bfloat16 and block_c <= _LARGEST_SPLIT_ROWS:
        return [Configuration(warps, precision="split") for warps in (4, 2)]
    return [Configuration(warps) for warps in (4, 2, 8, 16)]


def free_rows(dtype: torch.dtype, *, linear: bool, keyed: bool) -> int:
    """Writes of a chunk where its size is free, with exact gradients; `linear`: of signals linear in the prediction,
    `keyed`: under keeps by key channel.

    The fewest instructions a token, as counted (docs/kernels.md) and not timed: 32 where products are on tensor cores,
    16 in float32, of keeps by key channel, and of sweeps, whose number grows with the rows.
    """
    return _LARGEST_SPLIT_ROWS if linear and not keyed and dtype == torch.bfloat16 else 16


def why_not(
    key_dim: int, value_dim: int, rows: int, dtype: torch.dtype, *, couples: bool = True, momentum: bool = False
) -> str | None:
    """The reason that the kernel cannot run this shape, or None when it can. `rows`: writes a chunk."""
    if dtype not in (torch.float32, torch.bfloat16):
        return f"dtype: {str(dtype).removeprefix('torch.')}: the Triton kernel takes float32 or bfloat16"
    if min(key_dim, value_dim, rows) < 1:
        return f"K={key_dim}, V={value_dim}, chunk={rows}: each must be at least 1"
    if rows > _LARGEST_ROWS:
        return f"chunk: {rows} writes: the Triton kernel takes at most {_LARGEST_ROWS}; use less or chunkwise torch"
    if key_dim > _LARGEST_KEY:
        return f"K={key_dim}: the Triton kernel takes at most {_LARGEST_KEY}; use more heads or chunkwise torch"
    state = block(key_dim) * value_block(key_dim, value_dim, couples=couples)
    if rows > 32 and state > _LARGEST_STATE_OF_LONG_CHUNKS:
        return f"K={key_dim}, V={value_dim}, chunk={rows}: the backward would not fit on chip; use chunk 32 or less"
    if rows > 32 and dtype == torch.bfloat16 and block(key_dim) > _LARGEST_KEY_OF_LONG_NARROW_CHUNKS:
        return f"K={key_dim}, chunk={rows} in bfloat16: the backward would not fit on chip; use chunk 32 or less"
    if state * (2 if momentum else 1) > _LARGEST_STATE:
        padded = f"{block(key_dim)} x {block(value_dim)} after padding{', twice with momentum,' if momentum else ''}"
        return f"K={key_dim}, V={value_dim}: {padded} exceeds 128 x 128; use more heads or chunkwise torch"
    return None


@dataclass(frozen=True, slots=True)
class Given:
    """The tensors of a call: q [B,T,H,K], k and w [B,N,H,K], v [B,N,H,V] in one dtype; gates and states in float32.

    log_keep [B,T,H] or [B,T,H,K]; step and momentum [B,N,H]; threshold [B,N,H] or [B,N,H,V].
    """

    q: Tensor
    k: Tensor
    v: Tensor
    w: Tensor | None
    log_keep: Tensor
    step: Tensor
    momentum: Tensor | None
    threshold: Tensor | None

    def pointers(self) -> list[Tensor | None]:
        """In the order in which the bodies take them."""
        return [self.q, self.k, self.v, self.w, self.log_keep, self.step, self.momentum, self.threshold]

    def contiguous(self) -> Given:
        """The same numbers, each tensor as the bodies read it."""
        tensors = {one.name: getattr(self, one.name) for one in fields(self)}
        return replace(self, **{name: x.contiguous() for name, x in tensors.items() if x is not None})

    def constants(self, rule: Rule) -> dict[str, Any]:
        """What is compiled in: numbers, words and jit functions."""
        keys, values = self.q.shape[-1], self.v.shape[-1]
        scope = "none" if self.threshold is None else "head" if self.threshold.dim() == 3 else "value"
        pair = pair_of(rule.bias)
        return {
            "K": keys,
            "V": values,
            "SIGNAL": pair.signal,
            "SETTINGS": pair.settings,
            "SLOPE": rule.slope or 0.0,
            "CHUNK": rule.chunk,
            "WRITES": rule.writes,
            "SWEEPS": rule.loops,
            "EXACT": rule.sweeps is None,
            "SOLVE": rule.solves,
            "DECAYED": rule.decayed,
            "KEYED": self.log_keep.dim() == 4,
            "HAS_W": self.w is not None,
            "HAS_MOMENTUM": self.momentum is not None,
            "THRESHOLD": scope,
            "NEAR": min(16, rule.rows),
            "BLOCK_C": block(rule.rows),
            "BLOCK_K": block(keys),
            "BLOCK_V": value_block(keys, values, couples=rule.couples),
        }

    def grid(self, rule: Rule) -> tuple[int, int]:
        """Programs of a launch: memories, blocks of value channels."""
        batch, _, heads, keys = self.q.shape
        values = self.v.shape[-1]
        return batch * heads, triton.cdiv(values, value_block(keys, values, couples=rule.couples))


def accepted(body: Any, constants: dict[str, Any]) -> dict[str, Any]:
    """Those of the constants that the body has arguments for."""
    return {name: value for name, value in constants.items() if name in body.arg_names}


# What a shape and a design change in a body; each body has some of them.
_TUNED_BY: Final = (
    "BLOCK_C", "BLOCK_K", "BLOCK_V", "SWEEPS", "EXACT", "SOLVE", "KEYED", "HAS_MOMENTUM", "AT_ONCE", "BACKWARD",
)  # fmt: skip


@functools.cache
def tuned(body: Any, configs: tuple[Configuration, ...]) -> Any:  # jit functions are untyped
    """The body with Triton's tuner around it."""
    return triton.autotune(
        configs=[triton.Config({"PRECISION": one.precision}, **one.options()) for one in configs],
        key=[name for name in _TUNED_BY if name in body.arg_names],
    )(body)


def start(body: Any, grid: tuple[int, ...], dtype: torch.dtype, block_c: int) -> Callable[..., object]:
    """The body with its options, for inputs of this type: all arguments but those of a configuration are still to be
    given.
    """
    configs = configurations(dtype, block_c)
    if os.environ.get("MIRAS_TRITON_TUNE") == "1" and not INTERPRETED:
        timed: Callable[..., object] = tuned(body, tuple(configs))[grid]
        return functools.partial(timed, **FUSED)
    first = configs[0]
    return functools.partial(body[grid], PRECISION=first.precision, **first.options(), **FUSED)
