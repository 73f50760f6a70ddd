"""The axis X that `torch.func.vmap` adds, for functions that run under it by a rule of their own.

Legend: X the added axis, B batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from torch import Tensor


class VmapInfo(Protocol):
    """What torch tells a rule."""

    batch_size: int
    """The size of X."""


def leading(x: Tensor, dim: int | None, size: int) -> Tensor:
    """x with X first; expanded where it has none."""
    return x.expand(size, *x.shape) if dim is None else x.movedim(dim, 0)


def folded(
    run: Callable[..., tuple[Tensor, ...]],
    info: VmapInfo,
    dims: Sequence[int | None],
    args: Sequence[object],
    *,
    axis: int = 0,
) -> tuple[tuple[Tensor, ...], tuple[int | None, ...]]:
    """The rule of a function of tensors with B on `axis`: one call over X * B, then X split off again.

    Its results are such tensors too; one without a batch, of a single axis, stands for nothing.
    """
    size = info.batch_size
    given = [
        leading(x, dim, size).movedim(0, axis).flatten(axis, axis + 1) if isinstance(x, Tensor) else x
        for x, dim in zip(args, dims, strict=True)
    ]
    out = run(*given)
    absent = [x.dim() == 1 for x in out]
    split = (
        x if none else x.unflatten(axis, (size, x.shape[axis] // size)) for x, none in zip(out, absent, strict=True)
    )
    return tuple(split), tuple(None if none else axis for none in absent)
