"""A chunk of a linear algorithm in one layer: the weights after any of its writes, applied without forming them.

    x W_t = A_t (x Z_0) + B_t (x S_0) + sum_{s<=t} P_ts (x h_s^T) d_s

What is written carries its own step and its minus, so that P is of decays alone, one for all layers and heads where
nothing decays, and a product is added to what it changes in one pass.

Gates by channel make A, B and P products of factors: one of the whole layer, one of its rows (a decay by key channel
weighs the products x_k h_sk) and one of its columns (a decay by value channel weighs the signals d_sv). A momentum does
not factor, so it and all decays beside it live on one axis. Decays between two tokens come from differences of
logarithms, pair by pair, so that no quotient overflows.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor

from miras_search.kernels.channels import Parts, parts
from miras_search.kernels.coefficients import at_reads, before_writes, of_pairs, spread
from miras_search.space.algorithm import Coefficients
from miras_search.space.design import DesignPoint
from miras_search.space.memory import Layer

Axis = Literal["whole", "rows", "cols"]


class Factor(NamedTuple):
    """Coefficients [..,N] of a whole layer, or [..,C,N] by row or column."""

    axis: Axis
    c: Coefficients

    def over_time(self, x: Tensor) -> Tensor:
        """A coefficient [..,N] or [..,C,N] as it multiplies tokens [..,N,C]."""
        return x.unsqueeze(-1) if self.axis == "whole" else x.transpose(-1, -2)

    def over_weights(self, x: Tensor) -> Tensor:
        """A coefficient [..] or [..,C] as it multiplies weights [..,rows,cols]."""
        if self.axis == "whole":
            return x[..., None, None]
        return x.unsqueeze(-1 if self.axis == "rows" else -2)


Factors = tuple[Factor, ...]


class Gates(NamedTuple):
    """The gates of a chunk, heads first, in the scopes of the design: [B,H,N] or [B,H,N,C]; keep per token."""

    log_keep: Tensor | None
    step: Tensor  # ones [N]: what is written carries the step
    momentum: Tensor | None


class Unrolled(NamedTuple):
    """A layer's coefficients for each of their uses."""

    after: Factors  # after each write
    before: Factors  # where each pair's gradient is taken; none where that is the chunk's start for all
    first: Factors | None  # the chunk's start, faded; None: gradients are taken before the decay
    reads: Factors  # after each token's last write


def unrolls(point: DesignPoint) -> bool:
    """Whether chunks of the point have coefficients: a linear algorithm under a dual gate, its momentum on one axis."""
    if not point.algorithm.linear or point.retention.form == "primal":
        return False
    channels = {point.scopes["keep"], point.scopes["momentum"]} - {"head"} if point.algorithm.has_momentum else set()
    return len(channels) <= 1 and "key_value" not in channels


def unroll(point: DesignPoint, gates: Gates, layer: Layer, keys: int) -> Unrolled:
    """The coefficients of one layer."""
    algorithm, scopes, step = point.algorithm, point.scopes, gates.step
    keep, momentum = Parts(), Parts()
    if gates.log_keep is not None:
        keep = parts(gates.log_keep, scopes["keep"], layer, keys, log=True)
    if gates.momentum is not None:
        momentum = parts(gates.momentum, scopes["momentum"], layer, keys, log=False)
    found: list[tuple[Factor, Tensor | None]] = []

    def add(axis: Axis, log_keep: Tensor | None, step: Tensor, momentum: Tensor | None) -> None:
        fade = None
        if log_keep is not None:
            log_keep = spread(log_keep, point.writes)
            fade = torch.exp(log_keep) if point.execution.gradient_at == "decayed" else None
        found.append((Factor(axis, algorithm.coefficients(log_keep, step, momentum)), fade))

    if algorithm.has_momentum:
        axis = _axis(keep, momentum)
        size = {"whole": 0, "rows": layer.rows, "cols": layer.cols}[axis]
        log_keep, log_whole = _on(axis, keep, size), _over(keep.whole, size)
        if log_keep is None or log_whole is None:
            log_keep = log_whole if log_keep is None else log_keep
        elif axis != "whole":
            log_keep = log_keep + log_whole
        own = _on(axis, momentum, size)
        add(axis, log_keep, _needed(_over(step, size)), _over(momentum.whole, size) if own is None else own)
    else:
        add("whole", keep.whole, step, None)
        sides: tuple[tuple[Axis, int], ...] = (("rows", layer.rows), ("cols", layer.cols))
        for axis, size in sides:
            log_keep = _on(axis, keep, size)
            if log_keep is not None:
                add(axis, log_keep, torch.ones_like(_needed(_over(step, size))), None)
    return _uses(point, found)


def _axis(keep: Parts, momentum: Parts) -> Axis:
    if keep.rows is not None or momentum.rows is not None:
        return "rows"
    return "cols" if keep.cols is not None or momentum.cols is not None else "whole"


def _on(axis: Axis, gate: Parts, size: int) -> Tensor | None:
    """The gate's factor on an axis, channels before time."""
    found = gate.whole if axis == "whole" else gate.rows if axis == "rows" else gate.cols
    return found if found is None or axis == "whole" else found.transpose(-1, -2)


def _over(x: Tensor | None, size: int) -> Tensor | None:
    """[..,N] -> [..,size,N], or as it is for a whole layer (size 0)."""
    return x if x is None or not size else x.unsqueeze(-2).expand(*x.shape[:-1], size, x.shape[-1])


def _needed(x: Tensor | None) -> Tensor:
    assert x is not None
    return x


def _uses(point: DesignPoint, found: list[tuple[Factor, Tensor | None]]) -> Unrolled:
    window, writes = point.algorithm.window, point.writes
    after, before, first = [], [], []
    for factor, fade in found:
        after.append(factor._replace(c=of_pairs(factor.c, window, rows=False)))
        if fade is not None:
            faded = factor.c._replace(keep=fade, momentum=None)
            first.append(factor._replace(c=of_pairs(faded, window, rows=True)))
        if point.execution.gradient.sweeps != 0:  # frozen gradients are taken at the chunk's start alone
            c = before_writes(factor.c, fade)
            before.append(factor._replace(c=of_pairs(c, window, rows=True)))
    return Unrolled(
        after=tuple(after),
        before=tuple(before),
        first=tuple(first) or None,
        reads=tuple(factor._replace(c=at_reads(factor.c, writes)) for factor in after),
    )


def of_state(factors: Factors, layer: Layer, x: Tensor, z: Tensor, s: Tensor | None) -> Tensor:
    """A (x Z) + B (x S) for x [B,H,N,rows]; without s the first term alone."""

    before = _on_rows(layer)

    def product(weights: Tensor, coefficients: list[Tensor | None]) -> Tensor:
        left = x
        kept = [(factor, c) for factor, c in zip(factors, coefficients, strict=True) if c is not None]
        for factor, c in kept:
            if factor.axis in before:
                left = left * factor.over_time(c)
        y = left * weights if layer.diagonal else left @ weights
        for factor, c in kept:
            if factor.axis not in before:
                y = factor.over_time(c) * y
        return y

    y = product(z, [factor.c.keep for factor in factors])
    (factor, *_) = factors
    if s is None or factor.c.momentum is None:
        return y
    return y + product(s, [factor.c.momentum])


def _on_rows(layer: Layer) -> tuple[Axis, ...]:
    """The axes whose factors multiply a product's left side; a token's one number goes where fewer channels are."""
    return ("rows", "whole") if layer.rows < layer.cols else ("rows",)


def with_writes(y: Tensor, factors: Factors, layer: Layer, x: Tensor, h: Tensor, d: Tensor) -> Tensor:
    """y + sum_s P_ts (x_t h_s^T) d_s for y [B,H,M,cols], x [B,H,M,rows], h [B,H,N,rows], d [B,H,N,cols]."""
    by: dict[Axis, Tensor] = {factor.axis: factor.c.writes for factor in factors}
    if layer.diagonal:
        written = h * d
        if "cols" not in by:
            return y + x * (by["whole"] @ written)
        p = by["cols"] * by["whole"].unsqueeze(-3) if "whole" in by else by["cols"]
        return y + x * torch.einsum("...vts,...sv->...tv", p, written)
    overlap = _seen(by, x, h)
    if "cols" in by:
        return y + torch.einsum("...ts,...vts,...sv->...tv", overlap, by["cols"], d)
    return _plus(y, overlap, d)


def _plus(y: Tensor, left: Tensor, right: Tensor) -> Tensor:
    """y + left right, each [B,H,..], in one pass over y."""
    return torch.baddbmm(y.flatten(0, 1), left.flatten(0, 1), right.flatten(0, 1)).view_as(y)


def _seen(by: dict[Axis, Tensor], x: Tensor, h: Tensor) -> Tensor:
    """x h^T weighed by the coefficients of the whole layer and of its rows."""
    rows = by.get("rows")
    found = x @ h.transpose(-1, -2) if rows is None else torch.einsum("...tk,...kts,...sk->...ts", x, rows, h)
    return by["whole"] * found if "whole" in by else found


def overlaps(factors: Factors, x: Tensor, h: Tensor, scale: Tensor) -> Tensor:
    """How much of each written signal is added to a product with x: [..,M,N], or [..,cols,M,N] where columns differ.

    x [..,M,rows], h [..,N,rows]; scale [..,N,1] or [..,N,cols] multiplies the signals.
    """
    by: dict[Axis, Tensor] = {factor.axis: factor.c.writes for factor in factors}
    found = _seen(by, x, h)
    across = scale.transpose(-1, -2)  # [..,1 or cols,N]
    if "cols" not in by and scale.shape[-1] == 1:
        return found * across
    found = found.unsqueeze(-3) * across.unsqueeze(-2)
    return found * by["cols"] if "cols" in by else found


def at_end(factors: Factors, layer: Layer, z: Tensor, s: Tensor | None, h: Tensor, d: Tensor) -> tuple[Tensor, Tensor]:
    """Z and S after the chunk's last write; S is Z's shape, and Z itself where there is no momentum."""

    on_rows = _on_rows(layer)

    def plus(z: Tensor, shares: list[Tensor]) -> Tensor:  # z + sum_s share_s h_s^T d_s, shares [..,N] or [..,C,N]
        left, right = h, d
        for factor, share in zip(factors, shares, strict=True):
            if factor.c.keep is None and factor.c.momentum is None:
                continue  # nothing decays, so every write is still whole
            if factor.axis in on_rows:
                left = left * factor.over_time(share)
            else:
                right = factor.over_time(share) * right
        if layer.diagonal:
            return z + (left * right).sum(-2, keepdim=True)
        return _plus(z, left.transpose(-1, -2), right)

    end = z
    for factor in factors:
        if factor.c.keep is not None:
            end = factor.over_weights(factor.c.keep[..., -1]) * end
    end = plus(end, [factor.c.writes[..., -1, :] for factor in factors])
    (factor, *_) = factors
    c = factor.c
    if s is None or c.momentum is None or c.end_momentum is None or c.end_writes is None:
        return end, end
    end = end + factor.over_weights(c.momentum[..., -1]) * s
    return end, plus(factor.over_weights(c.end_momentum) * s, [c.end_writes])
