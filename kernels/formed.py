"""The weights of a chunk formed write by write, as the definition does it, from gradients that are known already.

For primal gates, adaptive algorithms, and gates by channel that coefficients do not hold.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from miras_search.kernels.applied import at_every
from miras_search.kernels.chunk import Chunk, Signals, Weights
from miras_search.kernels.recurrence import advance, faded, gradients, write_of
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
    writes = [write_of(point, chunk.inputs, t, j) for t in range(tokens) for j in range(per_token)]
    tangent = is_tangent(point)
    start = Level(link(point, state.dual, static) if tangent else state.dual, state.moments)

    def path(level: Level, found: Signals) -> Path:
        before, reads = [], []
        for n, write in enumerate(writes):
            before.append(faded(point, write, level.weights, static))
            level = advance(point, write, level, gradients(point, write, *_of_write(point, found, n)), static)
            if (n + 1) % per_token == 0:
                reads.append(level.weights)
        return Path(before, reads, level)

    def lin_of(accumulated: list[Layers], repeats: int) -> Lin:
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


def _of_write(point: DesignPoint, found: Signals, n: int) -> Signals:
    """Inputs and signals of the pairs of write n."""
    window = point.algorithm.window
    span = slice(n * window, (n + 1) * window)
    h, d = (tuple(x[:, :, span] for x in layers) for layers in found)
    return h, d
