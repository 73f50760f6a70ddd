"""Every design point in chunks, plain torch: the CPU path and the fallback of every kernel.

Of the signals in a chunk only those that depend on one another cost a loop. They are found by sweeps: predict with the
signals of the sweep before, for the weights one write earlier; n sweeps are exact for the first n+1 writes. The weights
of all writes follow from the signals in one of three ways, the cheapest that the point allows:

    matrix.py     a bare matrix with plain gates: three matrix products, and one triangular solve instead of sweeps
    hidden.py     one hidden layer with plain gates, frozen gradients: a loop with a backward of its own
    applied.py    a linear algorithm: coefficients apply the weights (unrolled.py), mostly without forming them
    formed.py     else formed write by write, as the definition does it (primal gates, adaptive algorithms)

Exact gradients of what has to be formed run token by token, as no sweep would be cheaper. Inside this file heads come
before time: q [B,H,T,K], gates [B,H,N].
"""

from __future__ import annotations

import torch
from torch import Tensor

from miras_search.kernels import applied, formed, hidden, matrix, recurrence
from miras_search.kernels.applied import applies
from miras_search.kernels.chunk import Chunk, Signals, Weights, chunk_size, prepare, written
from miras_search.kernels.recurrence import limited, signals
from miras_search.kernels.state import Layers, Level, State, chunk_start, initial_state, is_lagged, is_tangent, link
from miras_search.kernels.unrolled import overlaps, unrolls
from miras_search.kernels.windows import unfolded
from miras_search.space.control import Inputs
from miras_search.space.design import DesignPoint
from miras_search.space.gates import LOG_FLOOR
from miras_search.space.memory import Static


def run(
    point: DesignPoint, inputs: Inputs, start: Layers, static: Static, state: State | None = None
) -> tuple[Tensor, State]:
    """Outputs y [B,T,H,V] and the final state; the same function as `recurrence.run`, argument for argument."""
    if state is None:
        state = initial_state(point, inputs, start, static)
    if not inputs.q.shape[0] * inputs.q.shape[1]:  # nothing to cut into chunks
        return recurrence.run(point, inputs, start, static, state)
    if not point.retention.keep.is_one:  # of -inf, which forgets all, no differences can be taken
        inputs = inputs._replace(log_keep=inputs.log_keep.clamp(min=LOG_FLOOR))
    solution = point.algorithm.solution(point.memory)
    if solution is not None:
        y, solved = solution.whole(dict(state.solved), recurrence.without_idle_gate(point, inputs), static)
        return y, state._replace(solved=solved)
    costly = not point.retention.identity or not unrolls(point)
    if point.execution.gradient.sweeps is None and costly and not _blind(point):
        return recurrence.run(point, inputs, start, static, state)
    size, tokens = point.execution.chunk, inputs.q.shape[1]
    head = min(tokens, (size - state.position) % size) if point.chunked else 0
    outputs = []
    if head:  # a segment that begins in the middle of a chunk: token by token up to the next boundary
        y, state = recurrence.run(point, inputs.tokens(0, head), start, static, state)
        outputs.append(y)
    if head < tokens:
        rest = inputs.tokens(head, tokens) if head else inputs
        if matrix.runs(point, inputs):
            y, state = matrix.run(point, rest, static, state)
        elif hidden.runs(point, inputs):
            y, state = hidden.run(point, rest, static, state)
        else:
            y, state = _run(point, rest, static, state)
        outputs.append(y)
    return outputs[0] if len(outputs) == 1 else torch.cat(outputs, 1), state


def _blind(point: DesignPoint) -> bool:
    """Whether no signal depends on the weights, so that one sweep is exact."""
    return point.bias.slope == 0 and point.memory.bare


def _run(point: DesignPoint, inputs: Inputs, static: Static, state: State) -> tuple[Tensor, State]:
    """Chunk after chunk from a state at a chunk's start; a lag token as the recurrence takes it."""
    inputs, window = unfolded(inputs, state.window)
    tokens, size = inputs.q.shape[1], chunk_size(point)
    outputs = []
    full, rest = divmod(tokens, size)
    for piece in inputs.split([size] * full + [rest] * (rest > 0)):
        if is_lagged(point):
            lag, *after = piece.split([1, piece.q.shape[1] - 1])
            y, state = recurrence.through(point, lag, static, state)
            outputs.append(y.transpose(1, 2))
            if piece.q.shape[1] == 1:
                continue
            (piece,) = after
        chunk = prepare(point, piece)
        weights = _weights(point, chunk, static, state)
        sweeps = _sweep(point, chunk, static, state, weights)
        outputs.append(point.memory.forward(chunk.q, weights.reads(sweeps[-1]), static))
        state = _after(point, chunk, static, state, weights, sweeps)
    return torch.cat(outputs, 2).transpose(1, 2), state._replace(window=window)


def _weights(point: DesignPoint, chunk: Chunk, static: Static, state: State) -> Weights:
    found = applied.weights if applies(point) else formed.weights
    return found(point, chunk, static, state)


def _sweep(point: DesignPoint, chunk: Chunk, static: Static, state: State, weights: Weights) -> list[Signals]:
    """The signals of every sweep, the last being those that are written."""
    count = point.execution.gradient.sweeps
    exact = count is None
    if exact and point.bias.slope is not None and point.memory.bare and not _blind(point):
        return [_solve(point, chunk, weights)]
    pairs = chunk.k.shape[2]
    total = count if count is not None else 0 if _blind(point) else pairs // point.algorithm.window - 1
    found: list[Signals] = []
    for sweep in range(total + 1):
        lin = weights.first if sweep == 0 else weights.before(found[-1])
        h, d = signals(point.memory, point.bias, static, lin, chunk.k, chunk.v, chunk.threshold)
        if sweep < total or not exact:
            d = tuple(map(limited, d))
        found = [(h, d)] if exact else [*found, (h, d)]
    return found


def _solve(point: DesignPoint, chunk: Chunk, weights: Weights) -> Signals:
    """The exact signals of a bare memory whose bias is linear in the prediction, by one unit-triangular solve.

    u = g p + f(v) and p_t = base_t + sum_{s<t} overlap_ts u_s give (1 - g overlap) u = g base + f(v).
    """
    slope, k, nothing = point.bias.slope, chunk.k, torch.zeros_like(chunk.v)
    assert slope is not None
    base = weights.before(((k,), (nothing,)))(0, k)
    right = point.bias.signal(nothing, chunk.v, chunk.threshold) + slope * base
    ones = torch.ones_like(nothing if point.scopes["step"] in ("value", "key_value") else nothing[..., :1])
    h, scale = written(point, chunk, 0, ((k,), (ones,)))
    overlap = overlaps(chunk.unrolled[0].before, k, h, scale)
    eye = torch.eye(overlap.shape[-1], dtype=k.dtype, device=k.device)
    if overlap.dim() == k.dim():
        u = torch.linalg.solve_triangular(eye - slope * overlap, right, upper=False, unitriangular=True)
    else:  # one system a value channel
        channels = right.transpose(-1, -2).unsqueeze(-1)
        found = torch.linalg.solve_triangular(eye - slope * overlap, channels, upper=False, unitriangular=True)
        u = found.squeeze(-1).transpose(-1, -2)
    return (k,), (u,)


def _after(
    point: DesignPoint, chunk: Chunk, static: Static, state: State, weights: Weights, sweeps: list[Signals]
) -> State:
    """The state after the chunk; a chunk that is not full leaves its tower standing."""
    last = weights.end(Level(state.dual, state.moments), sweeps[-1])
    position = state.position + chunk.q.shape[2]
    if not point.chunked or position == point.execution.chunk:
        return chunk_start(point, last, static)
    tangent = is_tangent(point)
    base = Level(link(point, state.dual, static) if tangent else state.dual, state.moments)
    return State(
        dual=last.weights,
        moments=last.moments,
        start=state.start,
        tower=tuple(weights.end(base, found) for found in sweeps[:-1]),
        tangent=weights.end(base, sweeps[-1]).weights if tangent else (),
        position=position,
    )
