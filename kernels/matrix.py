"""The chunkwise form of a matrix memory with an identity link: three matrix products a chunk and the signals.

What does not depend on the running state is formed for all chunks at once (coefficients, K K^T, Q K^T, the inverse of
the triangular system); the loop over chunks carries only the state; the reads follow, again for all chunks at once.
Small models are bound by the number of operators, not by arithmetic.

Layout: M = B * H * n with n chunks; q [M,C,K], gates [M,N]. The state x [R,V] is Z, or with
momentum Z over S, so that R is K or 2 K.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from miras_search.kernels import feedback
from miras_search.kernels.chunk import chunk_size
from miras_search.kernels.coefficients import at_reads, before_writes, spread
from miras_search.kernels.inner import inner
from miras_search.kernels.recurrence import limited
from miras_search.kernels.state import Level, State, chunk_start
from miras_search.kernels.triangular import solved
from miras_search.kernels.unrolled import unrolls
from miras_search.space.algorithm import Coefficients
from miras_search.space.control import Inputs
from miras_search.space.design import DesignPoint
from miras_search.space.memory import Static


class Chunks(NamedTuple):
    """All chunks of one size, and the keys scaled so that their product with a state is a part of the prediction."""

    q: Tensor  # [M,C,K]
    k: Tensor  # [M,N,K]
    v: Tensor  # [M,N,V]
    threshold: Tensor | None  # [M,N,1]
    written: Tensor  # [M,N,K] keys times -step: what a signal moves the weights by
    first: Tensor  # keys against the weights of the chunk's start in sweep 0
    kept: Tensor  # [M,N,R] keys times what is left of the start state before each write
    overlap: Tensor | None  # [M,N,N] what each earlier signal adds to a prediction; None: nobody asks
    ends: Tensor  # [M,R,N] each signal's share of the end state
    keep: Tensor | None  # [M,1,1] what is left of Z at the end, [M,2,2] of Z and S; None: all of it
    after: Coefficients  # of steps of 1


def runs(point: DesignPoint, inputs: Inputs) -> bool:
    """Whether this form holds the point: a bare matrix, the identity link, plain writes, every gate one a head."""
    plain = point.memory.bare and point.retention.identity and unrolls(point)
    heads = all(scope == "head" for scope in point.scopes.values())
    return plain and heads and inputs.w is None and inputs.share is None and point.algorithm.window == 1


def run(point: DesignPoint, inputs: Inputs, static: Static, state: State) -> tuple[Tensor, State]:
    """Outputs y [B,T,H,V] and the final state, from a state at a chunk's start."""
    tokens = inputs.q.shape[1]
    size = min(chunk_size(point), tokens)
    full = tokens - tokens % size
    y, state = _whole_chunks(point, inputs, static, state, 0, full, size)
    if full == tokens:
        return y, state
    tail, state = _whole_chunks(point, inputs, static, state, full, tokens, tokens - full)
    return torch.cat([y, tail], 1), state


def _split(x: Tensor, first: int, last: int, size: int) -> Tensor:
    """[B,T,H,...] -> [M,size,...]."""
    return x[:, first:last].transpose(1, 2).reshape(-1, size, *x.shape[3:])


def _prepare(point: DesignPoint, inputs: Inputs, first: int, last: int, size: int) -> Chunks:
    writes = point.writes
    span = (first * writes, last * writes, size * writes)
    q, k, v = _split(inputs.q, first, last, size), _split(inputs.k, *span), _split(inputs.v, *span)
    log_keep = fade = None
    if not point.retention.keep.is_one:
        log_keep = spread(_split(inputs.log_keep, first, last, size), writes)
        fade = torch.exp(log_keep) if point.execution.gradient_at == "decayed" else None
    momentum = None if inputs.momentum is None else _split(inputs.momentum, *span)
    # a step multiplies a column of the coefficients: as a factor of the key that is written it costs less
    after = point.algorithm.coefficients(log_keep, k.new_ones(k.shape[1]), momentum)
    before = before_writes(after, fade)
    written = -_split(inputs.step, *span).unsqueeze(-1) * k
    ends = written if log_keep is None and momentum is None else after.writes[..., -1, :].unsqueeze(-1) * written
    blind = point.bias.slope == 0  # predictions do not matter to the signal
    chunks = Chunks(
        q=q,
        k=k,
        v=v,
        threshold=None if inputs.threshold is None else _split(inputs.threshold, *span).unsqueeze(-1),
        written=written,
        first=k if fade is None else fade.unsqueeze(-1) * k,
        kept=k if before.keep is None else before.keep.unsqueeze(-1) * k,
        overlap=None if blind else before.writes * inner(k, written),
        ends=ends.transpose(-1, -2),
        keep=None if after.keep is None else after.keep[..., -1, None, None],
        after=after,
    )
    return chunks if before.momentum is None else _with_momentum(chunks, before.momentum)


def _with_momentum(chunks: Chunks, before: Tensor) -> Chunks:
    """Chunks whose state is Z over S; `before` [M,N] is what S has added to Z before each write."""
    after = chunks.after
    assert after.end_writes is not None
    assert after.momentum is not None
    assert after.end_momentum is not None
    keep = torch.ones_like(after.end_momentum) if chunks.keep is None else chunks.keep[..., 0, 0]
    blocks = torch.stack([keep, after.momentum[..., -1], torch.zeros_like(keep), after.end_momentum], -1)
    surprises = (after.end_writes.unsqueeze(-1) * chunks.written).transpose(-1, -2)
    return chunks._replace(
        kept=torch.cat([chunks.kept, before.unsqueeze(-1) * chunks.k], -1),
        ends=torch.cat([chunks.ends, surprises], -2),
        keep=blocks.reshape(-1, 2, 2),
    )


def _affine(point: DesignPoint, chunks: Chunks) -> tuple[Tensor | None, Tensor] | None:
    """How the signals follow from the start state: (back, offset) of `feedback.run`; None where that takes sweeps.

    They do by one unit-triangular solve: u = g p + f(v) with p linear in the signals before it.
    """
    slope = point.bias.slope
    if slope is None or (slope != 0 and point.execution.gradient.sweeps is not None):
        return None
    offset = point.bias.signal(chunks.v.new_zeros(()).expand_as(chunks.v), chunks.v, chunks.threshold)
    if slope == 0:
        return None, offset
    lower, kept = _needed(chunks.overlap), chunks.kept
    if slope != 1:
        lower, kept = slope * lower, slope * kept
    back, offset = solved(lower, kept, offset)
    return back, offset


def _swept(point: DesignPoint, chunks: Chunks, count: int) -> Callable[[int, Tensor], list[Tensor]]:
    """Every sweep's signals of chunk i of `count` from its start state, the last being those that are written: predict
    from the chunk's start, then again and again with the signals of the sweep before.
    """
    first, kept, overlap, v, thresholds = (
        feedback.by_chunk(x, count) for x in (chunks.first, chunks.kept, chunks.overlap, chunks.v, chunks.threshold)
    )
    wanted = point.execution.gradient.sweeps
    sweeps = chunks.v.shape[1] - 1 if wanted is None else wanted
    keys = chunks.k.shape[-1]

    def signal(i: int, prediction: Tensor, *, last: bool) -> Tensor:
        u = point.bias.signal(prediction, _needed(v[i]), thresholds[i])
        return u if last and wanted is None else limited(u)

    def sweep(i: int, x: Tensor) -> list[Tensor]:
        prediction = torch.bmm(_needed(first[i]), x[:, :keys])
        found = [signal(i, prediction, last=sweeps == 0)]
        if sweeps == 0:
            return found
        base = prediction if chunks.kept is chunks.first else torch.bmm(_needed(kept[i]), x)
        for n in range(1, sweeps + 1):
            prediction = torch.baddbmm(base, _needed(overlap[i]), found[-1])
            found.append(signal(i, prediction, last=n == sweeps))
        return found

    return sweep


def _needed(x: Tensor | None) -> Tensor:
    assert x is not None
    return x


def _whole_chunks(
    point: DesignPoint, inputs: Inputs, static: Static, state: State, first: int, last: int, size: int
) -> tuple[Tensor, State]:
    """Tokens first..last-1 in chunks of exactly `size`."""
    chunks = _prepare(point, inputs, first, last, size)
    shape = state.dual[0].shape  # [B,H,K,V]
    start = state.dual[0].reshape(-1, *shape[2:])
    if state.moments:
        start = torch.cat([start, state.moments[0][0].reshape(-1, *shape[2:])], 1)
    affine = _affine(point, chunks)
    if affine is not None:
        u, starts, end = feedback.run(chunks.keep, *affine, chunks.ends, start)
        below = [end] * (point.execution.gradient.sweeps or 0)  # predictions do not matter: all sweeps are alike
    else:
        u, starts, end, below = _loop(point, chunks, start)
    y = _read(point, chunks, starts, u)
    y = y.reshape(*shape[:2], last - first, -1).transpose(1, 2).contiguous()

    def level(x: Tensor) -> Level:
        z, *moments = (piece.reshape(shape) for piece in torch.split(x, shape[2], 1))
        return Level((z,), tuple((moment,) for moment in moments))

    top = level(end)
    if not point.chunked or size == point.execution.chunk:
        return y, chunk_start(point, top, static)
    # a chunk that is not full leaves its tower standing
    return y, State(top.weights, top.moments, state.start, tuple(map(level, below)), position=size)


def _loop(point: DesignPoint, chunks: Chunks, x: Tensor) -> tuple[Tensor, Tensor, Tensor, list[Tensor]]:
    """As `feedback.run` from the state x [G,R,V], by sweeps; and the end by the signals of all sweeps but the last."""
    count = chunks.v.shape[0] // x.shape[0]
    sweep, ends = _swept(point, chunks, count), feedback.by_chunk(chunks.ends, count)
    signals, starts, below = [], [], []
    for i, keep in enumerate(feedback.by_chunk(chunks.keep, count)):
        starts.append(x)
        left, end, found = feedback.kept(keep, x), _needed(ends[i]), sweep(i, x)
        signals.append(found[-1])
        x = torch.baddbmm(left, end, found[-1])
        if i == count - 1:
            below = [torch.baddbmm(left, end, u) for u in found[:-1]]
    return feedback.whole(signals), feedback.whole(starts), x, below


def _read(point: DesignPoint, chunks: Chunks, starts: Tensor, u: Tensor) -> Tensor:
    """y [M,C,V] of all chunks: A (Q Z_0) + B (Q S_0) + (P * Q K^T) U."""
    c = at_reads(chunks.after, point.writes)
    q = chunks.q if c.keep is None else c.keep.unsqueeze(-1) * chunks.q
    if c.momentum is not None:
        q = torch.cat([q, c.momentum.unsqueeze(-1) * chunks.q], -1)
    seen = c.writes * inner(chunks.q, chunks.written)
    return torch.baddbmm(q @ starts, seen, u)
