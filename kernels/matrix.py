"""The chunkwise form of a matrix memory with an identity link: three matrix products a chunk and the signals.

What does not depend on the running state is formed for all chunks at once (coefficients, K K^T, Q K^T, the inverse of
the triangular system); the loop over chunks carries only the state; the reads follow, again for all chunks at once.
Small models are bound by the number of operators, not by arithmetic. Layout: n chunks, G = B * H; q [n,G,C,K], gates
[n,G,N].
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from miras_search.kernels.chunk import chunk_size
from miras_search.kernels.coefficients import at_reads, before_writes, spread
from miras_search.kernels.recurrence import SIGNAL_LIMIT
from miras_search.kernels.state import Level, State, chunk_start
from miras_search.kernels.unrolled import unrolls
from miras_search.space.algorithm import Coefficients
from miras_search.space.control import Inputs
from miras_search.space.design import DesignPoint
from miras_search.space.memory import Static


class Chunks(NamedTuple):
    """All chunks of one size, and the keys scaled so that their product with a state is a part of the prediction."""

    q: Tensor  # [n,G,C,K]
    k: Tensor  # [n,G,N,K]
    v: Tensor  # [n,G,N,V]
    threshold: Tensor | None  # [n,G,N,1]
    first: Tensor  # keys against the chunk's start state in sweep 0
    kept: Tensor  # keys times what is left of the start state before each write
    surprised: Tensor | None  # keys times what the start momentum has added before each write
    overlap: Tensor | None  # [n,G,N,N] how much of each earlier write a prediction sees; None: nobody asks
    ends: Tensor  # [n,G,K,N] each write's share of the end state
    end_surprises: Tensor | None  # [n,G,K,N] and of the end momentum
    end_keep: Tensor | None  # [n,G,1,1] what is left of the start state at the end; None: all of it
    end_momentum: Tensor | None  # [n,G,1,1] what the start momentum adds to the end state
    end_surprise_keep: Tensor | None  # [n,G,1,1] what is left of the start momentum
    after: Coefficients


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
    """[B,T,H,...] -> [n,G,size,...]."""
    x = x[:, first:last]
    x = x.reshape(x.shape[0], -1, size, *x.shape[2:])  # [B,n,size,H,...]
    x = x.permute(1, 0, 3, 2, *range(4, x.dim()))
    return x.reshape(x.shape[0], -1, size, *x.shape[4:])


def _prepare(point: DesignPoint, inputs: Inputs, first: int, last: int, size: int) -> Chunks:
    writes = point.writes
    span = (first * writes, last * writes, size * writes)
    q, k, v = _split(inputs.q, first, last, size), _split(inputs.k, *span), _split(inputs.v, *span)
    log_keep = fade = None
    if not point.retention.keep.is_one:
        log_keep = spread(_split(inputs.log_keep, first, last, size), writes)
        fade = torch.exp(log_keep) if point.execution.gradient_at == "decayed" else None
    momentum = None if inputs.momentum is None else _split(inputs.momentum, *span)
    after = point.algorithm.coefficients(log_keep, _split(inputs.step, *span), momentum)
    before = before_writes(after, fade)
    blind = point.bias.slope == 0  # predictions do not matter to the signal
    return Chunks(
        q=q,
        k=k,
        v=v,
        threshold=None if inputs.threshold is None else _split(inputs.threshold, *span).unsqueeze(-1),
        first=k if fade is None else fade.unsqueeze(-1) * k,
        kept=k if before.keep is None else before.keep.unsqueeze(-1) * k,
        surprised=None if before.momentum is None else before.momentum.unsqueeze(-1) * k,
        overlap=None if blind else before.writes * (k @ k.transpose(-1, -2)),
        ends=(after.writes[..., -1, :].unsqueeze(-1) * k).transpose(-1, -2),
        end_surprises=None if after.end_writes is None else (after.end_writes.unsqueeze(-1) * k).transpose(-1, -2),
        end_keep=None if after.keep is None else after.keep[..., -1, None, None],
        end_momentum=None if after.momentum is None else after.momentum[..., -1, None, None],
        end_surprise_keep=None if after.end_momentum is None else after.end_momentum[..., None, None],
        after=after,
    )


def _solver(point: DesignPoint, chunks: Chunks) -> Callable[[int, Tensor, Tensor | None], list[Tensor]]:
    """The signals of chunk i from its start state and momentum: every sweep's, the last being those that are
    written.
    """
    slope = point.bias.slope
    if slope == 0:
        blind = point.bias.signal(torch.zeros_like(chunks.v), chunks.v, chunks.threshold).unbind()
        levels = 1 + (point.execution.gradient.sweeps or 0)  # of the tower, all alike
        return lambda i, z, s: [blind[i]] * levels
    if slope is not None and point.execution.gradient.sweeps is None:
        return _solved(point, chunks, slope)
    return _swept(point, chunks)


def _solved(point: DesignPoint, chunks: Chunks, slope: float) -> Callable[[int, Tensor, Tensor | None], list[Tensor]]:
    """One unit-triangular solve: u = g p + f(v) with p linear in the signals before it."""
    overlap = _needed(chunks.overlap)
    eye = torch.eye(overlap.shape[-1], dtype=overlap.dtype, device=overlap.device)
    system = eye + slope * overlap
    inverse = torch.linalg.solve_triangular(system, eye.expand_as(system), upper=False, unitriangular=True)
    offset = point.bias.signal(torch.zeros_like(chunks.v), chunks.v, chunks.threshold)
    offsets, of_state = (inverse @ offset).unbind(), (slope * (inverse @ chunks.kept)).unbind()
    of_surprise = None if chunks.surprised is None else (slope * (inverse @ chunks.surprised)).unbind()

    def solve(i: int, z: Tensor, s: Tensor | None) -> list[Tensor]:
        u = torch.baddbmm(offsets[i], of_state[i], z)
        return [u if of_surprise is None else torch.baddbmm(u, of_surprise[i], _needed(s))]

    return solve


def _swept(point: DesignPoint, chunks: Chunks) -> Callable[[int, Tensor, Tensor | None], list[Tensor]]:
    """Predict from the chunk's start, then again and again with the signals of the sweep before."""
    first, kept, overlap, v = (x.unbind() for x in (chunks.first, chunks.kept, _needed(chunks.overlap), chunks.v))
    surprised = None if chunks.surprised is None else chunks.surprised.unbind()
    thresholds = None if chunks.threshold is None else chunks.threshold.unbind()
    count = point.execution.gradient.sweeps
    sweeps = overlap[0].shape[-1] - 1 if count is None else count

    def signal(i: int, prediction: Tensor, *, last: bool) -> Tensor:
        u = point.bias.signal(prediction, v[i], None if thresholds is None else thresholds[i])
        return u if last and count is None else u.clamp(-SIGNAL_LIMIT, SIGNAL_LIMIT)

    def sweep(i: int, z: Tensor, s: Tensor | None) -> list[Tensor]:
        prediction = torch.bmm(first[i], z)
        found = [signal(i, prediction, last=sweeps == 0)]
        if sweeps == 0:
            return found
        base = prediction if chunks.kept is chunks.first else torch.bmm(kept[i], z)
        if surprised is not None:
            base = torch.baddbmm(base, surprised[i], _needed(s))
        for n in range(1, sweeps + 1):
            prediction = torch.baddbmm(base, overlap[i], found[-1], alpha=-1)
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
    solve, end = _solver(point, chunks), _ender(chunks)
    shape = state.dual[0].shape  # [B,H,K,V]
    z = state.dual[0].reshape(-1, *shape[2:])
    s = state.moments[0][0].reshape(-1, *shape[2:]) if state.moments else None
    starts, surprises, written, found = [z], [s], [], []
    for i in range(chunks.v.shape[0]):
        found = solve(i, z, s)
        written.append(found[-1])
        z, s = end(i, z, s, found[-1])
        starts.append(z)
        surprises.append(s)
    y = _read(point, chunks, torch.stack(starts[:-1]), surprises[:-1], torch.stack(written))
    y = y.view(-1, *shape[:2], size, y.shape[-1]).permute(1, 0, 3, 2, 4).reshape(shape[0], last - first, shape[1], -1)

    def level(z: Tensor, s: Tensor | None) -> Level:
        return Level((z.view(shape),), () if s is None else ((s.view(shape),),))

    top = level(z, s)
    if not point.chunked or size == point.execution.chunk:
        return y, chunk_start(point, top, static)
    # a chunk that is not full leaves its tower standing
    tower = tuple(level(*end(-1, starts[-2], surprises[-2], u)) for u in found[:-1])
    return y, State(top.weights, top.moments, state.start, tower, position=size)


def _ender(chunks: Chunks) -> Callable[[int, Tensor, Tensor | None, Tensor], tuple[Tensor, Tensor | None]]:
    """State and momentum after chunk i, given its start and its signals."""
    ends = chunks.ends.unbind()
    keep = None if chunks.end_keep is None else chunks.end_keep.unbind()
    momentum = None if chunks.end_momentum is None else chunks.end_momentum.unbind()
    surprise_keep = None if chunks.end_surprise_keep is None else chunks.end_surprise_keep.unbind()
    surprise_ends = None if chunks.end_surprises is None else chunks.end_surprises.unbind()

    def end(i: int, z: Tensor, s: Tensor | None, u: Tensor) -> tuple[Tensor, Tensor | None]:
        kept = z if keep is None else keep[i] * z
        if momentum is not None and surprise_keep is not None and surprise_ends is not None:
            old = _needed(s)
            kept = kept + momentum[i] * old
            s = torch.baddbmm(surprise_keep[i] * old, surprise_ends[i], u, alpha=-1)
        return torch.baddbmm(kept, ends[i], u, alpha=-1), s

    return end


def _read(point: DesignPoint, chunks: Chunks, starts: Tensor, surprises: list[Tensor | None], u: Tensor) -> Tensor:
    """y [n,G,C,V] of all chunks: A (Q Z_0) + B (Q S_0) - (P * Q K^T) U."""
    c = at_reads(chunks.after, point.writes)
    y = (chunks.q if c.keep is None else c.keep.unsqueeze(-1) * chunks.q) @ starts
    if c.momentum is not None:
        y = y + (c.momentum.unsqueeze(-1) * chunks.q) @ torch.stack([_needed(s) for s in surprises])
    return y - (c.writes * (chunks.q @ chunks.k.transpose(-1, -2))) @ u
