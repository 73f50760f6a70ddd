"""Who is timed on a memory: every implementation of ours, chunkwise torch compiled, and flash-linear-attention's.

Each says why it does not run a point. flash-linear-attention is optional, and taken where it has the operator and where
its backward is not known to be wrong. Inputs may be in bfloat16; the paths in plain torch widen them first, as a model
does.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import importlib.metadata
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
from torch import Tensor

from miras_search.kernels import chunkwise
from miras_search.kernels.dispatch import IMPLEMENTATIONS, Run, Setting
from miras_search.kernels.state import Layers, State
from miras_search.space.control import Inputs
from miras_search.space.design import DesignPoint
from miras_search.space.memory import Static

LONGEST_LOOP = 512  # tokens of a loop in Python: beyond it is seconds a run, and says nothing new


@dataclass(frozen=True, slots=True)
class Contender:
    """A way to run a memory, and its reason not to."""

    name: str
    run: Run
    refuses: Callable[[DesignPoint, Setting, int], str | None]
    """Asked with the number of tokens."""
    within: Callable[[], AbstractContextManager[None]] = contextlib.nullcontext
    """What is held while it runs, backward included."""


def contenders(*, compile_chunks: bool) -> list[Contender]:
    """Ours in order of speed, the Triton kernel with its chunks in turn and at once, chunkwise torch compiled, fla."""
    ours = [
        Contender(
            one.name,
            one.run if one.compiled else _widened(one.run),
            functools.partial(_ours_refuses, one.refuses, one.name == "recurrence"),
        )
        for one in IMPLEMENTATIONS
    ]
    reason = None if compile_chunks else "compiling takes a minute a shape: ask for it with --compile"
    compiled = torch.compile(chunkwise.run, dynamic=False) if compile_chunks else chunkwise.run
    kernel = IMPLEMENTATIONS[0]
    ways = [
        Contender(
            f"{kernel.name} {way.replace('_', ' ')}",
            kernel.run,
            functools.partial(_way_refuses, kernel.refuses),
            functools.partial(_chunks, way),
        )
        for way in ("in_turn", "at_once")
    ]
    return [
        *ours,
        *ways,
        Contender("chunkwise compiled", _widened(compiled), lambda point, setting, tokens: reason),
        Contender("fla", _fla, _fla_refuses),
    ]


def _ours_refuses(
    refuses: Callable[[DesignPoint, Setting], str | None],
    loops: bool,
    point: DesignPoint,
    setting: Setting,
    tokens: int,
) -> str | None:
    if loops and tokens > LONGEST_LOOP:
        return f"a loop of {tokens} tokens in Python; timed up to {LONGEST_LOOP}"
    return refuses(point, setting)


@contextlib.contextmanager
def _chunks(way: str) -> Iterator[None]:
    """While active, the chunked kernel runs its chunks in this way where it can."""
    name = "MIRAS_TRITON_CHUNKS"
    before = os.environ.get(name)
    os.environ[name] = way
    try:
        yield
    finally:
        os.environ.pop(name)
        if before is not None:
            os.environ[name] = before


def _way_refuses(
    refuses: Callable[[DesignPoint, Setting], str | None], point: DesignPoint, setting: Setting, tokens: int
) -> str | None:
    if (reason := refuses(point, setting)) is not None:
        return reason
    exact = point.execution.gradient.sweeps is None
    linear = point.bias.slope == 0 or (point.bias.slope is not None and exact)
    return None if linear and not point.algorithm.has_momentum else "its chunks run in turn in any case"


def _widened(run: Run) -> Run:
    def wide(
        point: DesignPoint, inputs: Inputs, start: Layers, static: Static, state: State | None = None
    ) -> tuple[Tensor, State]:
        given = inputs._replace(q=inputs.q.float(), k=inputs.k.float(), v=inputs.v.float())
        y, after = run(point, given, start, static, state)
        return y.to(inputs.v.dtype), after

    return wide


FLA_OPERATORS: Mapping[str, tuple[str, str]] = {
    "delta": ("fla.ops.delta_rule", "chunk_delta_rule"),
    "gated delta": ("fla.ops.gated_delta_rule", "chunk_gated_delta_rule"),
    "simple gla": ("fla.ops.simple_gla", "chunk_simple_gla"),
    "linear attention": ("fla.ops.simple_gla", "chunk_simple_gla"),  # without a gate
}


def operator_of(point: DesignPoint) -> str | None:
    """Which of them computes the point, or None."""
    plain = (
        point.descends
        and point.memory.bare
        and point.retention.identity
        and point.retention.form == "dual"
        and point.algorithm.linear
        and not point.algorithm.has_momentum
        and not point.algorithm.splits_keys
        and point.algorithm.window == 1
        and point.writes == 1
        and set(point.scopes.values()) == {"head"}
    )
    if not plain:
        return None
    if point.bias.slope == 0:
        return "linear attention" if point.retention.keep.is_one else "simple gla"
    if point.bias.slope != 1 or point.execution.gradient.sweeps is not None:
        return None
    if point.retention.keep.is_one:
        return "delta"
    return "gated delta" if point.execution.gradient_at == "decayed" else None


def _fla_refuses(point: DesignPoint, setting: Setting, tokens: int) -> str | None:
    name = operator_of(point)
    if name is None:
        return "flash-linear-attention has no operator for it"
    if setting.device != "cuda":
        return f"its kernels want a GPU; the device is {setting.device}"
    if setting.dtype != torch.bfloat16:
        return "its operators want bfloat16: ask for --precision bfloat16"
    try:
        _function(name)
        triton, fla = (importlib.metadata.version(package) for package in ("triton", "fla-core"))
    except Exception as error:  # of a library that may not fit the others: it says what it likes as it is imported
        return f"not to be had ({error}): pip install fla-core"
    return known_wrong(name, triton, fla, torch.cuda.get_device_capability())


def known_wrong(name: str, triton: str, fla: str, capability: tuple[int, int]) -> str | None:
    """Why its backward is not to be trusted with versions of Triton and fla-core on a device, or None.

    Triton from 3.4.0 to before 3.7.1 compiles a product with a transposed accumulator wrongly on Hopper; there
    flash-linear-attention itself refuses the backward of what has a gate (its issue 640). That of the delta rule with
    four warps Triton compiles wrongly still, or so that it reads where it may not; fla-core tries four before 0.5.2
    (issue 984).
    """
    if capability[0] != 9 or _release(triton) < (3, 4, 0):
        return None
    if name in ("gated delta", "simple gla") and _release(triton) < (3, 7, 1):
        return f"its backward is wrong on Hopper with Triton {triton}: take Triton 3.7.1 or newer"
    if name == "delta" and _release(fla) < (0, 5, 2):
        return f"its backward is wrong on Hopper in fla-core {fla}: take fla-core 0.5.2 or newer"
    return None


def _release(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("+")[0].split(".")[:3] if part.isdigit())


@functools.cache
def _function(name: str) -> Callable[..., tuple[Tensor, Tensor | None]]:
    module, function = FLA_OPERATORS[name]
    found: Callable[..., tuple[Tensor, Tensor | None]] = getattr(importlib.import_module(module), function)
    return found


def _fla(
    point: DesignPoint, inputs: Inputs, start: Layers, static: Static, state: State | None = None
) -> tuple[Tensor, State]:
    """As an implementation of ours, but without the final state."""
    name = operator_of(point)
    assert name is not None
    q, k, dtype = inputs.q, inputs.k, inputs.v.dtype
    threshold = None if inputs.threshold is None else inputs.threshold.unsqueeze(-1)
    value = -point.bias.signal(torch.zeros_like(inputs.v), inputs.v, threshold)  # u = slope p - value
    begin = start[0].expand(q.shape[0], *start[0].shape).float()
    given: dict[str, object] = {"scale": 1.0, "initial_state": begin, "output_final_state": False}
    if name in ("simple gla", "linear attention"):
        written = (value * inputs.step.unsqueeze(-1)).to(dtype)
        y, _ = _function(name)(q, k, written, inputs.log_keep if name == "simple gla" else None, **given)
    elif name == "delta":
        y, _ = _function(name)(q, k, value.to(dtype), inputs.step.to(dtype), **given)
    else:
        y, _ = _function(name)(q, k, value.to(dtype), inputs.log_keep, inputs.step.to(dtype), **given)
    return y, State()
