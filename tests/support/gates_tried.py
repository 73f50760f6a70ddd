"""One write of a retention gate by itself, and a search for feasible points that are better than what it gives."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from miras_search.space.retention import Retention

F64 = torch.float64
Objective = Callable[[Tensor], Tensor]
Feasible = Callable[[Tensor], Tensor]


def normal(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


def dual_write(
    gate: Retention, z: Tensor, g: Tensor, *, keep: float, step: float, static: Mapping[str, Tensor] | None = None
) -> Tensor:
    """The weights in force after Z = a Z' - e g."""
    assert gate.form == "dual"
    return gate.link(keep * z - step * g, static or {})


def primal_write(
    gate: Retention, w: Tensor, g: Tensor, *, keep: float, step: float, static: Mapping[str, Tensor] | None = None
) -> Tensor:
    """The weights after one write in place."""
    assert gate.form == "primal"
    return gate.step(w, torch.tensor(keep, dtype=F64), -step * g, torch.tensor(step, dtype=F64), static or {})


def anywhere(w: Tensor) -> Tensor:
    """Every point is feasible."""
    return w


def onto_simplex(axis: int, c: float) -> Feasible:
    """The Euclidean projection of [..,rows,cols] on W >= 0 with sums c along the axis; 0 for both axes together."""

    def project(w: Tensor) -> Tensor:
        x = w.flatten(-2) if axis == 0 else w.movedim(axis, -1)
        ordered = x.sort(-1, descending=True).values
        rank = torch.arange(1, x.shape[-1] + 1, dtype=x.dtype)
        excess = (ordered.cumsum(-1) - c) / rank
        last = (ordered > excess).sum(-1, keepdim=True) - 1
        found = (x - excess.gather(-1, last)).clamp(min=0)
        return found.view(w.shape) if axis == 0 else found.movedim(-1, axis)

    return project


def better_points(objective: Objective, w: Tensor, feasible: Feasible = anywhere, count: int = 1000) -> int:
    """How many of the feasible points at distances from 1e-4 to 1 around w are better than w."""
    distance = torch.logspace(-4, 0, count, dtype=w.dtype).view(-1, *[1] * w.dim())
    around = feasible(w + distance * normal(count, *w.shape, seed=1000))
    at, others = objective(w), torch.func.vmap(objective)(around)
    assert torch.isfinite(at)
    assert (others > at + 1e-6).sum() > count // 4, "the search has to leave w"
    return int((others < at - 1e-12 * (1 + at.abs())).sum())
