"""Causal depthwise convolution along time, whole sequences and streams."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.autograd import Function


class _ShiftedSum(Function):
    """y_t = sum_j w_j x_{t-j} with x = 0 before the sequence; x [B,T,C], w [width,C].

    A sum of shifted products with a backward of its own: on a CPU a grouped convolution of so few taps takes twice the
    time of this form under autograd, and four times this one's.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, w: Tensor) -> Tensor:
        y = w[0] * x
        for j in range(1, min(w.shape[0], x.shape[1])):
            y[:, j:].addcmul_(w[j], x[:, :-j])
        return y

    @staticmethod
    def setup_context(ctx: torch.autograd.function.FunctionCtx, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, gradient: Tensor) -> tuple[Tensor, Tensor]:
        x, w = ctx.saved_tensors  # type: ignore[attr-defined]  # absent from the stub
        tokens = x.shape[1]
        dx, dw = w[0] * gradient, [(gradient * x).sum((0, 1))]
        for j in range(1, w.shape[0]):
            if j < tokens:
                dx[:, :-j].addcmul_(w[j], gradient[:, j:])
            dw.append((gradient[:, j:] * x[:, : max(tokens - j, 0)]).sum((0, 1)))
        return dx, torch.stack(dw)


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
        y: Tensor = _ShiftedSum.apply(x, self.weight)  # type: ignore[no-untyped-call]  # torch leaves apply untyped
        if past is not None:
            y = y[:, keep:]
        missing = keep - x.shape[1]
        tail = x[:, max(-missing, 0) :]
        if missing > 0:  # the sequence is shorter than the filter: zeros stand before it
            tail = torch.cat([tail.new_zeros(x.shape[0], missing, x.shape[2]), tail], 1)
        return y, tail
