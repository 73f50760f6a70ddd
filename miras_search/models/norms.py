"""Norms over the last axis with a backward of their own.

On a CPU autograd takes the RMS norm apart into operators whose backward is three times as many, all over tensors that
no longer fit a cache: half of the time that a small model spends outside its products. CUDA has a kernel for it.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import FunctionCtx
from torch.nn import functional


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """x [..,C] at a mean square of 1 (eps under the root), times weight [C]."""
    if x.is_cuda:
        return functional.rms_norm(x, weight.shape, weight, eps)
    return weight * scaled(x, 1 / x.shape[-1], eps)


def scaled(x: Tensor, share: float, eps: float) -> Tensor:
    """x / sqrt(share |x|^2 + eps) over the last axis; 0 stays 0."""
    y, _ = _Scaled.apply(x, share, eps)  # type: ignore[no-untyped-call]  # torch leaves it untyped
    result: Tensor = y
    return result


class _Scaled(Function):
    """(x, share, eps) -> (y = x r, r = (share |x|^2 + eps)^-1/2)."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, share: float, eps: float) -> tuple[Tensor, Tensor]:
        size = x.square().sum(-1, keepdim=True)
        r = size.mul_(share).add_(eps).rsqrt_()
        return x * r, r

    @staticmethod
    def setup_context(ctx: FunctionCtx, inputs: tuple[Tensor, float, float], output: tuple[Tensor, Tensor]) -> None:
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*output)  # of these the backward can be differentiated again
        ctx.share = inputs[1]  # type: ignore[attr-defined]  # absent from the stub

    @staticmethod
    def backward(ctx: FunctionCtx, dy: Tensor | None, dr: Tensor | None) -> tuple[Tensor | None, None, None]:
        y, r = ctx.saved_tensors  # type: ignore[attr-defined]  # absent from the stub
        share: float = ctx.share  # type: ignore[attr-defined]  # absent from the stub
        along = None if dr is None else dr * r
        if dy is not None:
            product = (y * dy).sum(-1, keepdim=True)
            along = product if along is None else product + along
        if along is None:
            return None, None, None
        across = y * along if dy is None else torch.addcmul(dy, y, along, value=-share)
        return across.mul_(r if dy is not None else -share * r), None, None
