"""The fastest implementation for a design point on a device, and why not a faster one.

Implementations are asked in order of speed; each answers with the reason that it cannot run the point, or None. They
look at traits, shapes, device and dtype, never at an option's name, so a new option runs at least in chunkwise torch.

`allowed` can leave out those that a compiler makes, and `watched` tells which of them ran: a training compares the two.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from miras_search.kernels import chunkwise, recurrence, tokenwise
from miras_search.kernels.chunk import chunk_size
from miras_search.kernels.state import Layers, Level, State, chunk_start, initial_state
from miras_search.space.control import Inputs
from miras_search.space.design import DesignPoint
from miras_search.space.memory import Static

Run = Callable[[DesignPoint, Inputs, Layers, Static, State | None], tuple[Tensor, State]]


@dataclass(frozen=True, slots=True)
class Setting:
    """What a choice depends on besides the design point."""

    device: str  # device type
    dtype: torch.dtype
    key_dim: int
    value_dim: int


@dataclass(frozen=True, slots=True)
class Implementation:
    """A way to run design points: its name, its function, and its reason to refuse a point (None: it runs it)."""

    name: str
    run: Run
    refuses: Callable[[DesignPoint, Setting], str | None]
    compiled: bool = False
    """Whether a compiler of kernels stands between its text and what runs, as it does for Triton."""


@dataclass(frozen=True, slots=True)
class Choice:
    """The implementation taken, and the reason that each faster one was not."""

    name: str
    run: Run
    passed_over: tuple[tuple[str, str], ...]
    compiled: bool = False


_SCOPES = {"keep": ("head", "key"), "step": ("head",), "momentum": ("head",), "threshold": ("head", "value")}


def _triton_refuses(point: DesignPoint, setting: Setting) -> str | None:
    if setting.device != "cuda":
        return f"Triton compiles for GPUs; the device is {setting.device}"
    if not point.descends:
        return "the kernel descends; this memory is solved for"
    if not point.memory.bare or not point.retention.identity or point.retention.form == "primal":
        return "the kernel holds a matrix memory with an identity link"
    algorithm = point.algorithm
    if not algorithm.linear or algorithm.window > 1:
        return "the kernel makes plain gradient steps, each on a pair of its own token"
    foreign = [f"{slot} by {scope}" for slot, scope in point.scopes.items() if scope not in _SCOPES.get(slot, (scope,))]
    if foreign:
        return f"the kernel takes keep by head or key and other gates by head: {', '.join(foreign)}"
    if algorithm.has_momentum and point.scopes["keep"] != "head":
        return "the kernel takes keep by key channel only without momentum"
    if point.bias.triton is None:
        return f"no pair of jit functions is written for the bias {point.bias.name} in this form"
    try:
        from miras_search.kernels.triton.launch import why_not
    except ImportError as error:
        return f"Triton cannot be imported: {error}"
    return why_not(
        setting.key_dim,
        setting.value_dim,
        chunk_size(point) * point.writes,
        setting.dtype,
        couples=point.bias.couples_channels,
        momentum=algorithm.has_momentum,
    )


def run_triton(
    point: DesignPoint, inputs: Inputs, start: Layers, static: Static, state: State | None = None
) -> tuple[Tensor, State]:
    """Outputs and final state by the Triton kernel; where chunks are part of the function whole ones only, so that the
    state stays at a chunk's start.
    """
    from miras_search.kernels.triton.autograd import chunked
    from miras_search.kernels.triton.launch import free_rows

    tokens, size = inputs.q.shape[1], chunk_size(point)
    if not point.chunked:
        keyed = inputs.log_keep.dim() == 4
        size = max(1, free_rows(inputs.q.dtype, linear=point.bias.slope is not None, keyed=keyed) // point.writes)
    if state is None:
        state = initial_state(point, inputs, start, static)
    inputs = recurrence.without_idle_gate(point, inputs)
    full = tokens - tokens % size if point.chunked else tokens
    if state.position or not full:
        return _in_torch(point, inputs, start, static, state)
    body = inputs if full == tokens else inputs.tokens(0, full)
    y, z, s = chunked(
        body.q,
        body.k,
        body.v,
        body.log_keep,
        body.step,
        body.threshold,
        state.dual[0],
        bias=point.bias,
        chunk=size,
        sweeps=point.execution.gradient.sweeps,
        decayed=point.execution.gradient_at == "decayed",
        w=body.w,
        momentum=body.momentum,
        initial_momentum=state.moments[0][0] if state.moments else None,
    )
    state = chunk_start(point, Level((z,), () if s is None else ((s,),)), static)
    if full == tokens:
        return y, state
    tail, state = _in_torch(point, inputs.tokens(full, tokens), start, static, state)
    return torch.cat([y, tail], 1), state


def _in_torch(point: DesignPoint, inputs: Inputs, start: Layers, static: Static, state: State) -> tuple[Tensor, State]:
    """Chunkwise torch in the dtype of the state, which the kernel keeps in float32 whatever its inputs are."""
    dtype = state.dual[0].dtype
    wide = inputs._replace(q=inputs.q.to(dtype), k=inputs.k.to(dtype), v=inputs.v.to(dtype))
    y, state = chunkwise.run(point, wide, start, static, state)
    return y.to(inputs.v.dtype), state


def _loop_refuses(point: DesignPoint, setting: Setting) -> str | None:
    return tokenwise.loop_refuses(point, setting.device, setting.dtype, setting.key_dim, setting.value_dim)


IMPLEMENTATIONS: tuple[Implementation, ...] = (
    Implementation("triton", run_triton, _triton_refuses, compiled=True),
    Implementation("triton loop", tokenwise.run_loop, _loop_refuses, compiled=True),
    Implementation("chunkwise", chunkwise.run, lambda point, setting: None),
    Implementation("recurrence", recurrence.run, lambda point, setting: None),
)


_in_torch_alone: ContextVar[bool] = ContextVar("in_torch_alone", default=False)
_shaking: ContextVar[int] = ContextVar("shaking", default=0)
_watching: ContextVar[set[str] | None] = ContextVar("watching", default=None)


@contextlib.contextmanager
def allowed(kernels: Literal["auto", "torch", "compiled"]) -> Iterator[None]:
    """While active, "auto" changes nothing, and anything else leaves compiled kernels out."""
    token = _in_torch_alone.set(kernels != "auto" or _in_torch_alone.get())
    try:
        yield
    finally:
        _in_torch_alone.reset(token)


@contextlib.contextmanager
def watched() -> Iterator[set[str]]:
    """The names of the compiled kernels that `run` takes while it is active."""
    found: set[str] = set()
    token = _watching.set(found)
    try:
        yield found
    finally:
        _watching.reset(token)


def noted(name: str) -> None:
    """Tell `watched` that what a compiler made of torch's operators runs, or a kernel."""
    if (watching := _watching.get()) is not None:
        watching.add(name)


@contextlib.contextmanager
def shaken(wave: int) -> Iterator[None]:
    """While active the pairs and queries given to `run` are off by up to a millionth, alike for the same `wave` (from
    1): what rounding does to a design.
    """
    token = _shaking.set(wave)
    try:
        yield
    finally:
        _shaking.reset(token)


def _shake(x: Tensor, wave: int) -> Tensor:
    """x [B,N,H,C] times 1 - 1e-6 .. 1 + 1e-6; no random numbers, which a training's own draws would feel."""
    waves = (wave * torch.arange(x[0].numel(), device=x.device, dtype=torch.float64)).cos().view(x.shape[1:])
    return x * (1 + 1e-6 * waves).to(x.dtype)


def choose(point: DesignPoint, setting: Setting) -> Choice:
    """The fastest implementation that runs the point, with the reasons of those passed over."""
    passed_over: list[tuple[str, str]] = []
    alone = _in_torch_alone.get()
    for candidate in IMPLEMENTATIONS:
        reason = "torch is asked for" if alone and candidate.compiled else candidate.refuses(point, setting)
        if reason is None:
            return Choice(candidate.name, candidate.run, tuple(passed_over), candidate.compiled)
        passed_over.append((candidate.name, reason))
    raise AssertionError("the recurrence runs every point")


def run(
    point: DesignPoint, inputs: Inputs, start: Layers, static: Static, state: State | None = None
) -> tuple[Tensor, State]:
    """Outputs y [B,T,H,V] and the final state, by the fastest implementation; a streamed token by the decode kernel."""
    if not _in_torch_alone.get() and tokenwise.decodes(point, inputs):
        return tokenwise.decode(point, inputs, start, static, state)
    if wave := _shaking.get():
        inputs = inputs._replace(q=_shake(inputs.q, wave), k=_shake(inputs.k, wave), v=_shake(inputs.v, wave))
    q, v = inputs.q, inputs.v
    choice = choose(point, Setting(q.device.type, q.dtype, q.shape[-1], v.shape[-1]))
    if choice.compiled:
        noted(choice.name)
    return choice.run(point, inputs, start, static, state)
