"""One chunk of a design point: its inputs heads first, what its pairs write, its weights as functions of signals."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor

from miras_search.kernels.channels import parts
from miras_search.kernels.state import Layers, Level
from miras_search.kernels.unrolled import Gates, Unrolled, unroll, unrolls
from miras_search.space.control import Inputs
from miras_search.space.design import DesignPoint
from miras_search.space.memory import Layer, Lin

Signals = tuple[Layers, Layers]  # inputs H and signals D of each layer


class Chunk(NamedTuple):
    """One chunk's inputs, heads first, with what turns its signals into weights."""

    inputs: Inputs  # of its tokens
    q: Tensor  # [B,H,T,K]
    k: Tensor  # [B,H,N*window,K]
    v: Tensor  # [B,H,N*window,V]
    threshold: Tensor | None  # [B,H,N*window,1 or V]
    layers: tuple[Layer, ...]
    unrolled: tuple[Unrolled, ...]  # per layer; none where the weights have to be formed write by write


class Weights(NamedTuple):
    """The weights of a chunk as functions of the signals found so far."""

    first: Lin  # where sweep 0 predicts: the chunk's start
    before: Callable[[Signals], Lin]  # where each pair's gradient is taken
    reads: Callable[[Signals], Lin]  # after each token's last write
    end: Callable[[Level, Signals], Level]  # a level of the tower, or the dual, after the chunk


def chunk_size(point: DesignPoint) -> int:
    """Tokens a chunk. An exact gradient knows no chunks: their size is free, and 16 writes were about the fastest on a
    CPU (4 to 256 tried: a loop of sweeps grows with the square of the size, a triangular solve hardly gains).
    """
    return point.execution.chunk if point.chunked else max(1, 16 // point.writes)


def prepare(point: DesignPoint, inputs: Inputs) -> Chunk:
    """Heads first, and the coefficients of the chunk."""
    keys, values = inputs.k.shape[-1], inputs.v.shape[-1]
    layers = point.memory.layers(keys, values)
    threshold = None if inputs.threshold is None else inputs.threshold.transpose(1, 2)
    if threshold is not None and point.scopes.get("threshold", "head") == "head":
        threshold = threshold.unsqueeze(-1)
    gates = Gates(
        log_keep=None if point.retention.keep.is_one else inputs.log_keep.transpose(1, 2),
        step=inputs.step.new_ones(inputs.step.shape[1]),
        momentum=None if inputs.momentum is None else inputs.momentum.transpose(1, 2),
    )
    return Chunk(
        inputs=inputs,
        q=inputs.q.transpose(1, 2).contiguous(),  # or each product would copy it
        k=inputs.k.transpose(1, 2).contiguous(),
        v=inputs.v.transpose(1, 2),
        threshold=threshold,
        layers=layers,
        unrolled=_unrolled(point, gates, layers, keys) if unrolls(point) else (),
    )


def _unrolled(point: DesignPoint, gates: Gates, layers: tuple[Layer, ...], keys: int) -> tuple[Unrolled, ...]:
    """The coefficients of each layer; the same ones where no gate is by channel."""
    if {point.scopes[slot] for slot in ("keep", "step", "momentum") if slot in point.scopes} == {"head"}:
        return (unroll(point, gates, layers[0], keys),) * len(layers)
    return tuple(unroll(point, gates, layer, keys) for layer in layers)


def written(point: DesignPoint, chunk: Chunk, i: int, found: Signals) -> tuple[Tensor, Tensor]:
    """What the pairs of a chunk add to a layer: rows h, columns d, with write keys, shares, steps and their minus."""
    h, d = found[0][i], found[1][i]
    left, right = _scales(point, chunk, i)
    if chunk.inputs.w is not None:
        h = chunk.inputs.w.transpose(1, 2)
    return h if left is None else left * h, d if right is None else right * d


def _scales(point: DesignPoint, chunk: Chunk, i: int) -> tuple[Tensor | None, Tensor | None]:
    """What multiplies the rows and the columns that a layer is given to write."""
    layer, window = chunk.layers[i], point.algorithm.window
    step = parts(chunk.inputs.step.transpose(1, 2), point.scopes["step"], layer, chunk.k.shape[-1], log=False)
    left, right = step.rows, step.cols
    if step.whole is not None:
        whole = step.whole.unsqueeze(-1)
        if left is None and layer.rows < layer.cols:  # where fewer channels are
            left = whole
        else:
            right = whole if right is None else right * whole
    if left is not None:
        left = -left
    elif right is not None:
        right = -right
    if window > 1:
        left, right = (None if x is None else x.repeat_interleave(window, 2) for x in (left, right))
    if chunk.inputs.share is not None:
        share = chunk.inputs.share.transpose(1, 2).flatten(2, 3).unsqueeze(-1)
        right = share if right is None else right * share
    return left, right
