"""The chunkwise form of a memory with one hidden layer under frozen gradients, the paper's parallel form.

What does not depend on the running state is formed for all chunks at once, under autograd: coefficients, and queries
and keys times them. The loop over chunks is one function with a backward by hand (hidden_chunks.py).
"""

from __future__ import annotations

import torch
from torch import Tensor

from miras_search.kernels import hidden_chunks
from miras_search.kernels.coefficients import at_reads, spread
from miras_search.kernels.hidden_chunks import Given, weighed
from miras_search.kernels.state import Level, State, chunk_start
from miras_search.kernels.unrolled import unrolls
from miras_search.space.control import Inputs
from miras_search.space.design import DesignPoint
from miras_search.space.memory import Static


def runs(point: DesignPoint, inputs: Inputs) -> bool:
    """Whether this form holds the point: one hidden layer, the identity link, frozen gradients of the chunk's start as
    it is, plain writes, every gate one a head.
    """
    execution = point.execution
    frozen = execution.gradient.sweeps == 0 and (execution.gradient_at == "previous" or point.retention.keep.is_one)
    deep = point.memory.hidden is not None and point.retention.identity and unrolls(point)
    heads = all(scope == "head" for scope in point.scopes.values())
    return frozen and deep and heads and inputs.w is None and inputs.share is None and point.algorithm.window == 1


def run(point: DesignPoint, inputs: Inputs, static: Static, state: State) -> tuple[Tensor, State]:
    """Outputs y [B,T,H,V] and the final state, from a state at a chunk's start."""
    tokens = inputs.q.shape[1]
    size = min(point.execution.chunk, tokens)
    full = tokens - tokens % size
    if full == tokens:
        return _whole_chunks(point, inputs, static, state, size)
    y, state = _whole_chunks(point, inputs.tokens(0, full), static, state, size)
    tail, state = _whole_chunks(point, inputs.tokens(full, tokens), static, state, tokens - full)
    return torch.cat([y, tail], 1), state


def _split(x: Tensor, size: int) -> Tensor:
    """[B,T,H,..] -> [n,G,size,..]: chunks first."""
    x = x.unflatten(1, (-1, size))
    return x.permute(1, 0, 3, 2, *range(4, x.dim())).flatten(1, 2).contiguous()


def _prepare(point: DesignPoint, inputs: Inputs, state: State, size: int) -> Given:
    span = size * point.writes
    q, k, v = _split(inputs.q, size), _split(inputs.k, span), _split(inputs.v, span)
    log_keep = None if point.retention.keep.is_one else spread(_split(inputs.log_keep, size), point.writes)
    momentum = None if inputs.momentum is None else _split(inputs.momentum, span)
    after = point.algorithm.coefficients(log_keep, _split(inputs.step, span), momentum)
    reads = at_reads(after, point.writes)
    shares, keep = after.writes[..., -1, :].unsqueeze(-1), None
    reach = None if reads.keep is None else reads.keep.unsqueeze(-1)
    if after.keep is not None:
        keep = after.keep[..., -1, None, None]
    if reads.momentum is not None:
        reach = torch.stack([torch.ones_like(reads.momentum) if reads.keep is None else reads.keep, reads.momentum], -1)
        shares = torch.stack([after.writes[..., -1, :], _needed(after.end_writes)], -1)
        surprise = _needed(after.end_momentum)
        ends = [reach[..., -1, 0], reach[..., -1, 1], torch.zeros_like(surprise), surprise]
        keep = torch.stack(ends, -1).unflatten(-1, (2, 2))
    return Given(
        q=q,
        k=k,
        v=v,
        threshold=None if inputs.threshold is None else _split(inputs.threshold, span).unsqueeze(-1),
        reach=reach,
        asked=None if reach is None else weighed(reach, q),
        writes=reads.writes,
        shares=shares,
        written=weighed(shares, k),
        keep=keep,
        first=_joined([level[0] for level in (state.dual, *state.moments)]),
        second=_joined([level[1].mT for level in (state.dual, *state.moments)]),
    )


def _needed(x: Tensor | None) -> Tensor:
    assert x is not None
    return x


def _joined(parts: list[Tensor]) -> Tensor:
    """m times [B,H,rows,E] -> [1,G,m*rows,E]."""
    return torch.cat(parts, 2).flatten(0, 1).unsqueeze(0)


def _whole_chunks(point: DesignPoint, inputs: Inputs, static: Static, state: State, size: int) -> tuple[Tensor, State]:
    """Chunks of exactly `size` tokens."""
    hidden, (batch, tokens, heads, _) = point.memory.hidden, inputs.q.shape
    assert hidden is not None
    given = _prepare(point, inputs, state, size)
    own = {  # a head's parameters for every memory
        name: static[name].expand(batch, *static[name].shape).reshape(1, batch * heads, 1, -1)
        for name in point.memory.static(given.k.shape[-1], given.v.shape[-1])
    }
    reads, *ends = hidden_chunks.run(given, own, hidden, point.bias)
    y = hidden.finish(reads, given.q, own)
    y = y.unflatten(1, (batch, heads)).permute(1, 0, 3, 2, 4).reshape(batch, tokens, heads, -1)

    def parts(x: Tensor) -> list[Tensor]:
        return list(x.view(batch, heads, *x.shape[2:]).chunk(1 + len(state.moments), 2))

    first, second = parts(ends[0]), [x.mT for x in parts(ends[1])]
    last, *moments = zip(first, second, strict=True)
    level = Level(last, tuple(moments))
    if size == point.execution.chunk:
        return y, chunk_start(point, level, static)
    return y, State(level.weights, level.moments, state.start, position=size)  # a chunk that is not full
