"""The chunkwise form of a matrix memory with an identity link: three matrix products a chunk and the signals.

What does not depend on the running state is formed for all chunks at once (coefficients, K K^T, Q K^T, the inverse of
the triangular system); the loop over chunks carries only the state; the reads follow, again for all chunks at once.
Small models are bound by the number of operators, not by arithmetic. Layout: n chunks, G = B * H; q [n,G,C,K], gates
[n,G,N].
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from miras_search.kernels.coefficients import at_reads, before_writes, spread
from miras_search.kernels.recurrence import SIGNAL_LIMIT
from miras_search.kernels.state import Level, State, chunk_start
from miras_search.space.algorithm import Coefficients
from miras_search.space.control import Inputs
from miras_search.space.design import DesignPoint


class Chunks(NamedTuple):
    """All chunks of one size; the keys are scaled so that a product with the state is a prediction's part."""

    q: Tensor  # [n,G,C,K]
    v: Tensor  # [n,G,N,V]
    threshold: Tensor | None  # [n,G,N,1]
    keys: Tensor  # [n,G,N,K] as they meet the chunk's start state in sweep 0
    kept: Tensor  # keys scaled by what is left of the start state before each write
    surprised: Tensor | None  # keys scaled by what the start momentum adds before each write
    overlap: Tensor  # [n,G,N,N] how much of each earlier write a later prediction sees
    ends: Tensor  # [n,G,K,N] each write's share of the end state
    end_surprises: Tensor | None  # [n,G,K,N] and of the end momentum
    after: Coefficients
    raw: Tensor  # keys as given


def run(point: DesignPoint, inputs: Inputs, state: State) -> tuple[Tensor, State]:
    """Outputs y [B,T,H,V] and the final state, from a state at a chunk's start."""
    tokens = inputs.q.shape[1]
    size = min(point.execution.chunk, tokens)
    full = tokens - tokens % size
    y, state = _whole_chunks(point, inputs, state, 0, full, size)
    if full == tokens:
        return y, state
    tail, state = _whole_chunks(point, inputs, state, full, tokens, tokens - full)
    return torch.cat([y, tail], 1), state


def _split(x: Tensor, first: int, last: int, size: int) -> Tensor:
    """[B,T,H,...] -> [n,G,size,...]."""
    x = x[:, first:last]
    x = x.reshape(x.shape[0], -1, size, *x.shape[2:])  # [B,n,size,H,...]
    x = x.permute(1, 0, 3, 2, *range(4, x.dim()))
    return x.reshape(x.shape[0], -1, size, *x.shape[4:])


def _prepare(point: DesignPoint, inputs: Inputs, first: int, last: int, size: int) -> Chunks:
    writes = point.algorithm.writes
    span = (first * writes, last * writes, size * writes)
    q, k, v = _split(inputs.q, first, last, size), _split(inputs.k, *span), _split(inputs.v, *span)
    log_keep = spread(_split(inputs.log_keep, first, last, size), writes)
    momentum = None if inputs.momentum is None else _split(inputs.momentum, *span)
    after = point.algorithm.coefficients(log_keep, _split(inputs.step, *span), momentum)
    fade = torch.exp(log_keep) if point.execution.gradient_at == "decayed" else None
    before = before_writes(after, fade)
    everything_kept = point.retention.keep.is_one
    return Chunks(
        q=q,
        v=v,
        threshold=None if inputs.threshold is None else _split(inputs.threshold, *span).unsqueeze(-1),
        keys=k if fade is None else fade.unsqueeze(-1) * k,
        kept=k if everything_kept else before.keep.unsqueeze(-1) * k,
        surprised=None if before.momentum is None else before.momentum.unsqueeze(-1) * k,
        overlap=before.writes * (k @ k.transpose(-1, -2)),
        ends=(after.writes[..., -1, :].unsqueeze(-1) * k).transpose(-1, -2),
        end_surprises=None if after.end_writes is None else (after.end_writes.unsqueeze(-1) * k).transpose(-1, -2),
        after=after,
        raw=k,
    )


class _Exact:
    """Signals by one unit-triangular solve: u = g p + f(v) with p linear in the earlier signals."""

    def __init__(self, slope: float, chunks: Chunks, offset: Tensor) -> None:
        self.of_state: Tensor | None = None
        self.of_surprise: Tensor | None = None
        if slope == 0:
            self.offset = offset
            return
        eye = torch.eye(chunks.overlap.shape[-1], dtype=offset.dtype, device=offset.device)
        system = eye + slope * chunks.overlap
        inverse = torch.linalg.solve_triangular(system, eye.expand_as(system), upper=False, unitriangular=True)
        self.of_state = slope * (inverse @ chunks.kept)
        if chunks.surprised is not None:
            self.of_surprise = slope * (inverse @ chunks.surprised)
        self.offset = inverse @ offset

    def __call__(self, i: int, z: Tensor, s: Tensor | None) -> list[Tensor]:
        u = self.offset[i]
        if self.of_state is not None:
            u = torch.baddbmm(u, self.of_state[i], z)
        if self.of_surprise is not None and s is not None:
            u = torch.baddbmm(u, self.of_surprise[i], s)
        return [u]


class _Swept:
    """Signals by sweeps; all of them are returned, as levels of the tower."""

    def __init__(self, point: DesignPoint, chunks: Chunks) -> None:
        count = point.execution.gradient.sweeps
        self.sweeps = chunks.overlap.shape[-1] - 1 if count is None else count
        self.bias, self.chunks = point.bias, chunks

    def __call__(self, i: int, z: Tensor, s: Tensor | None) -> list[Tensor]:
        c = self.chunks
        v, threshold = c.v[i], None if c.threshold is None else c.threshold[i]
        prediction = torch.bmm(c.keys[i], z)
        found = [self.bias.signal(prediction, v, threshold)]
        if self.sweeps == 0:
            return found
        base = prediction if c.kept is c.keys else torch.bmm(c.kept[i], z)
        if c.surprised is not None and s is not None:
            base = torch.baddbmm(base, c.surprised[i], s)
        for _ in range(self.sweeps):
            found[-1] = found[-1].clamp(-SIGNAL_LIMIT, SIGNAL_LIMIT)
            prediction = torch.baddbmm(base, c.overlap[i], found[-1], alpha=-1)
            found.append(self.bias.signal(prediction, v, threshold))
        return found


def _whole_chunks(
    point: DesignPoint, inputs: Inputs, state: State, first: int, last: int, size: int
) -> tuple[Tensor, State]:
    """Tokens first..last-1 in chunks of exactly `size`."""
    chunks = _prepare(point, inputs, first, last, size)
    slope = point.bias.slope
    solver: _Exact | _Swept
    if slope == 0 or (slope is not None and point.execution.gradient.sweeps is None):
        offset = point.bias.signal(torch.zeros_like(chunks.v), chunks.v, chunks.threshold)
        solver = _Exact(slope, chunks, offset)
    else:
        solver = _Swept(point, chunks)

    shape = state.dual[0].shape  # [B,H,K,V]
    z = state.dual[0].reshape(-1, *shape[2:])
    s = state.momentum[0].reshape(-1, *shape[2:]) if state.momentum else None
    starts, surprises, written, found = [z], [s], [], []
    for i in range(chunks.v.shape[0]):
        found = solver(i, z, s)
        written.append(found[-1])
        z, s = _end(point, chunks, i, z, s, found[-1])
        starts.append(z)
        surprises.append(s)
    y = _read(point, chunks, torch.stack(starts[:-1]), surprises[:-1], torch.stack(written))
    y = y.view(-1, *shape[:2], size, y.shape[-1]).permute(1, 0, 3, 2, 4).reshape(shape[0], last - first, shape[1], -1)

    if not point.chunked or size == point.execution.chunk:
        return y, chunk_start(point, (z.view(shape),), () if s is None else (s.view(shape),))
    tower = []
    for u in found[:-1]:  # a chunk that is not full leaves its tower standing
        weights, surprise = _end(point, chunks, -1, starts[-2], surprises[-2], u)
        tower.append(Level((weights.view(shape),), () if surprise is None else (surprise.view(shape),)))
    momentum = () if s is None else (s.view(shape),)
    return y, State((z.view(shape),), momentum, state.start, tuple(tower), (), size)


def _end(
    point: DesignPoint, chunks: Chunks, i: int, z: Tensor, s: Tensor | None, u: Tensor
) -> tuple[Tensor, Tensor | None]:
    """State and momentum after chunk i, given its signals."""
    c = chunks.after
    kept = z if point.retention.keep.is_one else c.keep[i, :, -1, None, None] * z
    if s is not None and c.momentum is not None and c.end_momentum is not None and chunks.end_surprises is not None:
        kept = kept + c.momentum[i, :, -1, None, None] * s
        s = torch.baddbmm(c.end_momentum[i, :, None, None] * s, chunks.end_surprises[i], u, alpha=-1)
    return torch.baddbmm(kept, chunks.ends[i], u, alpha=-1), s


def _read(point: DesignPoint, chunks: Chunks, starts: Tensor, surprises: list[Tensor | None], u: Tensor) -> Tensor:
    """y [n,G,C,V] of all chunks: A (Q Z_0) + B (Q S_0) - (P * Q K^T) U."""
    c = at_reads(chunks.after, point.algorithm.writes)
    q = chunks.q if point.retention.keep.is_one else c.keep.unsqueeze(-1) * chunks.q
    y = q @ starts
    if c.momentum is not None:
        y = y + (c.momentum.unsqueeze(-1) * chunks.q) @ torch.stack([s for s in surprises if s is not None])
    return y - (c.writes * (chunks.q @ chunks.raw.transpose(-1, -2))) @ u
