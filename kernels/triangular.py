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
    _, *found = _Solved.apply(lower, *rights)  # type: ignore[no-untyped-call]  # torch leaves it untyped
    return tuple(found)


class _Solved(Function):
    """(lower, rights) -> (inverse of 1 - lower, its product with each right)."""

    generate_vmap_rule = True

    @staticmethod
    def forward(lower: Tensor, *rights: Tensor) -> tuple[Tensor, ...]:
        eye = torch.eye(lower.shape[-1], dtype=lower.dtype, device=lower.device)
        inverse = torch.linalg.solve_triangular(
            -lower,
            eye.mT.expand_as(lower),  # in the order of the result: it is copied there
            upper=False,
            left=False,
            unitriangular=True,  # nobody reads its diagonal
        )
        return inverse, *(inverse @ right for right in rights)

    @staticmethod
    def setup_context(ctx: FunctionCtx, inputs: tuple[Tensor, ...], output: tuple[Tensor, ...]) -> None:
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*output)  # of these the backward can be differentiated again

    @staticmethod
    def backward(ctx: FunctionCtx, of_inverse: Tensor | None, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        inverse, *found = ctx.saved_tensors  # type: ignore[attr-defined]  # absent from the stub
        turned = inverse.transpose(-1, -2)
        rights = [None if gradient is None else turned @ gradient for gradient in gradients]
        lower = None if of_inverse is None else turned @ of_inverse @ turned
        for right, x in zip(rights, found, strict=True):
            if right is not None:
                product = right @ x.transpose(-1, -2)
                lower = product if lower is None else lower + product
        return lower, *rights
