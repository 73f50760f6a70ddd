"""The definition: every design point token by token, in plain torch, straight from the equations.

Everything faster is tested against this file. For each write (key k, value v) of a token, with W = link(Z):

    p = M(k; W'),  u = bias signal(p, v),  g_l = h_l^T d_l      (h_l input of layer l, d_l = dl/d(output of layer l))
    S = b S - e g,  Z = a Z + S                                 (without momentum: Z = a Z - e g)
    y = M(q; W)                                                 read after the token's last write

W' are the weights at which execution takes the gradient: the previous ones, or those that keep has faded already
(gradient_at: decayed); of the chunk's start (frozen), of the level below in a tower of sweeps (refined), or exactly
those.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from miras_search.kernels.state import Layers, Level, State, chunk_start, initial_state, is_tangent, link
from miras_search.space.bias import Bias
from miras_search.space.control import Inputs
from miras_search.space.design import DesignPoint
from miras_search.space.memory import Lin, Memory, Static

SIGNAL_LIMIT = 1e6  # iterates of frozen and refined gradients can overflow where their limit is finite


def apply(weights: Sequence[Tensor]) -> Lin:
    """`lin` of a memory with the given weights: x W."""
    return lambda layer, x: x @ weights[layer]


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


def run(
    point: DesignPoint, inputs: Inputs, start: Layers, static: Static, state: State | None = None
) -> tuple[Tensor, State]:
    """Outputs y [B,T,H,V] and the final state.

    `start`: learned dual start of each layer [H,rows,cols], used where `state` is None. Inputs as `Inputs` says.
    """
    if state is None:
        state = initial_state(point, start, inputs.q.shape[0])
    writes, outputs = point.algorithm.writes, []
    for t in range(inputs.q.shape[1]):
        for j in range(writes):
            state = _write(point, inputs, static, state, t, j)
        weights = state.tangent or link(point, state.dual)
        outputs.append(point.memory.forward(inputs.q[:, t].unsqueeze(2), apply(weights), static).squeeze(2))
        if point.chunked:
            state = state._replace(position=state.position + 1)
            if state.position == point.execution.chunk:
                state = chunk_start(point, state.dual, state.momentum)
    return torch.stack(outputs, 1), state


def _write(point: DesignPoint, inputs: Inputs, static: Static, state: State, t: int, j: int) -> State:
    """The state after write j of token t."""
    n = t * point.algorithm.writes + j
    keep = torch.exp(inputs.log_keep[:, t, :, None, None]) if j == 0 else None  # [B,H,1,1]
    step = inputs.step[:, n, :, None, None]
    beta = None if inputs.momentum is None else inputs.momentum[:, n, :, None, None]
    threshold = None if inputs.threshold is None else inputs.threshold[:, n, :, None, None]
    k, v = inputs.k[:, n].unsqueeze(2), inputs.v[:, n].unsqueeze(2)  # [B,H,1,K], [B,H,1,V]
    tangent = is_tangent(point)
    faded = keep is not None and point.execution.gradient_at == "decayed"

    def gradients(accumulated: Layers, *, is_weights: bool, limit: bool) -> Layers:
        at = tuple(keep * z for z in accumulated) if faded and keep is not None else accumulated
        weights = at if is_weights else link(point, at)
        h, d = signals(point.memory, point.bias, static, apply(weights), k, v, threshold)
        if limit:
            d = tuple(x.clamp(-SIGNAL_LIMIT, SIGNAL_LIMIT) for x in d)
        return tuple(x.transpose(-1, -2) @ y for x, y in zip(h, d, strict=True))

    def advance(accumulated: Layers, momentum: Layers, gradient: Layers) -> Level:
        change = tuple(-step * g for g in gradient)
        if beta is not None:
            momentum = change = tuple(beta * s + c for s, c in zip(momentum, change, strict=True))
        faded_past = accumulated if keep is None else tuple(keep * z for z in accumulated)
        return Level(tuple(z + c for z, c in zip(faded_past, change, strict=True)), momentum)

    top = state.tangent or state.dual
    if not state.start:  # exact
        gradient = gradients(top, is_weights=tangent, limit=False)
        tower: tuple[Level, ...] = ()
    else:
        below: Layers = link(point, state.start) if tangent else state.start
        levels = [*state.tower, Level(top, state.momentum)]
        advanced = []
        for level in levels:
            gradient = gradients(below, is_weights=tangent, limit=True)
            below = level.weights
            advanced.append(advance(level.weights, level.momentum, gradient))
        tower = tuple(advanced[:-1])
    dual = advance(state.dual, state.momentum, gradient)
    return state._replace(
        dual=dual.weights,
        momentum=dual.momentum,
        tower=tower,
        tangent=advance(state.tangent, state.momentum, gradient).weights if tangent else (),
    )
