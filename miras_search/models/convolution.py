"""Causal depthwise convolution along time, whole sequences and streams."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import FunctionCtx
from torch.nn import functional

from miras_search.kernels import recording
from miras_search.kernels.vmap import VmapInfo, leading


def _leading(tensors: tuple[Tensor, ...], dims: tuple[int | None, ...], size: int) -> list[Tensor]:
    return [leading(tensor, dim, size) for tensor, dim in zip(tensors, dims, strict=True)]


class _ShiftedSum(Function):
    """y_t = sum_j w_j x_{t-j} with x = 0 before the sequence; x [..,B,T,C], w [..,width,C].

    A sum of shifted products with a backward of its own: on a CPU a grouped convolution of so few taps takes twice the
    time of this form under autograd, and four times this one's. The backward is a function too: torch has no batching
    rule for addcmul_, so under vmap both take the extra axis as it is.
    """

    @staticmethod
    def forward(x: Tensor, w: Tensor) -> Tensor:
        taps = w[..., None, None, :].unbind(-4)  # [..,1,1,C] each
        y = taps[0] * x
        for j in range(1, min(len(taps), x.shape[-2])):
            y[..., j:, :].addcmul_(taps[j], x[..., :-j, :])
        return y

    @staticmethod
    def setup_context(ctx: FunctionCtx, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: FunctionCtx, gradient: Tensor) -> tuple[Tensor, Tensor]:
        x, w = ctx.saved_tensors  # type: ignore[attr-defined]  # absent from the stub
        dx, dw = _ShiftedSumBackward.apply(x, w, gradient)  # type: ignore[no-untyped-call]  # torch leaves it untyped
        return dx, dw

    @staticmethod
    def vmap(info: VmapInfo, dims: tuple[int | None, ...], *tensors: Tensor) -> tuple[Tensor, int]:
        x, w = _leading(tensors, dims, info.batch_size)
        y: Tensor = _ShiftedSum.apply(x, w)  # type: ignore[no-untyped-call]  # torch leaves it untyped
        return y, 0


class _ShiftedSumBackward(Function):
    """(x, w, dl/dy) -> (dl/dx, dl/dw); it has no derivative of its own."""

    @staticmethod
    def forward(x: Tensor, w: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor]:
        taps, tokens = w[..., None, None, :].unbind(-4), x.shape[-2]
        dx = taps[0] * gradient
        if recording.on():  # one loop for the one and one for all of the other, as a compiler has no writing in place
            padded = functional.pad(gradient, (0, 0, 0, len(taps) - 1))
            later = [padded[..., j : j + tokens, :] for j in range(len(taps))]
            for tap, shifted in zip(taps[1:], later[1:], strict=True):
                dx = dx + tap * shifted
            dw = [(shifted * x).sum(-2).sum(-2) for shifted in later]
        else:
            for j in range(1, min(len(taps), tokens)):
                dx[..., :-j, :].addcmul_(taps[j], gradient[..., j:, :])
            parts = ((gradient[..., j:, :], x[..., : max(tokens - j, 0), :]) for j in range(len(taps)))
            dw = [(later * earlier).sum((-3, -2)) for later, earlier in parts]
        return dx, torch.stack(dw, -2)

    @staticmethod
    def setup_context(ctx: FunctionCtx, inputs: tuple[Tensor, ...], output: tuple[Tensor, Tensor]) -> None:
        """Keep nothing."""

    @staticmethod
    def vmap(
        info: VmapInfo, dims: tuple[int | None, ...], *tensors: Tensor
    ) -> tuple[tuple[Tensor, Tensor], tuple[int, int]]:
        x, w, gradient = _leading(tensors, dims, info.batch_size)
        dx, dw = _ShiftedSumBackward.apply(x, w, gradient)  # type: ignore[no-untyped-call]  # torch leaves it untyped
        return (dx, dw), (0, 0)


class CausalConvolution(nn.Module):
    """One filter of `width` taps a channel over the present and the last width-1 inputs."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.width = width
        self.weight = nn.Parameter(torch.empty(width, channels))

    def initialise(self, generator: torch.Generator) -> None:
        """Uniform within 1/sqrt(width), as a convolution starts by default."""
        nn.init.uniform_(self.weight, -(self.width**-0.5), self.width**-0.5, generator=generator)

    def forward(self, x: Tensor, past: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The convolved [B,T,C], and the last width-1 inputs [B,width-1,C], which a next segment takes as `past`."""
        keep = self.width - 1
        if past is not None:
            x = torch.cat([past, x], 1)
        y: Tensor = _ShiftedSum.apply(x, self.weight)  # type: ignore[no-untyped-call]  # torch leaves it untyped
        if past is not None:
            y = y[:, keep:]
        missing = keep - x.shape[1]
        tail = x[:, max(-missing, 0) :]
        if missing > 0:  # the sequence is shorter than the filter: zeros stand before it
            tail = torch.cat([tail.new_zeros(x.shape[0], missing, x.shape[2]), tail], 1)
        return y, tail
