"""Every design point in chunks, plain torch: the CPU path and the fallback of every kernel.

A chunk of N writes unrolls to Z_t = A_t Z_0 + B_t S_0 - sum_{s<=t} P_ts h_s^T d_s per layer (coefficients of the
algorithm), so a layer applied to x with the weights after write t is

    lin(l, x) = A * (x Z_l) + B * (x S_l) - (P * (x H_l^T)) D_l

and only the signals D depend on one another. They are found by sweeps: predict with the signals of the sweep before,
through coefficients shifted by one write; n sweeps are exact for the first n+1 writes. A matrix memory whose signal
is linear needs one unit-triangular solve instead. Where a dual gate refreshes its link at every token, the weights of
each write are materialised; exact gradients of those run token by token, as no sweep would be cheaper.

Inside this file heads come before time: q [B,H,T,K], gates [B,H,N].
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from miras_search.kernels import matrix, recurrence
from miras_search.kernels.coefficients import at_reads, before_writes, spread
from miras_search.kernels.recurrence import SIGNAL_LIMIT, apply, signals
from miras_search.kernels.state import Layers, Level, State, chunk_start, initial_state, is_tangent, link
from miras_search.space.algorithm import Coefficients
from miras_search.space.control import Inputs
from miras_search.space.design import DesignPoint
from miras_search.space.memory import Lin, Static

Signals = tuple[Layers, Layers]  # inputs H and signals D of each layer


class Chunk(NamedTuple):
    """One chunk's inputs, heads first, with its coefficients."""

    q: Tensor  # [B,H,T,K]
    k: Tensor  # [B,H,N,K]
    v: Tensor  # [B,H,N,V]
    threshold: Tensor | None  # [B,H,N,1]
    after: Coefficients  # the weights after each write
    before: Coefficients  # the weights at which each write's gradient is taken
    fade: Tensor | None  # [B,H,N]: keep of each write where the gradient is taken after the decay


def run(
    point: DesignPoint, inputs: Inputs, start: Layers, static: Static, state: State | None = None
) -> tuple[Tensor, State]:
    """Outputs y [B,T,H,V] and the final state; the same function as `recurrence.run`, argument for argument."""
    if point.execution.gradient.sweeps is None and not point.retention.identity:
        return recurrence.run(point, inputs, start, static, state)
    if state is None:
        state = initial_state(point, start, inputs.q.shape[0])
    size, tokens = point.execution.chunk, inputs.q.shape[1]
    head = min(tokens, (size - state.position) % size) if point.chunked else 0
    outputs = []
    if head:  # a segment that begins in the middle of a chunk: token by token up to the next boundary
        y, state = recurrence.run(point, tokens_of(inputs, point, 0, head), start, static, state)
        outputs.append(y)
    if head < tokens:
        rest = tokens_of(inputs, point, head, tokens) if head else inputs
        if point.memory.bare and point.retention.identity:
            y, state = matrix.run(point, rest, state)
        else:
            y, state = _run(point, rest, static, state)
        outputs.append(y)
    return outputs[0] if len(outputs) == 1 else torch.cat(outputs, 1), state


def tokens_of(inputs: Inputs, point: DesignPoint, first: int, last: int) -> Inputs:
    """The inputs of tokens first..last-1."""
    n = point.algorithm.writes
    token, write = slice(first, last), slice(first * n, last * n)
    return Inputs(
        q=inputs.q[:, token],
        k=inputs.k[:, write],
        v=inputs.v[:, write],
        log_keep=inputs.log_keep[:, token],
        step=inputs.step[:, write],
        momentum=None if inputs.momentum is None else inputs.momentum[:, write],
        threshold=None if inputs.threshold is None else inputs.threshold[:, write],
    )


def _run(point: DesignPoint, inputs: Inputs, static: Static, state: State) -> tuple[Tensor, State]:
    """Chunk after chunk from a state at a chunk's start."""
    tokens, size = inputs.q.shape[1], point.execution.chunk
    outputs = []
    for first in range(0, tokens, size):
        chunk = prepare(point, tokens_of(inputs, point, first, min(first + size, tokens)))
        sweeps = _sweep(point, chunk, static, state)
        outputs.append(_read(point, chunk, static, state, sweeps[-1]))
        state = _advance(point, chunk, state, sweeps)
    return torch.cat(outputs, 2).transpose(1, 2), state


def prepare(point: DesignPoint, inputs: Inputs) -> Chunk:
    """Heads first, and the coefficients of the chunk."""
    log_keep = None
    if not point.retention.keep.is_one:
        log_keep = spread(inputs.log_keep.transpose(1, 2), point.algorithm.writes)
    momentum = None if inputs.momentum is None else inputs.momentum.transpose(1, 2)
    after = point.algorithm.coefficients(log_keep, inputs.step.transpose(1, 2), momentum)
    decayed = log_keep is not None and point.execution.gradient_at == "decayed"
    fade = torch.exp(log_keep) if decayed and log_keep is not None else None
    return Chunk(
        q=inputs.q.transpose(1, 2),
        k=inputs.k.transpose(1, 2),
        v=inputs.v.transpose(1, 2),
        threshold=None if inputs.threshold is None else inputs.threshold.transpose(1, 2).unsqueeze(-1),
        after=after,
        before=before_writes(after, fade),
        fade=fade,
    )


def _applied(point: DesignPoint, c: Coefficients, state: State, found: Signals | None) -> Lin:
    """`lin` with the weights that the coefficients describe, given the signals found so far (None: none yet)."""
    if not is_tangent(point) and not point.retention.identity:
        return _materialised(point, c, state, found)
    base = link(point, state.dual) if is_tangent(point) else state.dual

    def lin(layer: int, x: Tensor) -> Tensor:
        y = c.keep.unsqueeze(-1) * (x @ base[layer])
        if found is None:
            return y
        if c.momentum is not None:
            y = y + c.momentum.unsqueeze(-1) * (x @ state.momentum[layer])
        h, d = found[0][layer], found[1][layer]
        return y - (c.writes * (x @ h.transpose(-1, -2))) @ d

    return lin


def _materialised(point: DesignPoint, c: Coefficients, state: State, found: Signals | None) -> Lin:
    """`lin` with link(Z_t) formed for every write: [B,H,N,rows,cols]."""

    def lin(layer: int, x: Tensor) -> Tensor:
        z = c.keep[..., None, None] * state.dual[layer].unsqueeze(2)
        if found is not None:
            if c.momentum is not None:
                z = z + c.momentum[..., None, None] * state.momentum[layer].unsqueeze(2)
            h, d = found[0][layer], found[1][layer]
            outer = (h.unsqueeze(-1) * d.unsqueeze(-2)).flatten(-2)
            z = z - (c.writes @ outer).view(z.shape)
        return (x.unsqueeze(-2) @ point.retention.link(z)).squeeze(-2)

    return lin


def _first(point: DesignPoint, chunk: Chunk, state: State) -> Lin:
    """`lin` with the chunk's start weights: what sweep 0 predicts from."""
    if chunk.fade is None:
        return apply(link(point, state.dual))
    return _applied(point, Coefficients(chunk.fade, None, chunk.before.writes, None, None), state, None)


def _sweep(point: DesignPoint, chunk: Chunk, static: Static, state: State) -> list[Signals]:
    """The signals of every sweep, the last being those that are written."""
    count = point.execution.gradient.sweeps
    exact = count is None
    total = chunk.k.shape[2] - 1 if count is None else count
    found: list[Signals] = []
    for sweep in range(total + 1):
        lin = _first(point, chunk, state) if sweep == 0 else _applied(point, chunk.before, state, found[-1])
        h, d = signals(point.memory, point.bias, static, lin, chunk.k, chunk.v, chunk.threshold)
        if sweep < total or not exact:
            d = tuple(x.clamp(-SIGNAL_LIMIT, SIGNAL_LIMIT) for x in d)
        found = [(h, d)] if exact else [*found, (h, d)]
    return found


def _read(point: DesignPoint, chunk: Chunk, static: Static, state: State, found: Signals) -> Tensor:
    """y [B,H,T,V]: each token's query against the weights after its last write."""
    c = at_reads(chunk.after, point.algorithm.writes)
    return point.memory.forward(chunk.q, _applied(point, c, state, found), static)


def _advance(point: DesignPoint, chunk: Chunk, state: State, sweeps: list[Signals]) -> State:
    """The state after the chunk; a chunk that is not full leaves its tower standing."""

    def level(base: Layers, found: Signals) -> Level:
        return end_of_chunk(chunk.after, base, state.momentum, found)

    last = level(state.dual, sweeps[-1])
    tokens = chunk.q.shape[2]
    if not point.chunked or tokens == point.execution.chunk:
        return chunk_start(point, last.weights, last.momentum)
    tangent = is_tangent(point)
    base = link(point, state.dual) if tangent else state.dual
    return State(
        dual=last.weights,
        momentum=last.momentum,
        start=state.start,
        tower=tuple(level(base, found) for found in sweeps[:-1]),
        tangent=level(base, sweeps[-1]).weights if tangent else (),
        position=tokens,
    )


def end_of_chunk(c: Coefficients, base: Layers, momentum: Layers, found: Signals) -> Level:
    """Accumulators and momenta after the chunk's last write."""
    weights, surprise = [], []
    for layer, (h, d) in enumerate(zip(*found, strict=True)):
        z = c.keep[..., -1, None, None] * base[layer]
        if c.momentum is not None and c.end_momentum is not None and c.end_writes is not None:
            z = z + c.momentum[..., -1, None, None] * momentum[layer]
            s = c.end_momentum[..., None, None] * momentum[layer]
            surprise.append(s - (c.end_writes.unsqueeze(-1) * h).transpose(-1, -2) @ d)
        weights.append(z - (c.writes[..., -1, :].unsqueeze(-1) * h).transpose(-1, -2) @ d)
    return Level(tuple(weights), tuple(surprise))
