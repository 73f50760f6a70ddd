"""Inner products of the vectors of two sets, recorded with gradients that lie in memory as the vectors do.

Autograd differentiates by the second factor as it stands in the product, transposed, and what it finds is added to
other gradients row against column. What a compiler makes of that takes as long as the product.
"""

from __future__ import annotations

from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import FunctionCtx

from miras_search.kernels import recording


def inner(x: Tensor, y: Tensor) -> Tensor:
    """x y^T [..,N,M] of x [..,N,K] and y [..,M,K]."""
    if not recording.on():
        return x @ y.transpose(-1, -2)
    found: Tensor = _Inner.apply(x, y)  # type: ignore[no-untyped-call]  # torch leaves it untyped
    return found


class _Inner(Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, y: Tensor) -> Tensor:
        return x @ y.transpose(-1, -2)

    @staticmethod
    def setup_context(ctx: FunctionCtx, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: FunctionCtx, gradient: Tensor) -> tuple[Tensor, Tensor]:
        x, y = ctx.saved_tensors  # type: ignore[attr-defined]  # absent from the stub
        return gradient @ y, gradient.transpose(-1, -2) @ x
