"""The weights of a chunk through the coefficients of a linear algorithm.

Under the identity link no weights are formed at all. Under a link that is refreshed at every token the accumulator of
every write follows from the signals by one product, where gates are one a head.
"""

from __future__ import annotations

from torch import Tensor

from miras_search.kernels.chunk import Chunk, Signals, Weights, written
from miras_search.kernels.recurrence import apply
from miras_search.kernels.state import Layers, Level, State, is_plain, is_tangent, link
from miras_search.kernels.unrolled import Factors, at_end, of_state, unrolls, with_writes
from miras_search.space.design import DesignPoint
from miras_search.space.memory import Lin, Static


def applies(point: DesignPoint) -> bool:
    """Whether coefficients give the weights of a chunk."""
    if not unrolls(point):
        return False
    plain = is_plain(point) or is_tangent(point)
    return plain or all(point.scopes.get(slot, "head") == "head" for slot in ("keep", "momentum"))


def weights(point: DesignPoint, chunk: Chunk, static: Static, state: State) -> Weights:
    """The chunk's weights as functions of its signals."""
    tangent = is_tangent(point)
    base = link(point, state.dual, static) if tangent else state.dual
    surprise = state.moments[0] if state.moments else (None,) * len(base)

    def lin_of(factors: list[Factors], found: Signals | None) -> Lin:
        if not is_plain(point) and not tangent:
            return _formed(point, chunk, factors, static, state, found)

        def lin(i: int, x: Tensor) -> Tensor:
            layer = chunk.layers[i]
            if found is None:
                return of_state(factors[i], layer, x, base[i], None)
            y = of_state(factors[i], layer, x, base[i], surprise[i])
            return with_writes(y, factors[i], layer, x, *written(point, chunk, i, found))

        return lin

    def end(level: Level, found: Signals) -> Level:
        weights, moments = [], []
        for i, layer in enumerate(chunk.layers):
            s = level.moments[0][i] if level.moments else None
            h, d = written(point, chunk, i, found)
            z, after = at_end(chunk.unrolled[i].after, layer, level.weights[i], s, h, d)
            weights.append(z)
            moments.append(after)
        return Level(tuple(weights), (tuple(moments),) if level.moments else ())

    first = [u.first for u in chunk.unrolled if u.first is not None]
    return Weights(
        first=lin_of(first, None) if first else apply(link(point, state.dual, static)),
        before=lambda found: lin_of([u.before for u in chunk.unrolled], found),
        reads=lambda found: lin_of([u.reads for u in chunk.unrolled], found),
        end=end,
    )


def _formed(
    point: DesignPoint, chunk: Chunk, factors: list[Factors], static: Static, state: State, found: Signals | None
) -> Lin:
    """`lin` with link(Z_t) formed for every write: [B,H,N,rows,cols]."""

    def accumulated(i: int) -> Tensor:
        layer, (factor,) = chunk.layers[i], factors[i]
        c = factor.c
        z = state.dual[i].unsqueeze(2)
        if c.keep is not None:
            z = c.keep[..., None, None] * z
        if found is not None:
            if c.momentum is not None:
                z = z + c.momentum[..., None, None] * state.moments[0][i].unsqueeze(2)
            h, d = written(point, chunk, i, found)
            outer = h * d if layer.diagonal else (h.unsqueeze(-1) * d.unsqueeze(-2)).flatten(-2)
            z = z + (c.writes @ outer).unflatten(-1, z.shape[-2:])
        return z

    formed: Layers = ()

    def lin(i: int, x: Tensor) -> Tensor:
        nonlocal formed  # all layers at once, as a link may couple them
        if not formed:
            duals = tuple(accumulated(j) for j in range(len(chunk.layers)))
            formed = point.retention.links(duals, _per_write(static))
        return at_every(formed[i], x, diagonal=chunk.layers[i].diagonal)

    return lin


def at_every(weights: Tensor, x: Tensor, *, diagonal: bool) -> Tensor:
    """x [B,H,N,rows] with the weights [B,H,N,rows,cols] of each of its writes."""
    return x * weights.squeeze(-2) if diagonal else (x.unsqueeze(-2) @ weights).squeeze(-2)


def _per_write(static: Static) -> Static:
    """Parameters [H,..] with an axis for writes."""
    return {name: value.unsqueeze(1) for name, value in static.items()}
