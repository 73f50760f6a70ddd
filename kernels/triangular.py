"""Unit-triangular systems of many small chunks, with a backward of their own.

On a CPU the solver is called matrix by matrix: for the sizes of a chunk it costs five products. So it is called once,
for the inverse from the right, which is the side that needs no copies; right-hand sides and gradients are products.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import FunctionCtx


def solved(lower: Tensor, *rights: Tensor) -> tuple[Tensor, ...]:
    """The x of x = right + lower x, for each right [..,N,M]; lower [..,N,N] is 0 on and above its diagonal."""
    _, *found = _Solved.apply(lower, *rights)  # type: ignore[no-untyped-call]  # torch leaves apply untyped
    return tuple(found)


class _Solved(Function):
    """(lower, rights) -> (inverse of 1 - lower, its product with each right); the first has no gradient."""

    generate_vmap_rule = True

    @staticmethod
    def forward(lower: Tensor, *rights: Tensor) -> tuple[Tensor, ...]:
        eye = torch.eye(lower.shape[-1], dtype=lower.dtype, device=lower.device)
        inverse = torch.linalg.solve_triangular(
            eye - lower, eye.expand_as(lower), upper=False, left=False, unitriangular=True
        )
        return inverse, *(inverse @ right for right in rights)

    @staticmethod
    def setup_context(ctx: FunctionCtx, inputs: tuple[Tensor, ...], output: tuple[Tensor, ...]) -> None:
        ctx.mark_non_differentiable(output[0])
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*output)

    @staticmethod
    def backward(ctx: FunctionCtx, _: None, *gradients: Tensor | None) -> tuple[Tensor, ...]:
        inverse, *found = ctx.saved_tensors  # type: ignore[attr-defined]  # absent from the stub
        given = [torch.zeros_like(x) if g is None else g for x, g in zip(found, gradients, strict=True)]
        gradient: tuple[Tensor, ...] = _SolvedBackward.apply(inverse, *found, *given)  # type: ignore[no-untyped-call]
        return gradient


class _SolvedBackward(Function):
    """(inverse, solutions, their gradients) -> (dl/dlower, dl/drights); it has no derivative of its own."""

    generate_vmap_rule = True

    @staticmethod
    def forward(inverse: Tensor, *given: Tensor) -> tuple[Tensor, ...]:
        count = len(given) // 2
        rights = tuple(inverse.transpose(-1, -2) @ gradient for gradient in given[count:])
        lower = sum(
            (right @ x.transpose(-1, -2) for right, x in zip(rights[1:], given[1:count], strict=True)),
            start=rights[0] @ given[0].transpose(-1, -2),
        )
        return lower, *rights

    @staticmethod
    def setup_context(ctx: FunctionCtx, inputs: tuple[Tensor, ...], output: tuple[Tensor, ...]) -> None:
        """Keep nothing."""
