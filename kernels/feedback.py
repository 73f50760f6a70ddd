"""Chunk after chunk where a chunk's signals are an affine function of its start state, with a backward of its own.

    u_i = offset_i + back_i x_i          signals [N,V] of chunk i from its start state x_i [R,V]
    x_{i+1} = keep_i x_i + ends_i u_i    the state after it

Only these two products wait for one another. The gradients of everything but the state are products over all chunks at
once, where autograd would take every chunk's apart and add them up. Layout: G memories of n chunks, [G * n, ..].
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import FunctionCtx

from miras_search.kernels import recording
from miras_search.kernels.inner import inner

Found = tuple[Tensor, Tensor, Tensor]


def run(keep: Tensor | None, back: Tensor | None, offset: Tensor, ends: Tensor, start: Tensor) -> Found:
    """Signals u [G*n,N,V] and start states x [G*n,R,V] of all chunks, and the last state [G,R,V].

    keep [G*n,P,P] mixes the P parts that the R rows of a state consist of, None: everything is kept; back [G*n,N,R],
    None: no signal depends on the state; offset [G*n,N,V]; ends [G*n,R,N]; start [G,R,V].
    """
    found: Found = _Feedback.apply(keep, back, offset, ends, start)  # type: ignore[no-untyped-call]  # torch leaves it untyped
    return found


def kept(keep: Tensor | None, x: Tensor) -> Tensor:
    """What is left of a state [..,R,V] after its parts are mixed by keep [..,P,P]."""
    if keep is None:
        return x
    return keep * x if keep.shape[-1] == 1 else (keep @ parted(x, keep)).reshape(x.shape)


def parted(x: Tensor, keep: Tensor) -> Tensor:
    """[..,R,V] -> [..,P,R/P*V]."""
    return x.reshape(*x.shape[:-2], keep.shape[-1], -1)


def by_chunk(x: Tensor | None, chunks: int) -> Sequence[Tensor | None]:
    """[G*n,..] -> n times [G,..]."""
    return [None] * chunks if x is None else x.reshape(-1, chunks, *x.shape[1:]).unbind(1)


def whole(pieces: Sequence[Tensor]) -> Tensor:
    """n times [G,..] -> [G*n,..]."""
    return torch.stack(tuple(pieces), 1).flatten(0, 1)


class _Feedback(Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(keep: Tensor | None, back: Tensor | None, offset: Tensor, ends: Tensor, start: Tensor) -> Found:
        chunks, x = offset.shape[0] // start.shape[0], start
        signals, starts = [], []
        pieces = zip(*(by_chunk(piece, chunks) for piece in (keep, back, offset, ends)), strict=True)
        for fade, pull, u, end in pieces:
            assert u is not None
            assert end is not None
            starts.append(x)
            signals.append(u if pull is None else torch.baddbmm(u, pull, x))
            x = torch.baddbmm(kept(fade, x), end, signals[-1])
        return whole(signals), whole(starts), x

    @staticmethod
    def setup_context(ctx: FunctionCtx, inputs: tuple[Tensor | None, ...], output: Found) -> None:
        keep, back, _, ends, _ = inputs
        ctx.save_for_backward(keep, back, ends, *output[:2])  # type: ignore[arg-type]  # its stub knows no None

    @staticmethod
    def backward(ctx: FunctionCtx, du: Tensor, dx: Tensor, last: Tensor) -> tuple[Tensor | None, ...]:
        keep, back, ends, u, x = ctx.saved_tensors  # type: ignore[attr-defined]  # absent from the stub
        chunks, carried = u.shape[0] // last.shape[0], last
        signals, states = [], []
        for fade, pull, end, own, on_start in reversed(
            [*zip(*(by_chunk(piece, chunks) for piece in (keep, back, ends, du, dx)), strict=True)]
        ):
            states.append(carried)
            signals.append(torch.baddbmm(own, end.transpose(-1, -2), carried))
            carried = on_start + kept(None if fade is None else fade.transpose(-1, -2), carried)
            if pull is not None:
                carried = torch.baddbmm(carried, pull.transpose(-1, -2), signals[-1])
        du, after, across = whole(signals[::-1]), whole(states[::-1]), x.transpose(-1, -2)
        of_keep = None if keep is None else parted(after, keep) @ parted(x, keep).transpose(-1, -2)
        of_ends = inner(u, after).transpose(-1, -2) if recording.on() else inner(after, u)  # ends are keys, transposed
        return of_keep, None if back is None else du @ across, du, of_ends, carried
