"""The weights of a chunk formed write by write, as the definition does it, from gradients that are known already.

For primal gates, adaptive algorithms, and gates by channel that coefficients do not hold.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from miras_search.kernels.applied import at_every
from miras_search.kernels.chunk import Chunk, Signals, Weights
from miras_search.kernels.recurrence import Write, apply, changed, faded, moved, write_of
from miras_search.kernels.state import Layers, Level, State, is_tangent, link
from miras_search.space.design import DesignPoint
from miras_search.space.memory import Lin, Static


class Path(NamedTuple):
    """Accumulators on the way through a chunk: where each write's gradient is taken, after each token, and the end."""

    before: list[Layers]
    reads: list[Layers]
    end: Level


def weights(point: DesignPoint, chunk: Chunk, static: Static, state: State) -> Weights:
    """The chunk's weights as functions of its signals."""
    per_token = point.writes
    tokens = chunk.q.shape[2]
    writes = [write_of(point, token, 0, j) for token in chunk.inputs.split([1] * tokens) for j in range(per_token)]
    tangent = is_tangent(point)
    start = Level(link(point, state.dual, static) if tangent else state.dual, state.moments)

    walked: list[tuple[Level, Signals, Path]] = []  # where the last way began, and what was written on it

    def path(level: Level, found: Signals) -> Path:
        if walked and walked[0][0].weights is level.weights and walked[0][1] is found:
            return walked[0][2]
        changes, moments = _changes(point, chunk, writes, level.moments, found)
        weights, before, reads = level.weights, [], []
        for n, (write, change) in enumerate(zip(writes, changes, strict=True)):
            before.append(faded(point, write, weights, static))
            weights = changed(point, write, weights, change, static)
            if (n + 1) % per_token == 0:
                reads.append(weights)
        walked[:] = [(level, found, Path(before, reads, Level(weights, moments)))]
        return walked[0][2]

    def lin_of(accumulated: list[Layers], repeats: int) -> Lin:
        if all(z is accumulated[0] for z in accumulated):  # nothing has happened to them yet
            return apply(accumulated[0] if tangent else link(point, accumulated[0], static))
        if not tangent:
            accumulated = [link(point, z, static) for z in accumulated]

        def lin(i: int, x: Tensor) -> Tensor:
            stacked = torch.stack([z[i] for z in accumulated], 2)
            if repeats > 1:
                stacked = stacked.repeat_interleave(repeats, 2)
            return at_every(stacked, x, diagonal=chunk.layers[i].diagonal)

        return lin

    window = point.algorithm.window
    first = [faded(point, write, start.weights, static) for write in writes]
    return Weights(
        first=lin_of(first, window),
        before=lambda found: lin_of(path(start, found).before, window),
        reads=lambda found: lin_of(path(start, found).reads, 1),
        end=lambda level, found: path(level, found).end,
    )


def _changes(
    point: DesignPoint, chunk: Chunk, writes: Sequence[Write], moments: tuple[Layers, ...], found: Signals
) -> tuple[list[Layers], tuple[Layers, ...]]:
    """What each write adds to each layer, and the moments after the last. Only moments go write by write: they are
    cheap, and what an algorithm makes of them (Newton-Schulz steps) may not be.
    """
    changes, ends = [], []
    for i in range(len(chunk.layers)):
        gradient = _gradient(point, chunk, i, found)
        after, passed = tuple(m[i] for m in moments), []
        if moments:
            for write, g in zip(writes, gradient.unbind(2), strict=True):
                after = moved(point, write, i, after, g)
                passed.append(after)
        stacked = tuple(torch.stack(every, 2) for every in zip(*passed, strict=True))
        step = torch.stack([write.step[i] for write in writes], 2)
        changes.append(point.algorithm.change(stacked, gradient, step).unbind(2))
        ends.append(after)
    return list(zip(*changes, strict=True)), tuple(zip(*ends, strict=True))


def _gradient(point: DesignPoint, chunk: Chunk, i: int, found: Signals) -> Tensor:
    """The gradients of layer i [B,H,N,rows,cols], a write's being the sum over the pairs of its window."""
    window, inputs = point.algorithm.window, chunk.inputs
    h = found[0][i] if inputs.w is None else inputs.w.transpose(1, 2)
    d = found[1][i]
    if inputs.share is not None:
        d = inputs.share.transpose(1, 2).flatten(2, 3).unsqueeze(-1) * d
    h, d = torch.unflatten(h, 2, (-1, window)), torch.unflatten(d, 2, (-1, window))
    if chunk.layers[i].diagonal:
        return (h * d).sum(-2, keepdim=True)
    return h.transpose(-1, -2) @ d
