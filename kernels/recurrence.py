"""The definition: every design point token by token, in plain torch, straight from the equations.

Everything faster is tested against this file. For each write (key k, value v) of a token, with W = link(Z):

    p = M(k; W'),  u = bias signal(p, v),  g_l = h_l^T d_l      (h_l input of layer l, d_l = dl/d(output of layer l))
    D, S = the algorithm's change for g, from the moments S     (gd: D = -e g;  momentum: D = S = b S - e g)
    Z = a Z + D, or the retention gate's own step               (keep a fades the past at a token's first write)
    y = M(q; W)                                                 read after the token's last write

W' are the weights at which execution takes the gradient: the previous ones, or those that keep has faded already
(gradient_at: decayed); of the chunk's start (frozen), of the level below in a tower of sweeps (refined), or exactly
those. With a window, g is the weighted sum over the last tokens' pairs, all at the same W'. A memory that is solved for
absorbs its tokens one by one instead. With a lag token (link_refresh: lag) a chunk's first token is exact, and what
follows is as in a chunk that starts after it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from miras_search.kernels.channels import over_layer
from miras_search.kernels.state import Layers, Level, State, chunk_start, initial_state, is_lagged, is_tangent, link
from miras_search.kernels.windows import unfolded
from miras_search.space.bias import Bias
from miras_search.space.control import Inputs
from miras_search.space.design import DesignPoint
from miras_search.space.execution import Gradient
from miras_search.space.memory import Lin, Memory, Static

SIGNAL_LIMIT = 1e6  # iterates of frozen and refined gradients can overflow where their limit is finite


class Write(NamedTuple):
    """One write, with its gates over each layer's weights."""

    k: Tensor  # read keys [B,H,n,K] of n pairs that are written together
    v: Tensor  # [B,H,n,V]
    threshold: Tensor | None  # [B,H,n,1] or [B,H,n,V]
    w: Tensor | None  # write keys [B,H,n,K]
    share: Tensor | None  # [B,H,n,1]
    keep: Layers | None  # broadcasts over [B,H,rows,cols]; None: this write lets nothing go
    step: Layers
    momentum: Layers | None


def apply(weights: Sequence[Tensor]) -> Lin:
    """`lin` of a memory with the given weights: x W, or x * w where the layer is diagonal."""

    def lin(layer: int, x: Tensor) -> Tensor:
        w = weights[layer]
        diagonal = w.shape[-2] == 1 and x.shape[-1] > 1  # at a single channel both products are one
        return x * w if diagonal else x @ w

    return lin


def signals(
    memory: Memory, bias: Bias, static: Static, lin: Lin, k: Tensor, v: Tensor, threshold: Tensor | None
) -> tuple[Layers, Layers]:
    """Inputs h_l and back-propagated signals d_l of every layer for keys k [B,H,N,K] and values v [B,H,N,V].

    The gradient of layer l's weights for token n is h_l[n]^T d_l[n]. Signals come from the vector-Jacobian product
    through zero taps on the layers' outputs, so that any memory works and the outer loop can differentiate through it.
    """
    if memory.bare:
        return (k,), (bias.signal(lin(0, k), v, threshold),)
    layers = memory.layers(k.shape[-1], v.shape[-1])
    taps = tuple(k.new_zeros(*k.shape[:-1], layer.cols) for layer in layers)

    def tapped(taps: Layers) -> tuple[Tensor, Layers]:
        inputs: dict[int, Tensor] = {}

        def tap(layer: int, x: Tensor) -> Tensor:
            inputs[layer] = x
            return lin(layer, x) + taps[layer]

        prediction = memory.forward(k, tap, static)
        return prediction, tuple(inputs[layer] for layer in range(len(taps)))

    result: Any = torch.func.vjp(tapped, taps, has_aux=True)  # its stub knows only the form without aux
    prediction, pullback, inputs = result
    (signal,) = pullback(bias.signal(prediction, v, threshold))
    return inputs, signal


def limited(signal: Tensor) -> Tensor:
    """The signal within `SIGNAL_LIMIT`; a hard tanh, because it goes back in one pass where a clamp takes three."""
    return torch.nn.functional.hardtanh(signal, -SIGNAL_LIMIT, SIGNAL_LIMIT)


def run(
    point: DesignPoint, inputs: Inputs, start: Layers, static: Static, state: State | None = None
) -> tuple[Tensor, State]:
    """Outputs y [B,T,H,V] and the final state.

    `start`: learned dual start of each layer [H,rows,cols], used where `state` is None. Inputs as `Inputs` says.
    """
    if state is None:
        state = initial_state(point, inputs, start, static)
    if state.solved:
        return _absorb(point, inputs, static, state)
    inputs, window = unfolded(inputs, state.window)
    y, state = through(point, inputs, static, state)
    return y, state._replace(window=window)


def through(point: DesignPoint, inputs: Inputs, static: Static, state: State) -> tuple[Tensor, State]:
    """`run` on inputs whose windows are unfolded."""
    outputs = []
    for token in inputs.split([1] * inputs.q.shape[1]):
        lags = state.position == 0 and is_lagged(point)
        rule = definition(point) if lags else point
        if lags:
            state = State(dual=state.dual, moments=state.moments)
        for j in range(point.writes):
            state = _advance(rule, write_of(point, token, 0, j), static, state)
        if lags:  # the rest of the chunk starts here
            state = chunk_start(point, Level(state.dual, state.moments), static)
        weights = state.tangent or link(point, state.dual, static)
        outputs.append(point.memory.forward(token.q.transpose(1, 2), apply(weights), static).squeeze(2))
        if point.chunked:
            state = state._replace(position=state.position + 1)
            if state.position == point.execution.chunk:
                state = chunk_start(point, Level(state.dual, state.moments), static)
    return torch.stack(outputs, 1) if outputs else inputs.v[:, :0], state


def definition(point: DesignPoint) -> DesignPoint:
    """The point with exact gradients and its link applied at every token, as a lag token has it."""
    run = dataclasses.replace(point.execution, gradient=Gradient(), link_refresh="token")
    return dataclasses.replace(point, execution=run)


def _absorb(point: DesignPoint, inputs: Inputs, static: Static, state: State) -> tuple[Tensor, State]:
    """A memory that is solved for, token by token."""
    solution = point.algorithm.solution(point.memory)
    assert solution is not None
    outputs, solved = [], dict(state.solved)
    inputs = without_idle_gate(point, inputs)
    for token in inputs.split([1] * inputs.q.shape[1]):
        solved = solution.absorb(solved, token, static)
        outputs.append(solution.read(solved, token.q, static))
    return torch.cat(outputs, 1) if outputs else inputs.v[:, :0], state._replace(solved=solved)


def without_idle_gate(point: DesignPoint, inputs: Inputs) -> Inputs:
    """The inputs with a log keep of 0 where retention keeps all, for who reads it without asking; else as they are."""
    return inputs._replace(log_keep=torch.zeros_like(inputs.log_keep)) if point.retention.keep.is_one else inputs


def write_of(point: DesignPoint, inputs: Inputs, t: int, j: int) -> Write:
    """Write j of token t."""
    algorithm, scopes = point.algorithm, point.scopes
    n, pairs = t * point.writes + j, algorithm.window
    keys = inputs.k.shape[-1]
    layers = point.memory.layers(keys, inputs.v.shape[-1])

    def over(gate: Tensor, slot: str, *, log: bool = False) -> Layers:
        return tuple(over_layer(gate, scopes[slot], layer, keys, log=log) for layer in layers)

    def group(x: Tensor | None) -> Tensor | None:  # [B,N,H,..] -> [B,H,pairs,..]
        return None if x is None else x[:, n * pairs : (n + 1) * pairs].transpose(1, 2)

    k, v, threshold = group(inputs.k), group(inputs.v), group(inputs.threshold)
    assert k is not None
    assert v is not None
    fades = j == 0 and not point.retention.keep.is_one
    return Write(
        k=k,
        v=v,
        threshold=threshold.unsqueeze(-1)
        if threshold is not None and scopes.get("threshold", "head") == "head"
        else threshold,
        w=group(inputs.w),
        share=None if inputs.share is None else inputs.share[:, t].unsqueeze(-1),
        keep=tuple(torch.exp(x) for x in over(inputs.log_keep[:, t], "keep", log=True)) if fades else None,
        step=over(inputs.step[:, n], "step"),
        momentum=None if inputs.momentum is None else over(inputs.momentum[:, n], "momentum"),
    )


def gradients(point: DesignPoint, write: Write, h: Layers, d: Layers) -> Layers:
    """The gradient of each layer's weights [B,H,rows,cols] from inputs and signals of a write's pairs."""
    if write.share is not None:
        d = tuple(write.share * x for x in d)
    if write.w is not None:
        h = (write.w,)
    layers = point.memory.layers(write.k.shape[-1], write.v.shape[-1])
    return tuple(
        (x * y).sum(-2, keepdim=True) if layer.diagonal else x.transpose(-1, -2) @ y
        for x, y, layer in zip(h, d, layers, strict=True)
    )


def advance(point: DesignPoint, write: Write, level: Level, gradient: Layers, static: Static) -> Level:
    """The accumulators and moments after one write, given its gradients."""
    changes, moments = [], []
    for i, g in enumerate(gradient):
        after = moved(point, write, i, tuple(m[i] for m in level.moments), g)
        changes.append(point.algorithm.change(after, g, write.step[i]))
        moments.append(after)
    return Level(changed(point, write, level.weights, changes, static), tuple(zip(*moments, strict=True)))


def moved(point: DesignPoint, write: Write, i: int, moments: Layers, gradient: Tensor) -> Layers:
    """Layer i's moments after one write, given its gradient."""
    beta = None if write.momentum is None else write.momentum[i]
    return point.algorithm.moved(moments, gradient, write.step[i], beta)


def changed(point: DesignPoint, write: Write, accumulated: Layers, changes: Sequence[Tensor], static: Static) -> Layers:
    """The accumulators after one write: what the gate keeps of them, and what the algorithm adds."""
    if point.retention.form == "dual":
        kept = accumulated if write.keep is None else [a * z for a, z in zip(write.keep, accumulated, strict=True)]
        return tuple(z + change for z, change in zip(kept, changes, strict=True))
    keep = [torch.ones_like(step) for step in write.step] if write.keep is None else write.keep
    return tuple(
        point.retention.step(z, a, change, step, static)
        for z, a, change, step in zip(accumulated, keep, changes, write.step, strict=True)
    )


def _advance(point: DesignPoint, write: Write, static: Static, state: State) -> State:
    """The state after one write."""
    tangent = is_tangent(point)

    def found(accumulated: Layers, *, is_weights: bool, limit: bool) -> Layers:
        at = faded(point, write, accumulated, static)
        weights = at if is_weights else link(point, at, static)
        lin = apply(weights)
        h, d = signals(point.memory, point.bias, static, lin, write.k, write.v, write.threshold)
        if limit:
            d = tuple(map(limited, d))
        return gradients(point, write, h, d)

    tower: tuple[Level, ...] = ()
    if not state.start:  # exact
        gradient = found(state.tangent or state.dual, is_weights=tangent, limit=False)
    else:
        below: Layers = link(point, state.start, static) if tangent else state.start
        advanced = []
        for level in state.tower:
            gradient = found(below, is_weights=tangent, limit=True)
            below = level.weights
            advanced.append(advance(point, write, level, gradient, static))
        gradient = found(below, is_weights=tangent, limit=True)
        tower = tuple(advanced)
    dual = advance(point, write, Level(state.dual, state.moments), gradient, static)
    running: Layers = ()
    if tangent:
        running = advance(point, write, Level(state.tangent, state.moments), gradient, static).weights
    return state._replace(dual=dual.weights, moments=dual.moments, tower=tower, tangent=running)


def faded(point: DesignPoint, write: Write, accumulated: Layers, static: Static) -> Layers:
    """The accumulators at which a write's gradient is taken: faded by keep first, where execution says so."""
    if write.keep is None or point.execution.gradient_at == "previous":
        return accumulated
    if point.retention.form == "dual":
        return tuple(keep * z for keep, z in zip(write.keep, accumulated, strict=True))
    nothing = [torch.zeros_like(z) for z in accumulated]
    return tuple(
        point.retention.step(z, keep, none, torch.zeros_like(keep), static)
        for z, keep, none in zip(accumulated, write.keep, nothing, strict=True)
    )
